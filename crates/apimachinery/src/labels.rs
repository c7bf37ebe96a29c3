//! Label selectors as text: `app=web,tier in (a,b),!legacy` (follows `k8s.io/apimachinery/pkg/labels`).

mod parse;

use std::fmt;

use crate::field::{Error, Path};
use crate::meta::{LabelSelector, StringMap};
use crate::names::{is_label_value, is_qualified_name};

pub use parse::{ParseError, parse};

/// Anything that holds labels.
pub trait Labels {
    fn lookup(&self, key: &str) -> Option<&str>;
}

impl Labels for StringMap {
    fn lookup(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl<K: AsRef<str>, V: AsRef<str>> Labels for [(K, V)] {
    fn lookup(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| k.as_ref() == key).map(|(_, v)| v.as_ref())
    }
}

impl<K: AsRef<str>, V: AsRef<str>> Labels for Vec<(K, V)> {
    fn lookup(&self, key: &str) -> Option<&str> {
        self.as_slice().lookup(key)
    }
}

impl Labels for crate::Map {
    fn lookup(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(crate::Value::as_str)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Equals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One term of a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted, without duplicates; one for `Equals` and the comparisons, none for existence.
    pub values: Vec<String>,
}

/// All terms must hold; no terms match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Sorted by key.
    requirements: Vec<Requirement>,
}

impl Requirement {
    /// Checks key and values as upstream's `NewRequirement` does.
    pub fn new(
        key: impl Into<String>,
        operator: Operator,
        mut values: Vec<String>,
    ) -> Result<Self, Vec<Error>> {
        let key = key.into();
        let (key_path, values_path) = (Path::new("key"), Path::new("values"));
        let mut errors = Vec::new();
        let complaints = is_qualified_name(&key);
        if !complaints.is_empty() {
            errors.push(Error::invalid(&key_path, key.as_str(), complaints.join("; ")));
        }
        if let Some(complaint) = operator.complaint(values.len()) {
            errors.push(Error::invalid(&values_path, crate::json!(values), complaint));
        }
        for (index, value) in values.iter().enumerate() {
            let compares = matches!(operator, Operator::GreaterThan | Operator::LessThan);
            if compares && value.parse::<i64>().is_err() {
                let complaint = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(Error::invalid(&values_path.index(index), value.as_str(), complaint));
            }
            let complaints = is_label_value(value);
            if !complaints.is_empty() {
                let path = values_path.index(index).key(&key);
                errors.push(Error::invalid(&path, value.as_str(), complaints.join("; ")));
            }
        }
        values.sort_unstable();
        values.dedup();
        if errors.is_empty() { Ok(Requirement { key, operator, values }) } else { Err(errors) }
    }

    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        let value = labels.lookup(&self.key);
        let listed = |value: &str| self.values.iter().any(|v| v == value);
        match self.operator {
            Operator::In | Operator::Equals => value.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => value.is_none_or(|v| !listed(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compare(value).is_some_and(|(found, bound)| found > bound),
            Operator::LessThan => self.compare(value).is_some_and(|(found, bound)| found < bound),
        }
    }

    fn compare(&self, value: Option<&str>) -> Option<(i64, i64)> {
        Some((value?.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

impl Operator {
    /// What is wrong with this many values.
    fn complaint(self, values: usize) -> Option<&'static str> {
        match self {
            Operator::In | Operator::NotIn if values == 0 => {
                Some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Equals | Operator::NotEquals if values != 1 => {
                Some("exact-match compatibility requires one single value")
            }
            Operator::Exists | Operator::DoesNotExist if values != 0 => {
                Some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan if values != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => None,
        }
    }
}

impl Selector {
    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Selector { requirements }
    }

    /// Matches labels that hold all of these; keys and values are taken as they are.
    pub fn from_map(labels: &StringMap) -> Self {
        let equals = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.clone()],
        };
        Selector::new(labels.iter().map(equals).collect())
    }

    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// The value that this label must have, when exactly one is allowed.
    pub fn exact(&self, key: &str) -> Option<&str> {
        let exact = |r: &&Requirement| r.key == key && matches!(r.operator, Operator::Equals | Operator::In);
        match self.requirements.iter().find(exact)?.values.as_slice() {
            [value] => Some(value),
            _ => None,
        }
    }
}

impl TryFrom<&LabelSelector> for Selector {
    type Error = String;

    /// Follows upstream's `LabelSelectorAsSelector`, except that the caller decides what an absent selector means.
    fn try_from(selector: &LabelSelector) -> Result<Self, String> {
        let mut requirements = Selector::from_map(&selector.match_labels).requirements;
        for expression in &selector.match_expressions {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            };
            let requirement = Requirement::new(expression.key.clone(), operator, expression.values.clone());
            requirements.push(requirement.map_err(|errors| aggregate(&errors))?);
        }
        Ok(Selector::new(requirements))
    }
}

/// Upstream's text for several errors at once.
pub(crate) fn aggregate(errors: &[Error]) -> String {
    match errors {
        [one] => one.to_string(),
        many => format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let values = self.values.join(",");
        match self.operator {
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
