//! The text of requests.
//!
//! Blank lines separate the steps; `#` begins a line of comment. A step is
//!
//! ```text
//! [condition] METHOD /path?query
//! header: value
//! {"the": "body"}
//! => variable /json/pointer
//! ```
//!
//! where all but the first line may be missing. A line of the body that would read as a header stands behind `| `.
//! A step behind `[condition]` is played for kinds that have this word among their traits, `[!condition]` for the others.
//! Two methods are not HTTP's: `WATCH n` reads a watch until n events came or it falls silent; `AWAIT status` repeats a
//! GET until it is answered so, and compares nothing.
//!
//! `${variable}` is replaced in every line; `${variable + {...}}` by the JSON of the variable with the merge patch
//! applied; `${repeat 300 a}` by that many of the letter.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, anyhow, bail, ensure};
use http::Method;
use serde_json::Value;

pub type Variables = BTreeMap<String, String>;

#[derive(Clone, Debug)]
pub struct Script {
    pub name: String,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The line in the file at which the step begins.
    pub line: usize,
    pub condition: Option<Condition>,
    pub action: Action,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<String>,
    pub captures: Vec<Capture>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    trait_name: String,
    wanted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Request(Method),
    Watch { events: usize },
    Await { status: u16 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    pub variable: String,
    pub pointer: String,
}

impl Script {
    pub fn parse(name: &str, text: &str) -> Result<Script> {
        let mut steps = Vec::new();
        let mut lines: Vec<(usize, &str)> = Vec::new();
        for (at, line) in text.lines().enumerate().chain([(0, "")]) {
            if line.trim().is_empty() {
                if let Some((first, _)) = lines.first().copied() {
                    let block: Vec<&str> = lines.drain(..).map(|(_, line)| line).collect();
                    steps.push(Step::parse(first, &block).with_context(|| format!("{name}:{first}"))?);
                }
            } else if !line.starts_with('#') {
                lines.push((at + 1, line));
            }
        }
        Ok(Script { name: name.to_owned(), steps })
    }
}

impl Step {
    fn parse(line: usize, block: &[&str]) -> Result<Step> {
        let (head, rest) = block.split_first().context("a step has a first line")?;
        let (condition, head) = condition(head)?;
        let (method, path) = head.split_once(' ').context("a step begins with METHOD /path")?;
        let (action, path) = match method {
            "WATCH" => {
                let (events, path) = path.split_once(' ').context("WATCH needs a number of events")?;
                (Action::Watch { events: events.parse()? }, path)
            }
            "AWAIT" => {
                let (status, path) = path.split_once(' ').context("AWAIT needs a status")?;
                (Action::Await { status: status.parse()? }, path)
            }
            _ => (Action::Request(method.parse().map_err(|_| anyhow!("{method:?} is no method"))?), path),
        };
        let (mut headers, mut body, mut captures) = (Vec::new(), Vec::new(), Vec::new());
        for line in rest {
            if let Some(capture) = line.strip_prefix("=> ") {
                let (variable, pointer) =
                    capture.split_once(' ').context("a capture is => variable /pointer")?;
                captures.push(Capture { variable: variable.to_owned(), pointer: pointer.to_owned() });
            } else if let Some(line) = line.strip_prefix("| ") {
                body.push(line);
            } else if let Some((name, value)) = header(line).filter(|_| body.is_empty()) {
                headers.push((name.to_owned(), value.to_owned()));
            } else {
                body.push(line);
            }
        }
        let body = (!body.is_empty()).then(|| body.join("\n"));
        Ok(Step { line, condition, action, path: path.to_owned(), headers, body, captures })
    }

    /// Whether the step is meant for a kind with these traits.
    pub fn is_for(&self, traits: &BTreeSet<String>) -> bool {
        self.condition
            .as_ref()
            .is_none_or(|condition| traits.contains(&condition.trait_name) == condition.wanted)
    }
}

fn condition(head: &str) -> Result<(Option<Condition>, &str)> {
    let Some(rest) = head.strip_prefix('[') else { return Ok((None, head)) };
    let (name, rest) = rest.split_once("] ").context("a condition ends with ]")?;
    let wanted = !name.starts_with('!');
    let trait_name = name.trim_start_matches('!').to_owned();
    Ok((Some(Condition { trait_name, wanted }), rest))
}

fn header(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (is_name && (value.is_empty() || value.starts_with(' '))).then(|| (name, value.trim()))
}

/// Replaces everything in `${}`.
pub fn expand(text: &str, variables: &Variables) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let word = after.find([' ', '}']).with_context(|| format!("no end of ${{{after}"))?;
        let (name, tail) = after.split_at(word);
        let tail = tail.trim_start();
        if name == "repeat" {
            let (what, tail) = tail.split_once('}').context("repeat ends with }")?;
            let (times, letter) = what.split_once(' ').context("repeat needs a number and a text")?;
            out.push_str(&letter.repeat(times.parse()?));
            rest = tail;
            continue;
        }
        let value = variables.get(name).with_context(|| format!("there is no variable {name:?}"))?;
        if let Some(patch) = tail.strip_prefix('+') {
            let (merged, tail) =
                merged(value, patch, variables).with_context(|| format!("in ${{{name} + ...}}"))?;
            out.push_str(&merged);
            rest = tail;
        } else {
            out.push_str(value);
            rest = tail.strip_prefix('}').with_context(|| format!("no end of ${{{name}"))?;
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The JSON `value` with the merge patch at the beginning of `text` applied, and what follows the closing bracket.
fn merged<'t>(value: &str, text: &'t str, variables: &Variables) -> Result<(String, &'t str)> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let patch = stream.next().context("a merge patch is missing")??;
    let rest = text[stream.byte_offset()..].trim_start();
    let Some(rest) = rest.strip_prefix('}') else { bail!("no end after the merge patch") };
    let patch: Value = serde_json::from_str(&expand(&patch.to_string(), variables)?)?;
    let mut value: Value = serde_json::from_str(value)?;
    ensure!(value.is_object(), "only objects can be merged");
    merge(&mut value, patch);
    Ok((value.to_string(), rest))
}

/// RFC 7396.
pub fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(map) = target else { unreachable!("it was made an object above") };
    for (key, value) in patch {
        if value.is_null() {
            map.remove(&key);
        } else {
            merge(map.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_a_condition_headers_a_body_and_captures() {
        let text = "# first\n\n[status] PUT /a/b\naccept: text/plain\n{\"a\":\n 1}\n=> uid /metadata/uid\n\nWATCH 2 /w\n";
        let script = Script::parse("s", text).unwrap();
        let [put, watch] = &script.steps[..] else { panic!("{script:?}") };
        assert_eq!((put.line, put.path.as_str(), put.body.as_deref()), (3, "/a/b", Some("{\"a\":\n 1}")));
        assert_eq!(put.headers, [("accept".to_owned(), "text/plain".to_owned())]);
        assert_eq!(put.captures[0].pointer, "/metadata/uid");
        assert!(put.is_for(&BTreeSet::from(["status".to_owned()])) && !put.is_for(&BTreeSet::new()));
        assert_eq!(watch.action, Action::Watch { events: 2 });
    }

    #[test]
    fn lines_behind_a_bar_are_body() {
        let script = Script::parse("s", "POST /a\n| kind: Pod\n|   x: 1\n").unwrap();
        assert_eq!(script.steps[0].body.as_deref(), Some("kind: Pod\n  x: 1"));
    }

    #[test]
    fn variables_are_replaced_merged_and_repeated() {
        let variables = Variables::from([
            ("n".to_owned(), "x".to_owned()),
            ("o".to_owned(), r#"{"a":{"b":1},"c":2}"#.to_owned()),
        ]);
        let check = |text: &str| expand(text, &variables).unwrap_or_else(|error| error.to_string());
        assert_eq!(check("/${n}/${repeat 3 ab}"), "/x/ababab");
        assert_eq!(check(r#"${o + {"a":{"b":"${n}"},"c":null}}!"#), r#"{"a":{"b":"x"}}!"#);
        assert_eq!(check("${m}"), "there is no variable \"m\"");
    }
}
