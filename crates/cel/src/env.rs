//! What an expression may name, and expressions made ready for evaluation.

use std::cell::{Cell, RefCell};

use crate::check::check;
use crate::estimate::{Extent, estimate};
use crate::eval::{EvalError, Node, Outcome, Run};
use crate::parser::parse;
use crate::source::CompileError;
use crate::types::Type;
use crate::value::Val;

/// Declared variables; the functions are those of Kubernetes 1.36.
#[derive(Clone, Debug, Default)]
pub struct Env {
    names: Vec<&'static str>,
    types: Vec<Type>,
    makes_patches: bool,
}

impl Env {
    pub fn new() -> Env {
        Env::default()
    }

    /// Declares a variable.
    pub fn with(mut self, name: &'static str, of: Type) -> Env {
        self.names.push(name);
        self.types.push(of);
        self
    }

    /// Offers what changes are made with: the types `Object` and `JSONPatch`, and `jsonpatch.escapeKey`.
    pub fn with_patches(mut self) -> Env {
        self.makes_patches = true;
        self
    }

    pub(crate) fn makes_patches(&self) -> bool {
        self.makes_patches
    }

    pub(crate) fn variable_named(&self, name: &str) -> Option<(usize, &Type)> {
        let slot = self.names.iter().rposition(|found| *found == name)?;
        Some((slot, &self.types[slot]))
    }

    pub fn compile(&self, source: &str) -> Result<Program, CompileError> {
        let expr = parse(source).map_err(|issue| CompileError::new(source, vec![issue]))?;
        let checked = check(self, &expr).map_err(|issues| CompileError::new(source, issues))?;
        Ok(Program { names: self.names.clone(), node: checked.node, of: checked.of, reads: checked.reads })
    }
}

/// A checked expression.
#[derive(Debug)]
pub struct Program {
    names: Vec<&'static str>,
    node: Node,
    of: Type,
    reads: Vec<usize>,
}

/// An expression that others use by its name, as a field of the variable `variables`.
#[derive(Debug)]
pub struct Named {
    pub name: String,
    /// The complaint where it does not compile.
    pub program: Result<Program, String>,
}

/// Named expressions and what those that were asked for have come to.
struct Composed<'v> {
    all: &'v [Named],
    found: RefCell<Vec<Option<Outcome<'v>>>>,
    cost: Cell<u64>,
}

/// Values for variables.
#[derive(Default)]
pub struct Bindings<'v> {
    values: Vec<(&'static str, Val<'v>)>,
    composed: Option<Composed<'v>>,
}

/// The variable whose fields are named expressions.
pub const VARIABLES: &str = "variables";

impl<'v> Bindings<'v> {
    pub fn new() -> Bindings<'v> {
        Bindings::default()
    }

    /// Gives a variable its value.
    pub fn set(mut self, name: &'static str, value: impl Into<Val<'v>>) -> Self {
        self.values.push((name, value.into()));
        self
    }

    /// Offers named expressions, each of which is evaluated when it is first asked for, and then kept.
    pub fn compose(mut self, all: &'v [Named]) -> Self {
        let found = RefCell::new(vec![None; all.len()]);
        self.composed = Some(Composed { all, found, cost: Cell::new(0) });
        self.set(VARIABLES, Val::Composed)
    }

    /// What named expressions have cost since this was last asked.
    pub fn take_cost(&self) -> u64 {
        self.composed.as_ref().map_or(0, |composed| composed.cost.take())
    }

    fn get(&self, name: &str) -> Option<&Val<'v>> {
        self.values.iter().rfind(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// What the named expression comes to; `depth` is that of the expression that asks.
    pub(crate) fn composed(&self, name: &str, depth: usize) -> Outcome<'v> {
        let composed = self.composed.as_ref().ok_or(EvalError::NoSuchOverload)?;
        let place = composed.all.iter().position(|named| named.name == name);
        let place = place.ok_or_else(|| format!("no such key: {name}"))?;
        if let Some(found) = &composed.found.borrow()[place] {
            return found.clone();
        }
        let outcome = match &composed.all[place].program {
            Err(why) => Err(format!("composited variable {name:?} fails to compile: {why}").into()),
            Ok(program) => {
                let evaluated = program.run(self, crate::PER_CALL_LIMIT, depth);
                composed.cost.set(composed.cost.get().saturating_add(evaluated.cost));
                let told = |why| format!("composited variable {name:?} fails to evaluate: {why}").into();
                evaluated.result.map_err(told)
            }
        };
        composed.found.borrow_mut()[place] = Some(outcome.clone());
        outcome
    }

    pub(crate) fn has_composed(&self, name: &str) -> bool {
        self.composed.as_ref().is_some_and(|composed| composed.all.iter().any(|named| named.name == name))
    }
}

/// What an evaluation came to, and what it cost.
#[derive(Debug)]
pub struct Evaluated<'v> {
    pub cost: u64,
    pub result: Result<Val<'v>, EvalError>,
}

impl Program {
    /// The type of what it comes to.
    pub fn of(&self) -> &Type {
        &self.of
    }

    /// Whether it names this variable.
    pub fn reads(&self, name: &str) -> bool {
        self.reads.iter().any(|slot| self.names[*slot] == name)
    }

    /// What it costs at most where variables are no larger than these; others may be of any size.
    pub fn cost_max(&self, known: &[(&str, Extent)]) -> u64 {
        estimate(&self.node, &self.names, known)
    }

    /// Evaluates within `limit`; a variable without value is an error where it is read.
    pub fn evaluate<'v>(&self, bindings: &Bindings<'v>, limit: u64) -> Evaluated<'v> {
        self.run(bindings, limit, 0)
    }

    fn run<'v>(&self, bindings: &Bindings<'v>, limit: u64, depth: usize) -> Evaluated<'v> {
        let variables = self.names.iter().map(|name| bindings.get(name)).collect();
        let mut run =
            Run { bindings, variables, names: &self.names, locals: Vec::new(), cost: 0, limit, depth };
        let result = run.eval(&self.node);
        Evaluated { cost: run.cost, result }
    }
}
