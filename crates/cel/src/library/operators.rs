//! Arithmetic, comparison and membership. Follows cel-go's standard functions.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::eval::{EvalError, Outcome};
use crate::signature::Row;
use crate::value::Val;

pub(super) const ROWS: &[Row] = &[
    ("_==_(A, A) bool", equals),
    ("_!=_(A, A) bool", differs),
    ("_<_(A, A) bool", less),
    ("_<=_(A, A) bool", at_most),
    ("_>_(A, A) bool", greater),
    ("_>=_(A, A) bool", at_least),
    ("_<_(int, double) bool", less),
    ("_<=_(int, double) bool", at_most),
    ("_>_(int, double) bool", greater),
    ("_>=_(int, double) bool", at_least),
    ("_<_(double, int) bool", less),
    ("_<=_(double, int) bool", at_most),
    ("_>_(double, int) bool", greater),
    ("_>=_(double, int) bool", at_least),
    ("_+_(int, int) int", add),
    ("_+_(uint, uint) uint", add),
    ("_+_(double, double) double", add),
    ("_+_(string, string) string", add),
    ("_+_(bytes, bytes) bytes", add),
    ("_+_(list(A), list(A)) list(A)", add),
    ("_+_(timestamp, duration) timestamp", add),
    ("_+_(duration, timestamp) timestamp", add),
    ("_+_(duration, duration) duration", add),
    ("_-_(int, int) int", subtract),
    ("_-_(uint, uint) uint", subtract),
    ("_-_(double, double) double", subtract),
    ("_-_(timestamp, timestamp) duration", subtract),
    ("_-_(timestamp, duration) timestamp", subtract),
    ("_-_(duration, duration) duration", subtract),
    ("_*_(int, int) int", multiply),
    ("_*_(uint, uint) uint", multiply),
    ("_*_(double, double) double", multiply),
    ("_/_(int, int) int", divide),
    ("_/_(uint, uint) uint", divide),
    ("_/_(double, double) double", divide),
    ("_%_(int, int) int", remainder),
    ("_%_(uint, uint) uint", remainder),
    ("-_(int) int", negate),
    ("-_(double) double", negate),
    ("!_(bool) bool", not),
    ("@in(A, list(A)) bool", contained),
    ("@in(A, map(A, B)) bool", contained),
    ("size(string) int", size),
    ("size(bytes) int", size),
    ("size(list(A)) int", size),
    ("size(map(A, B)) int", size),
    ("string: size() int", size),
    ("bytes: size() int", size),
    ("list(A): size() int", size),
    ("map(A, B): size() int", size),
    ("cel.@mapInsert(map(A, B), A, B) map(A, B)", insert),
    ("cel.@mapInsertEntries(map(A, B), map(A, B)) map(A, B)", insert_entries),
];

const NONE: EvalError = EvalError::NoSuchOverload;

fn overflow<'v, T>(value: Option<T>, make: fn(T) -> Val<'v>) -> Outcome<'v> {
    value.map(make).ok_or_else(|| "integer overflow".into())
}

fn equals<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    Ok(Val::Bool(args[0].equals(&args[1])))
}

fn differs<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    Ok(Val::Bool(!args[0].equals(&args[1])))
}

fn compared<'v>(args: &[Val<'v>], holds: fn(Ordering) -> bool) -> Outcome<'v> {
    let order = args[0].order(&args[1]).ok_or(NONE)?;
    // Nothing is less, equal or greater than no number.
    Ok(Val::Bool(order.is_some_and(holds)))
}

fn less<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    compared(args, Ordering::is_lt)
}

fn at_most<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    compared(args, Ordering::is_le)
}

fn greater<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    compared(args, Ordering::is_gt)
}

fn at_least<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    compared(args, Ordering::is_ge)
}

fn add<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    match (&args[0], &args[1]) {
        (Val::Int(a), Val::Int(b)) => overflow(a.checked_add(*b), Val::Int),
        (Val::Uint(a), Val::Uint(b)) => overflow(a.checked_add(*b), Val::Uint),
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a + b)),
        (Val::Text(a), Val::Text(b)) => Ok(Val::text([&**a, &**b].concat())),
        (Val::Bytes(a), Val::Bytes(b)) => Ok(Val::Bytes([&**a, &**b].concat().into())),
        (Val::Duration(a), Val::Duration(b)) => overflow(a.checked_add(*b), Val::Duration),
        (Val::Timestamp(time), Val::Duration(by)) | (Val::Duration(by), Val::Timestamp(time)) => {
            time.checked_add(*by).map(Val::Timestamp).map_err(|_| "timestamp overflow".into())
        }
        (a, b) => {
            let (items, more) = (a.items().ok_or(NONE)?, b.items().ok_or(NONE)?);
            Ok(Val::list(a.listed().united(items, more)))
        }
    }
}

fn subtract<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    match (&args[0], &args[1]) {
        (Val::Int(a), Val::Int(b)) => overflow(a.checked_sub(*b), Val::Int),
        (Val::Uint(a), Val::Uint(b)) => overflow(a.checked_sub(*b), Val::Uint),
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a - b)),
        (Val::Duration(a), Val::Duration(b)) => overflow(a.checked_sub(*b), Val::Duration),
        (Val::Timestamp(a), Val::Timestamp(b)) => Ok(Val::Duration(a.duration_since(*b))),
        (Val::Timestamp(time), Val::Duration(by)) => {
            time.checked_sub(*by).map(Val::Timestamp).map_err(|_| "timestamp overflow".into())
        }
        _ => Err(NONE),
    }
}

fn multiply<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    match (&args[0], &args[1]) {
        (Val::Int(a), Val::Int(b)) => overflow(a.checked_mul(*b), Val::Int),
        (Val::Uint(a), Val::Uint(b)) => overflow(a.checked_mul(*b), Val::Uint),
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a * b)),
        _ => Err(NONE),
    }
}

fn divide<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    match (&args[0], &args[1]) {
        (Val::Int(_), Val::Int(0)) | (Val::Uint(_), Val::Uint(0)) => Err("division by zero".into()),
        (Val::Int(a), Val::Int(b)) => overflow(a.checked_div(*b), Val::Int),
        (Val::Uint(a), Val::Uint(b)) => overflow(a.checked_div(*b), Val::Uint),
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a / b)),
        _ => Err(NONE),
    }
}

fn remainder<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    match (&args[0], &args[1]) {
        (Val::Int(_), Val::Int(0)) | (Val::Uint(_), Val::Uint(0)) => Err("modulus by zero".into()),
        (Val::Int(a), Val::Int(b)) => overflow(a.checked_rem(*b), Val::Int),
        (Val::Uint(a), Val::Uint(b)) => overflow(a.checked_rem(*b), Val::Uint),
        _ => Err(NONE),
    }
}

fn negate<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    match &args[0] {
        Val::Int(value) => overflow(value.checked_neg(), Val::Int),
        Val::Double(value) => Ok(Val::Double(-value)),
        _ => Err(NONE),
    }
}

fn not<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    match &args[0] {
        Val::Bool(value) => Ok(Val::Bool(!value)),
        _ => Err(NONE),
    }
}

fn contained<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let (wanted, range) = (&args[0], &args[1]);
    let count = range.count().ok_or(NONE)?;
    if range.is_list() {
        let mut items = (0..count).filter_map(|index| range.item(index));
        return Ok(Val::Bool(items.any(|item| item.equals(wanted))));
    }
    Ok(Val::Bool(range.holds(wanted)))
}

fn size<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    match &args[0] {
        Val::Text(_) | Val::Bytes(_) => Ok(Val::Int(args[0].size() as i64)),
        other => other.count().map(|count| Val::Int(count as i64)).ok_or(NONE),
    }
}

fn insert<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let Val::Map(entries) = &args[0] else { return Err(NONE) };
    let mut entries = (**entries).clone();
    let key = args[1].clone().key().ok_or("unsupported key type")?;
    if entries.insert(key, args[2].clone()).is_some() {
        return Err(format!("insert failed: key {} already exists", super::convert::shown(&args[1])).into());
    }
    Ok(Val::Map(Arc::new(entries)))
}

fn insert_entries<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let mut all = args[0].clone();
    for key in args[1].keys().ok_or(NONE)? {
        let value = args[1].entry(&key).ok_or(NONE)?;
        all = insert(&[all, key, value])?;
    }
    Ok(all)
}
