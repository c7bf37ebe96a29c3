//! The documents that clients read, made from a small schema.

use crate::{Value, json};

use super::*;
use crate::gvk::GroupVersionKind;
use crate::schema::{Field, List, ListType, Object, Presence, Scalar, Type, TypeKind};

/// A kind with a name of each sort: scalar, list of names, reference.
fn schema() -> Schema {
    let string = Type { kind: TypeKind::Scalar(Scalar::String), ..Type::default() };
    let list = List { item: TypeId(0), list_type: ListType::Set, wrapped: false };
    let list = Type { kind: TypeKind::List(list), ..Type::default() };
    let field = |name: &'static str, ty: u32| Field { name: name.into(), ty: TypeId(ty), ..Field::default() };
    let spec = Object {
        fields: vec![
            Field { required: true, presence: Presence::Always, ..field("image", 0) },
            Field { patch_merge: true, description: "Some words.".into(), ..field("words", 1) },
            Field { enum_values: vec!["A".into(), "B".into()], ..field("mode", 0) },
        ],
        ..Object::default()
    };
    let spec = Type { name: "t.WidgetSpec".into(), kind: TypeKind::Object(spec), ..Type::default() };
    let widget = Object {
        fields: vec![Field { presence: Presence::Always, ..field("spec", 2) }],
        gvk: vec![GroupVersionKind::new("t.example.com", "v1", "Widget")],
        ..Object::default()
    };
    let widget = Type {
        name: "t.Widget".into(),
        description: "A widget.".into(),
        kind: TypeKind::Object(widget),
        published: None,
    };
    Schema::new(vec![string, list, spec, widget])
}

fn widgets(schema: &Schema) -> Resource<'_> {
    Resource {
        schema,
        group: "t.example.com",
        version: "v1",
        kind: "Widget",
        plural: "widgets",
        namespaced: true,
        verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
        ty: TypeId(3),
        list: None,
        subresources: vec![Subresource {
            name: "status",
            group: "t.example.com",
            version: "v1",
            kind: "Widget",
            ty: Some(TypeId(3)),
            verbs: &["get", "patch", "update"],
        }],
    }
}

fn document(schema: &Schema, v: u8) -> Value {
    let mut out = Vec::new();
    match v {
        2 => v2(schema, &[widgets(schema)], &[], "v1.36.0", &mut out),
        _ => v3(schema, &[widgets(schema)], "v1.36.0", &mut out),
    }
    .expect("writing to memory succeeds");
    serde_json::from_slice(&out).expect("is JSON")
}

const OBJECT_PATH: &str = "/paths/~1apis~1t.example.com~1v1~1namespaces~1{namespace}~1widgets~1{name}";

#[test]
fn explain_finds_a_kind_by_its_path_and_its_schema_by_kind() {
    let schema = schema();
    let document = document(&schema, 3);
    let get = document.pointer(&format!("{OBJECT_PATH}/get")).expect("is served");
    let gvk = json!({"group": "t.example.com", "version": "v1", "kind": "Widget"});
    assert_eq!(get["x-kubernetes-group-version-kind"], gvk);
    assert_eq!(get["operationId"], "readTExampleComV1NamespacedWidget");
    let widget = &document["components"]["schemas"]["t.Widget"];
    assert_eq!(widget["x-kubernetes-group-version-kind"], json!([gvk]));
    let reference = json!({"$ref": "#/components/schemas/t.WidgetSpec"});
    assert_eq!(widget["properties"]["spec"], json!({"allOf": [reference], "default": {}}));
    assert_eq!(
        document["components"]["schemas"]["t.WidgetSpec"],
        json!({
            "type": "object",
            "required": ["image"],
            "properties": {
                "image": {"type": "string", "default": ""},
                "mode": {"type": "string", "enum": ["A", "B"]},
                "words": {
                    "type": "array", "items": {"type": "string"}, "description": "Some words.",
                    "x-kubernetes-list-type": "set", "x-kubernetes-patch-strategy": "merge",
                },
            },
        })
    );
}

#[test]
fn every_patch_tells_kubectl_that_the_server_validates_fields() {
    let schema = schema();
    for v in [2, 3] {
        let document = document(&schema, v);
        for path in [OBJECT_PATH.to_owned(), format!("{OBJECT_PATH}~1status")] {
            let patch = document.pointer(&format!("{path}/patch")).expect("can be patched");
            let parameters = patch["parameters"].as_array().expect("has parameters");
            let found = parameters.iter().any(|p| p["name"] == "fieldValidation" && p["in"] == "query");
            assert!(found, "version {v}, {path}");
        }
    }
}

#[test]
fn a_version_2_document_has_no_defaults() {
    let schema = schema();
    let document = document(&schema, 2);
    assert_eq!(document["definitions"]["t.WidgetSpec"]["properties"]["image"], json!({"type": "string"}));
    let spec = &document["definitions"]["t.Widget"]["properties"]["spec"];
    assert_eq!(*spec, json!({"$ref": "#/definitions/t.WidgetSpec"}));
}

#[test]
fn the_index_names_each_document_by_its_hash() {
    let group_version = GroupVersion::new("apps", "v1");
    let core = GroupVersion::new("", "v1");
    let index = v3_index([(&group_version, "AB"), (&core, "CD")].into_iter());
    assert_eq!(index["paths"]["apis/apps/v1"]["serverRelativeURL"], "/openapi/v3/apis/apps/v1?hash=AB");
    assert_eq!(index["paths"]["api/v1"]["serverRelativeURL"], "/openapi/v3/api/v1?hash=CD");
    assert_eq!(hash(b"").len(), 128);
}

#[test]
fn the_protobuf_form_holds_definitions_and_paths() {
    let schema = schema();
    let path = json!({"get": {"responses": {"200": {"schema": {"$ref": "#/definitions/o.Flunder"}}}}});
    let other = json!({"paths": {"/apis/o/v1/flunders": path}, "definitions": {"o.Flunder": {}}});
    let foreign = Foreign::of(&other, &GroupVersion::new("o", "v1"));
    let bytes = v2_protobuf(&schema, &[widgets(&schema)], &[&foreign], "v1.36.0");
    let contains = |text: &[u8]| bytes.windows(text.len()).any(|w| w == text);
    assert!(bytes.starts_with(b"\x0a\x032.0\x12\x15\x0a\x0aKubernetes\x12\x07v1.36.0"));
    assert!(contains(b"t.WidgetSpec") && contains(b"fieldValidation"));
    assert!(contains(b"#/definitions/o.Flunder") && contains(b"/apis/o/v1/flunders"));
    assert!(contains(br#"{"group":"t.example.com","kind":"Widget","version":"v1"}"#));
}

#[test]
fn what_another_server_describes_the_same_way_is_described_once_for_the_kinds_of_both() {
    let schema = schema();
    let mut widget = document(&schema, 2)["definitions"]["t.Widget"].clone();
    widget["x-kubernetes-group-version-kind"] = json!([{"group": "o", "version": "v1", "kind": "Flunder"}]);
    let path = json!({"get": {"responses": {"200": {"schema": {"$ref": "#/definitions/t.Widget"}}}}});
    let other = json!({"paths": {"/apis/o/v1/flunders": path}, "definitions": {"t.Widget": widget}});
    let foreign = Foreign::of(&other, &GroupVersion::new("o", "v1"));
    let mut out = Vec::new();
    v2(&schema, &[widgets(&schema)], &[&foreign], "v1.36.0", &mut out).expect("writing to memory succeeds");
    let text = String::from_utf8(out).expect("is text");
    assert_eq!(text.matches(r#""t.Widget":"#).count(), 1, "{text}");
    let document: Value = serde_json::from_str(&text).expect("is JSON");
    let kinds = &document["definitions"]["t.Widget"]["x-kubernetes-group-version-kind"];
    let kinds: Vec<_> = kinds.as_array().expect("a list").iter().map(|kind| &kind["kind"]).collect();
    assert_eq!(kinds, ["Widget", "Flunder"]);
}
