//! Semantic versions. Follows upstream's `library.SemverLib` in version 1.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::eval::{EvalError, Outcome};
use crate::library::strings::text;
use crate::signature::Row;
use crate::value::Val;

#[derive(Clone, Debug)]
pub struct Version {
    numbers: [u64; 3],
    pre: Vec<String>,
}

pub(super) const ROWS: &[Row] = &[
    ("semver(string) kubernetes.Semver", semver),
    ("semver(string, bool) kubernetes.Semver", semver),
    ("isSemver(string) bool", |args| Ok(Val::Bool(read(args)?.is_some()))),
    ("isSemver(string, bool) bool", |args| Ok(Val::Bool(read(args)?.is_some()))),
    ("kubernetes.Semver: major() int", |args| number(args, 0)),
    ("kubernetes.Semver: minor() int", |args| number(args, 1)),
    ("kubernetes.Semver: patch() int", |args| number(args, 2)),
    ("kubernetes.Semver: isGreaterThan(kubernetes.Semver) bool", |args| Ok(Val::Bool(order(args)?.is_gt()))),
    ("kubernetes.Semver: isLessThan(kubernetes.Semver) bool", |args| Ok(Val::Bool(order(args)?.is_lt()))),
    ("kubernetes.Semver: compareTo(kubernetes.Semver) int", |args| Ok(Val::Int(order(args)? as i64))),
];

impl Version {
    pub(crate) fn cmp(&self, other: &Version) -> Ordering {
        let numbers = self.numbers.cmp(&other.numbers);
        numbers.then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => pre_order(&self.pre, &other.pre),
        })
    }
}

/// Numbers by value and before words, the shorter first.
fn pre_order(a: &[String], b: &[String]) -> Ordering {
    for (a, b) in a.iter().zip(b) {
        let order = match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => a.cmp(b),
        };
        if order.is_ne() {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

fn is_number(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'))
}

pub(crate) fn parse(text: &str) -> Option<Version> {
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    let is_plain = |word: &str| !word.bytes().all(|c| c.is_ascii_digit()) || is_number(word);
    if build.is_some_and(|build| !build.split('.').all(is_word)) {
        return None;
    }
    let pre: Vec<String> = pre.map_or_else(Vec::new, |pre| pre.split('.').map(str::to_owned).collect());
    let numbers: Vec<u64> =
        core.split('.').map(|part| part.parse().ok().filter(|_| is_number(part))).collect::<Option<_>>()?;
    let is_valid = pre.iter().all(|word| is_word(word) && is_plain(word));
    is_valid.then_some(Version { numbers: numbers.try_into().ok()?, pre })
}

/// `v1.2` as `1.2.0`, without leading zeros.
fn normalized(text: &str) -> String {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (core, rest) = text.split_at(end);
    let strip = |part: &str| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0".to_owned(),
        part => part.to_owned(),
    };
    let mut parts: Vec<String> = core.split('.').map(strip).collect();
    if rest.is_empty() {
        while parts.len() < 3 {
            parts.push("0".to_owned());
        }
    }
    format!("{}{rest}", parts.join("."))
}

fn read(args: &[Val<'_>]) -> Result<Option<Version>, EvalError> {
    let told = text(args, 0)?;
    match args.get(1) {
        None | Some(Val::Bool(false)) => Ok(parse(told)),
        Some(Val::Bool(true)) => Ok(parse(&normalized(told))),
        Some(_) => Err(EvalError::NoSuchOverload),
    }
}

fn semver<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let version = read(args)?.ok_or("No Major.Minor.Patch elements found")?;
    Ok(Val::Semver(Arc::new(version)))
}

fn of<'a>(args: &'a [Val<'_>], index: usize) -> Result<&'a Version, EvalError> {
    match &args[index] {
        Val::Semver(version) => Ok(version),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn order(args: &[Val<'_>]) -> Result<Ordering, EvalError> {
    Ok(of(args, 0)?.cmp(of(args, 1)?))
}

fn number<'v>(args: &[Val<'v>], index: usize) -> Outcome<'v> {
    i64::try_from(of(args, 0)?.numbers[index]).map(Val::Int).map_err(|_| "integer overflow".into())
}
