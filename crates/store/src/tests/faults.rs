//! Disks that fill up, fail, lose power and rot.

use super::*;

#[tokio::test]
async fn nothing_is_visible_before_it_is_flushed() {
    let disk = TestDisk::default();
    let store = open(&disk);
    let mut watch = store.watch(Scope::resource("pods"), Revision(0)).unwrap();
    disk.hold_sync(true);
    let writer = tokio::spawn({
        let store = store.clone();
        async move { put(&store, "a", "1").await }
    });
    settle().await;
    assert_eq!((store.revision(), store.get(&pod("a"))), (Revision(0), None));
    assert_eq!(watch.progress(), Revision(0));
    assert!(!writer.is_finished());
    disk.hold_sync(false);
    let entry = writer.await.unwrap().unwrap();
    assert_eq!(store.get(&pod("a")), Some(entry));
    assert!(matches!(watch.next().await, Ok(WatchItem::Event { kind: EventKind::Added, .. })));
}

#[tokio::test]
async fn writers_share_a_flush_and_see_each_other_while_they_wait() {
    let disk = TestDisk::default();
    let store = open(&disk);
    disk.hold_sync(true);
    let write = |expected| {
        let store = store.clone();
        tokio::spawn(async move { store.commit(&pod("a"), expected, Op::Put(draft("a", "1"))).await })
    };
    let first = write(Expected::Absent);
    settle().await;
    let (second, loser) = (write(Expected::At(Revision(1))), write(Expected::At(Revision(1))));
    let more: Vec<_> = (0..20).map(|_| write(Expected::Any)).collect();
    settle().await;
    assert!(!loser.is_finished(), "a conflict with a write that may yet fail is not told");
    let before = disk.syncs();
    disk.hold_sync(false);
    assert_eq!(first.await.unwrap().unwrap().revision, Revision(1));
    assert_eq!(second.await.unwrap().unwrap().revision, Revision(2));
    let lost = loser.await.unwrap();
    assert!(
        matches!(lost, Err(CommitError::Conflict { current: Some(entry) }) if entry.revision == Revision(2))
    );
    for writer in more {
        writer.await.unwrap().unwrap();
    }
    assert!(disk.syncs() - before <= 4, "{} flushes", disk.syncs() - before);
}

#[tokio::test]
async fn a_full_disk_fails_the_write_and_no_later_one() {
    let disk = TestDisk::default();
    let store = open(&disk);
    put(&store, "a", "1").await.unwrap();
    disk.set_room(Some(40));
    let result = put(&store, "a", "2").await;
    assert!(matches!(result, Err(CommitError::Full(_))), "{result:?}");
    assert_eq!(text(&store.get(&pod("a")).unwrap()), json("a", "1", 1));
    disk.set_room(None);
    assert_eq!(text(&put(&store, "a", "3").await.unwrap()), json("a", "3", 2));
    drop(store);
    let store = open(&disk);
    assert_eq!(store.report().torn, None);
    assert_eq!(text(&store.get(&pod("a")).unwrap()), json("a", "3", 2));
}

#[tokio::test]
async fn a_failed_flush_fails_its_writes_and_no_later_one() {
    let disk = TestDisk::default();
    let store = open(&disk);
    put(&store, "a", "1").await.unwrap();
    disk.fail_syncs(1);
    let result = put(&store, "a", "lost").await;
    assert!(matches!(result, Err(CommitError::Io(_))), "{result:?}");
    assert_eq!(text(&store.get(&pod("a")).unwrap()), json("a", "1", 1));
    assert_eq!(text(&put(&store, "a", "3").await.unwrap()), json("a", "3", 2));
    for seed in 0..20 {
        let after = open(&disk.after_power_loss(seed));
        assert_eq!(after.report().torn, None);
        assert_eq!(text(&after.get(&pod("a")).unwrap()), json("a", "3", 2));
    }
}

#[tokio::test]
async fn while_flushes_fail_nothing_is_written_and_afterwards_all_is_as_it_was() {
    let disk = TestDisk::default();
    let store = open(&disk);
    put(&store, "a", "1").await.unwrap();
    disk.fail_syncs(usize::MAX);
    for _ in 0..3 {
        let result = put(&store, "a", "lost").await;
        assert!(matches!(result, Err(CommitError::Broken(_))), "{result:?}");
    }
    assert_eq!(text(&store.get(&pod("a")).unwrap()), json("a", "1", 1), "reads go on");
    for seed in 0..20 {
        let after = open(&disk.after_power_loss(seed));
        let entry = after.get(&pod("a")).unwrap();
        let found = text(&entry);
        assert!(found == json("a", "1", 1) || found == json("a", "lost", 2), "{found}");
    }
    disk.fail_syncs(0);
    assert_eq!(text(&put(&store, "b", "4").await.unwrap()), json("b", "4", 2));
    for seed in 0..20 {
        let after = open(&disk.after_power_loss(seed));
        assert_eq!(text(&after.get(&pod("a")).unwrap()), json("a", "1", 1));
        assert_eq!(text(&after.get(&pod("b")).unwrap()), json("b", "4", 2));
    }
}

#[tokio::test]
async fn power_loss_loses_nothing_acknowledged_and_leaves_nothing_half() {
    for seed in 0..200 {
        let disk = TestDisk::default();
        let store = open(&disk);
        for n in 0..seed % 7 {
            put(&store, &format!("p{n}"), "kept").await.unwrap();
        }
        disk.hold_sync(true);
        let writer = tokio::spawn({
            let store = store.clone();
            async move { put(&store, "half", &"x".repeat(300)).await }
        });
        settle().await;
        let after = open(&disk.after_power_loss(seed * 7919));
        for n in 0..seed % 7 {
            let name = format!("p{n}");
            assert_eq!(text(&after.get(&pod(&name)).unwrap()), json(&name, "kept", n + 1));
        }
        if let Some(entry) = after.get(&pod("half")) {
            assert_eq!(text(&entry), json("half", &"x".repeat(300), seed % 7 + 1));
        }
        put(&after, "next", "works").await.unwrap();
        disk.hold_sync(false);
        writer.await.unwrap().unwrap();
    }
}

/// A closed store of three writes, and its only segment's name.
async fn three_writes() -> (TestDisk, String) {
    let disk = TestDisk::default();
    let store = open(&disk);
    for name in ["a", "b", "c"] {
        put(&store, name, "1").await.unwrap();
    }
    drop(store);
    let file = disk.files().pop().unwrap();
    (disk, file)
}

#[tokio::test]
async fn a_torn_tail_is_cut_wherever_it_was_torn() {
    let (pristine, file) = three_writes().await;
    let mut size = 0;
    pristine.edit(&file, |bytes| size = bytes.len());
    let frame = (size - 40) / 3;
    for torn in 1..frame {
        let disk = pristine.after_power_loss(0);
        disk.edit(&file, |bytes| bytes.truncate(size - torn));
        let store = open(&disk);
        let report = store.report().torn.clone().unwrap();
        assert_eq!((report.offset as usize, report.bytes as usize), (size - frame, frame - torn));
        assert_eq!((store.get(&pod("c")), store.revision()), (None, Revision(2)));
        put(&store, "c", "again").await.unwrap();
        drop(store);
        assert_eq!(open(&disk).report().torn, None);
    }
}

#[tokio::test]
async fn damage_in_the_middle_is_refused_and_left_as_it_is() {
    let (pristine, file) = three_writes().await;
    let mut size = 0;
    pristine.edit(&file, |bytes| size = bytes.len());
    let last_frame = size - (size - 40) / 3;
    for at in (0..last_frame).filter(|at| !(12..16).contains(at) && !(36..40).contains(at)) {
        let disk = pristine.after_power_loss(0);
        disk.edit(&file, |bytes| bytes[at] ^= 0x10);
        let result = open_with(&disk, config());
        let refused = matches!(&result, Err(OpenError::Corrupt { file: f, .. } | OpenError::Newer { file: f, .. }) if *f == file);
        assert!(refused, "byte {at}: {result:?}");
        disk.edit(&file, |bytes| assert_eq!(bytes.len(), size));
    }
}

#[tokio::test]
async fn a_missing_segment_is_damage() {
    let disk = TestDisk::default();
    let store = open(&disk);
    for n in 0..60 {
        put(&store, &format!("p{n}"), "x").await.unwrap();
    }
    drop(store);
    let files = disk.files();
    assert!(files.len() > 2);
    crate::disk::Disk::remove(&disk, &files[1]).unwrap();
    let result = open_with(&disk, config());
    assert!(matches!(&result, Err(OpenError::Corrupt { file, .. }) if *file == files[1]), "{result:?}");
}

#[tokio::test]
async fn a_directory_is_open_in_one_store_at_a_time() {
    let dir = std::env::temp_dir().join(format!("cox-store-lock-{}", std::process::id()));
    let store = Store::open(Config::new(&dir)).await.unwrap();
    let second = Store::open(Config::new(&dir)).await;
    let message = second.unwrap_err().to_string();
    assert!(message.ends_with(&format!("is in use by process {}", std::process::id())), "{message}");
    put(&store, "a", "1").await.unwrap();
    drop(store);
    let store = Store::open(Config::new(&dir)).await.unwrap();
    assert_eq!(text(&store.get(&pod("a")).unwrap()), json("a", "1", 1));
    drop(store);
    std::fs::remove_dir_all(&dir).unwrap();
}
