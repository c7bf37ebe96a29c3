//! Why a pod could not be scheduled, and the words for it (upstream: FitError, Diagnosis).

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::framework::Rejection;

/// The longest event message (upstream: NoteLengthLimit).
const EVENT_MESSAGE_MAX: usize = 1024;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diagnosis {
    pub nodes_total: usize,
    /// By node: the plugin that refused it, and why.
    pub nodes: BTreeMap<String, (&'static str, Rejection)>,
    /// Plugins that left only some nodes in question; the others are not in `nodes`.
    pub narrowed_by: Vec<&'static str>,
    /// The plugin that found that no node can do, and its reason.
    pub refused: Option<(&'static str, Cow<'static, str>)>,
    /// What came of preemption.
    pub post_filter: String,
}

impl Diagnosis {
    /// The plugins a change must satisfy before another attempt makes sense; none means any change.
    pub fn rejectors(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.nodes.values().map(|(plugin, _)| *plugin).collect();
        names.extend(&self.narrowed_by);
        names.extend(self.refused.as_ref().map(|(plugin, _)| *plugin));
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether a node promised to the pod stays promised: its victims have not left yet.
    pub fn keeps_nomination(&self) -> bool {
        self.post_filter.contains("preemption: not eligible")
    }

    /// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable. preemption: ...`
    pub fn message(&self) -> String {
        if self.nodes_total == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let reasons = match &self.refused {
            Some((_, reason)) => reason.to_string(),
            None => self.histogram(),
        };
        let mut message = format!("0/{} nodes are available:", self.nodes_total);
        if !reasons.is_empty() {
            message += &format!(" {reasons}.");
        }
        if !self.post_filter.is_empty() {
            message += &format!(" {}", self.post_filter);
        }
        message
    }

    fn histogram(&self) -> String {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for (_, rejection) in self.nodes.values() {
            for reason in &rejection.reasons {
                *counts.entry(reason.to_string()).or_default() += 1;
            }
        }
        let absent = self.nodes_total - self.nodes.len();
        if absent > 0 && !self.narrowed_by.is_empty() {
            let plugins = self.narrowed_by.join(" ");
            *counts.entry(format!("node(s) didn't satisfy plugin(s) [{plugins}]")).or_default() += absent;
        }
        let mut reasons: Vec<_> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort();
        reasons.join(", ")
    }
}

/// Cuts a message to what an event takes.
pub fn event_message(message: &str) -> String {
    const SUFFIX: &str = " ...";
    if message.len() <= EVENT_MESSAGE_MAX {
        return message.to_owned();
    }
    let end = message.floor_char_boundary(EVENT_MESSAGE_MAX - SUFFIX.len());
    format!("{}{SUFFIX}", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(nodes_total: usize, nodes: &[(&str, &'static str)], edit: fn(&mut Diagnosis), expect: &str) {
        let rejected = |(node, reason): &(&str, &'static str)| {
            (node.to_string(), ("NodeResourcesFit", Rejection::resolvable(reason)))
        };
        let nodes = nodes.iter().map(rejected).collect();
        let mut diagnosis = Diagnosis { nodes_total, nodes, ..Diagnosis::default() };
        edit(&mut diagnosis);
        assert_eq!(diagnosis.message(), expect);
    }

    #[test]
    fn reasons_are_counted_and_sorted() {
        let nodes = [("a", "Insufficient memory"), ("b", "Insufficient cpu"), ("c", "Insufficient memory")];
        check(3, &nodes, |_| {}, "0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient memory.");
    }

    #[test]
    fn what_preemption_found_follows() {
        let found = "0/1 nodes are available: 1 Insufficient cpu. \
            preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
        let preemption = |diagnosis: &mut Diagnosis| {
            diagnosis.post_filter =
                "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.".into();
        };
        check(1, &[("a", "Insufficient cpu")], preemption, found);
    }

    #[test]
    fn nodes_out_of_question_and_refusals_of_all_have_words_of_their_own() {
        let narrowed =
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity].";
        check(3, &[("a", "Insufficient cpu")], |d| d.narrowed_by = vec!["NodeAffinity"], narrowed);
        let refused = "0/2 nodes are available: pod affinity terms conflict.";
        check(2, &[], |d| d.refused = Some(("NodeAffinity", "pod affinity terms conflict".into())), refused);
        check(0, &[], |_| {}, "no nodes available to schedule pods");
    }

    #[test]
    fn an_event_message_is_cut_at_its_limit_and_not_before() {
        assert_eq!(event_message(&"x".repeat(EVENT_MESSAGE_MAX)).len(), EVENT_MESSAGE_MAX);
        let cut = event_message(&"é".repeat(EVENT_MESSAGE_MAX));
        assert!(cut.len() <= EVENT_MESSAGE_MAX && cut.ends_with(" ..."));
    }
}
