//! What only a store over etcd does: several stores on one cluster, members that die, leases, compaction.

use etcd::proto::{RequestOp, TxnRequest};

use super::*;

async fn names(store: &Store) -> Vec<String> {
    store.caught_up().await.unwrap();
    let page = store.range("pods", None, None, None, 0, &|_| true).unwrap();
    page.entries.iter().map(|entry| entry.key.name.to_string()).collect()
}

#[tokio::test]
async fn what_one_store_has_written_another_one_reads() {
    let cluster = Cluster::start(1).await;
    let (one, two) = (open_etcd(cluster.config(), "/r").await, open_etcd(cluster.config(), "/r").await);
    for n in 0..20 {
        let (writer, reader) = if n % 2 == 0 { (&one, &two) } else { (&two, &one) };
        let written = put(writer, "a", &n.to_string()).await.unwrap();
        reader.caught_up().await.unwrap();
        assert_eq!(reader.get(&pod("a")).unwrap(), written);
    }
    delete(&one, "a").await.unwrap();
    assert!(names(&two).await.is_empty());
}

#[tokio::test]
async fn of_two_stores_that_write_at_once_one_is_told_of_the_conflict() {
    let cluster = Cluster::start(1).await;
    let (one, two) = (open_etcd(cluster.config(), "/r").await, open_etcd(cluster.config(), "/r").await);
    let create =
        async |store: &Store| store.commit(&pod("a"), Expected::Absent, Op::Put(draft("a", "1"))).await;
    let results: [_; 2] = tokio::join!(create(&one), create(&two)).into();
    let (made, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    let made = made.into_iter().next().unwrap().unwrap();
    let Some(Err(CommitError::Conflict { current })) = refused.into_iter().next() else {
        panic!("both succeeded")
    };
    assert_eq!(current.unwrap(), made);
}

#[tokio::test]
async fn a_watch_tells_what_another_store_has_done() {
    let cluster = Cluster::start(1).await;
    let (one, two) = (open_etcd(cluster.config(), "/r").await, open_etcd(cluster.config(), "/r").await);
    let mut watch = two.watch(Scope::resource("pods"), two.revision()).unwrap();
    put(&one, "a", "1").await.unwrap();
    delete(&one, "a").await.unwrap();
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        if let WatchItem::Event { kind, .. } = watch.next().await.unwrap() {
            kinds.push(kind);
        }
    }
    assert_eq!(kinds, [EventKind::Added, EventKind::Deleted]);
}

#[tokio::test]
async fn stores_under_different_prefixes_do_not_see_each_other_and_do_not_wait_for_each_other() {
    let cluster = Cluster::start(1).await;
    let (one, two) = (open_etcd(cluster.config(), "/one").await, open_etcd(cluster.config(), "/two").await);
    put(&one, "a", "1").await.unwrap();
    assert!(names(&two).await.is_empty());
    assert_eq!(one.revision(), two.revision(), "what others do elsewhere moves the revision too");
}

#[tokio::test]
async fn a_store_that_is_opened_later_has_what_was_written_before() {
    let cluster = Cluster::start(1).await;
    let store = open_etcd(cluster.config(), "/r").await;
    let written = put(&store, "a", "1").await.unwrap();
    put(&store, "b", "1").await.unwrap();
    delete(&store, "b").await.unwrap();
    let revision = store.revision();
    drop(store);
    let store = open_etcd(cluster.config(), "/r").await;
    assert_eq!(names(&store).await, ["a"]);
    assert_eq!(store.get(&pod("a")).unwrap(), written);
    assert_eq!(store.revision(), revision);
    let gone = store.watch(Scope::resource("pods"), written.revision).unwrap_err();
    assert_eq!(gone.oldest, revision, "memory knows nothing from before");
}

#[tokio::test]
async fn the_death_of_any_member_costs_no_acknowledged_write_and_no_event() {
    let mut cluster = Cluster::start(3).await;
    let (one, two) = (open_etcd(cluster.config(), "/r").await, open_etcd(cluster.config(), "/r").await);
    let mut watch = two.watch(Scope::resource("pods"), two.revision()).unwrap();
    let mut written = Vec::new();
    for member in 0..3 {
        cluster.kill(member);
        for n in 0..5 {
            let name = format!("m{member}-{n}");
            put(&one, &name, "1").await.unwrap();
            written.push(name);
        }
        assert_eq!(names(&two).await, written);
        cluster.restart(member);
        // It is a member again once it answers.
        etcd::Client::new(&cluster.config_of(member)).unwrap().revision().await.unwrap();
    }
    let mut told = Vec::new();
    while told.len() < written.len() {
        if let WatchItem::Event { entry, .. } = watch.next().await.unwrap() {
            told.push(entry.key.name.to_string());
        }
    }
    assert_eq!(told, written);
}

#[tokio::test]
async fn objects_with_a_time_to_live_go_by_themselves_and_together() {
    let cluster = Cluster::start(1).await;
    let store = open_etcd(cluster.config(), "/r").await;
    let mut watch = store.watch(Scope::resource(SHORT_LIVED), store.revision()).unwrap();
    for name in ["a", "b"] {
        let key = Key::new(SHORT_LIVED, "default", name);
        store.commit(&key, Expected::Absent, Op::Put(draft(name, "1"))).await.unwrap();
    }
    let mut gone = Vec::new();
    while gone.len() < 2 {
        if let WatchItem::Event { kind: EventKind::Deleted, entry, .. } = watch.next().await.unwrap() {
            gone.push((entry.key.name.to_string(), entry.revision));
        }
    }
    gone.sort();
    assert_eq!([&*gone[0].0, &*gone[1].0], ["a", "b"]);
    assert_eq!(gone[0].1, gone[1].1, "one lease, one revision");
}

#[tokio::test]
async fn what_cannot_be_read_does_not_show_and_harms_nothing_else() {
    let cluster = Cluster::start(1).await;
    let store = open_etcd(cluster.config(), "/r").await;
    let raw = async |path: &'static str| {
        let success = vec![RequestOp::put(path.into(), "nonsense".into(), 0)];
        cluster.client().txn(TxnRequest { success, ..TxnRequest::default() }).await.unwrap();
    };
    raw("/r/pods/default/b").await;
    raw("/r/elsewhere").await;
    put(&store, "a", "1").await.unwrap();
    assert_eq!(names(&store).await, ["a"]);
    assert_eq!(names(&open_etcd(cluster.config(), "/r").await).await, ["a"]);
    let result = store.commit(&pod("b"), Expected::Absent, Op::Put(draft("b", "1"))).await;
    assert!(matches!(result, Err(CommitError::Conflict { current: None })), "{result:?}");
}

#[tokio::test]
async fn an_object_that_etcd_does_not_take_is_too_large() {
    let cluster = Cluster::start(1).await;
    let store = open_etcd(cluster.config(), "/r").await;
    let result = put(&store, "a", &"x".repeat(2 << 20)).await;
    assert!(matches!(result, Err(CommitError::TooLarge { .. })), "{result:?}");
    put(&store, "a", "1").await.unwrap();
}

#[tokio::test]
async fn a_store_that_compaction_has_overtaken_reads_everything_again() {
    let mut cluster = Cluster::start(2).await;
    // Both members are needed for writing; the store knows one of them only.
    let behind = open_etcd(cluster.config_of(1), "/r").await;
    let store = open_etcd(cluster.config_of(0), "/r").await;
    let before = put(&store, "a", "1").await.unwrap().revision;
    behind.caught_up().await.unwrap();
    let mut watch = behind.watch(Scope::resource("pods"), before).unwrap();
    cluster.kill(1);
    cluster.restart(1);
    put(&store, "a", "2").await.unwrap();
    let last = delete(&store, "a").await.unwrap().revision;
    put(&store, "b", "1").await.unwrap();
    cluster.client().compact(i64::try_from(last.0).unwrap()).await.unwrap();
    assert_eq!(names(&behind).await, ["b"]);
    // It has seen the changes in time, or must be told that they are gone.
    match watch.next().await {
        Ok(WatchItem::Event { entry, .. }) => assert_eq!(text(&entry), json("a", "2", before.0 + 1)),
        other => assert!(matches!(other, Err(gone) if gone.oldest > before), "the changes went by unseen"),
    }
}
