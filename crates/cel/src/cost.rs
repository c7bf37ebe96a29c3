//! What a call costs when it is made. Follows cel-go's `CostTracker.costCall` and upstream's `library.CostEstimator`.

use crate::value::Val;

/// What one evaluation may cost (upstream: `PerCallLimit`, about a tenth of a second).
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// What all expressions on one object may cost together (upstream: `RuntimeCELCostBudget`).
pub const BUDGET: u64 = 10_000_000;
/// What the match conditions of one webhook or policy may cost (upstream: `RuntimeCELCostBudgetMatchConditions`).
pub const MATCH_CONDITIONS_BUDGET: u64 = 2_500_000;

/// How the cost of a function depends on its arguments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum CallCost {
    Constant(u64),
    /// At each character of the first argument; before there are values, at those of the second.
    Affix,
    /// A look at each character of the first argument, this many times.
    Traversal(u32),
    /// At each of the result.
    Result,
    /// At those that two texts can differ in.
    Comparison,
    /// At those of both.
    Concatenation,
    /// At each element of the second argument, when it is a list.
    Membership,
    /// The first argument's length times the second's.
    Product,
    Regex,
    /// Each element of one list against each of the other.
    Pairs,
    /// At each element of the first argument.
    Elements,
    /// At all that is in the first argument.
    Tree,
    /// Reading a selector.
    Selector,
    ContainsIp,
    ContainsCidr,
    Format,
}

/// cel-go: `StringTraversalCostFactor`.
pub(crate) const TRAVERSAL: f64 = 0.1;
/// cel-go: `RegexStringLengthCostFactor`.
pub(crate) const REGEX: f64 = 0.25;
/// Two questions to the authorizer fit into one evaluation.
const AUTHORIZATION: u64 = 350_000;
/// cel-go: `ListCreateBaseCost`, `MapCreateBaseCost` and `StructCreateBaseCost`.
pub(crate) const LIST: u64 = 10;
pub(crate) const MAP: u64 = 30;
pub(crate) const STRUCT: u64 = 40;
/// The shortest requirement of a selector, of two characters, makes half a one of each.
const REQUIREMENT: f64 = 0.5;

pub(crate) fn scaled(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

impl CallCost {
    pub fn named(function: &str) -> CallCost {
        match function {
            "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" => CallCost::Comparison,
            "_+_" => CallCost::Concatenation,
            "@in" => CallCost::Membership,
            "startsWith" | "endsWith" => CallCost::Affix,
            "strings.quote"
            | "format"
            | "url"
            | "lowerAscii"
            | "upperAscii"
            | "substring"
            | "trim"
            | "cidr"
            | "isIP"
            | "isCIDR"
            | "ip"
            | "quantity"
            | "isQuantity"
            | "semver"
            | "isSemver"
            | "bytes"
            | "jsonpatch.escapeKey" => CallCost::Traversal(1),
            "replace" | "split" | "ip.isCanonical" => CallCost::Traversal(2),
            "join" => CallCost::Result,
            "contains" => CallCost::Product,
            "sets.contains" | "sets.equivalent" | "sets.intersects" => CallCost::Pairs,
            "matches" | "find" | "findAll" => CallCost::Regex,
            "cel.@mapInsert" | "cel.@mapInsertEntries" => CallCost::Elements,
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => CallCost::Tree,
            "check" => CallCost::Constant(AUTHORIZATION),
            "fieldSelector" | "labelSelector" => CallCost::Selector,
            "containsIP" => CallCost::ContainsIp,
            "containsCIDR" => CallCost::ContainsCidr,
            "validate" => CallCost::Format,
            _ => CallCost::Constant(1),
        }
    }

    pub fn of(self, args: &[Val<'_>], result: Option<&Val<'_>>) -> u64 {
        let size = |index: usize| args.get(index).map_or(0, Val::size);
        let is_text = |index: usize| matches!(args.get(index), Some(Val::Text(_) | Val::Bytes(_)));
        match self {
            CallCost::Constant(cost) => cost,
            CallCost::Affix => scaled(size(0), TRAVERSAL),
            CallCost::Traversal(times) => match args.first() {
                Some(Val::Cidr(..)) => 1,
                _ => scaled(size(0), TRAVERSAL * f64::from(times)),
            },
            CallCost::Result => scaled(result.map_or(0, Val::size), 2.0 * TRAVERSAL),
            CallCost::Comparison => match args.first() {
                Some(
                    Val::Ip(_)
                    | Val::Cidr(..)
                    | Val::Quantity(_)
                    | Val::Format(_)
                    | Val::Url(_)
                    | Val::Semver(_)
                    | Val::Question(_),
                ) => 1,
                _ => scaled(size(0).min(size(1)), TRAVERSAL),
            },
            CallCost::Concatenation if is_text(0) => scaled(size(0) + size(1), TRAVERSAL),
            CallCost::Concatenation => 1,
            CallCost::Membership if args.get(1).is_some_and(Val::is_list) => size(1),
            CallCost::Membership => 1,
            CallCost::Product => scaled(size(0), TRAVERSAL) * scaled(size(1), TRAVERSAL),
            CallCost::Regex => scaled(size(0) + 1, TRAVERSAL) * scaled(size(1), REGEX),
            CallCost::Pairs => size(0).saturating_mul(size(1)),
            CallCost::Elements => size(0),
            CallCost::Tree => args.first().map_or(0, tree),
            CallCost::Selector => selector(size(1)),
            CallCost::ContainsIp => scaled(2 * size(0), TRAVERSAL) + other(args),
            CallCost::ContainsCidr => {
                scaled(2 * size(0), TRAVERSAL) + scaled(size(0), TRAVERSAL) + 1 + other(args)
            }
            CallCost::Format => {
                let pattern = if let Some(Val::Format(format)) = args.first() { format.pattern } else { 0 };
                scaled(size(1) + 1, TRAVERSAL) * scaled(pattern, REGEX)
            }
        }
    }
}

/// Reading a selector, each of whose requirements is a struct with a list.
pub(crate) fn selector(length: u64) -> u64 {
    let requirements = scaled(length, REQUIREMENT).saturating_mul(LIST + STRUCT);
    scaled(length, TRAVERSAL).saturating_add(requirements).saturating_add(LIST)
}

/// A look at everything in a value (upstream: `traversalCost`).
fn tree(value: &Val<'_>) -> u64 {
    match value {
        Val::Text(_) | Val::Bytes(_) => (value.size() as f64 * TRAVERSAL) as u64,
        value if value.is_list() => value.items().iter().flatten().map(tree).sum(),
        value => value.keys().map_or(1, |keys| {
            keys.iter().map(|key| tree(key) + value.entry(key).as_ref().map_or(0, tree)).sum()
        }),
    }
}

/// An address or a prefix that is a text must be read first.
fn other(args: &[Val<'_>]) -> u64 {
    match args.get(1) {
        Some(text @ Val::Text(_)) => scaled(text.size(), TRAVERSAL),
        _ => 0,
    }
}
