//! What the expressions of a MutatingAdmissionPolicy make, as JSON. Follows `mutating/patch` and
//! `ObjectVal.CheckTypeNamesMatchFieldPathNames`.

use apimachinery::{Value, json};
use cel::Val;

/// The configuration that an `Object` stands for.
pub fn configuration(made: &Val<'_>) -> Result<Value, String> {
    check_names(made)?;
    made.to_json().ok_or_else(|| format!("invalid return type: {}", made.type_name()))
}

/// The operations of a list of `JSONPatch`.
pub fn operations(made: &Val<'_>) -> Result<Value, String> {
    let Val::List(all) = made else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".to_owned());
    };
    all.iter().map(operation).collect::<Result<Vec<Value>, String>>().map(Value::Array)
}

fn operation(made: &Val<'_>) -> Result<Value, String> {
    let Val::Struct(patch) = made else {
        return Err(format!(
            "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch, got element of {}",
            made.type_name()
        ));
    };
    let text = |field: &str| patch.fields.get(field).and_then(Val::to_json).unwrap_or_else(|| "".into());
    let mut operation = json!({"op": text("op"), "path": text("path")});
    let from = text("from");
    if from != "" {
        operation["from"] = from;
    }
    if let Some(value) = patch.fields.get("value") {
        check_names(value)?;
        operation["value"] = value.to_json().ok_or_else(|| {
            format!(
                "JSONPath valueExpression evaluated to a type that could not marshal to JSON: {}",
                value.type_name()
            )
        })?;
    }
    Ok(operation)
}

/// An object within another is named after the field that it is in: `Object.spec` in `spec`.
fn check_names(made: &Val<'_>) -> Result<(), String> {
    let Val::Struct(root) = made else { return Ok(()) };
    let mut mismatches = Vec::new();
    find_mismatches(made, &root.name, &mut mismatches);
    if mismatches.is_empty() {
        return Ok(());
    }
    Err(format!("type mismatch: {}", mismatches.join("\n")))
}

fn find_mismatches(made: &Val<'_>, path: &str, mismatches: &mut Vec<String>) {
    match made {
        Val::Struct(made) => {
            if *made.name != *path {
                mismatches.push(format!(
                    "unexpected type name {:?}, expected {path:?}, which matches field name path from root Object type",
                    &*made.name
                ));
            }
            for (field, value) in &made.fields {
                find_mismatches(value, &format!("{path}.{field}"), mismatches);
            }
        }
        Val::List(items) => items.iter().for_each(|item| find_mismatches(item, path, mismatches)),
        Val::Map(entries) => entries.values().for_each(|value| find_mismatches(value, path, mismatches)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use api::admissionregistration::expression::{Offers, Returns, Types, env};
    use cel::{Bindings, PER_CALL_LIMIT};

    use super::*;

    fn made(
        text: &str,
        returns: Returns,
        read: fn(&Val<'_>) -> Result<Value, String>,
    ) -> Result<Value, String> {
        let env = env(Offers { patches: true, ..Offers::default() }, &Types::default());
        let program = api::admissionregistration::expression::compile(&env, text, returns)?;
        let value = program.evaluate(&Bindings::new(), PER_CALL_LIMIT).result;
        read(&value.map_err(|why| why.to_string())?)
    }

    #[test]
    fn objects_are_named_after_the_fields_they_are_in() {
        let read = |text: &str| made(text, Returns::Configuration, configuration);
        assert_eq!(
            read(
                "Object{spec: Object.spec{replicas: 2, ports: [Object.spec.ports{n: 1}], labels: {'a': 'b'}}}"
            ),
            Ok(json!({"spec": {"replicas": 2, "ports": [{"n": 1}], "labels": {"a": "b"}}}))
        );
        assert_eq!(
            read("Object{spec: Object.wrong{a: 1}}"),
            Err("type mismatch: unexpected type name \"Object.wrong\", expected \"Object.spec\", which matches field name path from root Object type".to_owned())
        );
    }

    #[test]
    fn operations_have_what_was_said_of_them() {
        let read = |text: &str| made(text, Returns::Patches, operations);
        assert_eq!(
            read(
                "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'x'}, JSONPatch{op: 'move', from: '/a', path: '/b'}]"
            ),
            Ok(
                json!([{"op": "add", "path": "/metadata/labels/a~1b", "value": "x"}, {"op": "move", "from": "/a", "path": "/b"}])
            )
        );
        assert_eq!(
            read("[JSONPatch{op: 'add', path: '/spec', value: Object.spec{a: 1, ?b: optional.none()}}]"),
            Ok(json!([{"op": "add", "path": "/spec", "value": {"a": 1}}]))
        );
    }
}
