//! System call filters that users write (`seccompProfile: {type: Localhost}`): the OCI runtime specification's `seccomp`
//! in JSON, read by the agent, compiled and installed in the container.
//!
//! One compiled filter knows two answers, a profile many. So there is one filter per answer, and the kernel takes the
//! strictest of what they say.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use serde::{Deserialize, Serialize};

use super::{sys, syscalls};

/// A profile is a list of names: larger ones are not read.
const PROFILE_BYTES_MAX: u64 = 1 << 20;

/// A number that no system call has on any architecture.
const NO_CALL: i64 = i32::MAX as i64;

/// Calls of this machine with the answer to each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompProfile {
    default: Answer,
    rules: Vec<Rule>,
}

/// What becomes of a call, the strictest first, as the kernel orders them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Answer {
    KillProcess,
    KillThread,
    Trap,
    Errno(u32),
    Trace(u32),
    Log,
    Allow,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Rule {
    call: i64,
    answer: Answer,
    /// All of one list must hold; without lists the rule always holds.
    conditions: Vec<Vec<Condition>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Condition {
    argument: u8,
    operator: String,
    value: u64,
    second_value: u64,
}

/// The file as users write it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    syscalls: Vec<WrittenCall>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenCall {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Vec<WrittenArgument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenArgument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

impl SeccompProfile {
    /// Reads the profile at a path of the node; the texts are containerd's.
    pub fn read(path: &Path) -> Result<SeccompProfile, String> {
        let failed = |why: String| format!("failed to load seccomp profile {:?}: {why}", path.display());
        let size = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?.len();
        if size > PROFILE_BYTES_MAX {
            return Err(failed(format!("{size} bytes are more than the {PROFILE_BYTES_MAX} that are read")));
        }
        let text = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
        SeccompProfile::parse(&text).map_err(failed)
    }

    /// Calls that this machine does not have are left out, as runc does.
    fn parse(text: &[u8]) -> Result<SeccompProfile, String> {
        let written: Written =
            serde_json::from_slice(text).map_err(|e| format!("decoding seccomp profile failed: {e}"))?;
        let default = answer(&written.default_action, written.default_errno_ret)?;
        let mut rules = Vec::new();
        for entry in &written.syscalls {
            let answer = answer(&entry.action, entry.errno_ret)?;
            let conditions = conditions(&entry.args)?;
            let calls = entry.names.iter().filter_map(|name| syscalls::number(name));
            rules.extend(calls.map(|call| Rule { call, answer, conditions: conditions.clone() }));
        }
        Ok(SeccompProfile { default, rules })
    }

    /// Installs the filters for this process and those it becomes.
    pub fn install(&self) -> io::Result<()> {
        // The strictest last: it may forbid to install more.
        for program in self.programs().map_err(io::Error::other)? {
            sys::set_seccomp_filter(&program)?;
        }
        Ok(())
    }

    fn programs(&self) -> Result<Vec<BpfProgram>, BackendError> {
        let mut answers: Vec<Answer> = self.rules.iter().map(|rule| rule.answer).collect();
        answers.sort_unstable();
        answers.dedup();
        let mut programs = Vec::new();
        for answer in answers.into_iter().filter(|answer| *answer != Answer::Allow) {
            let rules = self.rules.iter().filter(|rule| rule.answer == answer);
            programs.push(program(rules, answer, Answer::Allow)?);
        }
        if self.default != Answer::Allow {
            programs.push(program(self.rules.iter(), Answer::Allow, self.default)?);
        }
        Ok(programs)
    }
}

/// Answers `matched` where a rule holds, else `otherwise`.
fn program<'r>(
    rules: impl Iterator<Item = &'r Rule>,
    matched: Answer,
    otherwise: Answer,
) -> Result<BpfProgram, BackendError> {
    let mut by_call: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut unconditional: Vec<i64> = Vec::new();
    for rule in rules {
        let known = by_call.entry(rule.call).or_default();
        for all in &rule.conditions {
            let all = all.iter().map(Condition::compile).collect::<Result<_, _>>()?;
            known.push(SeccompRule::new(all)?);
        }
        if rule.conditions.is_empty() {
            unconditional.push(rule.call);
        }
    }
    by_call.extend(unconditional.into_iter().map(|call| (call, Vec::new())));
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    if by_call.is_empty() {
        // The compiler wants two answers that differ.
        by_call.insert(NO_CALL, Vec::new());
    }
    SeccompFilter::new(by_call, otherwise.action(), matched.action(), arch)?.try_into()
}

impl Answer {
    fn action(self) -> SeccompAction {
        match self {
            Answer::KillProcess => SeccompAction::KillProcess,
            Answer::KillThread => SeccompAction::KillThread,
            Answer::Trap => SeccompAction::Trap,
            Answer::Errno(errno) => SeccompAction::Errno(errno),
            Answer::Trace(value) => SeccompAction::Trace(value),
            Answer::Log => SeccompAction::Log,
            Answer::Allow => SeccompAction::Allow,
        }
    }
}

impl Condition {
    fn compile(&self) -> Result<SeccompCondition, BackendError> {
        let (operator, value) = match self.operator.as_str() {
            "SCMP_CMP_NE" => (SeccompCmpOp::Ne, self.value),
            "SCMP_CMP_LT" => (SeccompCmpOp::Lt, self.value),
            "SCMP_CMP_LE" => (SeccompCmpOp::Le, self.value),
            "SCMP_CMP_GE" => (SeccompCmpOp::Ge, self.value),
            "SCMP_CMP_GT" => (SeccompCmpOp::Gt, self.value),
            "SCMP_CMP_MASKED_EQ" => (SeccompCmpOp::MaskedEq(self.value), self.second_value),
            _ => (SeccompCmpOp::Eq, self.value),
        };
        SeccompCondition::new(self.argument, SeccompCmpArgLen::Qword, operator, value)
    }
}

fn answer(name: &str, errno: Option<u32>) -> Result<Answer, String> {
    let errno = errno.unwrap_or(libc::EPERM as u32);
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Answer::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Answer::KillProcess,
        "SCMP_ACT_TRAP" => Answer::Trap,
        "SCMP_ACT_ERRNO" => Answer::Errno(errno),
        "SCMP_ACT_TRACE" => Answer::Trace(errno),
        "SCMP_ACT_LOG" => Answer::Log,
        "SCMP_ACT_ALLOW" => Answer::Allow,
        _ => return Err(format!("string {name} is not a valid action for seccomp")),
    })
}

const OPERATORS: [&str; 7] = [
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];
/// A system call has six arguments.
const ARGUMENTS: u8 = 6;

/// Arguments are looked at together, but as alternatives where one argument is asked about twice, as runc does.
fn conditions(written: &[WrittenArgument]) -> Result<Vec<Vec<Condition>>, String> {
    let mut all = Vec::new();
    for argument in written {
        if !OPERATORS.contains(&argument.op.as_str()) {
            return Err(format!("string {} is not a valid operator for seccomp", argument.op));
        }
        if argument.index >= ARGUMENTS {
            return Err(format!("a system call has no argument {}", argument.index));
        }
        all.push(Condition {
            argument: argument.index,
            operator: argument.op.clone(),
            value: argument.value,
            second_value: argument.value_two,
        });
    }
    let twice = |condition: &Condition| all.iter().filter(|c| c.argument == condition.argument).count() > 1;
    Ok(match all.is_empty() {
        true => Vec::new(),
        false if all.iter().any(twice) => all.iter().map(|condition| vec![condition.clone()]).collect(),
        false => vec![all],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SeccompProfile, String> {
        SeccompProfile::parse(text.as_bytes())
    }

    #[test]
    fn every_answer_but_to_allow_is_a_filter_and_so_is_a_strict_default() {
        let check = |text: &str, expect: usize| {
            assert_eq!(parse(text).unwrap().programs().unwrap().len(), expect, "{text}");
        };
        check(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#, 0);
        check(r#"{"defaultAction": "SCMP_ACT_ERRNO"}"#, 1);
        check(r#"{"defaultAction": "SCMP_ACT_LOG", "syscalls": []}"#, 1);
        let mixed = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
                {"names": ["socket"], "action": "SCMP_ACT_KILL", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}]}]}"#;
        check(mixed, 3);
        assert_eq!(parse(mixed).unwrap().rules.len(), 4);
    }

    #[test]
    fn an_argument_asked_about_twice_makes_alternatives() {
        let rules = |args: &str| {
            let text = format!(
                r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": ["socket"], "action": "SCMP_ACT_TRAP", "args": [{args}]}}]}}"#
            );
            parse(&text).unwrap().rules.remove(0).conditions
        };
        let argument = |index: u8| format!(r#"{{"index": {index}, "value": 1, "op": "SCMP_CMP_NE"}}"#);
        assert_eq!(rules(&[argument(0), argument(1)].join(",")).len(), 1);
        assert_eq!(rules(&[argument(0), argument(0)].join(",")).len(), 2);
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        for bad in [
            "",
            "{}",
            r#"{"defaultAction": "SCMP_ACT_FLY"}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let missing = SeccompProfile::read(Path::new("/no/such/profile.json")).expect_err("missing");
        assert!(missing.contains("/no/such/profile.json"), "{missing}");
    }
}
