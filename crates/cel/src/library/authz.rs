//! Questions to the authorizer. Follows upstream's `library.Authz` and `library.AuthzSelectors`.

use std::fmt;
use std::sync::Arc;

use apimachinery::names;

use crate::eval::{EvalError, Outcome};
use crate::library::strings::text;
use crate::signature::Row;
use crate::types::Type;
use crate::value::Val;

/// Who is asked about, and what they would do. Without a path it is about a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Namespace and name of a service account; otherwise it is about who sent the request.
    pub service_account: Option<(String, String)>,
    pub path: Option<String>,
    pub verb: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub is_allowed: bool,
    pub reason: String,
}

/// Answers questions of expressions.
pub trait Authorizer: Send + Sync {
    fn check(&self, asked: &Asked) -> Verdict;
}

/// A question on its way to be asked.
#[derive(Clone)]
pub struct Question<'v> {
    authorizer: &'v dyn Authorizer,
    stage: Stage,
    asked: Asked,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Authorizer,
    Path,
    Group,
    Resource,
    Decision,
}

const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
const RESOURCE: &str = "kubernetes.authorization.ResourceCheck";

/// The type of the variable `authorizer`.
pub const AUTHORIZER_TYPE: Type = Type::Opaque(AUTHORIZER);
/// The type of the variable `authorizer.requestResource`.
pub const RESOURCE_CHECK_TYPE: Type = Type::Opaque(RESOURCE);

impl<'v> Question<'v> {
    /// The value of the variable `authorizer`.
    pub fn authorizer(authorizer: &'v dyn Authorizer) -> Val<'v> {
        let question = Question {
            authorizer,
            stage: Stage::Authorizer,
            asked: Asked::default(),
            verdict: Verdict::default(),
        };
        Val::Question(Arc::new(question))
    }

    /// One about a resource, that has but the verb to be said: the value of `authorizer.requestResource`.
    pub fn resource(authorizer: &'v dyn Authorizer, asked: Asked) -> Val<'v> {
        Val::Question(Arc::new(Question {
            authorizer,
            stage: Stage::Resource,
            asked,
            verdict: Verdict::default(),
        }))
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match self.stage {
            Stage::Authorizer => AUTHORIZER,
            Stage::Path => "kubernetes.authorization.PathCheck",
            Stage::Group => "kubernetes.authorization.GroupCheck",
            Stage::Resource => RESOURCE,
            Stage::Decision => "kubernetes.authorization.Decision",
        }
    }
}

impl fmt::Debug for Question<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple(self.type_name()).field(&self.asked).finish()
    }
}

pub(super) const ROWS: &[Row] = &[
    ("kubernetes.authorization.Authorizer: path(string) kubernetes.authorization.PathCheck", path),
    ("kubernetes.authorization.Authorizer: group(string) kubernetes.authorization.GroupCheck", |args| {
        next(args, Stage::Authorizer, Stage::Group, |asked| &mut asked.group)
    }),
    (
        "kubernetes.authorization.Authorizer: serviceAccount(string, string) kubernetes.authorization.Authorizer",
        service_account,
    ),
    (
        "kubernetes.authorization.GroupCheck: resource(string) kubernetes.authorization.ResourceCheck",
        resource,
    ),
    (
        "kubernetes.authorization.ResourceCheck: subresource(string) kubernetes.authorization.ResourceCheck",
        |args| next(args, Stage::Resource, Stage::Resource, |asked| &mut asked.subresource),
    ),
    (
        "kubernetes.authorization.ResourceCheck: namespace(string) kubernetes.authorization.ResourceCheck",
        |args| next(args, Stage::Resource, Stage::Resource, |asked| &mut asked.namespace),
    ),
    ("kubernetes.authorization.ResourceCheck: name(string) kubernetes.authorization.ResourceCheck", |args| {
        next(args, Stage::Resource, Stage::Resource, |asked| &mut asked.name)
    }),
    (
        "kubernetes.authorization.ResourceCheck: fieldSelector(string) kubernetes.authorization.ResourceCheck",
        |args| next(args, Stage::Resource, Stage::Resource, |asked| &mut asked.field_selector),
    ),
    (
        "kubernetes.authorization.ResourceCheck: labelSelector(string) kubernetes.authorization.ResourceCheck",
        |args| next(args, Stage::Resource, Stage::Resource, |asked| &mut asked.label_selector),
    ),
    ("kubernetes.authorization.PathCheck: check(string) kubernetes.authorization.Decision", |args| {
        check(args, Stage::Path)
    }),
    ("kubernetes.authorization.ResourceCheck: check(string) kubernetes.authorization.Decision", |args| {
        check(args, Stage::Resource)
    }),
    ("kubernetes.authorization.Decision: allowed() bool", |args| {
        Ok(Val::Bool(at(args, Stage::Decision)?.verdict.is_allowed))
    }),
    ("kubernetes.authorization.Decision: reason() string", |args| {
        Ok(Val::text(at(args, Stage::Decision)?.verdict.reason.as_str()))
    }),
    // The authorizers here give no errors.
    ("kubernetes.authorization.Decision: errored() bool", |args| {
        at(args, Stage::Decision).map(|_| Val::Bool(false))
    }),
    ("kubernetes.authorization.Decision: error() string", |args| {
        at(args, Stage::Decision).map(|_| Val::text(""))
    }),
];

fn at<'a, 'v>(args: &'a [Val<'v>], stage: Stage) -> Result<&'a Question<'v>, EvalError> {
    match &args[0] {
        Val::Question(question) if question.stage == stage => Ok(question),
        _ => Err(EvalError::NoSuchOverload),
    }
}

/// The question with one more thing said.
fn next<'v>(args: &[Val<'v>], from: Stage, to: Stage, field: fn(&mut Asked) -> &mut String) -> Outcome<'v> {
    let mut question = at(args, from)?.clone();
    text(args, 1)?.clone_into(field(&mut question.asked));
    question.stage = to;
    Ok(Val::Question(Arc::new(question)))
}

fn path<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let path = text(args, 1)?;
    if path.trim().is_empty() {
        return Err("path must not be empty".into());
    }
    let mut question = at(args, Stage::Authorizer)?.clone();
    question.asked.path = Some(path.to_owned());
    question.stage = Stage::Path;
    Ok(Val::Question(Arc::new(question)))
}

fn resource<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    if text(args, 1)?.trim().is_empty() {
        return Err("resource must not be empty".into());
    }
    next(args, Stage::Group, Stage::Resource, |asked| &mut asked.resource)
}

fn service_account<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let (namespace, name) = (text(args, 1)?, text(args, 2)?);
    if !names::is_dns1123_subdomain(name).is_empty() {
        return Err("Invalid service account name".into());
    }
    if !names::is_dns1123_label(namespace).is_empty() {
        return Err("Invalid service account namespace".into());
    }
    let mut question = at(args, Stage::Authorizer)?.clone();
    question.asked.service_account = Some((namespace.to_owned(), name.to_owned()));
    Ok(Val::Question(Arc::new(question)))
}

fn check<'v>(args: &[Val<'v>], from: Stage) -> Outcome<'v> {
    let mut question = at(args, from)?.clone();
    text(args, 1)?.clone_into(&mut question.asked.verb);
    question.verdict = question.authorizer.check(&question.asked);
    question.stage = Stage::Decision;
    Ok(Val::Question(Arc::new(question)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bindings, Env, PER_CALL_LIMIT};

    /// Allows what it repeats.
    struct Echo;

    impl Authorizer for Echo {
        fn check(&self, asked: &Asked) -> Verdict {
            let who =
                asked.service_account.as_ref().map_or("me".to_owned(), |(ns, name)| format!("{ns}:{name}"));
            let what = match &asked.path {
                Some(path) => path.clone(),
                None => [&asked.group, &asked.resource, &asked.subresource, &asked.namespace, &asked.name]
                    .map(String::as_str)
                    .join("|"),
            };
            Verdict { is_allowed: asked.verb == "get", reason: format!("{who} {} {what}", asked.verb) }
        }
    }

    #[test]
    fn a_question_is_put_together_step_by_step() {
        let env = Env::new()
            .with("authorizer", AUTHORIZER_TYPE)
            .with("authorizer.requestResource", RESOURCE_CHECK_TYPE);
        let asked = Asked { resource: "pods".to_owned(), name: "p".to_owned(), ..Asked::default() };
        for (expression, expect) in [
            ("authorizer.path('/healthz').check('get').reason()", "\"me get /healthz\""),
            (
                "authorizer.group('apps').resource('deployments').namespace('n').check('get').allowed()",
                "true",
            ),
            ("authorizer.group('').resource('pods').subresource('log').check('list').allowed()", "false"),
            (
                "authorizer.serviceAccount('ns', 'sa').group('').resource('pods').name('x').check('get').reason()",
                "\"ns:sa get |pods|||x\"",
            ),
            ("authorizer.requestResource.check('get').reason()", "\"me get |pods|||p\""),
            ("authorizer.path(' ').check('get').allowed()", "path must not be empty"),
            (
                "authorizer.serviceAccount('NS', 'sa').path('/').check('get').allowed()",
                "Invalid service account namespace",
            ),
        ] {
            let program = env.compile(expression).unwrap_or_else(|error| panic!("{error}"));
            let bindings = Bindings::new()
                .set("authorizer", Question::authorizer(&Echo))
                .set("authorizer.requestResource", Question::resource(&Echo, asked.clone()));
            let came = program.evaluate(&bindings, PER_CALL_LIMIT).result;
            let came = came.map_or_else(
                |error| error.to_string(),
                |value| value.to_json().unwrap_or_default().to_string(),
            );
            assert_eq!(came, expect, "{expression}");
        }
    }
}
