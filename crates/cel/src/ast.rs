//! An expression as it is written, macros expanded. Follows cel-go's `ast.Expr`.

use crate::value::Val;

/// Deeper trees are refused: those who walk them recurse (cel-go limits the parser's recursion to 250).
pub(crate) const DEPTH_MAX: u16 = 250;

#[derive(Clone, Debug)]
pub(crate) struct Expr {
    /// The character it is told at.
    pub at: usize,
    pub depth: u16,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Const(Val<'static>),
    Ident(String),
    Select {
        operand: Box<Expr>,
        field: String,
        is_test: bool,
        is_optional: bool,
    },
    Call {
        function: String,
        target: Option<Box<Expr>>,
        args: Vec<Expr>,
    },
    /// Each with whether it is left out when an optional without value.
    List(Vec<(bool, Expr)>),
    Map(Vec<(bool, Expr, Expr)>),
    Struct(String, Vec<(bool, String, Expr)>),
    Fold(Box<Fold>),
}

/// A loop: `vars` take each element of `range`, `accu` is replaced by `step` while `condition` holds.
#[derive(Clone, Debug)]
pub(crate) struct Fold {
    pub range: Expr,
    pub var: String,
    pub second: Option<String>,
    pub accu: String,
    pub init: Expr,
    pub condition: Expr,
    pub step: Expr,
    pub result: Expr,
}

impl Expr {
    pub fn new(at: usize, kind: Kind) -> Expr {
        let deepest = match &kind {
            Kind::Const(_) | Kind::Ident(_) => 0,
            Kind::Select { operand, .. } => operand.depth,
            Kind::Call { target, args, .. } => {
                args.iter().chain(target.as_deref()).map(|arg| arg.depth).max().unwrap_or(0)
            }
            Kind::List(items) => items.iter().map(|(_, item)| item.depth).max().unwrap_or(0),
            Kind::Map(entries) => entries.iter().map(|(_, k, v)| k.depth.max(v.depth)).max().unwrap_or(0),
            Kind::Struct(_, fields) => fields.iter().map(|(_, _, v)| v.depth).max().unwrap_or(0),
            Kind::Fold(fold) => {
                fold.range.depth.max(fold.step.depth).max(fold.init.depth).max(fold.result.depth)
            }
        };
        Expr { at, depth: deepest.saturating_add(1), kind }
    }

    /// Whether it, or anything in it, selects this field of what bears this name.
    pub fn selects(&self, name: &str, wanted: &str) -> bool {
        let within = |expr: &Expr| expr.selects(name, wanted);
        match &self.kind {
            Kind::Const(_) | Kind::Ident(_) => false,
            Kind::Select { operand, field, .. } => {
                let is_named = matches!(&operand.kind, Kind::Ident(found) if found == name);
                (is_named && field == wanted) || within(operand)
            }
            Kind::Call { target, args, .. } => args.iter().chain(target.as_deref()).any(within),
            Kind::List(items) => items.iter().any(|(_, item)| within(item)),
            Kind::Map(entries) => entries.iter().any(|(_, key, value)| within(key) || within(value)),
            Kind::Struct(_, fields) => fields.iter().any(|(_, _, value)| within(value)),
            Kind::Fold(fold) => {
                let Fold { range, init, condition, step, result, .. } = &**fold;
                [range, init, condition, step, result].into_iter().any(within)
            }
        }
    }

    pub fn ident(at: usize, name: &str) -> Expr {
        Expr::new(at, Kind::Ident(name.to_owned()))
    }

    pub fn call(at: usize, function: &str, args: Vec<Expr>) -> Expr {
        Expr::new(at, Kind::Call { function: function.to_owned(), target: None, args })
    }

    pub fn constant(at: usize, value: Val<'static>) -> Expr {
        Expr::new(at, Kind::Const(value))
    }
}
