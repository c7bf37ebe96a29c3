//! Optional values. Follows cel-go's `OptionalTypes`.

use crate::eval::{EvalError, Outcome};
use crate::signature::Row;
use crate::value::Val;

pub(super) const ROWS: &[Row] = &[
    ("optional.of(A) optional(A)", |args| Ok(Val::some(args[0].clone()))),
    ("optional.ofNonZeroValue(A) optional(A)", of_non_zero),
    ("optional.none() optional(A)", |_| Ok(Val::Optional(None))),
    ("optional(A): hasValue() bool", |args| held(args).map(|found| Val::Bool(found.is_some()))),
    ("optional(A): value() A", |args| held(args)?.ok_or_else(|| "optional.none() dereference".into())),
    ("optional(A): orValue(A) A", |args| Ok(held(args)?.unwrap_or_else(|| args[1].clone()))),
    ("optional(A): or(optional(A)) optional(A)", |args| {
        Ok(if held(args)?.is_some() { args[0].clone() } else { args[1].clone() })
    }),
];

fn held<'v>(args: &[Val<'v>]) -> Result<Option<Val<'v>>, EvalError> {
    match &args[0] {
        Val::Optional(inner) => Ok(inner.as_ref().map(|inner| (**inner).clone())),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn of_non_zero<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let is_zero = match &args[0] {
        Val::Null => true,
        Val::Bool(value) => !value,
        Val::Int(value) => *value == 0,
        Val::Uint(value) => *value == 0,
        Val::Double(value) => *value == 0.0,
        Val::Text(text) => text.is_empty(),
        Val::Bytes(bytes) => bytes.is_empty(),
        Val::Duration(span) => span.is_zero(),
        other => other.count() == Some(0),
    };
    Ok(if is_zero { Val::Optional(None) } else { Val::some(args[0].clone()) })
}
