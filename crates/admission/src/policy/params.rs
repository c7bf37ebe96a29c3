//! The parameters a binding gives to its policy. Follows `generic.CollectParams`.

use apimachinery::Value;
use apimachinery::meta::{StringMap, value_at};
use serde::Deserialize;

use super::definition::{Binding, ParamRef, Policy};
use super::{Engine, Review};

/// Where the parameters of a policy are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// As the world names it: the plural with its group.
    pub resource: String,
    pub namespaced: bool,
}

/// The policy is evaluated once with each of these; null stands for no parameter.
pub(super) fn collect(
    policy: &Policy,
    binding: &Binding,
    review: &Review<'_>,
    engine: &dyn Engine,
) -> Result<Vec<Value>, String> {
    let (Some(kind), Some(wanted)) = (&policy.param_kind, &binding.param_ref) else {
        return Ok(vec![Value::Null]);
    };
    let scope = engine
        .params_of(&kind.api_version, &kind.kind)
        .ok_or_else(|| format!("paramKind kind `{}, Kind={}` not known", kind.api_version, kind.kind))?;
    let namespace = namespace(wanted, &scope, review)?;
    let found: Vec<Value> = match (&*wanted.name, &wanted.selector) {
        ("", Some(selector)) => {
            let all = review.world.list(&scope.resource, namespace);
            let labels = |object: &Value| {
                let labels = value_at(object, &["metadata", "labels"]).cloned().unwrap_or_default();
                StringMap::deserialize(labels).unwrap_or_default()
            };
            all.iter()
                .filter(|object| selector.matches(&labels(object)))
                .map(|object| (**object).clone())
                .collect()
        }
        ("", None) => return Err("one of name or selector must be provided".to_owned()),
        (_, Some(_)) => return Err("paramRef.name and paramRef.selector are mutually exclusive".to_owned()),
        (name, None) => review
            .world
            .get(&scope.resource, namespace, name)
            .map(|object| (*object).clone())
            .into_iter()
            .collect(),
    };
    if found.is_empty() && wanted.parameter_not_found_action.as_deref() == Some("Deny") {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(found)
}

fn namespace<'a>(wanted: &'a ParamRef, scope: &Scope, review: &'a Review<'_>) -> Result<&'a str, String> {
    match (scope.namespaced, wanted.namespace.as_str(), review.request.namespace.as_str()) {
        (false, "", _) => Ok(""),
        (false, _, _) => {
            Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned())
        }
        (true, "", "") => {
            Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                .to_owned())
        }
        (true, "", own) => Ok(own),
        (true, given, _) => Ok(given),
    }
}
