//! A request as the `spec` of a SubjectAccessReview: how others than this server are asked whether it may be done.

use apimachinery::{Map, Value, fields, json, labels};

use crate::attributes::Attributes;

/// Fields without a value are left out, as upstream's JSON does.
pub fn spec(request: &Attributes<'_>) -> Value {
    let user = request.user;
    let mut spec = Map::new();
    put(&mut spec, "user", &user.name);
    put(&mut spec, "uid", &user.uid);
    if !user.groups.is_empty() {
        spec.insert("groups", json!(user.groups));
    }
    if !user.extra.is_empty() {
        spec.insert("extra", json!(user.extra));
    }
    if request.is_resource_request() {
        spec.insert("resourceAttributes", Value::Object(resource(request)));
    } else {
        let attributes = json!({"path": request.path, "verb": request.verb});
        spec.insert("nonResourceAttributes", attributes);
    }
    Value::Object(spec)
}

fn put(to: &mut Map, field: &str, text: &str) {
    if !text.is_empty() {
        to.insert(field.to_owned(), text.into());
    }
}

/// What names the objects, each with its field's name.
pub(crate) fn names<'a>(request: &Attributes<'a>) -> [(&'static str, &'a str); 7] {
    [
        ("namespace", request.namespace),
        ("verb", request.verb),
        ("group", request.group),
        ("version", request.version),
        ("resource", request.resource),
        ("subresource", request.subresource),
        ("name", request.name),
    ]
}

fn resource(request: &Attributes<'_>) -> Map {
    let mut attributes = Map::new();
    for (field, text) in names(request) {
        put(&mut attributes, field, text);
    }
    let mut limit = |field: &str, requirements: Vec<Value>| {
        if !requirements.is_empty() {
            attributes.insert(field.to_owned(), json!({"requirements": requirements}));
        }
    };
    limit("fieldSelector", request.fields.iter().map(field_requirement).collect());
    limit("labelSelector", request.labels.iter().filter_map(label_requirement).collect());
    attributes
}

fn field_requirement(term: &fields::Term) -> Value {
    let operator = if term.equal { "In" } else { "NotIn" };
    json!({"key": term.field, "operator": operator, "values": [term.value]})
}

/// None for comparisons, which the API has no words for: without them the question gets broader, never narrower.
fn label_requirement(requirement: &labels::Requirement) -> Option<Value> {
    use labels::Operator;
    let operator = match requirement.operator {
        Operator::In | Operator::Equals => "In",
        Operator::NotIn | Operator::NotEquals => "NotIn",
        Operator::Exists => "Exists",
        Operator::DoesNotExist => "DoesNotExist",
        Operator::GreaterThan | Operator::LessThan => return None,
    };
    let mut out = json!({"key": requirement.key, "operator": operator});
    if !requirement.values.is_empty() {
        out["values"] = json!(requirement.values);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::UserInfo;

    #[test]
    fn a_request_is_told_with_all_that_it_names() {
        let user = UserInfo::new("jane", ["dev"]);
        let fields = [fields::Term { field: "metadata.name".into(), equal: true, value: "a".into() }];
        let labels = labels::parse("app in (x),!y").expect("parses");
        let list = Attributes {
            verb: "list",
            group: "apps",
            version: "v1",
            resource: "deployments",
            namespace: "ns",
            fields: &fields,
            labels: labels.requirements(),
            ..Attributes::of(&user)
        };
        let expect = json!({"user": "jane", "groups": ["dev", "system:authenticated"], "resourceAttributes": {
            "verb": "list", "group": "apps", "version": "v1", "resource": "deployments", "namespace": "ns",
            "fieldSelector": {"requirements": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]},
            "labelSelector": {"requirements": [{"key": "app", "operator": "In", "values": ["x"]},
                {"key": "y", "operator": "DoesNotExist"}]}}});
        assert_eq!(spec(&list), expect);
        let path = Attributes { verb: "get", path: "/livez", ..Attributes::of(&user) };
        assert_eq!(spec(&path)["nonResourceAttributes"], json!({"verb": "get", "path": "/livez"}));
    }
}
