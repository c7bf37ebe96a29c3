//! A container that the kubelet itself ends, to start it anew as it should be: nothing is told of the pod in between
//! (upstream's `SyncPod` does both in one turn, and writes the status before and after).

use jiff::{SignedDuration, Timestamp};

use super::actions::{Action, Plan};
use super::memory::Memory;
use crate::observe::{Container, Observed, State};

/// The longest silence: when the next one does not start, as when its image must be pulled, that is to be known.
const SILENCE_MAX: SignedDuration = SignedDuration::from_secs(1);

/// Until when the pod's status is kept as it was told last; `None` when it may be told.
pub fn silent_until(observed: &Observed, memory: &Memory, plan: &Plan, now: Timestamp) -> Option<Timestamp> {
    let starts = |name: &str| {
        let start = |action: &Action| matches!(action, Action::Start { name: known, .. } if known == name);
        memory.busy.contains(name) || plan.actions.iter().any(start)
    };
    let replaced = |c: &&Container| {
        c.state == State::Exited
            && memory.killed.contains(&c.id)
            && starts(&c.name)
            && observed.container(&c.name).is_some_and(|newest| newest.state != State::Running)
    };
    let ends = observed.containers.iter().filter(replaced).filter_map(|c| c.finished_at);
    ends.map(|at| at + SILENCE_MAX).filter(|at| *at > now).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::actions::ContainerType;
    use crate::pod::testing;

    const END: Timestamp = Timestamp::UNIX_EPOCH;

    fn check(memory: &Memory, containers: &[(State, u32)], starts: &[&str], now: Timestamp, silent: bool) {
        let containers =
            containers.iter().map(|(state, attempt)| testing::container("a", *state, 137, *attempt));
        let observed = Observed { containers: containers.collect(), ..Default::default() };
        let start =
            |name: &&str| Action::Start { name: (*name).into(), kind: ContainerType::Regular, attempt: 1 };
        let plan = Plan { actions: starts.iter().map(start).collect(), ..Default::default() };
        let expect = silent.then_some(END + SILENCE_MAX);
        assert_eq!(silent_until(&observed, memory, &plan, now), expect, "{observed:?} {starts:?}");
    }

    #[test]
    fn nothing_is_told_between_the_end_of_a_container_and_the_start_of_the_next() {
        let ended = [(State::Exited, 0)];
        let mut memory = Memory { killed: ["a0".into()].into(), ..Default::default() };
        check(&memory, &[(State::Running, 0)], &[], END, false);
        check(&memory, &ended, &["a"], END, true);
        memory.busy.insert("a".into());
        check(&memory, &ended, &[], END, true);
        check(&memory, &[(State::Created, 1), (State::Exited, 0)], &[], END, true);
        check(&memory, &[(State::Running, 1), (State::Exited, 0)], &[], END, false);
    }

    #[test]
    fn the_end_is_told_of_what_ends_by_itself_or_is_not_started_again_or_takes_long() {
        let ended = [(State::Exited, 0)];
        let memory = Memory { killed: ["a0".into()].into(), ..Default::default() };
        check(&Memory::default(), &ended, &["a"], END, false);
        check(&memory, &ended, &["b"], END, false);
        check(&memory, &ended, &[], END, false);
        check(&memory, &ended, &["a"], END + SILENCE_MAX, false);
    }
}
