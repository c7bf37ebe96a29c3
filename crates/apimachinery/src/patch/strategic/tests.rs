//! Strategic merges, directive by directive.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::json;
use crate::schema::{self, List, Scalar, Type};

const STRING: TypeId = TypeId(0);
const STRINGS: TypeId = TypeId(1);
const CONTAINER: TypeId = TypeId(2);
const CONTAINERS: TypeId = TypeId(3);
const ROOT: TypeId = TypeId(4);

fn field(name: &'static str, ty: TypeId) -> Field {
    Field { name: name.into(), ty, ..Field::default() }
}

fn object(fields: Vec<Field>) -> Type {
    Type { kind: TypeKind::Object(schema::Object { fields, ..Default::default() }), ..Default::default() }
}

/// A spec with containers merged by name, finalizers merged as a set of scalars, and args replaced.
fn schema() -> Schema {
    let list =
        |item| Type { kind: TypeKind::List(List { item, ..Default::default() }), ..Default::default() };
    let merged = |name, ty, key: Option<&'static str>| Field {
        patch_merge: true,
        patch_merge_key: key.map(Into::into),
        ..field(name, ty)
    };
    Schema::new(vec![
        Type { kind: TypeKind::Scalar(Scalar::String), ..Default::default() },
        list(STRING),
        object(vec![field("name", STRING), field("image", STRING), field("args", STRINGS)]),
        list(CONTAINER),
        object(vec![
            merged("containers", CONTAINERS, Some("name")),
            merged("finalizers", STRINGS, None),
            field("args", STRINGS),
            field("strategy", CONTAINER),
        ]),
    ])
}

fn check(document: Value, patch: Value, expect: Value) {
    let found = strategic_merge_patch(&schema(), ROOT, document, patch.clone()).expect("applies");
    assert_eq!(found, expect, "{patch}");
}

fn check_refused(document: Value, patch: Value, code: u16, expect: &str) {
    let status = strategic_merge_patch(&schema(), ROOT, document, patch).expect_err("is refused");
    assert_eq!((status.code, status.message.as_str()), (code, expect));
}

fn two_containers() -> Value {
    json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]})
}

#[test]
fn keyed_lists_merge_and_other_lists_are_replaced() {
    check(
        two_containers(),
        json!({"containers": [{"name": "b", "image": "3"}, {"name": "c", "image": null}]}),
        json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "3"}, {"name": "c"}]}),
    );
    check(json!({"args": ["a", "b"]}), json!({"args": ["c"]}), json!({"args": ["c"]}));
    check(
        json!({"strategy": {"name": "x", "image": "y"}}),
        json!({"strategy": {"name": null}}),
        json!({"strategy": {"image": "y"}}),
    );
}

#[test]
fn items_are_deleted_and_lists_replaced_by_directive() {
    check(
        two_containers(),
        json!({"containers": [{"$patch": "delete", "name": "a"}]}),
        json!({"containers": [{"name": "b", "image": "2"}]}),
    );
    check(
        two_containers(),
        json!({"containers": [{"$patch": "replace"}, {"name": "z"}]}),
        json!({"containers": [{"name": "z"}]}),
    );
    check(two_containers(), json!({"$patch": "replace", "args": ["x"]}), json!({"args": ["x"]}));
    check(two_containers(), json!({"$patch": "delete"}), json!({}));
}

#[test]
fn retain_keys_drops_all_others() {
    check(
        json!({"strategy": {"name": "Rolling", "image": "params"}}),
        json!({"strategy": {"$retainKeys": ["name"], "name": "Recreate"}}),
        json!({"strategy": {"name": "Recreate"}}),
    );
    check_refused(
        json!({"strategy": {}}),
        json!({"strategy": {"$retainKeys": ["name"], "image": "x"}}),
        400,
        "invalid patch format of retainKeys",
    );
}

#[test]
fn element_order_places_items_and_keeps_those_only_on_the_server() {
    check(
        two_containers(),
        json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
        json!({"containers": [{"name": "b", "image": "2"}, {"name": "a", "image": "1"}]}),
    );
    check(
        json!({"containers": [{"name": "a"}, {"name": "server"}, {"name": "b"}]}),
        json!({"$setElementOrder/containers": [{"name": "a"}, {"name": "c"}, {"name": "b"}], "containers": [{"name": "c"}]}),
        json!({"containers": [{"name": "a"}, {"name": "c"}, {"name": "server"}, {"name": "b"}]}),
    );
    check(
        json!({"finalizers": ["x", "y", "z"]}),
        json!({"$setElementOrder/finalizers": ["w", "z"], "finalizers": ["w"], "$deleteFromPrimitiveList/finalizers": ["y"]}),
        json!({"finalizers": ["w", "x", "z"]}),
    );
    check_refused(
        two_containers(),
        json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "c"}]}),
        500,
        "The order in patch list:\n[map[name:c]]\n doesn't match $setElementOrder list:\n[map[name:a]]\n",
    );
}

#[test]
fn scalars_merge_once_each() {
    check(
        json!({"finalizers": ["a", "b"]}),
        json!({"finalizers": ["b", "c"]}),
        json!({"finalizers": ["a", "b", "c"]}),
    );
    check(
        json!({"finalizers": ["a"]}),
        json!({"$deleteFromPrimitiveList/finalizers": ["a"]}),
        json!({"finalizers": []}),
    );
}

#[test]
fn directives_leave_no_trace_where_nothing_was() {
    check(
        json!({}),
        json!({"containers": [{"$patch": "delete", "name": "a"}, {"name": "b", "image": null}],
            "strategy": {"$retainKeys": ["name"], "name": "x"}}),
        json!({"containers": [{"name": "b"}], "strategy": {"name": "x"}}),
    );
}

#[test]
fn malformed_patches_are_refused_in_upstreams_words() {
    check_refused(
        two_containers(),
        json!({"containers": [{"image": "x"}]}),
        500,
        "map: map[image:x] does not contain declared merge key: name",
    );
    check_refused(
        two_containers(),
        json!({"containers": ["x"]}),
        500,
        "list element types are not identical: [[map[image:1 name:a] map[image:2 name:b]] [x]]",
    );
    check_refused(
        json!({}),
        json!({"$patch": "bogus"}),
        500,
        "unknown patch type: bogus in map: map[$patch:bogus]",
    );
    check_refused(
        json!({}),
        json!({"$setElementOrder/nothing": []}),
        500,
        "unable to find api field in struct  for the json field \"nothing\"",
    );
    check(json!({}), json!({"$deleteFromPrimitiveList/finalizers": "x"}), json!({}));
}

/// JSON of the words of documents and patches, directives included, in places where they belong and where not.
fn anything() -> impl Strategy<Value = Value> {
    const KEYS: [&str; 12] = [
        "containers",
        "finalizers",
        "args",
        "strategy",
        "name",
        "image",
        "$patch",
        "$retainKeys",
        "$deleteFromPrimitiveList/finalizers",
        "$setElementOrder/containers",
        "$setElementOrder/finalizers",
        "unknown",
    ];
    let word = select(vec!["a", "b", "delete", "replace", "merge", ""]).prop_map(Value::from);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3).prop_map(Value::from),
        word
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(select(KEYS.to_vec()), inner, 0..6)
                .prop_map(|map| map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn any_patch_of_any_document_is_applied_or_refused(document in anything(), patch in anything()) {
        if let Ok(patched) = strategic_merge_patch(&schema(), ROOT, document, patch) {
            prop_assert!(patched.is_object());
        }
    }
}
