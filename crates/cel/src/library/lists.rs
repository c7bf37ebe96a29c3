//! Lists. Follows upstream's `library.Lists` and cel-go's `ext.Lists` in version 3.

use std::cmp::Ordering;

use crate::eval::{EvalError, Outcome};
use crate::signature::Row;
use crate::value::Val;

pub(super) const ROWS: &[Row] = &[
    ("list(A): isSorted() bool", is_sorted),
    ("list(int): sum() int", sum),
    ("list(uint): sum() uint", sum),
    ("list(double): sum() double", sum),
    ("list(duration): sum() duration", sum),
    ("list(A): min() A", |args| extreme(args, Ordering::Less, "min")),
    ("list(A): max() A", |args| extreme(args, Ordering::Greater, "max")),
    ("list(A): indexOf(A) int", |args| position(args, false)),
    ("list(A): lastIndexOf(A) int", |args| position(args, true)),
    ("list(A): slice(int, int) list(A)", slice),
    ("list(A): reverse() list(A)", reverse),
    ("list(A): distinct() list(A)", distinct),
    ("list(dyn): flatten() list(dyn)", |args| flatten(&args[0], 1).map(Val::list)),
    ("list(dyn): flatten(int) list(dyn)", flatten_to),
    ("list(A): sort() list(A)", |args| sorted(&args[0], &args[0])),
    ("list(A): @sortByAssociatedKeys(list(B)) list(A)", |args| sorted(&args[0], &args[1])),
    ("list(A): first() optional(A)", |args| {
        Ok(Val::Optional(items(&args[0])?.into_iter().next().map(Into::into)))
    }),
    ("list(A): last() optional(A)", |args| Ok(Val::Optional(items(&args[0])?.pop().map(Into::into)))),
    ("lists.range(int) list(int)", range),
];

/// Nothing longer is made at once; a list of numbers costs more than an evaluation may long before.
const RANGE_MAX: i64 = 1_000_000;

fn items<'v>(list: &Val<'v>) -> Result<Vec<Val<'v>>, EvalError> {
    list.items().ok_or(EvalError::NoSuchOverload)
}

fn order(a: &Val<'_>, b: &Val<'_>) -> Result<Ordering, EvalError> {
    Ok(a.order(b).ok_or(EvalError::NoSuchOverload)?.unwrap_or(Ordering::Equal))
}

fn is_sorted<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    for pair in items(&args[0])?.windows(2) {
        if order(&pair[0], &pair[1])?.is_gt() {
            return Ok(Val::Bool(false));
        }
    }
    Ok(Val::Bool(true))
}

fn sum<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let overflow = || EvalError::from("integer overflow");
    let mut items = items(&args[0])?.into_iter();
    let Some(mut total) = items.next() else { return Ok(Val::Int(0)) };
    for item in items {
        total = match (total, item) {
            (Val::Int(a), Val::Int(b)) => Val::Int(a.checked_add(b).ok_or_else(overflow)?),
            (Val::Uint(a), Val::Uint(b)) => Val::Uint(a.checked_add(b).ok_or_else(overflow)?),
            (Val::Double(a), Val::Double(b)) => Val::Double(a + b),
            (Val::Double(a), Val::Int(b)) | (Val::Int(b), Val::Double(a)) => Val::Double(a + b as f64),
            (Val::Duration(a), Val::Duration(b)) => Val::Duration(a.checked_add(b).ok_or_else(overflow)?),
            _ => return Err(EvalError::NoSuchOverload),
        };
    }
    Ok(total)
}

fn extreme<'v>(args: &[Val<'v>], wanted: Ordering, name: &str) -> Outcome<'v> {
    let mut items = items(&args[0])?.into_iter();
    let mut found = items.next().ok_or_else(|| format!("{name} called on empty list"))?;
    for item in items {
        if order(&item, &found)? == wanted {
            found = item;
        }
    }
    Ok(found)
}

fn position<'v>(args: &[Val<'v>], from_end: bool) -> Outcome<'v> {
    let items = items(&args[0])?;
    let is = |item: &Val<'v>| item.equals(&args[1]);
    let found = if from_end { items.iter().rposition(is) } else { items.iter().position(is) };
    Ok(Val::Int(found.map_or(-1, |index| index as i64)))
}

fn slice<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let items = items(&args[0])?;
    let (Val::Int(start), Val::Int(end)) = (&args[1], &args[2]) else {
        return Err(EvalError::NoSuchOverload);
    };
    match (usize::try_from(*start), usize::try_from(*end)) {
        (Ok(from), Ok(to)) if from <= to && to <= items.len() => Ok(Val::list(items[from..to].to_vec())),
        (Ok(from), Ok(to)) if from > to => {
            Err(format!("cannot slice({start}, {end}), start index must be less than or equal to end index")
                .into())
        }
        (Ok(_), Ok(_)) => Err(format!("cannot slice({start}, {end}), list is length {}", items.len()).into()),
        _ => Err(format!("cannot slice({start}, {end}), negative indexes not supported").into()),
    }
}

fn reverse<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let mut items = items(&args[0])?;
    items.reverse();
    Ok(Val::list(items))
}

fn distinct<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let mut kept: Vec<Val<'v>> = Vec::new();
    for item in items(&args[0])? {
        if !kept.iter().any(|known| known.equals(&item)) {
            kept.push(item);
        }
    }
    Ok(Val::list(kept))
}

fn flatten<'v>(list: &Val<'v>, depth: i64) -> Result<Vec<Val<'v>>, EvalError> {
    let mut flat = Vec::new();
    for item in items(list)? {
        if depth > 0 && item.is_list() {
            flat.extend(flatten(&item, depth - 1)?);
        } else {
            flat.push(item);
        }
    }
    Ok(flat)
}

fn flatten_to<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    match &args[1] {
        Val::Int(depth) if *depth >= 0 => flatten(&args[0], *depth).map(Val::list),
        Val::Int(_) => Err("level must be non-negative".into()),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn sorted<'v>(list: &Val<'v>, keys: &Val<'v>) -> Outcome<'v> {
    let mut pairs: Vec<(Val<'v>, Val<'v>)> = items(keys)?.into_iter().zip(items(list)?).collect();
    if let Some((first, _)) = pairs.first().cloned() {
        for (key, _) in &pairs {
            if key.type_name() != first.type_name() {
                return Err("list elements must have the same type".into());
            }
            order(&first, key).map_err(|_| EvalError::from("list elements must be comparable"))?;
        }
    }
    pairs.sort_by(|(a, _), (b, _)| order(a, b).unwrap_or(Ordering::Equal));
    Ok(Val::list(pairs.into_iter().map(|(_, item)| item).collect()))
}

fn range<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    match &args[0] {
        Val::Int(end) if *end > RANGE_MAX => Err(EvalError::CostLimit),
        Val::Int(end) => Ok(Val::list((0..*end).map(Val::Int).collect())),
        _ => Err(EvalError::NoSuchOverload),
    }
}
