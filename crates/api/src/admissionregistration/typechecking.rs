//! The expressions of a ValidatingAdmissionPolicy against the types of the kinds it is about: what cannot be right is
//! warned of in its status. Follows `validating.TypeChecker`.

use apiextensions::Structural;
use apiextensions::declare::declare;
use apimachinery::field::Path;
use apimachinery::gvk::{GroupVersion, GroupVersionKind, GroupVersionResource};
use apimachinery::schema::{Scalar, TypeId, TypeKind};
use apimachinery::{Value, json};
use cel::{ObjectType, Type};

use super::expression::{Composition, Offers, Types};
use crate::validation::At;

pub use cel::Type as CheckedType;

/// More kinds of one rule are not looked at (upstream: maxTypesToCheck).
const KINDS_MAX: usize = 10;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The resources that a policy's spec names, by rule; wildcards and subresources name none.
pub fn resources(spec: &Value) -> Vec<Vec<GroupVersionResource>> {
    let rules = At::root(spec).at(&["matchConstraints", "resourceRules"]);
    rules.items().map(|rule| named(&rule)).collect()
}

fn named(rule: &At<'_>) -> Vec<GroupVersionResource> {
    let sorted = |field: &str| {
        let mut texts = rule.get(field).texts();
        texts.sort_unstable();
        texts
    };
    let (groups, versions) = (sorted("apiGroups"), sorted("apiVersions"));
    if groups.iter().chain(&versions).any(|text| text.contains('*')) {
        return Vec::new();
    }
    let resources: Vec<&str> =
        sorted("resources").into_iter().filter(|resource| !resource.contains(['*', '/'])).collect();
    let of = |group: &str, version: &str| -> Vec<GroupVersionResource> {
        resources.iter().map(|resource| GroupVersionResource::new(group, version, *resource)).collect()
    };
    let all = groups.iter().flat_map(|group| versions.iter().map(move |version| (group, version)));
    all.flat_map(|(group, version)| of(group, version)).take(KINDS_MAX).collect()
}

/// The kind of a policy's parameters.
pub fn param_kind(spec: &Value) -> Option<GroupVersionKind> {
    let kind = At::root(spec).get("paramKind").set()?;
    Some(GroupVersion::parse(kind.get("apiVersion").text())?.with_kind(kind.get("kind").text()))
}

/// `status.typeChecking.expressionWarnings`, from the kinds that the policy is about and the type of its parameters.
pub fn expression_warnings(spec: &Value, kinds: &[(GroupVersionKind, Type)], params: &Type) -> Vec<Value> {
    let checkers: Vec<(&GroupVersionKind, Composition)> =
        kinds.iter().map(|(kind, of)| (kind, composition(spec, of, params))).collect();
    let mut warnings = Vec::new();
    let spec = At::new(spec, Path::new("spec"));
    for validation in spec.get("validations").items() {
        for field in ["expression", "messageExpression"] {
            let expression = validation.get(field);
            if expression.is_empty() {
                continue;
            }
            let findings: Vec<String> = checkers
                .iter()
                .filter_map(|(kind, checker)| finding(kind, checker, expression.text()))
                .collect();
            if !findings.is_empty() {
                let warning = findings.join("\n");
                warnings.push(json!({"fieldRef": expression.path.to_string(), "warning": warning}));
            }
        }
    }
    warnings
}

fn composition(spec: &Value, object: &Type, params: &Type) -> Composition {
    let types = Types { object: object.clone(), params: params.clone() };
    let mut composition = Composition::new(param_kind(spec).is_some(), types);
    for variable in At::root(spec).get("variables").items() {
        // Where it does not fit the kind, those who use it may still.
        let _complaint = composition.add(variable.get("name").text(), variable.get("expression").text());
    }
    composition
}

fn finding(kind: &GroupVersionKind, checker: &Composition, text: &str) -> Option<String> {
    let env = checker.env(Offers { authorizer: true, ..Offers::default() });
    env.compile(text).err().map(|why| format!("{kind}: {why}\n"))
}

/// The type of a built-in kind's objects.
pub fn built_in(type_name: &str) -> Type {
    of_schema(crate::schema::type_id(type_name), type_name, &mut Vec::new())
}

/// Each object is named by where it is. What is within an object of its own type is not told apart.
fn of_schema(id: TypeId, name: &str, around: &mut Vec<TypeId>) -> Type {
    if around.contains(&id) {
        return Type::Dyn;
    }
    around.push(id);
    let of = match &crate::schema().get(id).kind {
        TypeKind::Object(object) => {
            let mut fields = Vec::new();
            for field in &object.fields {
                let field_name = field.name.as_ref();
                fields.push((
                    field_name.to_owned(),
                    of_schema(field.ty, &format!("{name}.{field_name}"), around),
                ));
            }
            Type::Object(ObjectType::new(name, fields))
        }
        TypeKind::Map(map) => Type::map(Type::String, of_schema(map.value, &format!("{name}.@elem"), around)),
        TypeKind::List(list) => Type::list(of_schema(list.item, &format!("{name}.@idx"), around)),
        TypeKind::Scalar(scalar) => of_scalar(*scalar),
        TypeKind::Union(_) | TypeKind::Any => Type::Dyn,
    };
    around.pop();
    of
}

fn of_scalar(scalar: Scalar) -> Type {
    match scalar {
        Scalar::String | Scalar::Duration => Type::String,
        Scalar::Bytes => Type::Bytes,
        Scalar::Bool => Type::Bool,
        Scalar::Int32 | Scalar::Int64 => Type::Int,
        Scalar::Double => Type::Double,
        Scalar::Time | Scalar::MicroTime => Type::Timestamp,
        Scalar::Quantity | Scalar::IntOrString => Type::Dyn,
    }
}

/// The type of a custom kind's objects, from its schema as OpenAPI tells it. Unlike for the rules of that schema, all of
/// their metadata is known.
pub fn custom(kind: &GroupVersionKind, schema: &Value) -> Type {
    let name = kind.to_string();
    match declare(&Structural::parse(schema), true, &name).map(|declared| declared.of) {
        Some(Type::Object(object)) => Type::Object(object.with("metadata", built_in(OBJECT_META))),
        _ => Type::Dyn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(validation: Value) -> Value {
        json!({
            "matchConstraints": {"resourceRules": [
                {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments", "deployments/scale", "*"]},
                {"apiGroups": ["*"], "apiVersions": ["v1"], "resources": ["pods"]}]},
            "variables": [{"name": "replicas", "expression": "object.spec.replicas"}],
            "validations": [validation]})
    }

    fn deployment() -> (GroupVersionKind, Type) {
        (GroupVersionKind::new("apps", "v1", "Deployment"), built_in("io.k8s.api.apps.v1.Deployment"))
    }

    #[test]
    fn only_what_is_named_is_looked_at() {
        let found = resources(&spec(json!({})));
        assert_eq!(found, [vec![GroupVersionResource::new("apps", "v1", "deployments")], Vec::new()]);
    }

    #[test]
    fn what_cannot_be_right_is_warned_of() {
        let warnings =
            |validation: Value| expression_warnings(&spec(validation), &[deployment()], &Type::Dyn);
        let fine = "variables.replicas > 1 && object.metadata.labels['a'] == 'b' && object.spec.template.spec.containers.all(c, c.image != '') && object.metadata.creationTimestamp < timestamp('2025-01-01T00:00:00Z')";
        assert_eq!(warnings(json!({"expression": fine})), Vec::<Value>::new());
        let confused = json!({"expression": "object.spec.replicas > '1'", "messageExpression": "'got ' + variables.replicas"});
        assert_eq!(
            warnings(confused),
            [
                json!({"fieldRef": "spec.validations[0].expression", "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'\n | object.spec.replicas > '1'\n | .....................^\n"}),
                json!({"fieldRef": "spec.validations[0].messageExpression", "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:8: found no matching overload for '_+_' applied to '(string, int)'\n | 'got ' + variables.replicas\n | .......^\n"}),
            ]
        );
    }

    #[test]
    fn custom_kinds_have_the_types_of_their_schema() {
        let kind = GroupVersionKind::new("e.com", "v1", "CronTab");
        let schema = json!({"type": "object", "properties": {"metadata": {"type": "object"},
            "spec": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}});
        let kinds = [(kind.clone(), custom(&kind, &schema))];
        let warnings =
            |text: &str| expression_warnings(&spec(json!({"expression": text})), &kinds, &Type::Dyn);
        assert!(warnings("object.spec.replicas > 1 && has(object.metadata.labels)").is_empty());
        let undefined = warnings("object.spec.maxRetries > 1");
        assert!(undefined[0]["warning"].as_str().expect("a text").contains("undefined field 'maxRetries'"));
    }
}
