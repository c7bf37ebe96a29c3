//! The store, on either engine, against the plainest model of it: a map per revision.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Put {
        name: u8,
        payload: u8,
        expected: Guess,
    },
    Delete {
        name: u8,
        expected: Guess,
    },
    /// Closes the store and opens it again.
    Restart,
    /// Lists at a revision this far back.
    List {
        back: u64,
        limit: usize,
    },
    /// Watches from a revision this far back.
    Watch {
        back: u64,
    },
}

#[derive(Clone, Copy, Debug)]
enum Guess {
    Absent,
    Any,
    Right,
    Wrong,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let guess = prop_oneof![Just(Guess::Absent), Just(Guess::Any), Just(Guess::Right), Just(Guess::Wrong)];
    let step = prop_oneof![
        8 => (0..6u8, any::<u8>(), guess.clone()).prop_map(|(name, payload, expected)| Step::Put { name, payload, expected }),
        4 => (0..6u8, guess).prop_map(|(name, expected)| Step::Delete { name, expected }),
        1 => Just(Step::Restart),
        3 => (0..40u64, 0..4usize).prop_map(|(back, limit)| Step::List { back, limit }),
        3 => (0..40u64).prop_map(|back| Step::Watch { back }),
    ];
    prop::collection::vec(step, 1..120)
}

type Snapshot = BTreeMap<String, (u64, String)>;

/// The state after every revision from `begin` on, and the changes between them.
struct Model {
    begin: u64,
    states: Vec<Snapshot>,
    changes: Vec<(EventKind, String, String)>,
    /// Whether a deletion shows the state that it was made with, or the last one before.
    final_states: bool,
}

impl Model {
    fn now(&self) -> &Snapshot {
        self.states.last().expect("there is the empty state")
    }

    fn at(&self, revision: Revision) -> &Snapshot {
        &self.states[(revision.0 - self.begin) as usize]
    }

    fn write(&mut self, name: &str, payload: Option<&str>) {
        let mut next = self.now().clone();
        let revision = self.begin + self.states.len() as u64;
        let text = match (payload, next.get(name)) {
            (None, Some((before, last))) if !self.final_states => {
                // A payload may be the same number.
                let with = |revision: u64| format!("\"resourceVersion\":\"{revision}\"");
                last.replace(&with(*before), &with(revision))
            }
            (payload, _) => json(name, payload.unwrap_or("gone"), revision),
        };
        let before = match payload {
            Some(_) => next.insert(name.to_owned(), (revision, text.clone())),
            None => next.remove(name),
        };
        let kind = match (payload, before) {
            (None, _) => EventKind::Deleted,
            (_, None) => EventKind::Added,
            (_, Some(_)) => EventKind::Modified,
        };
        self.states.push(next);
        self.changes.push((kind, name.to_owned(), text));
    }
}

/// What stays when a store is closed.
enum Ground {
    Disk(TestDisk),
    /// Its prefix is this run's alone.
    Etcd {
        servers: etcd::Config,
        prefix: String,
    },
}

struct Run {
    ground: Ground,
    store: Option<Store>,
    model: Model,
}

/// So small that histories overflow and segments are cleaned within a run.
fn tiny() -> Config {
    Config { history_bytes_max: 2_000, segment_bytes: 600, slack_bytes: 600, ..config() }
}

impl Ground {
    async fn open(&self) -> Store {
        let tiny = tiny();
        match self {
            Ground::Disk(disk) => open_with(disk, tiny).unwrap(),
            Ground::Etcd { servers, prefix } => {
                let config = EtcdConfig {
                    prefix: prefix.clone(),
                    history_bytes_max: tiny.history_bytes_max,
                    ..EtcdConfig::new(servers.clone(), Arc::new(PlainCodec))
                };
                Store::open_etcd(config).await.unwrap()
            }
        }
    }
}

impl Run {
    async fn new(ground: Ground) -> Run {
        let store = ground.open().await;
        let (begin, final_states) = (store.revision().0, matches!(ground, Ground::Disk(_)));
        let model = Model { begin, states: vec![Snapshot::new()], changes: Vec::new(), final_states };
        Run { ground, store: Some(store), model }
    }

    async fn through(mut self, steps: Vec<Step>) {
        for step in steps {
            self.step(step).await;
        }
        self.step(Step::Restart).await;
        self.list(0, 0);
    }

    fn back(&self, back: u64) -> Revision {
        Revision(self.store().revision().0.saturating_sub(back).max(self.model.begin))
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("the store is open")
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Put { name, payload, expected } => {
                self.write(&format!("p{name}"), Some(&payload.to_string()), expected).await;
            }
            Step::Delete { name, expected } => self.write(&format!("p{name}"), None, expected).await,
            Step::Restart => {
                drop(self.store.take());
                self.store = Some(self.ground.open().await);
            }
            Step::List { back, limit } => self.list(back, limit),
            Step::Watch { back } => self.watch(back).await,
        }
        assert_eq!(self.store().revision().0 + 1, self.model.begin + self.model.states.len() as u64);
    }

    async fn write(&mut self, name: &str, payload: Option<&str>, guess: Guess) {
        let current = self.model.now().get(name).map(|(revision, _)| *revision);
        let (expected, right) = match guess {
            Guess::Absent => (Expected::Absent, current.is_none()),
            Guess::Any => (Expected::Any, true),
            Guess::Right => (Expected::At(Revision(current.unwrap_or(99_999))), current.is_some()),
            Guess::Wrong => (Expected::At(Revision(99_999)), false),
        };
        let op = match payload {
            Some(payload) => Op::Put(draft(name, payload)),
            None => Op::Delete(draft(name, "gone")),
        };
        let result = self.store().commit(&pod(name), expected, op).await;
        if right && (payload.is_some() || current.is_some()) {
            self.model.write(name, payload);
            let written = result.unwrap();
            if payload.is_some() || self.model.final_states {
                assert_eq!(text(&written), self.model.changes.last().unwrap().2);
            }
        } else {
            let Err(CommitError::Conflict { current: found }) = result else { panic!("{result:?}") };
            assert_eq!(found.map(|entry| entry.revision.0), current);
        }
    }

    fn list(&self, back: u64, limit: usize) {
        let at = self.back(back);
        let mut after = None;
        let mut listed = Vec::new();
        loop {
            let page = self.store().range("pods", None, Some(at), after.as_ref(), limit, &|_| true);
            let Ok(page) = page else { return self.check_gone(at) };
            listed.extend(page.entries.iter().map(|entry| text(entry).to_owned()));
            if !page.more {
                break;
            }
            assert_eq!(page.entries.len(), limit);
            after = page.entries.last().map(|entry| entry.key.clone());
        }
        let expect: Vec<_> = self.model.at(at).values().map(|(_, text)| text.clone()).collect();
        assert_eq!(listed, expect, "at {at}");
    }

    async fn watch(&self, back: u64) {
        let from = self.back(back);
        let Ok(mut watch) = self.store().watch(Scope::resource("pods"), from) else {
            return self.check_gone(from);
        };
        let told_from = (from.0 - self.model.begin) as usize;
        for (position, (kind, name, expect)) in self.model.changes.iter().enumerate().skip(told_from) {
            let WatchItem::Event { kind: told, entry, previous } = watch.next().await.unwrap() else {
                panic!("an event must come before progress")
            };
            assert_eq!((told, text(&entry)), (*kind, expect.as_str()));
            let before = self.model.states[position].get(name).map(|(_, text)| text.as_str());
            assert_eq!(previous.as_deref().map(text), before);
        }
    }

    /// `Gone` must name the exact revision from which on it would not be.
    fn check_gone(&self, asked: Revision) {
        let watch = |from| self.store().watch(Scope::resource("pods"), from).map(drop);
        let Err(gone) = watch(asked) else { panic!("a list was gone where a watch is not") };
        assert!(gone.oldest > asked);
        assert_eq!(watch(gone.oldest), Ok(()));
        assert!(watch(Revision(gone.oldest.0 - 1)).is_err());
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn the_store_is_a_map_with_a_past(steps in steps()) {
        runtime().block_on(async { Run::new(Ground::Disk(TestDisk::default())).await.through(steps).await });
    }
}

#[test]
fn the_store_over_etcd_is_a_map_with_a_past() {
    let cluster = runtime().block_on(Cluster::start(1));
    let runs = std::cell::Cell::new(0);
    // One after the other, so that nothing else moves the revision.
    let mut runner =
        proptest::test_runner::TestRunner::new(ProptestConfig { cases: 24, ..ProptestConfig::default() });
    let run = runner.run(&steps(), |steps| {
        runs.set(runs.get() + 1);
        let ground = Ground::Etcd { servers: cluster.config(), prefix: format!("/run{}", runs.get()) };
        runtime().block_on(async { Run::new(ground).await.through(steps).await });
        Ok(())
    });
    run.unwrap();
}
