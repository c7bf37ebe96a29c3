//! What an expression costs at most, before there are values: from how large those can get. Follows cel-go's
//! `checker.Cost` and upstream's `library.CostEstimator.EstimateCallCost`, of whose ranges only the upper ends count.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cost::{CallCost, LIST, MAP, REGEX, STRUCT, TRAVERSAL, scaled, selector};
use crate::eval::{FoldNode, Node};
use crate::types::Type;
use crate::value::Val;

/// Of what nobody knows how large it gets.
const UNKNOWN: u64 = u64::MAX;
/// An address has at most 16 bytes; two are compared.
const ADDRESSES: u64 = 32;
/// The length of pattern that a named format counts as (upstream: `MaxNameFormatRegexSize`).
const FORMAT_PATTERN: f64 = 128.0;

/// How large values can get, and those within them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extent {
    /// Characters, bytes or elements; 0 for what is not counted.
    pub max: u64,
    pub parts: Parts,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub enum Parts {
    #[default]
    Unknown,
    /// Of a list.
    Items(Arc<Extent>),
    /// Of a map; its keys are not counted.
    Values(Arc<Extent>),
    Fields(Arc<BTreeMap<Box<str>, Extent>>),
}

impl Extent {
    pub fn of(max: u64) -> Extent {
        Extent { max, parts: Parts::Unknown }
    }

    pub fn list(max: u64, item: Extent) -> Extent {
        Extent { max, parts: Parts::Items(Arc::new(item)) }
    }

    pub fn map(max: u64, value: Extent) -> Extent {
        Extent { max, parts: Parts::Values(Arc::new(value)) }
    }

    pub fn object(fields: BTreeMap<Box<str>, Extent>) -> Extent {
        Extent { max: 0, parts: Parts::Fields(Arc::new(fields)) }
    }

    fn unknown() -> Extent {
        Extent::of(UNKNOWN)
    }

    fn field(&self, name: &str) -> Extent {
        match &self.parts {
            Parts::Fields(fields) => fields.get(name).cloned().unwrap_or_else(Extent::unknown),
            Parts::Values(value) => (**value).clone(),
            Parts::Items(_) | Parts::Unknown => Extent::unknown(),
        }
    }

    /// An element of a list, or a value of a map.
    fn element(&self) -> Extent {
        match &self.parts {
            Parts::Items(inner) | Parts::Values(inner) => (**inner).clone(),
            Parts::Fields(_) | Parts::Unknown => Extent::unknown(),
        }
    }

    /// What a loop with one variable goes over.
    fn iterated(&self) -> Extent {
        match &self.parts {
            Parts::Items(item) => (**item).clone(),
            Parts::Values(_) => Extent::of(0),
            Parts::Fields(_) | Parts::Unknown => Extent::unknown(),
        }
    }

    /// One that covers both.
    fn union(self, other: Extent) -> Extent {
        let parts = match (self.parts, other.parts) {
            (Parts::Items(a), Parts::Items(b)) => Parts::Items(Arc::new((*a).clone().union((*b).clone()))),
            (Parts::Values(a), Parts::Values(b)) => Parts::Values(Arc::new((*a).clone().union((*b).clone()))),
            (a, b) if a == b => a,
            _ => Parts::Unknown,
        };
        Extent { max: self.max.max(other.max), parts }
    }
}

/// How large the result of a call can get.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sizing {
    /// It is not a thing that has a size.
    Scalar,
    Unknown,
    /// As large as the first argument, this many times and this much more.
    First(u64, u64),
    /// As both together.
    Sum,
    Replaced,
    Joined,
}

impl Sizing {
    pub fn of(function: &str, result: &Type) -> Sizing {
        match result {
            Type::Bool
            | Type::Int
            | Type::Uint
            | Type::Double
            | Type::Null
            | Type::Timestamp
            | Type::Duration
            | Type::Opaque(_) => return Sizing::Scalar,
            _ => {}
        }
        match function {
            "_+_" => Sizing::Sum,
            "dyn"
            | "lowerAscii"
            | "upperAscii"
            | "substring"
            | "trim"
            | "jsonpatch.escapeKey"
            | "split"
            | "find"
            | "findAll" => Sizing::First(1, 0),
            "bytes" => Sizing::First(4, 0),
            "strings.quote" => Sizing::First(2, 2),
            "replace" => Sizing::Replaced,
            "join" => Sizing::Joined,
            _ => Sizing::Unknown,
        }
    }

    fn estimate(self, args: &[Extent]) -> Extent {
        let size = |index: usize| args.get(index).map_or(UNKNOWN, |extent| extent.max);
        match self {
            Sizing::Scalar => Extent::of(1),
            Sizing::Unknown => Extent::unknown(),
            Sizing::First(times, more) => {
                let parts = args.first().map(|first| first.parts.clone()).unwrap_or_default();
                Extent { max: size(0).saturating_mul(times).saturating_add(more), parts }
            }
            Sizing::Sum => match args {
                [a, b] => {
                    let both = a.clone().union(b.clone());
                    Extent { max: a.max.saturating_add(b.max), ..both }
                }
                _ => Extent::unknown(),
            },
            // Each character may give way to the new text, which stands around it as well.
            Sizing::Replaced => {
                let places = size(0).saturating_add(1);
                Extent::of(places.saturating_mul(size(2)).saturating_add(size(0)))
            }
            Sizing::Joined => Extent::of(joined(args)),
        }
    }
}

/// All texts of a list with what stands between them.
fn joined(args: &[Extent]) -> u64 {
    let Some(list) = args.first() else { return UNKNOWN };
    let separators =
        args.get(1).map_or(0, |separator| separator.max.saturating_mul(list.max.saturating_sub(1)));
    list.max.saturating_mul(list.element().max).saturating_add(separators)
}

impl CallCost {
    /// What a call costs at most with arguments that are no larger than these.
    fn estimate(self, args: &[Extent]) -> u64 {
        let size = |index: usize| args.get(index).map_or(UNKNOWN, |extent| extent.max);
        let is_list = |index: usize| matches!(args.get(index).map(|e| &e.parts), Some(Parts::Items(_)));
        let is_map = |index: usize| {
            matches!(args.get(index).map(|e| &e.parts), Some(Parts::Values(_) | Parts::Fields(_)))
        };
        match self {
            CallCost::Constant(cost) => cost,
            CallCost::Affix => scaled(size(1), TRAVERSAL),
            CallCost::Traversal(times) => scaled(size(0), TRAVERSAL * f64::from(times)),
            CallCost::Result => scaled(joined(args), TRAVERSAL),
            CallCost::Comparison => scaled(size(0).min(size(1)), TRAVERSAL),
            CallCost::Concatenation if is_list(0) || is_list(1) => 1,
            CallCost::Concatenation => scaled(size(0).saturating_add(size(1)), TRAVERSAL),
            CallCost::Membership if is_map(1) => 1,
            CallCost::Membership => size(1),
            CallCost::Product => scaled(size(0), TRAVERSAL).saturating_mul(scaled(size(1), TRAVERSAL)),
            CallCost::Regex => {
                scaled(size(0).saturating_add(1), TRAVERSAL).saturating_mul(scaled(size(1), REGEX))
            }
            CallCost::Pairs => size(0).saturating_mul(size(1)),
            CallCost::Elements => size(0),
            CallCost::Tree if is_list(0) => {
                let item = args[0].element().max;
                size(0).saturating_mul(scaled(item, TRAVERSAL).saturating_add(1))
            }
            CallCost::Tree => scaled(size(0), TRAVERSAL),
            CallCost::Selector => selector(size(1)),
            CallCost::ContainsIp => scaled(ADDRESSES, TRAVERSAL).saturating_add(scaled(size(1), TRAVERSAL)),
            CallCost::ContainsCidr => {
                let own = scaled(ADDRESSES, TRAVERSAL) + scaled(ADDRESSES / 2, TRAVERSAL) + 1;
                own.saturating_add(scaled(size(1), TRAVERSAL))
            }
            CallCost::Format => scaled(scaled(size(1), TRAVERSAL), FORMAT_PATTERN * REGEX),
        }
    }
}

/// What a node costs at most, and how large what it comes to can get.
struct Estimate {
    cost: u64,
    extent: Extent,
}

impl Estimate {
    fn new(cost: u64, extent: Extent) -> Estimate {
        Estimate { cost, extent }
    }

    fn and(mut self, cost: u64) -> Estimate {
        self.cost = self.cost.saturating_add(cost);
        self
    }
}

struct Estimator {
    /// By slot.
    variables: Vec<Extent>,
    locals: Vec<Extent>,
}

/// The extents of variables that are named; of others nothing is known.
pub(crate) fn estimate(node: &Node, names: &[&'static str], known: &[(&str, Extent)]) -> u64 {
    let extent = |name: &&'static str| {
        let found = known.iter().find(|(known, _)| known == name);
        found.map_or_else(Extent::unknown, |(_, extent)| extent.clone())
    };
    let mut estimator = Estimator { variables: names.iter().map(extent).collect(), locals: Vec::new() };
    estimator.node(node).cost
}

impl Estimator {
    fn node(&mut self, node: &Node) -> Estimate {
        match node {
            Node::Const(value) => Estimate::new(literal_cost(value), literal(value)),
            Node::Variable(slot) => Estimate::new(1, self.variables[*slot].clone()),
            Node::Local(slot) => Estimate::new(1, self.locals.get(*slot).cloned().unwrap_or_default()),
            Node::Select { operand, field, .. } => {
                let operand = self.node(operand);
                Estimate::new(operand.cost.saturating_add(1), operand.extent.field(field))
            }
            Node::Has { operand, .. } => Estimate { extent: Extent::of(1), ..self.node(operand) },
            Node::Index { operand, key, .. } => {
                let (operand, key) = (self.node(operand), self.node(key));
                Estimate::new(operand.cost, operand.extent.element()).and(key.cost).and(1)
            }
            Node::And(left, right) | Node::Or(left, right) => {
                let left = self.node(left).cost;
                Estimate { extent: Extent::of(1), ..self.node(right) }.and(left)
            }
            Node::Conditional(condition, yes, no) => {
                let condition = self.node(condition).cost;
                let (yes, no) = (self.node(yes), self.node(no));
                Estimate::new(yes.cost.max(no.cost), yes.extent.union(no.extent)).and(condition)
            }
            Node::NotStrictlyFalse(inner) => Estimate { extent: Extent::of(1), ..self.node(inner) }.and(1),
            Node::Call { cost, sizing, args, .. } => self.call(*cost, *sizing, args),
            Node::Append { local, item } => {
                let item = self.node(item);
                let list = self.locals.get(*local).cloned().unwrap_or_default();
                let one = Extent::list(1, item.extent);
                Estimate::new(item.cost, list.union(one)).and(LIST + 2)
            }
            Node::Struct(_, fields) => self.all(fields.iter().map(|(_, _, value)| value), STRUCT),
            Node::List(items) => self.list(items),
            Node::Map(entries) => {
                let keys = self.all(entries.iter().map(|(_, key, _)| key), MAP).cost;
                let values = self.all(entries.iter().map(|(_, _, value)| value), keys);
                Estimate { extent: Extent::map(entries.len() as u64, values.extent), ..values }
            }
            Node::Fold(fold) => self.fold(fold),
        }
    }

    /// All of these, and an extent that covers each.
    fn all<'n>(&mut self, nodes: impl Iterator<Item = &'n Node>, base: u64) -> Estimate {
        let start = Estimate::new(base, Extent::default());
        nodes.fold(start, |sum, node| {
            let one = self.node(node);
            let extent =
                if sum.extent == Extent::default() { one.extent } else { sum.extent.union(one.extent) };
            Estimate::new(sum.cost, extent).and(one.cost)
        })
    }

    fn list(&mut self, items: &[(bool, Node)]) -> Estimate {
        let all = self.all(items.iter().map(|(_, item)| item), LIST);
        Estimate { extent: Extent::list(items.len() as u64, all.extent), ..all }
    }

    fn call(&mut self, cost: CallCost, sizing: Sizing, args: &[Node]) -> Estimate {
        let estimates: Vec<Estimate> = args.iter().map(|arg| self.node(arg)).collect();
        let sum = estimates.iter().fold(0u64, |sum, arg| sum.saturating_add(arg.cost));
        let extents: Vec<Extent> = estimates.into_iter().map(|arg| arg.extent).collect();
        Estimate::new(cost.estimate(&extents), sizing.estimate(&extents)).and(sum)
    }

    fn set(&mut self, slot: usize, extent: Extent) {
        if self.locals.len() <= slot {
            self.locals.resize(slot + 1, Extent::default());
        }
        self.locals[slot] = extent;
    }

    fn fold(&mut self, fold: &FoldNode) -> Estimate {
        let range = self.node(&fold.range);
        let init = self.node(&fold.init);
        let makes_container = !matches!(init.extent.parts, Parts::Unknown);
        self.set(fold.accu, init.extent.clone());
        match fold.second {
            Some(second) => {
                self.set(fold.var, Extent::of(0));
                self.set(second, range.extent.element());
            }
            None => self.set(fold.var, range.extent.iterated()),
        }
        let condition = self.node(&fold.condition).cost;
        let step = self.node(&fold.step);
        let turns = range.extent.max.saturating_mul(step.cost.saturating_add(condition));
        let result = self.node(&fold.result);
        let extent = match makes_container {
            true => Extent { max: range.extent.max, parts: step.extent.parts },
            false => result.extent,
        };
        Estimate::new(turns, extent).and(range.cost).and(init.cost).and(result.cost)
    }
}

/// Lists of constants are made before evaluation, but counted.
fn literal_cost(value: &Val<'_>) -> u64 {
    match value {
        Val::List(items) => items.iter().fold(LIST, |sum, item| sum + literal_cost(item)),
        _ => 0,
    }
}

fn literal(value: &Val<'_>) -> Extent {
    match value {
        Val::List(items) => {
            let all = items.iter().map(literal).reduce(Extent::union).unwrap_or_default();
            Extent::list(items.len() as u64, all)
        }
        other => Extent::of(other.size()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Env;

    fn cost(text: &str) -> u64 {
        let fields = [
            ("n", Extent::of(0)),
            ("s", Extent::of(100)),
            ("l", Extent::list(10, Extent::of(50))),
            ("m", Extent::map(5, Extent::of(20))),
        ];
        let fields = fields.map(|(name, extent)| (name.into(), extent));
        let program = Env::new().with("self", Type::Dyn).compile(text).unwrap_or_else(|why| panic!("{why}"));
        program.cost_max(&[("self", Extent::object(fields.into()))])
    }

    #[test]
    fn the_highest_cost_follows_from_the_largest_values() {
        for (text, expect) in [
            ("1 == 2", 1),
            ("self.n > 1", 2),
            ("self.s == 'ab'", 3),
            ("self.s.contains('abc')", 12),
            ("self.s.matches('^[a-z]+$')", 24),
            ("has(self.s)", 1),
            // Ten times: a look at the element, a comparison of at most one character, and the loop's own steps.
            ("self.l.all(x, x == 'a')", 53),
            ("self.l.exists(x, self.l.exists(y, x == y))", 1173),
            ("self.m.all(k, self.m[k] == 'a')", 43),
            ("'a' in self.l", 12),
        ] {
            assert_eq!(cost(text), expect, "{text}");
        }
    }

    #[test]
    fn what_is_not_known_may_cost_anything() {
        assert!(cost("self.unknown.all(x, x == 1)") > 1 << 60);
        assert!(cost("self.l.map(x, x + 'a').all(x, x.size() < 3)") < 1000);
    }
}
