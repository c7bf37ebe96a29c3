//! Macros: calls that stand for tests of presence and for loops. Follows cel-go's `parser/macro.go`, its extension
//! for two variables, and its optional, binding and sorting macros.

use crate::ast::{Expr, Fold, Kind};
use crate::source::Issue;
use crate::value::Val;

/// What a loop makes; no identifier of an expression can be called so.
pub(crate) const ACCU: &str = "@result";
/// What a loop over nothing calls its element.
const UNUSED: &str = "#unused";

/// A call without target: `has` or a function.
pub(crate) fn global(at: usize, name: &str, mut args: Vec<Expr>) -> Result<Expr, Issue> {
    if name != "has" || args.len() != 1 {
        return Ok(Expr::call(at, name, args));
    }
    let arg = args.remove(0);
    match arg.kind {
        Kind::Select { operand, field, is_optional, .. } => {
            Ok(Expr::new(at, Kind::Select { operand, field, is_test: true, is_optional }))
        }
        _ => Err(issue(arg.at, "invalid argument to has() macro")),
    }
}

/// A call on a target: a macro or a method.
pub(crate) fn member(at: usize, target: Expr, name: &str, args: Vec<Expr>) -> Result<Expr, Issue> {
    let is_cel = matches!(&target.kind, Kind::Ident(name) if name == "cel");
    match (name, args.len()) {
        ("bind", 3) if is_cel => bind(at, args),
        ("all", 2 | 3) => quantifier(at, target, args, Quantifier::All),
        ("exists", 2 | 3) => quantifier(at, target, args, Quantifier::Exists),
        ("exists_one" | "existsOne", 2 | 3) => exists_one(at, target, args),
        ("map", 2 | 3) => list_of(at, target, args, 1),
        ("filter", 2) => filter(at, target, args),
        ("transformList", 3 | 4) => list_of(at, target, args, 2),
        ("transformMap", 3 | 4) => transform_map(at, target, args, "cel.@mapInsert"),
        ("transformMapEntry", 3 | 4) => transform_map(at, target, args, "cel.@mapInsertEntries"),
        ("optMap", 2) => optional(at, target, args, true),
        ("optFlatMap", 2) => optional(at, target, args, false),
        ("sortBy", 2) => sort_by(at, target, args),
        _ => {
            let target = Some(Box::new(target));
            Ok(Expr::new(at, Kind::Call { function: name.to_owned(), target, args }))
        }
    }
}

enum Quantifier {
    All,
    Exists,
}

fn issue(at: usize, message: &str) -> Issue {
    Issue { at, message: message.to_owned() }
}

/// The name of a loop's variable.
fn variable(arg: &Expr) -> Result<String, Issue> {
    match &arg.kind {
        Kind::Ident(name) if name == ACCU || name == "__result__" => {
            Err(issue(arg.at, "iteration variable overwrites accumulator variable"))
        }
        Kind::Ident(name) => Ok(name.clone()),
        _ => Err(issue(arg.at, "argument must be a simple name")),
    }
}

/// The variables that the first arguments name; they are taken off.
fn variables(args: &mut Vec<Expr>, count: usize) -> Result<(String, Option<String>), Issue> {
    let var = variable(&args.remove(0))?;
    let second = if count > 1 {
        let arg = args.remove(0);
        let second = variable(&arg)?;
        if second == var {
            return Err(issue(arg.at, &format!("duplicate variable name: {second}")));
        }
        Some(second)
    } else {
        None
    };
    Ok((var, second))
}

fn accu(at: usize) -> Expr {
    Expr::ident(at, ACCU)
}

fn truth(at: usize, value: bool) -> Expr {
    Expr::constant(at, Val::Bool(value))
}

fn fold(
    at: usize,
    range: Expr,
    vars: (String, Option<String>),
    init: Expr,
    condition: Expr,
    step: Expr,
) -> Expr {
    let (var, second) = vars;
    let result = accu(at);
    Expr::new(
        at,
        Kind::Fold(Box::new(Fold {
            range,
            var,
            second,
            accu: ACCU.to_owned(),
            init,
            condition,
            step,
            result,
        })),
    )
}

fn quantifier(at: usize, range: Expr, mut args: Vec<Expr>, which: Quantifier) -> Result<Expr, Issue> {
    let count = args.len() - 1;
    let vars = variables(&mut args, count)?;
    let predicate = args.remove(0);
    let (init, kept, function) = match which {
        Quantifier::All => (truth(at, true), accu(at), "_&&_"),
        Quantifier::Exists => (truth(at, false), Expr::call(at, "!_", vec![accu(at)]), "_||_"),
    };
    let condition = Expr::call(at, "@not_strictly_false", vec![kept]);
    let step = Expr::call(at, function, vec![accu(at), predicate]);
    Ok(fold(at, range, vars, init, condition, step))
}

fn exists_one(at: usize, range: Expr, mut args: Vec<Expr>) -> Result<Expr, Issue> {
    let count = args.len() - 1;
    let vars = variables(&mut args, count)?;
    let one = || Expr::constant(at, Val::Int(1));
    let more = Expr::call(at, "_+_", vec![accu(at), one()]);
    let step = Expr::call(at, "_?_:_", vec![args.remove(0), more, accu(at)]);
    let mut expr = fold(at, range, vars, Expr::constant(at, Val::Int(0)), truth(at, true), step);
    if let Kind::Fold(fold) = &mut expr.kind {
        fold.result = Expr::call(at, "_==_", vec![accu(at), one()]);
    }
    Ok(expr)
}

fn appended(at: usize, item: Expr) -> Expr {
    Expr::call(at, "_+_", vec![accu(at), Expr::new(at, Kind::List(vec![(false, item)]))])
}

/// `step`, where there is a filter only for what it lets through.
fn filtered(at: usize, predicate: Option<Expr>, step: Expr) -> Expr {
    match predicate {
        Some(predicate) => Expr::call(at, "_?_:_", vec![predicate, step, accu(at)]),
        None => step,
    }
}

/// `map` and `transformList`: an optional filter, and what becomes of each element.
fn list_of(at: usize, range: Expr, mut args: Vec<Expr>, names: usize) -> Result<Expr, Issue> {
    let vars = variables(&mut args, names)?;
    let item = args.pop().expect("the caller counted the arguments");
    let step = filtered(at, args.pop(), appended(at, item));
    let init = Expr::new(at, Kind::List(Vec::new()));
    Ok(fold(at, range, vars, init, truth(at, true), step))
}

fn filter(at: usize, range: Expr, mut args: Vec<Expr>) -> Result<Expr, Issue> {
    let vars = variables(&mut args, 1)?;
    let item = Expr::ident(at, &vars.0);
    let step = filtered(at, args.pop(), appended(at, item));
    let init = Expr::new(at, Kind::List(Vec::new()));
    Ok(fold(at, range, vars, init, truth(at, true), step))
}

fn transform_map(at: usize, range: Expr, mut args: Vec<Expr>, function: &str) -> Result<Expr, Issue> {
    let vars = variables(&mut args, 2)?;
    let value = args.pop().expect("the caller counted the arguments");
    let mut inserted = vec![accu(at)];
    if function == "cel.@mapInsert" {
        inserted.push(Expr::ident(at, &vars.0));
    }
    inserted.push(value);
    let step = filtered(at, args.pop(), Expr::call(at, function, inserted));
    let init = Expr::new(at, Kind::Map(Vec::new()));
    Ok(fold(at, range, vars, init, truth(at, true), step))
}

/// `value` under a name within `body`: a loop over nothing whose result is the body.
fn bound(at: usize, name: String, value: Expr, body: Expr) -> Expr {
    let range = Expr::new(at, Kind::List(Vec::new()));
    let kept = Expr::ident(at, &name);
    let fold = Fold {
        range,
        var: UNUSED.to_owned(),
        second: None,
        accu: name,
        init: value,
        condition: truth(at, false),
        step: kept,
        result: body,
    };
    Expr::new(at, Kind::Fold(Box::new(fold)))
}

fn bind(at: usize, mut args: Vec<Expr>) -> Result<Expr, Issue> {
    let name = variable(&args.remove(0))?;
    let value = args.remove(0);
    Ok(bound(at, name, value, args.remove(0)))
}

fn method(at: usize, target: Expr, name: &str, args: Vec<Expr>) -> Expr {
    Expr::new(at, Kind::Call { function: name.to_owned(), target: Some(Box::new(target)), args })
}

fn optional(at: usize, target: Expr, mut args: Vec<Expr>, wraps: bool) -> Result<Expr, Issue> {
    const TARGET: &str = "@target";
    let name = variable(&args.remove(0))?;
    let held = || Expr::ident(at, TARGET);
    let mut body = bound(at, name, method(at, held(), "value", Vec::new()), args.remove(0));
    if wraps {
        body = Expr::call(at, "optional.of", vec![body]);
    }
    let test = method(at, held(), "hasValue", Vec::new());
    let none = Expr::call(at, "optional.none", Vec::new());
    let chosen = Expr::call(at, "_?_:_", vec![test, body, none]);
    Ok(bound(at, TARGET.to_owned(), target, chosen))
}

fn sort_by(at: usize, target: Expr, args: Vec<Expr>) -> Result<Expr, Issue> {
    const INPUT: &str = "@__sortBy_input__";
    let keys = list_of(at, Expr::ident(at, INPUT), args, 1)?;
    let sorted = method(at, Expr::ident(at, INPUT), "@sortByAssociatedKeys", vec![keys]);
    Ok(bound(at, INPUT.to_owned(), target, sorted))
}
