//! Quantities. Follows upstream's `library.Quantity`.

use std::cmp::Ordering;
use std::sync::Arc;

use apimachinery::quantity::{Format, Quantity};

use crate::eval::{EvalError, Outcome};
use crate::library::strings::text;
use crate::signature::Row;
use crate::value::Val;

pub(super) const ROWS: &[Row] = &[
    ("quantity(string) kubernetes.Quantity", quantity),
    ("isQuantity(string) bool", |args| Ok(Val::Bool(text(args, 0)?.parse::<Quantity>().is_ok()))),
    ("kubernetes.Quantity: sign() int", |args| Ok(Val::Int(of(args, 0)?.sign().into()))),
    ("kubernetes.Quantity: isGreaterThan(kubernetes.Quantity) bool", |args| {
        Ok(Val::Bool(order(args)?.is_gt()))
    }),
    ("kubernetes.Quantity: isLessThan(kubernetes.Quantity) bool", |args| Ok(Val::Bool(order(args)?.is_lt()))),
    ("kubernetes.Quantity: compareTo(kubernetes.Quantity) int", |args| Ok(Val::Int(order(args)? as i64))),
    ("kubernetes.Quantity: asApproximateFloat() double", |args| Ok(Val::Double(of(args, 0)?.as_f64()))),
    ("kubernetes.Quantity: asInteger() int", |args| {
        whole(of(args, 0)?).map(Val::Int).ok_or_else(|| "cannot convert value to integer".into())
    }),
    ("kubernetes.Quantity: isInteger() bool", |args| Ok(Val::Bool(whole(of(args, 0)?).is_some()))),
    ("kubernetes.Quantity: add(kubernetes.Quantity) kubernetes.Quantity", |args| {
        changed(args, Quantity::add)
    }),
    ("kubernetes.Quantity: add(int) kubernetes.Quantity", |args| changed(args, Quantity::add)),
    ("kubernetes.Quantity: sub(kubernetes.Quantity) kubernetes.Quantity", |args| {
        changed(args, Quantity::sub)
    }),
    ("kubernetes.Quantity: sub(int) kubernetes.Quantity", |args| changed(args, Quantity::sub)),
];

fn of<'a>(args: &'a [Val<'_>], index: usize) -> Result<&'a Quantity, EvalError> {
    match args.get(index) {
        Some(Val::Quantity(quantity)) => Ok(quantity),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn quantity<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let parsed = text(args, 0)?.parse::<Quantity>();
    parsed.map(|quantity| Val::Quantity(Arc::new(quantity))).map_err(|error| error.to_string().into())
}

fn order(args: &[Val<'_>]) -> Result<Ordering, EvalError> {
    Ok(of(args, 0)?.cmp(of(args, 1)?))
}

fn whole(quantity: &Quantity) -> Option<i64> {
    let value = quantity.value();
    (Quantity::new(value, Format::DecimalSi) == *quantity).then_some(value)
}

fn changed<'v>(args: &[Val<'v>], change: fn(&mut Quantity, &Quantity)) -> Outcome<'v> {
    let mut result = *of(args, 0)?;
    match &args[1] {
        Val::Int(by) => change(&mut result, &Quantity::new(*by, Format::DecimalSi)),
        _ => change(&mut result, of(args, 1)?),
    }
    Ok(Val::Quantity(Arc::new(result)))
}
