//! The scopes of a quota: which objects it is about.

use apimachinery::Value;
use apimachinery::meta::{str_at, value_at};

use crate::columns::items;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// One requirement; an object must meet all of its quota's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub name: String,
    operator: Operator,
    values: Vec<String>,
}

impl Scope {
    pub fn is_mere_existence(&self) -> bool {
        self.operator == Operator::Exists
    }

    /// Whether an object with this value, or none, is meant.
    pub fn selects(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|one| one == value);
        match self.operator {
            Operator::In => value.is_some_and(listed),
            Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// `spec.scopes` and `spec.scopeSelector` of a quota.
pub fn scopes_of(quota: &Value) -> Vec<Scope> {
    let plain = value_at(quota, &["spec", "scopes"]).and_then(Value::as_array).into_iter().flatten();
    let plain = plain.filter_map(Value::as_str).map(|name| Scope {
        name: name.to_owned(),
        operator: Operator::Exists,
        values: Vec::new(),
    });
    let selected = items(quota, &["spec", "scopeSelector", "matchExpressions"]).iter().map(selector);
    plain.chain(selected).collect()
}

fn selector(expression: &Value) -> Scope {
    let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
    Scope {
        name: str_at(expression, &["scopeName"]).to_owned(),
        operator: match str_at(expression, &["operator"]) {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "DoesNotExist" => Operator::DoesNotExist,
            _ => Operator::Exists,
        },
        values: values.filter_map(|value| value.as_str().map(str::to_owned)).collect(),
    }
}
