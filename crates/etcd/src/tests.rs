//! The client against members that come and go.

use bytes::Bytes;

use crate::proto::{Compare, RangeRequest, RequestOp, TxnRequest};
use crate::testing::Cluster;
use crate::{Client, Error, keys};

async fn put(client: &Client, key: &'static str, value: &'static str) -> i64 {
    let success = vec![RequestOp::put(key.into(), value.into(), 0)];
    let answer = client.txn(TxnRequest { success, ..TxnRequest::default() }).await.unwrap();
    answer.response.header.unwrap().revision
}

async fn get(client: &Client, key: &'static str) -> Option<Bytes> {
    let answer = client.range(RangeRequest { key: key.into(), ..RangeRequest::default() }).await.unwrap();
    answer.kvs.into_iter().next().map(|kv| kv.value)
}

#[tokio::test]
async fn a_transaction_is_made_only_if_the_key_is_as_expected() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let written = put(&client, "a", "1").await;
    for (expected, succeeds) in [(0, false), (written, true)] {
        let request = TxnRequest {
            compare: vec![Compare::mod_revision_is("a".into(), expected)],
            success: vec![RequestOp::put("a".into(), "2".into(), 0)],
            failure: vec![RequestOp::get("a".into())],
        };
        let answer = client.txn(request).await.unwrap().response;
        assert_eq!(answer.succeeded, succeeds);
        assert_eq!(answer.found().map(|kv| kv.value.clone()), (!succeeds).then(|| "1".into()));
    }
    assert_eq!(get(&client, "a").await, Some("2".into()));
    assert_eq!(client.revision().await.unwrap(), written + 1);
}

#[tokio::test]
async fn a_watch_tells_of_every_change_from_its_revision_on_until_that_is_compacted() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let first = put(&client, "a", "1").await;
    let last = put(&client, "a", "2").await;
    let all = |_| (keys::FIRST, keys::ALL);
    let mut watch = client.watch(first, all).await.unwrap();
    let mut values = Vec::new();
    while values.len() < 2 {
        let told = watch.next().await.unwrap();
        values.extend(told.events.into_iter().filter_map(|event| event.kv).map(|kv| kv.value));
    }
    assert_eq!(values, ["1", "2"]);
    client.compact(last).await.unwrap();
    client.compact(last).await.unwrap();
    let mut watch = client.watch(first, all).await.unwrap();
    assert!(matches!(watch.next().await, Err(Error::Compacted(revision)) if revision == last));
}

#[tokio::test]
async fn requests_go_on_while_any_member_of_three_is_down() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    put(&client, "a", "0").await;
    for (member, value) in [(0, "1"), (1, "2"), (2, "3")] {
        cluster.kill(member);
        put(&client, "a", value).await;
        assert_eq!(get(&client, "a").await, Some(value.into()));
        cluster.restart(member);
        let only = Client::new(&cluster.config_of(member)).unwrap();
        assert_eq!(get(&only, "a").await, Some(value.into()), "it has caught up once it answers");
    }
}
