//! URLs. Follows upstream's `library.URLs`, which reads absolute URIs and absolute paths.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::eval::{EvalError, Outcome};
use crate::library::strings::text;
use crate::signature::Row;
use crate::value::{Key, Text, Val};

#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    /// With the port.
    host: String,
    path: String,
    query: String,
}

pub(super) const ROWS: &[Row] = &[
    ("url(string) kubernetes.URL", |args| {
        let told = text(args, 0)?;
        match (parse(told), complaint(told)) {
            (Some(url), _) => Ok(Val::Url(Arc::new(url))),
            (None, why) => {
                Err(format!("URL parse error during conversion from string: {}", why.unwrap_or_default())
                    .into())
            }
        }
    }),
    ("isURL(string) bool", |args| Ok(Val::Bool(parse(text(args, 0)?).is_some()))),
    ("kubernetes.URL: getScheme() string", |args| Ok(Val::text(of(args)?.scheme.as_str()))),
    ("kubernetes.URL: getHost() string", |args| Ok(Val::text(of(args)?.host.as_str()))),
    ("kubernetes.URL: getHostname() string", |args| Ok(Val::text(split(&of(args)?.host).0))),
    ("kubernetes.URL: getPort() string", |args| Ok(Val::text(split(&of(args)?.host).1))),
    ("kubernetes.URL: getEscapedPath() string", |args| Ok(Val::text(of(args)?.path.as_str()))),
    ("kubernetes.URL: getQuery() map(string, list(string))", query),
];

fn of<'a>(args: &'a [Val<'_>]) -> Result<&'a Url, EvalError> {
    match &args[0] {
        Val::Url(url) => Ok(url),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn parse(text: &str) -> Option<Url> {
    if text.is_empty() || text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return None;
    }
    let (scheme, rest) = if text.starts_with('/') {
        ("", text)
    } else {
        let (scheme, rest) = text.split_once(':')?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        if !is_scheme {
            return None;
        }
        (scheme, rest)
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (host, path) = match rest.strip_prefix("//").filter(|_| !scheme.is_empty()) {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None if rest.starts_with('/') || !scheme.is_empty() => ("", rest),
        None => return None,
    };
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let port = split(host).1;
    if host.contains([' ', '<', '>', '"'])
        || !port.bytes().all(|byte| byte.is_ascii_digit())
        || unescaped(path).is_none()
    {
        return None;
    }
    let path = path.replace(' ', "%20");
    Some(Url { scheme: scheme.to_ascii_lowercase(), host: host.to_owned(), path, query: query.to_owned() })
}

/// What is wrong with a text that is no URL.
pub(crate) fn complaint(text: &str) -> Option<String> {
    match (parse(text), text) {
        (Some(_), _) => None,
        (None, "") => Some("parse \"\": empty url".to_owned()),
        (None, text) => Some(format!("parse {text:?}: invalid URI for request")),
    }
}

/// The name and the port of a host.
fn split(host: &str) -> (&str, &str) {
    if let Some((name, rest)) = host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        return (name, rest.strip_prefix(':').unwrap_or(rest));
    }
    host.rsplit_once(':').unwrap_or((host, ""))
}

/// A text with `%41` as `A`.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let high = char::from(rest.next()?).to_digit(16)?;
        let low = char::from(rest.next()?).to_digit(16)?;
        bytes.push((high * 16 + low) as u8);
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn query<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let mut found: BTreeMap<String, Vec<Val<'v>>> = BTreeMap::new();
    for pair in of(args)?.query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let read = |text: &str| unescaped(&text.replace('+', " "));
        if let Some((key, value)) = read(key).zip(read(value)) {
            found.entry(key).or_default().push(Val::text(value));
        }
    }
    let entries =
        found.into_iter().map(|(key, values)| (Key::Text(Text::Shared(key.into())), Val::list(values)));
    Ok(Val::Map(Arc::new(entries.collect())))
}
