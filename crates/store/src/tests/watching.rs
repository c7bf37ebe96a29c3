//! Watches: from every retained revision, at every pace, until the history has passed them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::watch::WATCH_BATCH_EVENTS;

/// What the watcher is told until it has caught up, in short.
async fn told(store: &Store, watch: &mut Watch) -> Vec<String> {
    let mut told = Vec::new();
    while watch.progress() < store.revision() {
        told.extend(told_next(watch).await);
    }
    told
}

/// What it is told next, unless that is how far it has come.
async fn told_next(watch: &mut Watch) -> Option<String> {
    let WatchItem::Event { kind, entry, previous } = watch.next().await.unwrap() else { return None };
    let previous = previous.map_or("-".to_owned(), |previous| previous.revision.to_string());
    Some(format!("{kind:?} {} {} {previous}", entry.key.name, entry.revision))
}

async fn four_changes(store: &Store) {
    put(store, "a", "1").await.unwrap();
    put(store, "b", "1").await.unwrap();
    put(store, "a", "2").await.unwrap();
    delete(store, "a").await.unwrap();
}

/// What `told` makes of those, in a store that began at this revision.
fn four(begin: u64) -> [String; 4] {
    let at = |n| begin + n;
    [
        format!("Added a {} -", at(1)),
        format!("Added b {} -", at(2)),
        format!("Modified a {} {}", at(3), at(1)),
        format!("Deleted a {} {}", at(4), at(3)),
    ]
}

#[tokio::test]
async fn a_watch_from_any_revision_tells_all_that_came_after() {
    on_each_engine(async |store, begin| {
        four_changes(&store).await;
        for from in 0..=4 {
            let mut watch = store.watch(Scope::resource("pods"), Revision(begin + from)).unwrap();
            assert_eq!(told(&store, &mut watch).await, four(begin)[from as usize..]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_watch_tells_only_what_is_in_its_scope() {
    on_each_engine(async |store, begin| {
        four_changes(&store).await;
        let other = Key::new("pods", "other", "b");
        store.commit(&other, Expected::Absent, Op::Put(draft("b", "1"))).await.unwrap();
        let scope = |namespace: Option<&str>, name: Option<&str>| Scope {
            namespace: namespace.map(Arc::from),
            name: name.map(Arc::from),
            ..Scope::resource("pods")
        };
        let (four, fifth) = (four(begin), format!("Added b {} -", begin + 5));
        let cases = [
            (scope(Some("default"), None), four.to_vec()),
            (scope(Some("other"), None), vec![fifth.clone()]),
            (scope(Some("default"), Some("b")), vec![four[1].clone()]),
            (scope(None, Some("b")), vec![four[1].clone(), fifth]),
        ];
        for (scope, expect) in cases {
            let mut watch = store.watch(scope.clone(), Revision(begin)).unwrap();
            assert_eq!(told(&store, &mut watch).await, expect, "{scope:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_change_wakes_only_the_watchers_it_concerns() {
    let store = open(&TestDisk::default());
    let scope = |name: &str| Scope { name: Some(name.into()), ..Scope::resource("pods") };
    let mut concerned = store.watch(scope("a"), Revision(0)).unwrap();
    let bystander = tokio::spawn({
        let mut watch = store.watch(scope("b"), Revision(0)).unwrap();
        async move { watch.next().await }
    });
    settle().await;
    put(&store, "a", "1").await.unwrap();
    assert!(matches!(concerned.next().await, Ok(WatchItem::Event { .. })));
    settle().await;
    assert!(!bystander.is_finished());
    put(&store, "b", "1").await.unwrap();
    assert!(matches!(bystander.await.unwrap(), Ok(WatchItem::Event { .. })));
}

#[tokio::test]
async fn progress_follows_the_whole_store_while_the_watcher_sleeps() {
    on_each_engine(async |store, begin| {
        let mut watch = store.watch(Scope::resource("nodes"), Revision(begin)).unwrap();
        put(&store, "a", "1").await.unwrap();
        assert_eq!(watch.progress(), Revision(begin + 1));
        let node = Key::cluster("nodes", "n");
        store.commit(&node, Expected::Absent, Op::Put(draft("n", "1"))).await.unwrap();
        assert_eq!(watch.progress(), Revision(begin + 1), "an undelivered event holds progress back");
        assert!(matches!(watch.next().await, Ok(WatchItem::Event { .. })));
        assert!(matches!(watch.next().await, Ok(WatchItem::Progress(at)) if at.0 == begin + 2));
    })
    .await;
}

#[tokio::test]
async fn a_slow_watcher_is_gone_exactly_when_a_change_it_needs_is_dropped() {
    let disk = TestDisk::default();
    let weight = |store: &Store| store.statistics().history_bytes;
    let store = open(&disk);
    put(&store, "a", "1").await.unwrap();
    let room_for_two = weight(&store) * 2 + 1;
    drop(store);
    let store =
        open_with(&TestDisk::default(), Config { history_bytes_max: room_for_two, ..config() }).unwrap();
    for payload in ["1", "2", "3"] {
        put(&store, "a", payload).await.unwrap();
    }
    let result = store.watch(Scope::resource("pods"), Revision(0)).err();
    assert_eq!(result, Some(Gone { asked: Revision(0), oldest: Revision(1) }));
    let mut watch = store.watch(Scope::resource("pods"), Revision(1)).unwrap();
    assert_eq!(told(&store, &mut watch).await, ["Modified a 2 1", "Modified a 3 2"]);
    for (at, expect) in [(0, None), (1, Some(1)), (2, Some(2)), (3, Some(3))] {
        let page = store.range("pods", None, Some(Revision(at)), None, 0, &|_| true).ok();
        assert_eq!(page.map(|page| page.entries[0].revision.0), expect);
    }
}

#[tokio::test]
async fn a_stalled_watcher_holds_on_to_no_more_than_it_has_taken() {
    const CHANGES: usize = 2 * WATCH_BATCH_EVENTS;
    let history = Config { history_bytes_max: 64 << 10, ..config() };
    let store = open_with(&TestDisk::default(), history).unwrap();
    let mut stalled = store.watch(Scope::resource("pods"), Revision(0)).unwrap();
    let mut made = Vec::new();
    for change in 0..CHANGES {
        made.push(Arc::downgrade(&put(&store, "a", &change.to_string()).await.unwrap()));
    }
    assert!(matches!(stalled.ready(), Ok(Some(_))));
    while store.watch(Scope::resource("pods"), Revision(CHANGES as u64)).is_ok() {
        put(&store, "a", "later").await.unwrap();
    }
    let alive = made.iter().filter(|entry| entry.strong_count() > 0).count();
    assert!((1..=WATCH_BATCH_EVENTS).contains(&alive), "{alive} of them are kept");
}

#[tokio::test]
async fn a_crowd_that_is_told_in_turn_is_told_everything() {
    const CROWD: usize = 200;
    let store = open(&TestDisk::default());
    let listener = |mut watch: Watch| async move {
        let mut told = Vec::new();
        while told.len() < 4 {
            told.extend(told_next(&mut watch).await);
        }
        told
    };
    let watch = |_| store.watch_when(Scope::resource("pods"), Revision(0), Waking::InTurn).unwrap();
    let listeners: Vec<_> = (0..CROWD).map(watch).map(|watch| tokio::spawn(listener(watch))).collect();
    four_changes(&store).await;
    for listener in listeners {
        assert_eq!(listener.await.unwrap(), four(0));
    }
}

/// A store and the seconds that its clock shows.
fn with_clock() -> (Store, Arc<AtomicU64>) {
    let seconds = Arc::new(AtomicU64::new(0));
    let shown = seconds.clone();
    let clock: Clock = Arc::new(move || Duration::from_secs(shown.load(Ordering::SeqCst)));
    (open_with(&TestDisk::default(), Config { clock, ..config() }).unwrap(), seconds)
}

#[tokio::test]
async fn changes_past_their_age_go_with_the_next_write() {
    let (store, seconds) = with_clock();
    put(&store, "a", "1").await.unwrap();
    for (now, oldest) in [(300, 0), (301, 1)] {
        seconds.store(now, Ordering::SeqCst);
        put(&store, "a", "2").await.unwrap();
        assert_eq!(store.watch(Scope::resource("pods"), Revision(0)).is_err(), oldest > 0);
    }
}

#[tokio::test]
async fn a_list_as_of_an_old_revision_expires_whatever_has_changed_since() {
    let (store, seconds) = with_clock();
    put(&store, "a", "1").await.unwrap();
    let list = |resource, at| store.range(resource, None, Some(Revision(at)), None, 0, &|_| true).is_ok();
    put(&store, "a", "2").await.unwrap();
    seconds.store(301, Ordering::SeqCst);
    put(&store, "a", "3").await.unwrap();
    assert_eq!([1, 2, 3].map(|at| list("pods", at)), [false, true, true]);
    // Nothing ever happened to these.
    assert_eq!([1, 2, 3].map(|at| list("services", at)), [false, true, true]);
}

#[tokio::test]
async fn a_watch_resumes_over_a_restart() {
    let disk = TestDisk::default();
    let store = open(&disk);
    put(&store, "a", "1").await.unwrap();
    put(&store, "a", "2").await.unwrap();
    delete(&store, "a").await.unwrap();
    drop(store);
    let store = open(&disk);
    let mut watch = store.watch(Scope::resource("pods"), Revision(1)).unwrap();
    assert_eq!(told(&store, &mut watch).await, ["Modified a 2 1", "Deleted a 3 2"]);
}

#[tokio::test]
async fn closing_the_store_ends_its_watches() {
    on_each_engine(async |store, begin| {
        let mut watch = store.watch(Scope::resource("pods"), Revision(begin)).unwrap();
        drop(store);
        assert!(watch.next().await.is_err());
    })
    .await;
}
