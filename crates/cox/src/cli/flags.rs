//! The flags of the command that runs, with the values in force, as `/flagz` shows them.

use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches, Command};
use client::zpages::Flags;

/// Flags whose values are secrets; what upstream shows for those.
const CLASSIFIED: [&str; 1] = ["token"];
const CLASSIFIED_VALUE: &str = "CLASSIFIED";

/// The flags of the innermost command, those too that are not given. `command` is built.
pub fn in_force(command: &Command, matches: &ArgMatches) -> Flags {
    if let Some((name, matches)) = matches.subcommand() {
        let command = command.find_subcommand(name).expect("what matched is a command");
        return in_force(command, matches);
    }
    let takes_a_value = |arg: &&Arg| {
        use ArgAction::{Help, HelpLong, HelpShort, Version};
        !matches!(arg.get_action(), Help | HelpShort | HelpLong | Version)
    };
    let shown = |arg: &Arg| Some((arg.get_long()?.to_owned(), value(arg, matches)));
    Arc::new(command.get_arguments().filter(takes_a_value).filter_map(shown).collect())
}

fn value(arg: &Arg, matches: &ArgMatches) -> String {
    let values = matches.get_raw(arg.get_id().as_str()).into_iter().flatten();
    let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
    let is_secret = arg.get_long().is_some_and(|name| CLASSIFIED.contains(&name));
    if is_secret && !values.is_empty() { CLASSIFIED_VALUE.to_owned() } else { values.join(",") }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    fn check(given: &[&str], expect: &[(&str, Option<&str>)]) {
        let mut command = Cli::command();
        let matches = command.try_get_matches_from_mut(given).expect("flags");
        let flags = in_force(&command, &matches);
        for (name, value) in expect {
            assert_eq!(flags.get(*name).map(String::as_str), *value, "{name} of {given:?}");
        }
    }

    #[test]
    fn flags_are_shown_with_the_values_in_force() {
        check(
            &["cox", "up", "-d", "--cluster-cidr", "10.1.0.0/16,fd00::/48", "--ingress=false", "--v", "4"],
            &[
                ("detach", Some("true")),
                ("demo", Some("false")),
                ("cluster-cidr", Some("10.1.0.0/16,fd00::/48")),
                ("ingress", Some("false")),
                ("v", Some("4")),
                ("name", Some(cluster::DEFAULT_NAME)),
                ("node-name", Some("")),
                ("help", None),
            ],
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let join = ["cox", "agent", "--server", "https://a:6443", "--token", "abcdef.0123456789abcdef"];
        check(&join, &[("token", Some("CLASSIFIED")), ("server", Some("https://a:6443"))]);
        check(&["cox", "agent"], &[("token", Some(""))]);
    }
}
