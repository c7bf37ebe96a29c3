//! Which requests a webhook is asked about: expressions over the SubjectAccessReview. Follows
//! `k8s.io/apiserver/pkg/authorization/cel`.

use apimachinery::{Map, Value, json};
use cel::{Bindings, Env, ObjectType, PER_CALL_LIMIT, Program, Type, Val};

use crate::attributes::Attributes;
use crate::subjectaccessreview;

const REQUEST: &str = "request";
/// In the resource attributes only when the request is limited by them.
const SELECTORS: [&str; 2] = ["fieldSelector", "labelSelector"];

/// Conditions that all must hold. Without any, everything matches.
#[derive(Debug, Default)]
pub struct MatchConditions(Vec<(String, Program)>);

fn object(name: &str, fields: &[(&str, Type)]) -> Type {
    let fields = fields.iter().map(|(name, of)| ((*name).to_owned(), of.clone()));
    Type::Object(ObjectType::literal(format!("kubernetes.{name}"), fields))
}

fn request_type() -> Type {
    let strings = || Type::list(Type::String);
    let requirement = object(
        "SelectorRequirement",
        &[("key", Type::String), ("operator", Type::String), ("values", strings())],
    );
    let selector = |name: &str| {
        object(name, &[("rawSelector", Type::String), ("requirements", Type::list(requirement.clone()))])
    };
    let texts = ["namespace", "verb", "group", "version", "resource", "subresource", "name"];
    let mut resource: Vec<(&str, Type)> = texts.iter().map(|name| (*name, Type::String)).collect();
    resource.push((SELECTORS[0], selector("FieldSelectorAttributes")));
    resource.push((SELECTORS[1], selector("LabelSelectorAttributes")));
    let path = object("NonResourceAttributes", &[("path", Type::String), ("verb", Type::String)]);
    object(
        "SubjectAccessReviewSpec",
        &[
            ("resourceAttributes", object("ResourceAttributes", &resource)),
            ("nonResourceAttributes", path),
            ("user", Type::String),
            ("groups", strings()),
            ("extra", Type::map(Type::String, strings())),
            ("uid", Type::String),
        ],
    )
}

impl MatchConditions {
    /// Adds a condition, or says what is wrong with it in upstream's words.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let env = Env::new().with(REQUEST, request_type());
        let program = env.compile(text).map_err(|error| format!("compilation failed: {error}"))?;
        if *program.of() != Type::Bool {
            return Err(format!("must evaluate to bool but got {}", program.of()));
        }
        self.0.push((text.to_owned(), program));
        Ok(())
    }

    /// Whether all conditions hold. One that does not decides even where others fail.
    pub fn hold(&self, request: &Attributes<'_>) -> Result<bool, String> {
        if self.0.is_empty() {
            return Ok(true);
        }
        let described = described(request);
        let mut failures = Vec::new();
        for (text, program) in &self.0 {
            let evaluated = program.evaluate(&Bindings::new().set(REQUEST, &described), PER_CALL_LIMIT);
            match evaluated.result {
                Ok(Val::Bool(true)) => {}
                Ok(Val::Bool(false)) => return Ok(false),
                Ok(other) => {
                    let found = other.type_name();
                    failures
                        .push(format!("expression '{text}' eval result type should be bool but got {found}"));
                }
                Err(error) => failures.push(format!("expression '{text}' resulted in error: {error}")),
            }
        }
        if failures.is_empty() {
            Ok(true)
        } else {
            Err(format!("cel evaluation error: {}", failures.join(", ")))
        }
    }
}

/// The request as expressions see it: fields without a value are there, and empty.
fn described(request: &Attributes<'_>) -> Value {
    let mut spec = subjectaccessreview::spec(request);
    let user = request.user;
    spec["user"] = user.name.as_str().into();
    spec["uid"] = user.uid.as_str().into();
    spec["groups"] = json!(user.groups);
    spec["extra"] = json!(user.extra);
    if request.is_resource_request() {
        let names = subjectaccessreview::names(request);
        let mut attributes: Map =
            names.iter().map(|(field, text)| ((*field).to_owned(), (*text).into())).collect();
        for selector in SELECTORS {
            if let Some(limits) = spec["resourceAttributes"].get(selector) {
                attributes.insert(selector.to_owned(), limits.clone());
            }
        }
        spec["resourceAttributes"] = Value::Object(attributes);
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::UserInfo;

    fn check(conditions: &[&str], expect: Option<bool>) {
        let mut all = MatchConditions::default();
        conditions.iter().for_each(|text| all.add(text).expect("compiles"));
        let user = UserInfo::new("jane", ["dev"]);
        let list = Attributes { verb: "list", resource: "pods", namespace: "ns", ..Attributes::of(&user) };
        assert_eq!(all.hold(&list).ok(), expect, "{conditions:?}");
    }

    #[test]
    fn all_conditions_must_hold() {
        check(&[], Some(true));
        check(&["request.user == 'jane'", "request.resourceAttributes.namespace == 'ns'"], Some(true));
        check(&["request.user == 'jane'", "'ops' in request.groups"], Some(false));
        check(&["has(request.nonResourceAttributes)"], Some(false));
        check(&["has(request.resourceAttributes) && request.resourceAttributes.name == ''"], Some(true));
        check(&["!has(request.resourceAttributes.labelSelector)"], Some(true));
    }

    #[test]
    fn one_that_does_not_hold_decides_though_another_fails() {
        check(&["request.nonResourceAttributes.path == '/'"], None);
        check(&["request.nonResourceAttributes.path == '/'", "request.user == 'bob'"], Some(false));
    }

    #[test]
    fn a_condition_is_a_question_about_the_request() {
        let refused = |text: &str| MatchConditions::default().add(text).expect_err("is refused");
        assert!(refused("request.user").starts_with("must evaluate to bool but got string"));
        assert!(refused("request.nothing == ''").starts_with("compilation failed"));
    }
}
