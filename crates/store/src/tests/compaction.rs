//! The log stays in proportion to what is live, and cleaning loses nothing.

use super::*;

/// Writes `objects` objects once, and others `rounds` times.
async fn churn(store: &Store, objects: usize, rounds: usize) {
    for n in 0..objects {
        put(store, &format!("cold{n}"), &"c".repeat(100)).await.unwrap();
    }
    heat(store, objects, rounds).await;
}

/// Overwrites `objects` objects `rounds` times.
async fn heat(store: &Store, objects: usize, rounds: usize) {
    for round in 0..rounds {
        let writes = (0..objects).map(|n| {
            let store = store.clone();
            tokio::spawn(async move { put(&store, &format!("hot{n}"), &format!("{round:0100}")).await })
        });
        for write in writes.collect::<Vec<_>>() {
            write.await.unwrap().unwrap();
        }
    }
}

fn check_churned(store: &Store, objects: usize, rounds: usize) {
    let page = store.range("pods", None, None, None, 0, &|_| true).unwrap();
    assert_eq!(page.entries.len(), objects * 2);
    for entry in &page.entries {
        let payload = match entry.key.name.starts_with("cold") {
            true => "c".repeat(100),
            false => format!("{:0100}", rounds - 1),
        };
        assert_eq!(text(entry), json(&entry.key.name, &payload, entry.revision.0));
    }
}

#[tokio::test]
async fn the_log_stays_within_twice_the_live_data_plus_a_constant() {
    let disk = TestDisk::default();
    let store = open(&disk);
    churn(&store, 40, 3).await;
    for rounds in 1..40 {
        heat(&store, 40, 3).await;
        let live = store.statistics().live_bytes;
        // All writes of a round may come as one batch, half of what is live, and a batch goes whole into one segment.
        let constant = config().slack_bytes + 3 * config().segment_bytes.max(live / 2);
        assert!(disk.bytes() <= 2 * live + constant, "round {rounds}: {} > 2 * {live}", disk.bytes());
    }
    check_churned(&store, 40, 3);
    let revision = store.revision();
    drop(store);
    let store = open(&disk);
    check_churned(&store, 40, 3);
    assert_eq!(store.revision(), revision);
}

#[tokio::test]
async fn after_everything_is_deleted_little_is_left_and_the_revision_lives_on() {
    let disk = TestDisk::default();
    let store = open(&disk);
    churn(&store, 100, 2).await;
    let page = store.range("pods", None, None, None, 0, &|_| true).unwrap();
    for entry in page.entries {
        delete(&store, &entry.key.name).await.unwrap();
    }
    let revision = store.revision();
    drop(store);
    assert!(disk.bytes() <= config().slack_bytes + 3 * config().segment_bytes, "{}", disk.bytes());
    let store = open(&disk);
    assert_eq!((store.revision(), store.count("pods")), (revision, 0));
    assert_eq!(put(&store, "a", "1").await.unwrap().revision, revision.next());
}

#[tokio::test]
async fn power_loss_while_cleaning_loses_nothing() {
    let disk = TestDisk::default();
    let store = open(&disk);
    churn(&store, 30, 1).await;
    for seed in 0..60 {
        heat(&store, 30, 2).await;
        let after = open(&disk.after_power_loss(seed));
        check_churned(&after, 30, 2);
    }
}

#[tokio::test]
async fn history_after_a_restart_is_true_as_far_as_it_goes() {
    let disk = TestDisk::default();
    let store = open(&disk);
    churn(&store, 20, 30).await;
    let expect = |store: &Store, at: Revision| {
        let page = store.range("pods", None, Some(at), None, 0, &|_| true)?;
        Ok::<_, Gone>(page.entries.iter().map(|entry| text(entry).to_owned()).collect::<Vec<_>>())
    };
    drop_and_compare(&disk, store, expect);
}

fn drop_and_compare(
    disk: &TestDisk,
    store: Store,
    list: impl Fn(&Store, Revision) -> Result<Vec<String>, Gone>,
) {
    let revisions = (0..=store.revision().0).map(Revision);
    let before: Vec<_> = revisions.map(|at| list(&store, at)).collect();
    drop(store);
    let store = open(disk);
    let kept = before.iter().enumerate().filter(|(at, before)| match list(&store, Revision(*at as u64)) {
        Ok(after) => {
            assert_eq!(Ok(&after), before.as_ref(), "at {at}");
            true
        }
        Err(_) => false,
    });
    assert!(kept.count() > 10, "recent history outlives a restart");
}

#[tokio::test]
async fn a_full_disk_stops_cleaning_but_not_the_writes_that_fit() {
    let disk = TestDisk::default();
    let store = open(&disk);
    churn(&store, 40, 1).await;
    disk.set_room(Some(60_000));
    while put(&store, "hot0", &"x".repeat(100)).await.is_ok() {}
    disk.set_room(Some(1_000));
    put(&store, "hot0", "fits").await.unwrap();
    disk.set_room(None);
    heat(&store, 40, 20).await;
    check_churned(&store, 40, 20);
}
