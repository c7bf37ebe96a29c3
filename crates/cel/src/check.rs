//! Finds the type of each part of an expression, and makes what is evaluated. Follows cel-go's `checker`.

mod literals;

use std::sync::Arc;

use crate::ast::{Expr, Fold, Kind};
use crate::cost::CallCost;
use crate::env::Env;
use crate::estimate::Sizing;
use crate::eval::{FoldNode, Node};
use crate::library::patches::ESCAPE_KEY;
use crate::macros::ACCU;
use crate::parser::qualified;
use crate::signature::{Overload, overloads};
use crate::source::Issue;
use crate::types::Type;
use crate::value::Val;

pub(crate) struct Checked {
    pub node: Node,
    pub of: Type,
    /// The variables that it reads.
    pub reads: Vec<usize>,
}

pub(crate) fn check(env: &Env, expr: &Expr) -> Result<Checked, Vec<Issue>> {
    let mut checker = Checker {
        env,
        issues: Vec::new(),
        found: Vec::new(),
        scope: Vec::new(),
        reads: Vec::new(),
        is_mixed: false,
    };
    let (node, of) = checker.check(expr);
    let of = checker.settled(&of);
    if checker.issues.is_empty() {
        Ok(Checked { node, of, reads: checker.reads })
    } else {
        Err(checker.issues)
    }
}

struct Checker<'e> {
    env: &'e Env,
    issues: Vec<Issue>,
    /// What is known of each `Type::Var`.
    found: Vec<Option<Type>>,
    /// Variables of loops; the place of each is its slot.
    scope: Vec<(String, Type)>,
    reads: Vec<usize>,
    /// Within the arguments of `format`, whose list may hold different types.
    is_mixed: bool,
}

type Typed = (Node, Type);

/// Names that stand for types.
const TYPES: &[(&str, Type)] = &[
    ("bool", Type::Bool),
    ("int", Type::Int),
    ("uint", Type::Uint),
    ("double", Type::Double),
    ("string", Type::String),
    ("bytes", Type::Bytes),
    ("null_type", Type::Null),
    ("list", Type::Dyn),
    ("map", Type::Dyn),
    ("type", Type::Dyn),
    ("google.protobuf.Timestamp", Type::Timestamp),
    ("google.protobuf.Duration", Type::Duration),
];

impl Checker<'_> {
    fn issue(&mut self, at: usize, message: String) -> Typed {
        self.issues.push(Issue { at, message });
        (Node::Const(Val::Null), Type::Dyn)
    }

    fn fresh(&mut self) -> Type {
        self.found.push(None);
        Type::Var(self.found.len() - 1)
    }

    /// A type with what is known of it filled in.
    fn settled(&self, of: &Type) -> Type {
        let inner = |of: &Arc<Type>| Arc::new(self.settled(of));
        match of {
            Type::Var(index) => {
                self.found[*index].as_ref().map_or_else(|| of.clone(), |found| self.settled(found))
            }
            Type::List(item) => Type::List(inner(item)),
            Type::Map(key, value) => Type::Map(inner(key), inner(value)),
            Type::Optional(item) => Type::Optional(inner(item)),
            Type::Type(item) => Type::Type(inner(item)),
            _ => of.clone(),
        }
    }

    /// Whether a value of the type `got` may stand where `want` is asked for.
    fn assign(&mut self, want: &Type, got: &Type) -> bool {
        let (want, got) = (self.settled(want), self.settled(got));
        match (&want, &got) {
            (Type::Var(a), Type::Var(b)) if a == b => true,
            (Type::Var(index), other) | (other, Type::Var(index)) => {
                if mentions(other, *index) {
                    return false;
                }
                self.found[*index] = Some(other.clone());
                true
            }
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (Type::Null, other) | (other, Type::Null) if takes_null(other) => true,
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.assign(a, b),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::Map(a, x), Type::Map(b, y)) => self.assign(a, b) && self.assign(x, y),
            (Type::Object(a), Type::Object(b)) => a.name == b.name,
            (a, b) => a == b,
        }
    }

    fn check(&mut self, expr: &Expr) -> Typed {
        match &expr.kind {
            Kind::Const(value) => (Node::Const(value.clone()), constant_type(value)),
            Kind::Ident(name) => self.ident(expr.at, name),
            Kind::Select { operand, field, is_test, is_optional } => {
                self.select(expr, operand, field, *is_test, *is_optional)
            }
            Kind::Call { function, target, args } => self.call(expr.at, function, target.as_deref(), args),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct(name, fields) => self.structure(expr.at, name, fields),
            Kind::Fold(fold) => self.fold(fold),
        }
    }

    fn named(&mut self, name: &str) -> Option<Typed> {
        if let Some(slot) = self.scope.iter().rposition(|(found, _)| found == name) {
            let of = self.settled(&self.scope[slot].1);
            return Some((Node::Local(slot), of));
        }
        if let Some((slot, of)) = self.env.variable_named(name) {
            self.reads.push(slot);
            return Some((Node::Variable(slot), of.clone()));
        }
        let (_, of) = TYPES.iter().find(|(found, _)| *found == name)?;
        Some((Node::Const(Val::Type(name.into())), Type::Type(Arc::new(of.clone()))))
    }

    fn ident(&mut self, at: usize, name: &str) -> Typed {
        match self.named(name) {
            Some(typed) => typed,
            None => self.issue(at, format!("undeclared reference to '{name}' (in container '')")),
        }
    }

    fn select(
        &mut self,
        expr: &Expr,
        operand: &Expr,
        field: &str,
        is_test: bool,
        is_optional: bool,
    ) -> Typed {
        // A variable or a type may have dots in its name.
        if !is_test
            && let Some(name) = qualified(expr)
            && let Some(typed) = self.named(&name)
        {
            return typed;
        }
        let (node, of) = self.check(operand);
        let of = self.settled(&of);
        let (inner, was_optional) = match &of {
            Type::Optional(inner) => (self.settled(inner), true),
            _ => (of.clone(), false),
        };
        let (name, of): (Arc<str>, Type) = match &inner {
            Type::Dyn | Type::Var(_) => (field.into(), Type::Dyn),
            Type::Map(_, value) => (field.into(), (**value).clone()),
            Type::Object(object) => match object.field(field) {
                Some(found) => found,
                None => return self.issue(expr.at, format!("undefined field '{field}'")),
            },
            other => return self.issue(expr.at, format!("type '{other}' does not support field selection")),
        };
        let of = self.settled(&of);
        let cost = select_cost(&node);
        let operand = Box::new(node);
        if is_test {
            return (Node::Has { operand, field: name }, Type::Bool);
        }
        let of = if is_optional || was_optional { Type::optional(of) } else { of };
        (Node::Select { operand, field: name, is_optional, cost }, of)
    }

    fn index(&mut self, at: usize, function: &str, args: &[Expr]) -> Typed {
        let is_optional = function == "_[?_]";
        let (operand, of) = self.check(&args[0]);
        let (key, key_type) = self.check(&args[1]);
        let of = self.settled(&of);
        let (inner, was_optional) = match &of {
            Type::Optional(inner) => (self.settled(inner), true),
            _ => (of.clone(), false),
        };
        let found = match &inner {
            Type::Dyn | Type::Var(_) => Some(Type::Dyn),
            Type::List(item) => self.assign(&Type::Int, &key_type).then(|| (**item).clone()),
            Type::Map(wanted, value) => self.assign(wanted, &key_type).then(|| (**value).clone()),
            _ => None,
        };
        let Some(item) = found else {
            return self.no_overload(at, function, false, &[of, key_type]);
        };
        let item = self.settled(&item);
        let cost = select_cost(&operand);
        let of = if is_optional || was_optional { Type::optional(item) } else { item };
        (Node::Index { operand: Box::new(operand), key: Box::new(key), is_optional, cost }, of)
    }

    fn call(&mut self, at: usize, function: &str, target: Option<&Expr>, args: &[Expr]) -> Typed {
        match (function, target) {
            ("_[_]" | "_[?_]", None) => return self.index(at, function, args),
            ("_&&_" | "_||_", None) => return self.logical(at, function, args),
            ("_?_:_", None) => return self.conditional(at, args),
            ("@not_strictly_false", None) => {
                let (node, _) = self.check(&args[0]);
                return (Node::NotStrictlyFalse(Box::new(node)), Type::Bool);
            }
            ("_+_", None) => {
                if let Some(typed) = self.append(args) {
                    return typed;
                }
            }
            _ => {}
        }
        // `optional.of(x)` is written like a method and is a function with a dot in its name.
        let namespaced = target.and_then(qualified).map(|target| format!("{target}.{function}"));
        let (name, target) = match &namespaced {
            Some(name) if overloads(name).is_some() => (name.as_str(), None),
            _ => (function, target),
        };
        let is_offered = name != ESCAPE_KEY || self.env.makes_patches();
        let Some(candidates) = overloads(name).filter(|_| is_offered) else {
            if let Some(target) = target {
                self.check(target);
            }
            args.iter().for_each(|arg| drop(self.check(arg)));
            return self.issue(at, format!("undeclared reference to '{name}' (in container '')"));
        };
        let was_mixed = std::mem::replace(&mut self.is_mixed, name == "format");
        let checked: Vec<Typed> = target.into_iter().chain(args).map(|arg| self.check(arg)).collect();
        self.is_mixed = was_mixed;
        let (args, types): (Vec<Node>, Vec<Type>) = checked.into_iter().unzip();
        let (functions, of) = self.resolve(candidates, target.is_some(), &types);
        if functions.is_empty() {
            return self.no_overload(at, name, target.is_some(), &types);
        }
        // Whether a list of constants holds something is asked of a set upstream, for nothing.
        let is_set = name == "@in" && matches!(args.get(1), Some(Node::Const(_)));
        let cost = if is_set { CallCost::Constant(0) } else { CallCost::named(name) };
        let sizing = Sizing::of(name, &of);
        (Node::Call { functions, cost, sizing, args }, of)
    }

    /// The overloads that fit, and the type they agree upon.
    fn resolve(
        &mut self,
        candidates: &'static [Overload],
        is_method: bool,
        types: &[Type],
    ) -> (Vec<crate::eval::Builtin>, Type) {
        let mut functions = Vec::new();
        let mut result: Option<Type> = None;
        let fitting = candidates
            .iter()
            .filter(|overload| overload.is_method == is_method && overload.params.len() == types.len());
        for overload in fitting {
            let before = self.found.clone();
            let (a, b) = (self.fresh(), self.fresh());
            let fits = overload.params.iter().zip(types).all(|(param, got)| {
                let param = instantiated(param, &a, &b);
                self.assign(&param, got)
            });
            if !fits {
                self.found = before;
                continue;
            }
            functions.push(overload.function);
            let of = self.settled(&instantiated(&overload.result, &a, &b));
            result = Some(match result {
                Some(known) if known != of => Type::Dyn,
                _ => of,
            });
        }
        (functions, result.unwrap_or(Type::Dyn))
    }

    fn no_overload(&mut self, at: usize, function: &str, is_method: bool, types: &[Type]) -> Typed {
        let told: Vec<String> = types.iter().map(|of| self.settled(of).to_string()).collect();
        let applied = match told.split_first() {
            Some((target, args)) if is_method => format!("{target}.({})", args.join(", ")),
            _ => format!("({})", told.join(", ")),
        };
        self.issue(at, format!("found no matching overload for '{function}' applied to '{applied}'"))
    }

    fn logical(&mut self, at: usize, function: &str, args: &[Expr]) -> Typed {
        let (left, a) = self.check(&args[0]);
        let (right, b) = self.check(&args[1]);
        if !(self.assign(&Type::Bool, &a) && self.assign(&Type::Bool, &b)) {
            return self.no_overload(at, function, false, &[a, b]);
        }
        let (left, right) = (Box::new(left), Box::new(right));
        (if function == "_&&_" { Node::And(left, right) } else { Node::Or(left, right) }, Type::Bool)
    }

    fn conditional(&mut self, at: usize, args: &[Expr]) -> Typed {
        let (condition, asked) = self.check(&args[0]);
        let (yes, a) = self.check(&args[1]);
        let (no, b) = self.check(&args[2]);
        if !(self.assign(&Type::Bool, &asked) && self.assign(&a, &b)) {
            return self.no_overload(at, "_?_:_", false, &[asked, a, b]);
        }
        let (a, b) = (self.settled(&a), self.settled(&b));
        let of = if a == Type::Dyn || b == Type::Dyn {
            Type::Dyn
        } else if a == Type::Null {
            b
        } else {
            a
        };
        (Node::Conditional(Box::new(condition), Box::new(yes), Box::new(no)), of)
    }

    /// `@result + [item]`, which macros make.
    fn append(&mut self, args: &[Expr]) -> Option<Typed> {
        let (Kind::Ident(name), Kind::List(items)) = (&args[0].kind, &args[1].kind) else { return None };
        let [(false, item)] = items.as_slice() else { return None };
        let local = self.scope.iter().rposition(|(found, _)| found == name).filter(|_| name == ACCU)?;
        let of = self.scope[local].1.clone();
        let (item, item_type) = self.check(item);
        self.assign(&of, &Type::list(item_type));
        Some((Node::Append { local, item: Box::new(item) }, of))
    }

    fn fold(&mut self, fold: &Fold) -> Typed {
        let (range, of) = self.check(&fold.range);
        let (init, init_type) = self.check(&fold.init);
        let (first, second) = match (self.settled(&of), &fold.second) {
            (Type::List(item), Some(_)) => (Type::Int, (*item).clone()),
            (Type::List(item), None) => ((*item).clone(), Type::Dyn),
            (Type::Map(key, value), _) => ((*key).clone(), (*value).clone()),
            (Type::Dyn | Type::Var(_), _) => (Type::Dyn, Type::Dyn),
            (other, _) => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                return self.issue(fold.range.at, message);
            }
        };
        let base = self.scope.len();
        self.scope.push((fold.accu.clone(), init_type));
        self.scope.push((fold.var.clone(), first));
        if let Some(name) = &fold.second {
            self.scope.push((name.clone(), second));
        }
        let (condition, _) = self.check(&fold.condition);
        let (step, step_type) = self.check(&fold.step);
        let accu_type = self.scope[base].1.clone();
        if !self.assign(&accu_type, &step_type) {
            self.issue(
                fold.step.at,
                format!(
                    "expected type '{}' but found '{}'",
                    self.settled(&accu_type),
                    self.settled(&step_type)
                ),
            );
        }
        // The result sees what was made, not the elements.
        self.scope.truncate(base + 1);
        let (result, of) = self.check(&fold.result);
        self.scope.truncate(base);
        let second = fold.second.as_ref().map(|_| base + 2);
        let node = FoldNode { range, var: base + 1, second, accu: base, init, condition, step, result };
        (Node::Fold(Box::new(node)), of)
    }
}

/// Whether null may stand for a value of the type (cel-go: `internalIsAssignableNull`).
fn takes_null(of: &Type) -> bool {
    matches!(
        of,
        Type::Object(_) | Type::Opaque(_) | Type::Optional(_) | Type::Timestamp | Type::Duration | Type::Null
    )
}

/// A field of an attribute costs one step; of anything else, the step into it as well.
fn select_cost(operand: &Node) -> u64 {
    match operand {
        Node::Variable(..) | Node::Local(..) | Node::Select { .. } | Node::Index { .. } => 1,
        _ => 2,
    }
}

fn mentions(of: &Type, index: usize) -> bool {
    match of {
        Type::Var(found) => *found == index,
        Type::List(item) | Type::Optional(item) | Type::Type(item) => mentions(item, index),
        Type::Map(key, value) => mentions(key, index) || mentions(value, index),
        _ => false,
    }
}

fn instantiated(of: &Type, a: &Type, b: &Type) -> Type {
    let inner = |of: &Arc<Type>| Arc::new(instantiated(of, a, b));
    match of {
        Type::Param('A') => a.clone(),
        Type::Param(_) => b.clone(),
        Type::List(item) => Type::List(inner(item)),
        Type::Map(key, value) => Type::Map(inner(key), inner(value)),
        Type::Optional(item) => Type::Optional(inner(item)),
        Type::Type(item) => Type::Type(inner(item)),
        _ => of.clone(),
    }
}

fn constant_type(value: &Val<'_>) -> Type {
    match value {
        Val::Null => Type::Null,
        Val::Bool(_) => Type::Bool,
        Val::Int(_) => Type::Int,
        Val::Uint(_) => Type::Uint,
        Val::Double(_) => Type::Double,
        Val::Text(_) => Type::String,
        Val::Bytes(_) => Type::Bytes,
        _ => Type::Dyn,
    }
}
