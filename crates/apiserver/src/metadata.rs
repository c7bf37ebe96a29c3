//! The metadata the server itself gives a new object: its name, its identity, its birth.
//! Follows `rest.BeforeCreate`, `FillObjectMetaSystemFields` and `SimpleNameGenerator`.

use apimachinery::meta::str_at;
use apimachinery::names::GENERATE_NAME_PREFIX_MAX;
use apimachinery::{Map, Status, Value, time};
use jiff::Timestamp;

/// Random characters a generated name ends with.
const SUFFIX_LEN: usize = 5;
/// No vowels and no digits that look like letters, so that suffixes spell nothing.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Fills a buffer with bytes nobody can guess. Replaced in simulations.
pub type Random = std::sync::Arc<dyn Fn(&mut [u8]) + Send + Sync>;

pub fn metadata_mut(object: &mut Value) -> Result<&mut Map, Status> {
    let map =
        object.as_object_mut().ok_or_else(|| Status::bad_request("the request body is not an object"))?;
    let metadata = map.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut().ok_or_else(|| Status::bad_request("metadata is not an object"))
}

/// Takes the namespace from the path where the object has none, and refuses another.
pub fn settle_namespace(object: &mut Value, namespaced: bool, namespace: &str) -> Result<(), Status> {
    let metadata = metadata_mut(object)?;
    if !namespaced {
        metadata.remove("namespace");
        return Ok(());
    }
    let found = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default();
    if found.is_empty() {
        metadata.insert("namespace", namespace.into());
        return Ok(());
    }
    if found == namespace {
        return Ok(());
    }
    Err(Status::bad_request(
        "the namespace of the provided object does not match the namespace sent on the request",
    ))
}

/// What only the server decides about a new object.
pub fn fill_new(object: &mut Value, uid: String, now: Timestamp) -> Result<(), Status> {
    let is_versioned = is_versioned(object);
    if !is_versioned {
        forget_version(object)?;
    }
    let metadata = metadata_mut(object)?;
    metadata.insert("uid", uid.into());
    metadata.insert("creationTimestamp", time::format_time(now).into());
    // Before anybody comes to own what the kind takes out anyway.
    api::objectmeta::prepare_for_create(object);
    Ok(())
}

/// Makes an object say nothing of the state it is in.
pub fn forget_version(object: &mut Value) -> Result<(), Status> {
    metadata_mut(object)?.remove("resourceVersion");
    Ok(())
}

/// The state that a resourceVersion names, if it names one (follows `ObjectResourceVersion`).
pub fn version(text: &str) -> Result<Option<u64>, String> {
    match text.parse() {
        Ok(0) => Ok(None),
        Ok(version) => Ok(Some(version)),
        Err(_) if text.is_empty() => Ok(None),
        Err(_) => Err(format!("strconv.ParseUint: parsing {text:?}: invalid syntax")),
    }
}

fn is_versioned(object: &Value) -> bool {
    matches!(version(str_at(object, &["metadata", "resourceVersion"])), Ok(Some(_)))
}

/// Refuses to store an object as new that says which state of an old one it is; all others who may refuse come first.
pub fn check_unversioned(object: &Value) -> Result<(), Status> {
    match is_versioned(object) {
        true => Err(Status::failure(500, "", "resourceVersion should not be set on objects to be created")),
        false => Ok(()),
    }
}

/// The prefix to generate a name from, when the object asks for one.
pub fn generate_name(object: &Value) -> Option<&str> {
    let prefix = str_at(object, &["metadata", "generateName"]);
    (str_at(object, &["metadata", "name"]).is_empty() && !prefix.is_empty()).then_some(prefix)
}

pub fn set_name(object: &mut Value, name: &str) -> Result<(), Status> {
    metadata_mut(object)?.insert("name", name.into());
    Ok(())
}

pub fn generated_name(prefix: &str, random: &Random) -> String {
    let mut bytes = [0; SUFFIX_LEN];
    random(&mut bytes);
    let end = (0..=prefix.len().min(GENERATE_NAME_PREFIX_MAX)).rev().find(|at| prefix.is_char_boundary(*at));
    let suffix = bytes.iter().map(|b| SUFFIX_ALPHABET[usize::from(*b) % SUFFIX_ALPHABET.len()] as char);
    prefix[..end.unwrap_or_default()].chars().chain(suffix).collect()
}

/// A random UUID (RFC 9562, version 4).
pub fn new_uid(random: &Random) -> String {
    let mut bytes = [0; 16];
    random(&mut bytes);
    let bits = u128::from_be_bytes(bytes);
    let (version, variant) = ((bits >> 64) & 0x0fff | 0x4000, (bits >> 48) & 0x3fff | 0x8000);
    let (head, middle, tail) = (bits >> 96, (bits >> 80) & 0xffff, bits & 0xffff_ffff_ffff);
    format!("{head:08x}-{middle:04x}-{version:04x}-{variant:04x}-{tail:012x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    fn constant() -> Random {
        std::sync::Arc::new(|buffer| buffer.fill(0xff))
    }

    #[test]
    fn identities_and_names_have_their_forms() {
        assert_eq!(new_uid(&constant()), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        let counted: Random = std::sync::Arc::new(|buffer| (1..).zip(buffer).for_each(|(n, byte)| *byte = n));
        assert_eq!(new_uid(&counted), "01020304-0506-4708-890a-0b0c0d0e0f10");
        let name = generated_name("web-", &constant());
        assert_eq!(name.len(), 4 + SUFFIX_LEN);
        assert_eq!(generated_name(&"x".repeat(90), &constant()).len(), 63);
    }

    #[test]
    fn a_namespace_must_be_that_of_the_path() {
        let mut object = json!({"metadata": {}});
        settle_namespace(&mut object, true, "a").expect("is filled in");
        assert_eq!(object["metadata"]["namespace"], "a");
        assert_eq!(settle_namespace(&mut object, true, "b").expect_err("differs").code, 400);
    }

    #[test]
    fn a_new_object_may_not_have_a_revision() {
        let mut object = json!({"metadata": {"resourceVersion": "4"}});
        fill_new(&mut object, "u".to_owned(), Timestamp::UNIX_EPOCH).expect("is filled in");
        assert_eq!(check_unversioned(&object).expect_err("is refused").code, 500);
        for none in ["", "0"] {
            object["metadata"]["resourceVersion"] = none.into();
            assert_eq!(check_unversioned(&object), Ok(()));
        }
    }
}
