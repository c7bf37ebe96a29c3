//! Complaints read as upstream's, and unchanged mistakes are forgiven.

use apimachinery::json;

use super::*;

#[track_caller]
fn check(schema: Value, value: Value, expect: &[&str]) {
    let errors = validate(
        &Path::new(""),
        &json!({"spec": value}),
        None,
        &Structural::parse(&json!({"properties": {"spec": schema}})),
    );
    let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(found, expect);
}

#[test]
fn types_are_told_as_upstream_tells_them() {
    let spec = |ty: &str| json!({"properties": {"a": {"type": ty}}});
    check(
        spec("integer"),
        json!({"a": "x"}),
        &["spec.a: Invalid value: \"string\": spec.a in body must be of type integer: \"string\""],
    );
    check(
        spec("string"),
        json!({"a": 1}),
        &["spec.a: Invalid value: \"integer\": spec.a in body must be of type string: \"integer\""],
    );
    check(
        spec("integer"),
        json!({"a": 1.5}),
        &[
            "spec.a: Invalid value: \"number\": spec.a in body must be of type integer: \"number\"",
            "<nil>: Invalid value: \"\": Checked value must be of type integer (default format) in spec.a",
        ],
    );
    check(
        spec("string"),
        json!({"a": null}),
        &["spec.a: Invalid value: \"null\": spec.a in body must be of type string: \"null\""],
    );
    check(spec("number"), json!({"a": 1}), &[]);
    check(
        json!({"properties": {"a": {"x-kubernetes-int-or-string": true}}}),
        json!({"a": true}),
        &["spec.a: Invalid value: \"boolean\": spec.a in body must be of type integer,string: \"boolean\""],
    );
    check(json!({"properties": {"a": {"type": "string", "nullable": true}}}), json!({"a": null}), &[]);
}

#[test]
fn each_check_has_its_words() {
    let cases = [
        (
            json!({"type": "string", "enum": ["b", "a"]}),
            json!("c"),
            "spec: Unsupported value: \"c\": supported values: \"b\", \"a\"",
        ),
        (json!({"type": "object", "required": ["x"]}), json!({}), "spec.x: Required value"),
        (
            json!({"type": "string", "pattern": "^a+$"}),
            json!("b"),
            "spec: Invalid value: \"b\": spec in body should match '^a+$'",
        ),
        (
            json!({"type": "string", "maxLength": 2}),
            json!("abc"),
            "spec: Too long: may not be more than 2 bytes",
        ),
        (
            json!({"type": "string", "minLength": 2}),
            json!("a"),
            "spec: Invalid value: \"a\": spec in body should be at least 2 chars long",
        ),
        (
            json!({"type": "integer", "maximum": 10}),
            json!(11),
            "spec: Invalid value: 11: spec in body should be less than or equal to 10",
        ),
        (
            json!({"type": "integer", "minimum": 1, "exclusiveMinimum": true}),
            json!(1),
            "spec: Invalid value: 1: spec in body should be greater than 1",
        ),
        (
            json!({"type": "number", "minimum": 0.5}),
            json!(0.25),
            "spec: Invalid value: 0.25: spec in body should be greater than or equal to 0.5",
        ),
        (
            json!({"type": "integer", "multipleOf": 3}),
            json!(4),
            "spec: Invalid value: 4: spec in body should be a multiple of 3",
        ),
        (
            json!({"type": "array", "maxItems": 1}),
            json!([1, 2]),
            "spec: Too many: 2: must have at most 1 item",
        ),
        (
            json!({"type": "array", "minItems": 1}),
            json!([]),
            "spec: Invalid value: 0: spec in body should have at least 1 items",
        ),
        (
            json!({"type": "object", "maxProperties": 1}),
            json!({"a": 1, "b": 2}),
            "spec: Too many: 2: must have at most 1 item",
        ),
        (
            json!({"type": "object", "minProperties": 1}),
            json!({}),
            "spec: Invalid value: 0: spec in body should have at least 1 properties",
        ),
        (
            json!({"type": "string", "format": "ipv4"}),
            json!("x"),
            "spec: Invalid value: \"x\": spec in body must be of type ipv4: \"x\"",
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(1_i64 << 40),
            "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in spec",
        ),
        (
            json!({"not": {"required": ["a"]}}),
            json!({"a": 1}),
            "<nil>: Invalid value: \"\": \"spec\" must not validate the schema (not)",
        ),
        (
            json!({"additionalProperties": {"type": "string"}}),
            json!({"k": 1}),
            "spec.k: Invalid value: \"integer\": spec.k in body must be of type string: \"integer\"",
        ),
        (
            json!({"items": {"type": "string"}}),
            json!([1]),
            "spec[0]: Invalid value: \"integer\": spec[0] in body must be of type string: \"integer\"",
        ),
    ];
    for (schema, value, expect) in cases {
        check(schema, value, &[expect]);
    }
}

#[test]
fn alternatives_name_what_came_nearest() {
    let either = json!([{"required": ["a"]}, {"required": ["b"]}]);
    check(
        json!({"oneOf": either}),
        json!({}),
        &[
            "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid",
            "spec.a: Required value",
        ],
    );
    check(
        json!({"oneOf": either}),
        json!({"a": 1, "b": 1}),
        &[
            "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ],
    );
    check(json!({"anyOf": either}), json!({"a": 1, "b": 1}), &[]);
    check(
        json!({"anyOf": either}),
        json!({}),
        &[
            "<nil>: Invalid value: \"\": \"spec\" must validate at least one schema (anyOf)",
            "spec.a: Required value",
        ],
    );
    check(
        json!({"allOf": either}),
        json!({"a": 1}),
        &[
            "spec.b: Required value",
            "<nil>: Invalid value: \"\": \"spec\" must validate all the schemas (allOf)",
        ],
    );
}

#[test]
fn what_an_update_leaves_alone_may_stay_wrong() {
    let schema = Structural::parse(&json!({"properties": {"spec": {"properties": {
        "a": {"type": "string", "maxLength": 1},
        "list": {"items": {"properties": {"v": {"maximum": 1}}}, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}}}}}));
    let old = json!({"spec": {"a": "long", "list": [{"k": "x", "v": 5}]}});
    let errors = |new: &Value| validate(&Path::new(""), new, Some(&old), &schema).len();
    assert_eq!(errors(&old), 0);
    assert_eq!(errors(&json!({"spec": {"a": "long", "b": 1, "list": [{"k": "y"}, {"k": "x", "v": 5}]}})), 0);
    assert_eq!(errors(&json!({"spec": {"a": "other", "list": [{"k": "x", "v": 6}]}})), 2);
}
