//! What tests of decisions about a pod are made of.

use jiff::Timestamp;

use crate::observe::{Container, Sandbox, State};

/// One that ended, if it did, at the epoch.
pub fn container(name: &str, state: State, exit_code: i32, attempt: u32) -> Container {
    Container {
        id: format!("{name}{attempt}"),
        name: name.into(),
        sandbox_id: "s".into(),
        attempt,
        state,
        finished_at: Some(Timestamp::UNIX_EPOCH),
        exit_code,
        ..Default::default()
    }
}

pub fn sandbox(ready: bool) -> Sandbox {
    Sandbox { id: "s".into(), ready, attempt: 0, ips: vec!["10.0.0.1".into()] }
}
