//! The functions that expressions may call: signatures as text, read once, and who carries them out.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use crate::eval::Builtin;
use crate::library;
use crate::types::Type;

/// A signature and its function: `name(args) result`, methods as `target: name(args) result`.
pub(crate) type Row = (&'static str, Builtin);

pub(crate) struct Overload {
    pub is_method: bool,
    /// With the target as the first.
    pub params: Vec<Type>,
    pub result: Type,
    pub function: Builtin,
}

static FUNCTIONS: LazyLock<HashMap<&'static str, Vec<Overload>>> = LazyLock::new(|| {
    let mut functions: HashMap<&'static str, Vec<Overload>> = HashMap::new();
    for (text, function) in library::rows() {
        let (name, overload) = read(text, function);
        functions.entry(name).or_default().push(overload);
    }
    functions
});

pub(crate) fn overloads(name: &str) -> Option<&'static [Overload]> {
    FUNCTIONS.get(name).map(Vec::as_slice)
}

fn read(text: &'static str, function: Builtin) -> (&'static str, Overload) {
    let (target, rest) = match text.split_once(": ") {
        Some((target, rest)) => (Some(target), rest),
        None => (None, text),
    };
    let (name, rest) = rest.split_once('(').expect("a signature has parentheses");
    // Results hold no `) `, so that the last one ends the arguments.
    let (args, result) = rest.rsplit_once(") ").expect("a signature has a result");
    let args = parts(args).into_iter().filter(|arg| !arg.is_empty());
    let params = target.into_iter().chain(args).map(named).collect();
    (name, Overload { is_method: target.is_some(), params, result: named(result), function })
}

/// What stands between the commas that are in no parentheses.
fn parts(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (index, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..index].trim());
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

fn named(text: &'static str) -> Type {
    if let Some((outer, inner)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        let mut inner = parts(inner).into_iter().map(|part| Arc::new(named(part)));
        let mut next = || inner.next().expect("a type has its parameters");
        return match outer {
            "list" => Type::List(next()),
            "map" => Type::Map(next(), next()),
            "optional" => Type::Optional(next()),
            _ => Type::Type(next()),
        };
    }
    match text {
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "A" => Type::Param('A'),
        "B" => Type::Param('B'),
        name => Type::Opaque(name),
    }
}
