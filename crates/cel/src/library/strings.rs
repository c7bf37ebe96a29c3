//! Texts. Follows cel-go's standard functions and `ext.Strings` in version 2; positions count characters.

use crate::eval::{EvalError, Outcome};
use crate::library::convert;
use crate::signature::Row;
use crate::value::Val;

pub(super) const ROWS: &[Row] = &[
    ("string: contains(string) bool", |args| Ok(Val::Bool(text(args, 0)?.contains(text(args, 1)?)))),
    ("string: startsWith(string) bool", |args| Ok(Val::Bool(text(args, 0)?.starts_with(text(args, 1)?)))),
    ("string: endsWith(string) bool", |args| Ok(Val::Bool(text(args, 0)?.ends_with(text(args, 1)?)))),
    ("string: lowerAscii() string", |args| Ok(Val::text(text(args, 0)?.to_ascii_lowercase()))),
    ("string: upperAscii() string", |args| Ok(Val::text(text(args, 0)?.to_ascii_uppercase()))),
    ("string: trim() string", |args| Ok(Val::text(text(args, 0)?.trim()))),
    ("string: charAt(int) string", char_at),
    ("string: indexOf(string) int", |args| position(args, false)),
    ("string: indexOf(string, int) int", |args| position(args, false)),
    ("string: lastIndexOf(string) int", |args| position(args, true)),
    ("string: lastIndexOf(string, int) int", |args| position(args, true)),
    ("list(string): join() string", join),
    ("list(string): join(string) string", join),
    ("string: replace(string, string) string", replace),
    ("string: replace(string, string, int) string", replace),
    ("string: split(string) list(string)", split),
    ("string: split(string, int) list(string)", split),
    ("string: substring(int) string", substring),
    ("string: substring(int, int) string", substring),
    ("string: format(list(dyn)) string", format),
    ("strings.quote(string) string", |args| Ok(Val::text(quoted(text(args, 0)?)))),
];

pub(super) fn text<'a>(args: &'a [Val<'_>], index: usize) -> Result<&'a str, EvalError> {
    match args.get(index) {
        Some(Val::Text(text)) => Ok(text),
        _ => Err(EvalError::NoSuchOverload),
    }
}

pub(super) fn whole(args: &[Val<'_>], index: usize) -> Result<Option<i64>, EvalError> {
    match args.get(index) {
        Some(Val::Int(value)) => Ok(Some(*value)),
        None => Ok(None),
        Some(_) => Err(EvalError::NoSuchOverload),
    }
}

fn char_at<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let chars: Vec<char> = text(args, 0)?.chars().collect();
    let index = whole(args, 1)?.unwrap_or(0);
    match usize::try_from(index) {
        Ok(place) if place == chars.len() => Ok(Val::text("")),
        Ok(place) if place < chars.len() => Ok(Val::text(chars[place].to_string())),
        _ => Err(format!("index out of range: {index}").into()),
    }
}

fn position<'v>(args: &[Val<'v>], from_end: bool) -> Outcome<'v> {
    let haystack: Vec<char> = text(args, 0)?.chars().collect();
    let needle: Vec<char> = text(args, 1)?.chars().collect();
    let offset = whole(args, 2)?;
    let last = haystack.len() as i64;
    if offset.is_some_and(|offset| offset < 0 || offset > last) {
        return Err(format!("index out of range: {}", offset.unwrap_or(0)).into());
    }
    let fits = |start: &usize| haystack[*start..].starts_with(&needle);
    let found = if from_end {
        (0..=offset.unwrap_or(last) as usize).rev().find(fits)
    } else {
        (offset.unwrap_or(0) as usize..=haystack.len()).find(fits)
    };
    Ok(Val::Int(found.map_or(-1, |index| index as i64)))
}

fn join<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let items = args[0].items().ok_or(EvalError::NoSuchOverload)?;
    let separator = if args.len() > 1 { text(args, 1)? } else { "" };
    let mut parts = Vec::with_capacity(items.len());
    for index in 0..items.len() {
        parts.push(text(&items, index)?);
    }
    Ok(Val::text(parts.join(separator)))
}

fn replace<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let (whole_text, from, to) = (text(args, 0)?, text(args, 1)?, text(args, 2)?);
    Ok(Val::text(match whole(args, 3)? {
        Some(count) if count >= 0 => {
            whole_text.replacen(from, to, usize::try_from(count).unwrap_or(usize::MAX))
        }
        _ => whole_text.replace(from, to),
    }))
}

fn split<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let (whole_text, separator) = (text(args, 0)?, text(args, 1)?);
    let count = whole(args, 2)?.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
    let parts: Vec<Val<'v>> = if count == 0 {
        Vec::new()
    } else if separator.is_empty() {
        // Between all characters, and none before the first.
        let chars: Vec<String> = whole_text.chars().map(String::from).collect();
        let kept = count.min(chars.len()).saturating_sub(1);
        let rest = chars[kept..].concat();
        let is_cut = count < chars.len();
        let single = chars[..if is_cut { kept } else { chars.len() }].iter().map(|c| Val::text(c.as_str()));
        single.chain(is_cut.then(|| Val::text(rest))).collect()
    } else {
        whole_text.splitn(count, separator).map(Val::text).collect()
    };
    Ok(Val::list(parts))
}

fn substring<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let chars: Vec<char> = text(args, 0)?.chars().collect();
    let count = chars.len() as i64;
    let start = whole(args, 1)?.unwrap_or(0);
    let end = whole(args, 2)?.unwrap_or(count);
    if start < 0 || start > count {
        return Err(format!("index out of range: {start}").into());
    }
    if end < 0 || end > count {
        return Err(format!("index out of range: {end}").into());
    }
    if start > end {
        return Err(format!("invalid substring range. start: {start}, end: {end}").into());
    }
    Ok(Val::text(chars[start as usize..end as usize].iter().collect::<String>()))
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// More digits after the point are refused.
const PRECISION_MAX: usize = 100;

fn format<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let mut rest = text(args, 0)?;
    let mut values = args[1].items().ok_or(EvalError::NoSuchOverload)?.into_iter().enumerate();
    let mut made = String::new();
    while let Some((before, after)) = rest.split_once('%') {
        made.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            made.push('%');
            rest = after;
            continue;
        }
        let (precision, after) = match after.strip_prefix('.') {
            Some(after) => {
                let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
                let precision: usize = after[..end].parse().map_err(|_| "error while parsing precision")?;
                (Some(precision.min(PRECISION_MAX)), &after[end..])
            }
            None => (None, after),
        };
        let verb = after.chars().next().ok_or("unexpected end of string")?;
        rest = &after[verb.len_utf8()..];
        let (index, value) = values.next().ok_or_else(|| "index 0 out of range".to_owned())?;
        made.push_str(&clause(verb, precision, &value).ok_or_else(|| {
            format!("could not parse formatting clause {index}: %{verb} of {}", value.type_name())
        })?);
    }
    made.push_str(rest);
    Ok(Val::text(made))
}

fn clause(verb: char, precision: Option<usize>, value: &Val<'_>) -> Option<String> {
    let number = |value: &Val<'_>| match value {
        Val::Int(value) => Some(*value as f64),
        Val::Uint(value) => Some(*value as f64),
        Val::Double(value) => Some(*value),
        _ => None,
    };
    Some(match (verb, value) {
        ('s', value) => told(value)?,
        ('d', Val::Int(_) | Val::Uint(_)) => convert::to_text(value)?,
        ('f', value) => format!("{:.*}", precision.unwrap_or(6), number(value)?),
        ('e', value) => {
            let text = format!("{:.*e}", precision.unwrap_or(6), number(value)?);
            let (digits, exponent) = text.split_once('e')?;
            let exponent: i32 = exponent.parse().ok()?;
            format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
        }
        ('b', Val::Bool(value)) => u8::from(*value).to_string(),
        ('b', Val::Int(value)) if *value < 0 => format!("-{:b}", value.unsigned_abs()),
        ('b', Val::Int(value)) => format!("{value:b}"),
        ('b', Val::Uint(value)) => format!("{value:b}"),
        ('o', Val::Int(value)) if *value < 0 => format!("-{:o}", value.unsigned_abs()),
        ('o', Val::Int(value)) => format!("{value:o}"),
        ('o', Val::Uint(value)) => format!("{value:o}"),
        ('x', value) => hexadecimal(value)?,
        ('X', value) => hexadecimal(value)?.to_uppercase(),
        _ => return None,
    })
}

fn hexadecimal(value: &Val<'_>) -> Option<String> {
    let of = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Some(match value {
        Val::Int(value) if *value < 0 => format!("-{:x}", value.unsigned_abs()),
        Val::Int(value) => format!("{value:x}"),
        Val::Uint(value) => format!("{value:x}"),
        Val::Text(text) => of(text.as_bytes()),
        Val::Bytes(bytes) => of(bytes),
        _ => return None,
    })
}

/// A value as `%s` tells it.
fn told(value: &Val<'_>) -> Option<String> {
    if let Some(items) = value.items() {
        let told: Option<Vec<String>> = items.iter().map(told).collect();
        return Some(format!("[{}]", told?.join(", ")));
    }
    if let Some(keys) = value.keys() {
        let entry = |key: &Val<'_>| Some(format!("{}: {}", told(key)?, told(&value.entry(key)?)?));
        let entries: Option<Vec<String>> = keys.iter().map(entry).collect();
        return Some(format!("{{{}}}", entries?.join(", ")));
    }
    match value {
        Val::Null => Some("null".to_owned()),
        Val::Type(name) => Some(name.to_string()),
        Val::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        value => convert::to_text(value),
    }
}
