//! Lists as sets. Follows cel-go's `ext.Sets`.

use crate::eval::{EvalError, Outcome};
use crate::signature::Row;
use crate::value::Val;

pub(super) const ROWS: &[Row] = &[
    ("sets.contains(list(A), list(A)) bool", |args| of(args, contains)),
    ("sets.equivalent(list(A), list(A)) bool", |args| of(args, |a, b| contains(a, b) && contains(b, a))),
    ("sets.intersects(list(A), list(A)) bool", |args| of(args, |a, b| b.iter().any(|item| has(a, item)))),
];

fn of<'v>(args: &[Val<'v>], holds: fn(&[Val<'_>], &[Val<'_>]) -> bool) -> Outcome<'v> {
    let items = |index: usize| args[index].items().ok_or(EvalError::NoSuchOverload);
    Ok(Val::Bool(holds(&items(0)?, &items(1)?)))
}

fn has(items: &[Val<'_>], wanted: &Val<'_>) -> bool {
    items.iter().any(|item| item.equals(wanted))
}

fn contains(items: &[Val<'_>], wanted: &[Val<'_>]) -> bool {
    wanted.iter().all(|wanted| has(items, wanted))
}
