//! The parameters a binding gives to its policy. Follows `generic.CollectParams`.

use std::sync::Arc;

use apimachinery::Value;
use apimachinery::gvk::{GroupVersion, GroupVersionKind};
use apimachinery::meta::{LabelSelector, StringMap, value_at};
use serde::Deserialize;

use super::definition::{ParamKind, ParamRef};
use super::{Kinds, Review};

/// Where the parameters of a policy are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// As the world names it: the plural with its group.
    pub resource: String,
    pub namespaced: bool,
}

/// A policy's kind of parameters, found among those that are served.
pub(super) struct Source {
    kind: GroupVersionKind,
    scope: Scope,
}

impl Source {
    /// None for a policy without parameters.
    pub fn of(wanted: Option<&ParamKind>, kinds: &dyn Kinds) -> Result<Option<Source>, String> {
        let Some(ParamKind { api_version, kind }) = wanted else { return Ok(None) };
        let version = GroupVersion::parse(api_version).unwrap_or_default();
        let unknown = || {
            let GroupVersion { group, version } = &version;
            format!("failed to find resource referenced by paramKind: '{group}/{version}, Kind={kind}'")
        };
        let kind = version.with_kind(kind);
        let scope = kinds.params_of(&kind).ok_or_else(unknown)?;
        Ok(Some(Source { kind, scope }))
    }
}

/// The policy is evaluated once with each of these; null stands for no parameter.
pub(super) fn collect(
    source: Option<&Source>,
    wanted: Option<&ParamRef>,
    review: &Review<'_>,
) -> Result<Vec<Arc<Value>>, String> {
    let (Some(Source { kind, scope }), Some(wanted)) = (source, wanted) else {
        return Ok(vec![Arc::default()]);
    };
    let namespace = namespace(wanted, scope, review)?;
    let found: Vec<Arc<Value>> = match (&*wanted.name, &wanted.selector) {
        ("", Some(selector)) => {
            let all = review.world.list(&scope.resource, namespace);
            all.into_iter().filter(|object| is_selected(object, selector)).collect()
        }
        ("", None) => return Err("one of name or selector must be provided".to_owned()),
        (_, Some(_)) => return Err("paramRef.name and paramRef.selector are mutually exclusive".to_owned()),
        (name, None) => review.world.get(&scope.resource, namespace, name).into_iter().collect(),
    };
    if found.is_empty() && wanted.parameter_not_found_action.as_deref() == Some("Deny") {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(found.into_iter().map(|object| review.kinds.param(kind, object)).collect())
}

fn is_selected(object: &Value, selector: &LabelSelector) -> bool {
    let labels = value_at(object, &["metadata", "labels"]).cloned().unwrap_or_default();
    selector.matches(&StringMap::deserialize(&labels).unwrap_or_default())
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
