//! Kill -9 under load: a child process writes and says what was acknowledged, the parent kills it and looks.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::*;

const DIR: &str = "STORE_CRASH_TEST_DIR";
const WRITERS: usize = 16;
const ROUNDS: u64 = 6;

/// Small segments, so that the kill also hits cleaning and the change of segments.
fn small(dir: &str) -> Config {
    Config { segment_bytes: 64 << 10, slack_bytes: 128 << 10, ..Config::new(dir) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs as the child of kill_nine_loses_nothing_acknowledged"]
async fn a_writer_until_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let store = Store::open(small(&dir)).await.unwrap();
    let writers = (0..WRITERS).map(|writer| tokio::spawn(write_forever(store.clone(), writer)));
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

async fn write_forever(store: Store, writer: usize) {
    for count in 0.. {
        let name = format!("w{writer}-{}", count % 50);
        let entry = put(&store, &name, &"x".repeat(count * 37 % 2000)).await.unwrap();
        let line = format!("acknowledged {name} {}\n", entry.revision);
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
}

/// Runs the child until it has acknowledged `count` writes, kills it, and returns all it acknowledged.
fn acknowledged_before_the_kill(dir: &str, count: u64) -> BTreeMap<String, Revision> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::crash::a_writer_until_killed", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut acknowledged = BTreeMap::new();
    let mut note = |line: String| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "acknowledged").skip(1);
        if let (Some(name), Some(Ok(revision))) = (words.next(), words.next().map(str::parse)) {
            acknowledged.insert(name.to_owned(), revision);
        }
    };
    for _ in 0..count {
        note(lines.next().expect("the child runs until it is killed"));
    }
    child.kill().unwrap();
    // The last line may be cut short by the kill, and then it was written by nobody who was promised anything.
    let rest: Vec<String> = lines.collect();
    let complete = rest.len().saturating_sub(1);
    rest.into_iter().take(complete).for_each(note);
    child.wait().unwrap();
    acknowledged
}

#[tokio::test]
async fn kill_nine_loses_nothing_acknowledged() {
    let dir = std::env::temp_dir().join(format!("cox-store-crash-{}", std::process::id()));
    let dir = dir.to_str().unwrap();
    let mut known = BTreeMap::new();
    for round in 0..ROUNDS {
        known.extend(acknowledged_before_the_kill(dir, 500 + round * 777));
        assert!(!known.is_empty());
        let store = Store::open(small(dir)).await.unwrap();
        for (name, revision) in &known {
            let entry = store.get(&pod(name)).unwrap_or_else(|| panic!("{name} is lost"));
            assert!(entry.revision >= *revision, "{name} fell back to {}", entry.revision);
        }
        for entry in store.range("pods", None, None, None, 0, &|_| true).unwrap().entries {
            let payload = entry.meta.label("payload").unwrap();
            assert_eq!(text(&entry), json(&entry.key.name, payload, entry.revision.0));
        }
    }
    std::fs::remove_dir_all(dir).unwrap();
}
