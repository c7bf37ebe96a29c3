//! Writes, reads and pages, on either engine.

use super::*;

#[tokio::test]
async fn what_is_stored_is_what_a_get_returns() {
    on_each_engine(async |store, begin| {
        let entry = put(&store, "a", "1").await.unwrap();
        assert_eq!(text(&entry), json("a", "1", begin + 1));
        assert_eq!(store.get(&pod("a")).unwrap(), entry);
        assert_eq!((entry.revision, entry.created), (Revision(begin + 1), Revision(begin + 1)));
        let second = put(&store, "a", "2").await.unwrap();
        assert_eq!((second.revision, second.created), (Revision(begin + 2), Revision(begin + 1)));
    })
    .await;
}

#[tokio::test]
async fn a_write_against_another_state_is_a_conflict_with_what_is_there() {
    on_each_engine(async |store, begin| {
        let entry = put(&store, "a", "1").await.unwrap();
        for expected in [Expected::Absent, Expected::At(Revision(begin + 7))] {
            let result = store.commit(&pod("a"), expected, Op::Put(draft("a", "2"))).await;
            let Err(CommitError::Conflict { current }) = result else { panic!("{result:?}") };
            assert_eq!(current.unwrap(), entry);
        }
        let result = delete(&store, "b").await;
        assert!(matches!(result, Err(CommitError::Conflict { current: None })), "{result:?}");
        assert_eq!(store.revision(), Revision(begin + 1));
    })
    .await;
}

#[tokio::test]
async fn an_object_past_the_limit_is_refused_and_one_at_it_is_not() {
    let store = open(&TestDisk::default());
    let bytes_max = crate::queue::OBJECT_BYTES_MAX;
    let fill = bytes_max - draft("a", "").json.len();
    put(&store, "a", &"x".repeat(fill)).await.unwrap();
    let result = put(&store, "a", &"x".repeat(fill + 1)).await;
    assert!(matches!(result, Err(CommitError::TooLarge { bytes }) if bytes == bytes_max + 1));
}

fn names(page: &Page) -> Vec<String> {
    page.entries.iter().map(|entry| format!("{}/{}", entry.key.namespace, entry.key.name)).collect()
}

async fn three_namespaces(store: &Store) {
    for (namespace, name) in [("team", "a"), ("team", "b"), ("team-a", "a"), ("other", "z"), ("team", "c")] {
        let key = Key::new("pods", namespace, name);
        store.commit(&key, Expected::Absent, Op::Put(draft(name, "1"))).await.unwrap();
    }
    let key = Key::cluster("nodes", "n");
    store.commit(&key, Expected::Absent, Op::Put(draft("n", "1"))).await.unwrap();
}

#[tokio::test]
async fn lists_are_in_the_order_of_upstreams_keys() {
    on_each_engine(async |store, begin| {
        three_namespaces(&store).await;
        let page = store.range("pods", None, None, None, 0, &|_| true).unwrap();
        assert_eq!(names(&page), ["other/z", "team-a/a", "team/a", "team/b", "team/c"]);
        let page = store.range("pods", Some("team"), None, None, 0, &|_| true).unwrap();
        assert_eq!(names(&page), ["team/a", "team/b", "team/c"]);
        assert_eq!((page.revision, page.more, page.remaining), (Revision(begin + 6), false, None));
    })
    .await;
}

#[tokio::test]
async fn pages_continue_where_the_last_one_ended() {
    let store = open(&TestDisk::default());
    three_namespaces(&store).await;
    let first = store.range("pods", None, None, None, 2, &|_| true).unwrap();
    assert_eq!(names(&first), ["other/z", "team-a/a"]);
    assert_eq!((first.more, first.remaining), (true, Some(3)));
    let after = Some(&first.entries[1].key);
    let second = store.range("pods", None, Some(first.revision), after, 3, &|_| true).unwrap();
    assert_eq!(names(&second), ["team/a", "team/b", "team/c"]);
    assert!(!second.more);
}

#[tokio::test]
async fn a_page_says_more_only_when_more_passes_the_filter() {
    let store = open(&TestDisk::default());
    three_namespaces(&store).await;
    let named_a = |entry: &Entry| &*entry.key.name == "a";
    let page = store.range("pods", None, None, None, 1, &named_a).unwrap();
    assert_eq!((names(&page), page.more), (vec!["team-a/a".to_owned()], true));
    let page = store.range("pods", None, None, None, 2, &named_a).unwrap();
    assert_eq!((page.entries.len(), page.more), (2, false));
}

#[tokio::test]
async fn a_continued_list_shows_the_first_pages_revision() {
    on_each_engine(async |store, begin| {
        for name in ["a", "b", "d"] {
            put(&store, name, "old").await.unwrap();
        }
        let at = store.revision();
        put(&store, "b", "new").await.unwrap();
        put(&store, "c", "new").await.unwrap();
        delete(&store, "d").await.unwrap();
        let page = store.range("pods", None, Some(at), Some(&pod("a")), 1, &|_| true).unwrap();
        assert_eq!(text(&page.entries[0]), json("b", "old", begin + 2));
        assert_eq!((page.revision, page.remaining), (at, Some(1)));
        let page = store.range("pods", None, Some(at), Some(&pod("b")), 0, &|_| true).unwrap();
        let listed: Vec<_> = page.entries.iter().map(|entry| text(entry)).collect();
        assert_eq!(listed, [json("d", "old", begin + 3)]);
    })
    .await;
}
