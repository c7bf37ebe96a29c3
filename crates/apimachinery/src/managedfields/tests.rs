//! Ownership through applies and updates, by example and by property.

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::schema::{self, Field, List, ListType, MapType, Presence, Schema, Type, TypeId, TypeKind};
use crate::{Value, json};

const STRING: TypeId = TypeId(0);
const STRING_MAP: TypeId = TypeId(1);
const STRINGS: TypeId = TypeId(2);
const CONTAINER: TypeId = TypeId(3);
const CONTAINERS: TypeId = TypeId(4);
const SPEC: TypeId = TypeId(5);
const META: TypeId = TypeId(6);
const ROOT: TypeId = TypeId(7);
const INT: TypeId = TypeId(8);
const FINALIZERS: TypeId = TypeId(9);

fn object(fields: Vec<Field>) -> Type {
    Type { kind: TypeKind::Object(schema::Object { fields, ..Default::default() }), ..Default::default() }
}

fn field(name: &'static str, ty: TypeId) -> Field {
    Field { name: name.into(), ty, presence: Presence::Pointer, ..Field::default() }
}

/// A Deployment in miniature: granular labels, an atomic selector, atomic args, a set of finalizers, containers by name.
fn schema() -> Schema {
    let of = |kind| Type { kind, ..Default::default() };
    let list = |item, list_type| of(TypeKind::List(List { item, list_type, wrapped: false }));
    Schema::new(vec![
        of(TypeKind::Scalar(schema::Scalar::String)),
        of(TypeKind::Map(schema::Map { value: STRING, ..Default::default() })),
        list(STRING, ListType::Atomic),
        object(vec![
            Field { presence: Presence::Always, ..field("name", STRING) },
            field("image", STRING),
            field("args", STRINGS),
        ]),
        list(CONTAINER, ListType::Map(vec!["name".into()])),
        object(vec![
            field("replicas", INT),
            field("containers", CONTAINERS),
            Field { map_type: Some(MapType::Atomic), ..field("selector", STRING_MAP) },
        ]),
        object(vec![
            field("name", STRING),
            field("uid", STRING),
            field("labels", STRING_MAP),
            field("annotations", STRING_MAP),
            field("finalizers", FINALIZERS),
            field("managedFields", STRINGS),
        ]),
        object(vec![
            field("apiVersion", STRING),
            field("kind", STRING),
            Field { presence: Presence::OmitEmpty, ..field("metadata", META) },
            Field { presence: Presence::OmitEmpty, ..field("spec", SPEC) },
            Field { presence: Presence::OmitEmpty, ..field("status", SPEC) },
        ]),
        of(TypeKind::Scalar(schema::Scalar::Int32)),
        list(STRING, ListType::Set),
    ])
}

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().expect("a time")
}

fn with_manager<T>(subresource: &str, run: impl FnOnce(FieldManager<'_>) -> T) -> T {
    let schema = schema();
    run(FieldManager {
        schema: &schema,
        root: ROOT,
        api_version: "apps/v1",
        subresource,
        reset_fields: reset_fields(subresource),
        versions: &OneVersion,
    })
}

fn apply(live: Option<&Value>, config: &Value, manager: &str, force: bool) -> Result<Value, crate::Status> {
    with_manager("", |fields| fields.apply(live, config, manager, force, now()))
}

fn update(live: Option<&Value>, mut new: Value, manager: &str) -> Value {
    with_manager("", |fields| fields.update(live, &mut new, manager, now()));
    new
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

/// As stored: with a uid.
fn stored(mut object: Value) -> Value {
    object["metadata"]["uid"] = "u".into();
    object
}

/// The fields that a manager owns, as paths.
fn owned(object: &Value, manager: &str) -> Vec<String> {
    let managed = ManagedFields::decode(object["metadata"].get("managedFields")).expect("decodes");
    let entries = managed.entries.iter().filter(|entry| entry.manager == manager);
    entries.flat_map(|entry| entry.fields.paths()).map(|path| path.to_string()).collect()
}

#[test]
fn a_creation_belongs_to_its_creator_without_bookkeeping() {
    let new = deployment(
        json!({"replicas": 1, "selector": {"a": "b"}, "containers": [{"name": "c", "args": ["x"]}]}),
    );
    let created = update(None, new, "kubectl-create");
    assert_eq!(
        created["metadata"]["managedFields"],
        json!([{
            "manager": "kubectl-create", "operation": "Update", "apiVersion": "apps/v1",
            "time": "2026-01-02T03:04:05Z", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {
                "f:replicas": {}, "f:selector": {},
                "f:containers": {".": {}, "k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:args": {}}}
            }}
        }])
    );
}

#[test]
fn an_update_takes_what_it_changes() {
    let live = stored(update(None, deployment(json!({"replicas": 1, "containers": []})), "a"));
    let mut new = live.clone();
    new["spec"]["replicas"] = 2.into();
    let new = update(Some(&live), new, "b");
    assert_eq!(owned(&new, "b"), [".spec.replicas"]);
    assert_eq!(owned(&new, "a"), [".spec.containers"]);
    let mut removed = new.clone();
    removed["spec"].as_object_mut().expect("an object").remove("replicas");
    let removed = update(Some(&new), removed, "c");
    assert!(owned(&removed, "b").is_empty() && owned(&removed, "c").is_empty());
}

#[test]
fn an_update_that_changes_nothing_leaves_times_alone() {
    let live = stored(update(None, deployment(json!({"replicas": 1})), "a"));
    let mut again = live.clone();
    again["metadata"].as_object_mut().expect("an object").remove("managedFields");
    assert_eq!(update(Some(&live), again, "b"), live);
}

#[test]
fn an_empty_list_resets_managed_fields_and_subresources_ignore_what_is_sent() {
    let live = stored(update(None, deployment(json!({"replicas": 1})), "a"));
    let mut reset = live.clone();
    reset["metadata"]["managedFields"] = json!([]);
    assert_eq!(update(Some(&live), reset.clone(), "b")["metadata"].get("managedFields"), None);
    reset["status"] = json!({"replicas": 1});
    with_manager("status", |fields| fields.update(Some(&live), &mut reset, "kubelet", now()));
    assert_eq!(owned(&reset, "a"), [".spec.replicas"]);
    assert_eq!(owned(&reset, "kubelet"), [".status.replicas"]);
    assert_eq!(reset["metadata"]["managedFields"][1]["subresource"], "status");
}

#[test]
fn writes_do_not_own_what_their_endpoint_resets() {
    let new = json!({"metadata": {"name": "x"}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
    assert_eq!(owned(&update(None, new, "a"), "a"), [".spec.replicas"]);
}

#[test]
fn applying_creates_and_removes_what_is_no_longer_applied() {
    let first = deployment(
        json!({"replicas": 1, "containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}),
    );
    let live = stored(apply(None, &first, "me", false).expect("creates"));
    let second = deployment(json!({"containers": [{"name": "b", "image": "3"}]}));
    let applied = apply(Some(&live), &second, "me", false).expect("applies");
    assert_eq!(applied["spec"], json!({"containers": [{"name": "b", "image": "3"}]}));
    assert_eq!(
        owned(&applied, "me"),
        [
            ".spec.containers[name=\"b\"]",
            ".spec.containers[name=\"b\"].image",
            ".spec.containers[name=\"b\"].name"
        ]
    );
}

#[test]
fn pruning_spares_what_others_own_or_nobody_applied() {
    let one = |labels: Value| json!({"apiVersion": "apps/v1", "metadata": {"name": "web", "labels": labels}});
    let live = stored(apply(None, &one(json!({"a": "1", "b": "1"})), "me", false).expect("creates"));
    let live = apply(Some(&live), &one(json!({"b": "1"})), "you", false).expect("co-owns");
    let mut live = live;
    live["metadata"]["labels"]["c"] = "1".into();
    let applied = apply(Some(&live), &one(json!({})), "me", false).expect("applies");
    assert_eq!(applied["metadata"]["labels"], json!({"b": "1", "c": "1"}));
}

#[test]
fn a_conflict_names_manager_and_field() {
    let live = stored(update(None, deployment(json!({"replicas": 1})), "kubectl-client-side-apply"));
    let config = deployment(json!({"replicas": 2}));
    let status = apply(Some(&live), &config, "me", false).expect_err("conflicts");
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert_eq!(
        status.message,
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
    );
    let cause = &status.causes()[0];
    assert_eq!(cause.reason, "FieldManagerConflict");
    assert_eq!(cause.message, "conflict with \"kubectl-client-side-apply\" using apps/v1");
    assert_eq!(cause.field, ".spec.replicas");
    let forced = apply(Some(&live), &config, "me", true).expect("forces");
    assert_eq!(forced["spec"]["replicas"], 2);
    assert!(owned(&forced, "kubectl-client-side-apply").is_empty());
}

#[test]
fn several_conflicts_are_listed_by_manager() {
    let live = stored(
        apply(None, &deployment(json!({"replicas": 1, "selector": {"a": "b"}})), "you", false)
            .expect("creates"),
    );
    let config = deployment(json!({"replicas": 2, "selector": {"a": "c"}}));
    let status = apply(Some(&live), &config, "me", false).expect_err("conflicts");
    assert_eq!(
        status.message,
        "Apply failed with 2 conflicts: conflicts with \"you\":\n- .spec.replicas\n- .spec.selector"
    );
}

#[test]
fn the_same_value_is_owned_together() {
    let config = deployment(json!({"replicas": 1}));
    let live = stored(apply(None, &config, "you", false).expect("creates"));
    let both = apply(Some(&live), &config, "me", false).expect("agrees");
    assert_eq!(owned(&both, "me"), [".spec.replicas"]);
    assert_eq!(owned(&both, "you"), [".spec.replicas"]);
}

#[test]
fn kubectl_takes_over_from_its_client_side_apply() {
    let mut config = deployment(json!({"replicas": 1}));
    let annotation = "kubectl.kubernetes.io/last-applied-configuration";
    let mut first = config.clone();
    first["metadata"]["annotations"] = json!({annotation: config.to_string()});
    let live = stored(update(None, first, "kubectl-client-side-apply"));
    config["spec"]["replicas"] = 2.into();
    let applied = apply(Some(&live), &config, "kubectl", false).expect("takes over");
    assert_eq!(applied["spec"]["replicas"], 2);
    assert_eq!(applied["metadata"]["annotations"][annotation], format!("{config}\n"));
    assert!(apply(Some(&live), &config, "other", false).is_err());
}

#[test]
fn lists_merge_in_the_applied_order_around_what_others_put_there() {
    let names = |names: &[&str]| {
        let items = names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        deployment(json!({"containers": items}))
    };
    for (live, applied, expect) in [
        (vec!["a", "b", "c"], vec!["c", "a"], vec!["b", "c", "a"]),
        (vec!["a", "b"], vec!["b", "x"], vec!["a", "b", "x"]),
        (vec!["a"], vec!["x", "a"], vec!["x", "a"]),
        (vec!["a", "b", "c", "d"], vec!["b", "d"], vec!["a", "b", "c", "d"]),
    ] {
        let live = stored(update(None, names(&live), "you"));
        let merged = apply(Some(&live), &names(&applied), "me", true).expect("applies");
        let merged: Vec<&str> = merged["spec"]["containers"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|item| item["name"].as_str())
            .collect();
        assert_eq!(merged, expect, "{applied:?}");
    }
}

#[test]
fn configurations_that_do_not_fit_are_refused() {
    let refuse = |config: Value, expect: &str| {
        let status = apply(None, &config, "me", false).expect_err("is refused");
        assert_eq!(status.message, expect);
    };
    refuse(
        json!({"apiVersion": "v1"}),
        "Incorrect version specified in apply patch. Specified patch version: v1, expected: apps/v1",
    );
    let described = "failed to create typed patch object (/web; apps/v1, Kind=Deployment): ";
    refuse(deployment(json!({"bogus": 1})), &format!("{described}.spec.bogus: field not declared in schema"));
    refuse(
        deployment(json!({"containers": [{"name": "a"}, {"name": "a"}]})),
        &format!("{described}.spec.containers: duplicate entries for key [name=\"a\"]"),
    );
    let nameless = deployment(json!({"containers": [{"image": "a"}]}));
    let applied =
        apply(None, &nameless, "me", false).expect("whether a name may be empty is for validation to say");
    let fields = applied["metadata"]["managedFields"][0]["fieldsV1"].to_string();
    assert!(fields.contains(r#"k:{\"name\":\"\"}"#), "{fields}");
    let mut managed = deployment(json!({}));
    managed["metadata"]["managedFields"] = json!([]);
    refuse(managed, "metadata.managedFields must be nil");
}

#[test]
fn the_oldest_updates_are_merged_past_the_limit() {
    let mut live = stored(update(None, deployment(json!({"replicas": 0})), "m00"));
    for n in 1..=entry::UPDATE_MANAGERS_MAX {
        let mut new = live.clone();
        new["metadata"]["labels"][format!("l{n:02}")] = "x".into();
        live = update(Some(&live), new, &format!("m{n:02}"));
    }
    let managed = ManagedFields::decode(live["metadata"].get("managedFields")).expect("decodes");
    assert_eq!(managed.entries.len(), entry::UPDATE_MANAGERS_MAX);
    let ancient = owned(&live, "ancient-changes");
    assert!(
        ancient.contains(&".spec.replicas".to_owned())
            && ancient.contains(&".metadata.labels.l01".to_owned())
    );
}

#[test]
fn entries_that_make_no_sense_are_refused() {
    let check = |entry: Value, expect: DecodeError| {
        assert_eq!(ManagedFields::decode(Some(&json!([entry]))), Err(expect));
    };
    check(json!({"operation": "Bogus"}), DecodeError::Operation);
    check(json!({"operation": "Apply"}), DecodeError::ApiVersion);
    check(json!({"operation": "Apply", "apiVersion": "v1"}), DecodeError::MissingFieldsType(0));
    check(
        json!({"operation": "Apply", "apiVersion": "v1", "fieldsType": "X"}),
        DecodeError::FieldsType("X".to_owned(), 0),
    );
}

fn arbitrary_set() -> impl Strategy<Value = Set> {
    let element = prop_oneof![
        "[a-c]".prop_map(|name| PathElement::field(&name)),
        "[a-b]".prop_map(|name| PathElement::Key(vec![("name".into(), Scalar::String(name.into()))])),
        (0_i64..3).prop_map(|n| PathElement::Value(Scalar::Number(n.into()))),
        (0_i64..2).prop_map(PathElement::Index),
    ];
    let path = proptest::collection::vec(element, 1..4).prop_map(Path);
    proptest::collection::vec(path, 0..8).prop_map(|paths| {
        let mut set = Set::default();
        paths.iter().for_each(|path| set.insert(path));
        set
    })
}

fn arbitrary_spec() -> impl Strategy<Value = Value> {
    let container = ("[a-c]", proptest::option::of("[xy]"), proptest::option::of(Just(json!(["1"]))));
    let containers = proptest::collection::vec(container, 0..4).prop_map(|containers| {
        let mut seen = std::collections::BTreeSet::new();
        let unique = containers.into_iter().filter(|(name, ..)| seen.insert(name.clone()));
        Value::from_iter(unique.map(|(name, image, args)| {
            let mut container = json!({"name": name});
            if let Some(image) = image {
                container["image"] = image.into();
            }
            if let Some(args) = args {
                container["args"] = args;
            }
            container
        }))
    });
    (proptest::option::of(0_i64..3), proptest::option::of(containers)).prop_map(|(replicas, containers)| {
        let mut spec = json!({});
        if let Some(replicas) = replicas {
            spec["replicas"] = replicas.into();
        }
        if let Some(containers) = containers {
            spec["containers"] = containers;
        }
        spec
    })
}

proptest! {
    #[test]
    fn sets_survive_the_wire(set in arbitrary_set()) {
        prop_assert_eq!(Set::from_fields_v1(&set.to_fields_v1()), Ok(set));
    }

    #[test]
    fn set_algebra_holds(a in arbitrary_set(), b in arbitrary_set(), c in arbitrary_set()) {
        let union = |a: &Set, b: &Set| a.clone().union(b.clone());
        let difference = |a: &Set, b: &Set| a.clone().difference(b);
        prop_assert_eq!(union(&a, &b), union(&b, &a));
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        prop_assert_eq!(union(&union(&a, &b), &c), union(&a, &union(&b, &c)));
        prop_assert_eq!(union(&difference(&a, &b), &a.intersection(&b)), a.clone());
        prop_assert!(difference(&a, &b).intersection(&b).is_empty());
        prop_assert_eq!(a.intersects(&b), !a.intersection(&b).is_empty());
        prop_assert_eq!(difference(&a, &union(&b, &c)), difference(&difference(&a, &b), &c));
        prop_assert!(a.paths().iter().all(|path| a.has(path)));
        prop_assert!(a.clone().recursive_difference(&a).is_empty());
    }

    #[test]
    fn applying_twice_is_applying_once(live in arbitrary_spec(), config in arbitrary_spec()) {
        let mut live = live;
        live["selector"] = json!({"a": "b"});
        let live = stored(update(None, deployment(live), "you"));
        let once = apply(Some(&live), &deployment(config.clone()), "me", true).expect("applies");
        let twice = apply(Some(&once), &deployment(config), "me", true).expect("applies again");
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn what_was_applied_alone_can_be_taken_back(config in arbitrary_spec()) {
        let live = stored(update(None, deployment(json!({"selector": {"a": "b"}})), "you"));
        let applied = apply(Some(&live), &deployment(config), "me", true).expect("applies");
        let back = apply(Some(&applied), &deployment(json!({})), "me", true).expect("applies nothing");
        prop_assert_eq!(&back["spec"]["selector"], &json!({"a": "b"}));
        prop_assert!(back["spec"]["replicas"].is_null());
        prop_assert_eq!(owned(&back, "me"), [".spec"]);
    }
}
