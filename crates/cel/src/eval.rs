//! Evaluates what the checker made, counting what it costs as cel-go's `CostTracker` does.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cost::{CallCost, LIST, MAP, STRUCT};
use crate::env::Bindings;
use crate::estimate::Sizing;
use crate::library::convert;
use crate::value::{Struct, Val};

/// Why an evaluation came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvalError {
    NoSuchOverload,
    /// More than the budget was used up.
    CostLimit,
    /// Any other, in cel-go's words.
    Failed(String),
}

impl std::fmt::Display for EvalError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            EvalError::NoSuchOverload => f.write_str("no such overload"),
            EvalError::CostLimit => f.write_str("operation cancelled: actual cost limit exceeded"),
            EvalError::Failed(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for EvalError {}

impl From<String> for EvalError {
    fn from(message: String) -> Self {
        EvalError::Failed(message)
    }
}

impl From<&str> for EvalError {
    fn from(message: &str) -> Self {
        EvalError::Failed(message.to_owned())
    }
}

pub(crate) type Outcome<'v> = Result<Val<'v>, EvalError>;

/// A function of a library; arguments begin with the target.
pub(crate) type Builtin = for<'v> fn(&[Val<'v>]) -> Outcome<'v>;

/// A checked expression with names resolved.
#[derive(Debug)]
pub(crate) enum Node {
    Const(Val<'static>),
    Variable(usize),
    Local(usize),
    Select {
        operand: Box<Node>,
        field: Arc<str>,
        is_optional: bool,
        cost: u64,
    },
    Has {
        operand: Box<Node>,
        field: Arc<str>,
    },
    Index {
        operand: Box<Node>,
        key: Box<Node>,
        is_optional: bool,
        cost: u64,
    },
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Conditional(Box<Node>, Box<Node>, Box<Node>),
    NotStrictlyFalse(Box<Node>),
    /// Of several functions, the first that takes what the arguments are is meant.
    Call {
        functions: Vec<Builtin>,
        cost: CallCost,
        sizing: Sizing,
        args: Vec<Node>,
    },
    /// Adds to the list in a local without copying it.
    Append {
        local: usize,
        item: Box<Node>,
    },
    /// An object of the named type.
    Struct(Arc<str>, Vec<(bool, Arc<str>, Node)>),
    List(Vec<(bool, Node)>),
    Map(Vec<(bool, Node, Node)>),
    Fold(Box<FoldNode>),
}

#[derive(Debug)]
pub(crate) struct FoldNode {
    pub range: Node,
    pub var: usize,
    pub second: Option<usize>,
    pub accu: usize,
    pub init: Node,
    pub condition: Node,
    pub step: Node,
    pub result: Node,
}

pub(crate) struct Run<'p, 'v> {
    pub bindings: &'p Bindings<'v>,
    /// By slot.
    pub variables: Vec<Option<&'p Val<'v>>>,
    pub names: &'p [&'static str],
    pub locals: Vec<Val<'v>>,
    pub cost: u64,
    pub limit: u64,
    /// How many evaluations wait for this one.
    pub depth: usize,
}

/// Named expressions may use others, each of which may be as deep as a tree may be. Past this the stack would end.
const DEPTH_MAX: usize = 300;

impl<'v> Run<'_, 'v> {
    fn spend(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(EvalError::CostLimit) } else { Ok(()) }
    }

    pub fn eval(&mut self, node: &Node) -> Outcome<'v> {
        if self.depth >= DEPTH_MAX {
            return Err("expressions use each other too deeply".into());
        }
        self.depth += 1;
        let outcome = self.value(node);
        self.depth -= 1;
        outcome
    }

    fn value(&mut self, node: &Node) -> Outcome<'v> {
        match node {
            Node::Const(value) => Ok(value.clone()),
            Node::Variable(slot) => {
                self.spend(1)?;
                let value = self.variables[*slot].cloned();
                value.ok_or_else(|| format!("no such attribute(s): {}", self.names[*slot]).into())
            }
            Node::Local(slot) => {
                self.spend(1)?;
                Ok(self.locals[*slot].clone())
            }
            Node::Select { operand, field, is_optional, cost } => {
                let operand = self.eval(operand)?;
                self.spend(*cost)?;
                if matches!(operand, Val::Composed) {
                    return self.bindings.composed(field, self.depth);
                }
                select(operand, field, *is_optional)
            }
            Node::Has { operand, field } => self.has(operand, field),
            Node::Index { operand, key, is_optional, cost } => {
                let operand = self.eval(operand)?;
                let key = self.eval(key)?;
                self.spend(*cost)?;
                index(operand, &key, *is_optional)
            }
            Node::And(left, right) => self.logical(left, right, false),
            Node::Or(left, right) => self.logical(left, right, true),
            Node::Conditional(condition, yes, no) => match self.eval(condition)? {
                Val::Bool(true) => self.eval(yes),
                Val::Bool(false) => self.eval(no),
                _ => Err(EvalError::NoSuchOverload),
            },
            Node::NotStrictlyFalse(inner) => {
                let value = self.eval(inner);
                self.spend(1)?;
                Ok(Val::Bool(!matches!(value, Ok(Val::Bool(false)))))
            }
            Node::Call { functions, cost, args, .. } => self.call(functions, *cost, args),
            Node::Append { local, item } => self.append(*local, item),
            Node::Struct(name, fields) => self.structure(name, fields),
            Node::List(items) => self.list(items),
            Node::Map(entries) => self.map(entries),
            Node::Fold(fold) => self.fold(fold),
        }
    }

    fn call(&mut self, functions: &[Builtin], cost: CallCost, args: &[Node]) -> Outcome<'v> {
        let mut values: [Val<'v>; 3] = [Val::Null, Val::Null, Val::Null];
        let many: Vec<Val<'v>>;
        let args = if args.len() <= values.len() {
            for (slot, arg) in values.iter_mut().zip(args) {
                *slot = self.eval(arg)?;
            }
            &values[..args.len()]
        } else {
            many = args.iter().map(|arg| self.eval(arg)).collect::<Result<_, _>>()?;
            &many[..]
        };
        let mut result = Err(EvalError::NoSuchOverload);
        for function in functions {
            result = function(args);
            if !matches!(result, Err(EvalError::NoSuchOverload)) {
                break;
            }
        }
        self.spend(cost.of(args, result.as_ref().ok()))?;
        result
    }

    fn has(&mut self, operand: &Node, field: &str) -> Outcome<'v> {
        let value = match self.eval(operand)? {
            Val::Optional(Some(inner)) => (*inner).clone(),
            Val::Optional(None) => return Ok(Val::Bool(false)),
            Val::Composed => return Ok(Val::Bool(self.bindings.has_composed(field))),
            Val::Struct(made) => return Ok(Val::Bool(made.fields.contains_key(field))),
            value => value,
        };
        if value.is_list() || value.count().is_none() {
            return Err(EvalError::NoSuchOverload);
        }
        Ok(Val::Bool(value.field(field).is_some()))
    }

    /// `&&` ends at false and `||` at true, even past an error on the other side.
    fn logical(&mut self, left: &Node, right: &Node, ends: bool) -> Outcome<'v> {
        let first = self.eval(left);
        match &first {
            Ok(Val::Bool(value)) if *value == ends => return first,
            Err(EvalError::CostLimit) => return first,
            _ => {}
        }
        let second = self.eval(right)?;
        match (first, second) {
            (_, Val::Bool(value)) if value == ends => Ok(Val::Bool(ends)),
            (Err(error), _) => Err(error),
            (Ok(Val::Bool(_)), Val::Bool(value)) => Ok(Val::Bool(value)),
            _ => Err(EvalError::NoSuchOverload),
        }
    }

    fn append(&mut self, local: usize, item: &Node) -> Outcome<'v> {
        self.spend(1)?;
        let item = self.eval(item)?;
        self.spend(LIST + 1)?;
        match std::mem::replace(&mut self.locals[local], Val::Null) {
            Val::List(mut items) => {
                Arc::make_mut(&mut items).push(item);
                Ok(Val::List(items))
            }
            _ => Err(EvalError::NoSuchOverload),
        }
    }

    fn list(&mut self, nodes: &[(bool, Node)]) -> Outcome<'v> {
        let mut items = Vec::with_capacity(nodes.len());
        for (is_optional, node) in nodes {
            match (self.eval(node)?, is_optional) {
                (Val::Optional(inner), true) => items.extend(inner.map(|inner| (*inner).clone())),
                (value, _) => items.push(value),
            }
        }
        self.spend(LIST)?;
        Ok(Val::list(items))
    }

    fn structure(&mut self, name: &Arc<str>, nodes: &[(bool, Arc<str>, Node)]) -> Outcome<'v> {
        let mut fields = BTreeMap::new();
        for (is_optional, field, node) in nodes {
            let value = match (self.eval(node)?, is_optional) {
                (Val::Optional(None), true) => continue,
                (Val::Optional(Some(inner)), true) => (*inner).clone(),
                (value, _) => value,
            };
            fields.insert(field.clone(), value);
        }
        self.spend(STRUCT)?;
        Ok(Val::Struct(Arc::new(Struct { name: name.clone(), fields })))
    }

    fn map(&mut self, nodes: &[(bool, Node, Node)]) -> Outcome<'v> {
        let mut entries = BTreeMap::new();
        for (is_optional, key, value) in nodes {
            let key = self.eval(key)?;
            let value = match (self.eval(value)?, is_optional) {
                (Val::Optional(None), true) => continue,
                (Val::Optional(Some(inner)), true) => (*inner).clone(),
                (value, _) => value,
            };
            let told = convert::shown(&key);
            let key = key.key().ok_or("unsupported key type")?;
            if entries.insert(key, value).is_some() {
                return Err(format!("Failed with repeated key: {told}").into());
            }
        }
        self.spend(MAP)?;
        Ok(Val::Map(Arc::new(entries)))
    }

    fn set(&mut self, slot: usize, value: Val<'v>) {
        if self.locals.len() <= slot {
            self.locals.resize(slot + 1, Val::Null);
        }
        self.locals[slot] = value;
    }

    fn fold(&mut self, fold: &FoldNode) -> Outcome<'v> {
        let range = self.eval(&fold.range)?;
        let init = self.eval(&fold.init)?;
        self.set(fold.accu, init);
        let keys = range.keys();
        let count = range.count().ok_or("got an invalid range, expected a list or a map")?;
        let mut failure = None;
        for index in 0..count {
            let (first, second) = match &keys {
                Some(keys) => (keys[index].clone(), fold.second.and_then(|_| range.entry(&keys[index]))),
                None if fold.second.is_some() => (Val::Int(index as i64), range.item(index)),
                None => (range.item(index).unwrap_or(Val::Null), None),
            };
            self.set(fold.var, first);
            if let Some((slot, value)) = fold.second.zip(second) {
                self.set(slot, value);
            }
            if failure.is_none() && matches!(self.eval(&fold.condition)?, Val::Bool(false)) {
                break;
            }
            match self.step(fold, failure.take())? {
                Ok(value) => self.set(fold.accu, value),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) => Err(error),
            None => self.eval(&fold.result),
        }
    }

    /// One turn. An error so far is kept by `&&` and `||` until a later element decides; elsewhere it ends the loop.
    fn step(&mut self, fold: &FoldNode, failure: Option<EvalError>) -> Result<Outcome<'v>, EvalError> {
        let absorbing = match &fold.step {
            Node::And(_, predicate) => Some((predicate, false)),
            Node::Or(_, predicate) => Some((predicate, true)),
            _ => None,
        };
        let Some((predicate, ends)) = absorbing else {
            return self.eval(&fold.step).map(Ok);
        };
        let outcome = match failure {
            None => self.eval(&fold.step),
            Some(error) => {
                self.spend(3)?;
                match self.eval(predicate) {
                    Ok(Val::Bool(value)) if value == ends => Ok(Val::Bool(ends)),
                    Err(EvalError::CostLimit) => Err(EvalError::CostLimit),
                    _ => Err(error),
                }
            }
        };
        match outcome {
            Err(EvalError::CostLimit) => Err(EvalError::CostLimit),
            outcome => Ok(outcome),
        }
    }
}

fn wrapped<'v>(found: Option<Val<'v>>) -> Outcome<'v> {
    Ok(found.map_or(Val::Optional(None), Val::some))
}

fn select<'v>(operand: Val<'v>, field: &str, is_optional: bool) -> Outcome<'v> {
    if let Val::Optional(inner) = &operand {
        return wrapped(inner.as_ref().and_then(|inner| inner.field(field)));
    }
    let found = operand.field(field);
    if is_optional {
        return wrapped(found);
    }
    match (found, operand.count()) {
        (Some(value), _) => Ok(value),
        (None, _) if matches!(operand, Val::Struct(_)) => Err(format!("no such key: {field}").into()),
        (None, Some(_)) if !operand.is_list() => Err(format!("no such key: {field}").into()),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn index<'v>(operand: Val<'v>, key: &Val<'v>, is_optional: bool) -> Outcome<'v> {
    if let Val::Optional(inner) = operand {
        return match inner {
            Some(inner) => index((*inner).clone(), key, true),
            None => Ok(Val::Optional(None)),
        };
    }
    let found = if operand.is_list() {
        let place = match key {
            Val::Int(value) => *value,
            Val::Uint(value) => i64::try_from(*value).unwrap_or(i64::MAX),
            Val::Double(value) if value.fract() == 0.0 => *value as i64,
            _ => return Err(EvalError::NoSuchOverload),
        };
        let found = usize::try_from(place).ok().and_then(|place| operand.item(place));
        found.ok_or_else(|| format!("index out of bounds: {place}"))
    } else if operand.count().is_some() {
        operand.entry(key).ok_or_else(|| format!("no such key: {}", convert::shown(key)))
    } else {
        return Err(EvalError::NoSuchOverload);
    };
    if is_optional { wrapped(found.ok()) } else { Ok(found?) }
}
