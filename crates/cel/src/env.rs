//! What an expression may name, and expressions made ready for evaluation.

use crate::check::check;
use crate::eval::{EvalError, Node, Run};
use crate::parser::parse;
use crate::source::CompileError;
use crate::types::Type;
use crate::value::Val;

/// Declared variables; the functions are those of Kubernetes 1.36.
#[derive(Clone, Debug, Default)]
pub struct Env {
    names: Vec<String>,
    types: Vec<Type>,
}

impl Env {
    pub fn new() -> Env {
        Env::default()
    }

    /// Declares a variable.
    pub fn with(mut self, name: impl Into<String>, of: Type) -> Env {
        self.names.push(name.into());
        self.types.push(of);
        self
    }

    pub(crate) fn variable_named(&self, name: &str) -> Option<(usize, &Type)> {
        let slot = self.names.iter().rposition(|found| found == name)?;
        Some((slot, &self.types[slot]))
    }

    pub fn compile(&self, source: &str) -> Result<Program, CompileError> {
        let expr = parse(source).map_err(|issue| CompileError::new(source, vec![issue]))?;
        let checked = check(self, &expr).map_err(|issues| CompileError::new(source, issues))?;
        let reads = checked.reads;
        Ok(Program { names: self.names.clone(), node: checked.node, of: checked.of, reads })
    }
}

/// A checked expression.
#[derive(Debug)]
pub struct Program {
    names: Vec<String>,
    node: Node,
    of: Type,
    reads: Vec<usize>,
}

/// Values for the variables of a program.
pub struct Bindings<'p, 'v> {
    names: &'p [String],
    values: Vec<Option<Val<'v>>>,
}

impl<'v> Bindings<'_, 'v> {
    /// Gives a variable its value; one that was not declared is not kept.
    pub fn set(mut self, name: &str, value: impl Into<Val<'v>>) -> Self {
        if let Some(slot) = self.names.iter().rposition(|found| found == name) {
            self.values[slot] = Some(value.into());
        }
        self
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

    pub fn bindings<'v>(&self) -> Bindings<'_, 'v> {
        Bindings { names: &self.names, values: vec![None; self.names.len()] }
    }

    /// Evaluates within `limit`; a variable without value is an error where it is read.
    pub fn evaluate<'v>(&self, bindings: &Bindings<'_, 'v>, limit: u64) -> Evaluated<'v> {
        let variables = &bindings.values;
        let mut run = Run { variables, names: &self.names, locals: Vec::new(), cost: 0, limit };
        let result = run.eval(&self.node);
        Evaluated { cost: run.cost, result }
    }
}
