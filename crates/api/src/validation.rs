//! The vocabulary of validation: a value together with where it stands, and the checks many kinds share.
//! Messages are those of `k8s.io/apimachinery/pkg/util/validation` and `k8s.io/kubernetes/pkg/apis/core/validation`.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::quantity::Quantity;
use apimachinery::{Map, Value, names};

use crate::objectmeta::{IS_NEGATIVE, validate_label_name, validate_labels};

pub mod conditions;
pub mod domain;
pub mod ip;
pub mod node_labels;

/// What a number below one says where only positive ones may stand.
pub const IS_NOT_POSITIVE: &str = "must be greater than zero";
const IS_NOT_INTEGER: &str = "must be an integer";

/// The highest TCP or UDP port.
const PORT_MAX: i64 = 65535;
/// RFC 6335: a service name has at most 15 characters.
const PORT_NAME_MAX: usize = 15;
/// The highest user or group id the kernel's interfaces take.
const ID_MAX: i64 = i32::MAX as i64;

pub const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

static NULL: Value = Value::Null;

/// A value and its place in the object. An absent field is `null` at its place.
#[derive(Clone, Debug)]
pub struct At<'a> {
    pub value: &'a Value,
    pub path: Path,
}

impl<'a> At<'a> {
    pub fn new(value: &'a Value, path: Path) -> Self {
        At { value, path }
    }

    /// The whole object.
    pub fn root(obj: &'a Value) -> Self {
        At { value: obj, path: Path::new("") }
    }

    pub fn get(&self, field: &str) -> At<'a> {
        At { value: self.value.get(field).unwrap_or(&NULL), path: self.path.child(field) }
    }

    /// The field, if it is there; its path is not even built otherwise.
    pub fn field(&self, name: &str) -> Option<At<'a>> {
        let value = self.value.get(name).filter(|value| !value.is_null())?;
        Some(At { value, path: self.path.child(name) })
    }

    /// The field at a path of names.
    pub fn at(&self, fields: &[&str]) -> At<'a> {
        fields.iter().fold(self.clone(), |at, field| at.get(field))
    }

    /// The same value, spoken of as if it stood elsewhere.
    #[must_use]
    pub fn under(&self, path: &Path) -> At<'a> {
        At { value: self.value, path: path.clone() }
    }

    pub fn items(&self) -> impl Iterator<Item = At<'a>> + use<'a> {
        let path = self.path.clone();
        let list: &'a [Value] = self.value.as_array().map_or(&[], Vec::as_slice);
        list.iter().enumerate().map(move |(index, value)| At { value, path: path.index(index) })
    }

    /// The entries of a map, each at `path[key]`.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, At<'a>)> + use<'a> {
        let path = self.path.clone();
        self.map()
            .into_iter()
            .flatten()
            .map(move |(key, value)| (key.as_str(), At { value, path: path.key(key) }))
    }

    pub fn map(&self) -> Option<&'a Map> {
        self.value.as_object()
    }

    /// The number of items or entries.
    pub fn len(&self) -> usize {
        match self.value {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            Value::String(text) => text.len(),
            _ => 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the field is there at all (a pointer that is not nil).
    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// The field, if it is there.
    pub fn set(self) -> Option<At<'a>> {
        self.is_set().then_some(self)
    }

    pub fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    /// The texts of a list.
    pub fn texts(&self) -> Vec<&'a str> {
        self.value.as_array().map(|l| l.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
    }

    /// The number, 0 when it is absent.
    pub fn int(&self) -> i64 {
        self.value.as_i64().unwrap_or_default()
    }

    pub fn is_true(&self) -> bool {
        self.value == &Value::Bool(true)
    }

    pub fn quantity(&self) -> Option<Quantity> {
        match self.value {
            Value::String(text) => text.parse().ok(),
            Value::Number(number) => number.to_string().parse().ok(),
            _ => None,
        }
    }

    pub fn required(&self, detail: impl Into<String>) -> Error {
        Error::required(&self.path, detail)
    }

    pub fn invalid(&self, detail: impl Into<String>) -> Error {
        Error::invalid(&self.path, self.value.clone(), detail)
    }

    pub fn forbidden(&self, detail: impl Into<String>) -> Error {
        Error::forbidden(&self.path, detail)
    }

    pub fn not_supported(&self, supported: &[&str]) -> Error {
        Error::not_supported(&self.path, self.value.clone(), supported)
    }

    /// As [`At::not_supported`], where upstream has a list and keeps its order.
    pub fn not_supported_of(&self, supported: &[&str]) -> Error {
        Error::not_supported_of(&self.path, self.value.clone(), supported)
    }

    pub fn duplicate(&self) -> Error {
        Error::duplicate(&self.path, self.value.clone())
    }

    pub fn not_found(&self) -> Error {
        Error::not_found(&self.path, self.value.clone())
    }

    /// Adds the rule's complaints about this text.
    pub fn check(&self, rule: impl Fn(&str) -> Vec<String>, errors: &mut ErrorList) {
        for complaint in rule(self.text()) {
            errors.push(Error::invalid(&self.path, self.text(), complaint));
        }
    }

    /// No more bytes than a text may have.
    pub fn check_bytes(&self, max: usize, errors: &mut ErrorList) {
        if self.text().len() > max {
            errors.push(Error::too_long(&self.path, max));
        }
    }

    /// One of a set of texts that must be given.
    pub fn check_enum(&self, supported: &[&str], errors: &mut ErrorList) {
        if self.text().is_empty() {
            errors.push(self.required(""));
        } else if !supported.contains(&self.text()) {
            errors.push(self.not_supported(supported));
        }
    }

    /// As [`At::check_enum`], where upstream has a list and keeps its order.
    pub fn check_enum_of(&self, supported: &[&str], errors: &mut ErrorList) {
        if self.text().is_empty() {
            errors.push(self.required(""));
        } else if !supported.contains(&self.text()) {
            errors.push(self.not_supported_of(supported));
        }
    }

    /// As [`At::check_optional_enum`], where upstream has a list and keeps its order.
    pub fn check_optional_enum_of(&self, supported: &[&str], errors: &mut ErrorList) {
        if self.is_set() && !supported.contains(&self.text()) {
            errors.push(self.not_supported_of(supported));
        }
    }

    /// One of a set of texts, if it is given.
    pub fn check_optional_enum(&self, supported: &[&str], errors: &mut ErrorList) {
        if self.is_set() && !supported.contains(&self.text()) {
            errors.push(self.not_supported(supported));
        }
    }

    pub fn check_nonnegative(&self, errors: &mut ErrorList) {
        if self.int() < 0 {
            errors.push(self.invalid(IS_NEGATIVE));
        }
    }

    pub fn check_positive(&self, errors: &mut ErrorList) {
        if self.int() <= 0 {
            errors.push(Error::invalid(&self.path, self.int(), IS_NOT_POSITIVE));
        }
    }

    /// A field that may not change once the object exists.
    pub fn check_unchanged(&self, old: &At, errors: &mut ErrorList) {
        if !same(self.value, old.value) {
            errors.push(self.invalid(crate::objectmeta::FIELD_IMMUTABLE));
        }
    }
}

/// Equality as upstream's `apiequality.Semantic`: what is absent, null or empty is the same.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.iter().all(|(key, value)| same(value, b.get(key).unwrap_or(&NULL)))
                && b.iter().all(|(key, value)| a.contains_key(key) || is_nothing(value))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => a == b || (is_nothing(a) && is_nothing(b)),
    }
}

/// Whether a field of two objects is semantically the same.
pub fn same_field(a: &Value, b: &Value, field: &str) -> bool {
    same(a.get(field).unwrap_or(&NULL), b.get(field).unwrap_or(&NULL))
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_nothing),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// The path without its last field.
pub fn parent(path: &Path) -> Path {
    Path::new(path.as_str().rsplit_once('.').map_or("", |(parent, _)| parent))
}

pub fn inclusive_range(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

fn max_length(max: usize) -> String {
    format!("must be no more than {max} characters")
}

pub fn port_number(port: &At, errors: &mut ErrorList) {
    if !(1..=PORT_MAX).contains(&port.int()) {
        errors.push(Error::invalid(&port.path, port.int(), inclusive_range(1, PORT_MAX)));
    }
}

/// A port by number, or by the name it has in a container.
pub fn port_number_or_name(port: &At, errors: &mut ErrorList) {
    match port.value {
        Value::String(_) => port.check(port_name, errors),
        _ => port_number(port, errors),
    }
}

/// An IANA service name.
pub fn port_name(name: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if name.len() > PORT_NAME_MAX {
        complaints.push(max_length(PORT_NAME_MAX));
    }
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        complaints.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        complaints.push("must contain at least one letter (a-z)".to_owned());
    }
    if name.contains("--") {
        complaints.push("must not contain consecutive hyphens".to_owned());
    }
    if name.starts_with('-') || name.ends_with('-') {
        complaints.push("must not begin or end with a hyphen".to_owned());
    }
    complaints
}

pub fn http_header_name(name: &str) -> Vec<String> {
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    vec!["a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')".to_owned()]
}

/// Any printable ASCII but `=` (since 1.34).
pub fn env_var_name(name: &str) -> Vec<String> {
    if name.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        return Vec::new();
    }
    vec![
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
            .to_owned(),
    ]
}

/// A percentage such as `25%`.
pub fn percent(text: &str) -> Vec<String> {
    if text.strip_suffix('%').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) {
        return Vec::new();
    }
    vec!["a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')".to_owned()]
}

/// A number of things or a percentage of them: the complaints, and the number, whichever it counts (follows
/// `ValidatePositiveIntOrPercent` and `getIntOrPercentValue`).
pub fn int_or_percent(at: &At, errors: &mut ErrorList) -> i64 {
    match at.value {
        Value::String(text) => {
            at.check(percent, errors);
            text.trim_end_matches('%').parse().unwrap_or_default()
        }
        _ => {
            at.check_nonnegative(errors);
            at.int()
        }
    }
}

/// A numeric user or group.
pub fn unix_id(id: &At, errors: &mut ErrorList) {
    if id.is_set() && !(0..=ID_MAX).contains(&id.int()) {
        errors.push(id.invalid(inclusive_range(0, ID_MAX)));
    }
}

pub fn dns1123_label(at: &At, errors: &mut ErrorList) {
    at.check(names::is_dns1123_label, errors);
}

pub fn dns1123_subdomain(at: &At, errors: &mut ErrorList) {
    at.check(names::is_dns1123_subdomain, errors);
}

pub fn qualified_name(at: &At, errors: &mut ErrorList) {
    at.check(names::is_qualified_name, errors);
}

/// A `metav1.LabelSelector`; absent ones are fine.
pub fn label_selector(selector: &At, errors: &mut ErrorList) {
    validate_labels(selector.value.get("matchLabels"), &selector.path.child("matchLabels"), errors);
    for requirement in selector.get("matchExpressions").items() {
        label_selector_requirement(&requirement, errors);
    }
}

fn label_selector_requirement(requirement: &At, errors: &mut ErrorList) {
    let values = requirement.get("values");
    let operator = requirement.get("operator");
    match operator.text() {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors
                .push(values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.push(Error::invalid(&operator.path, other, "not a valid selector operator")),
    }
    let key = requirement.get("key");
    validate_label_name(key.text(), &key.path, errors);
    for value in values.items() {
        value.check(names::is_label_value, errors);
    }
}

/// A quantity of a resource: not negative, and whole for resources that are counted.
pub fn resource_quantity(resource: &str, quantity: &At, errors: &mut ErrorList) {
    let Some(value) = quantity.quantity() else { return };
    if value.sign() < 0 {
        errors.push(Error::invalid(&quantity.path, value.to_string(), IS_NEGATIVE));
    }
    if is_integer_resource(resource) && value.milli_value() % 1000 != 0 {
        errors.push(Error::invalid(&quantity.path, value.to_string(), IS_NOT_INTEGER));
    }
}

/// A quantity that may not be negative (follows `validateBasicResource`).
pub fn basic_quantity(quantity: &At, errors: &mut ErrorList) {
    if let Some(value) = quantity.quantity().filter(|value| value.sign() < 0) {
        errors.push(Error::invalid(&quantity.path, value.value(), "must be a valid resource quantity"));
    }
}

pub fn positive_quantity(quantity: &At, errors: &mut ErrorList) {
    if let Some(value) = quantity.quantity().filter(|value| value.sign() <= 0) {
        errors.push(Error::invalid(&quantity.path, value.to_string(), IS_NOT_POSITIVE));
    }
}

/// Resources that come in whole numbers: object counts and extended resources (follows `IsIntegerResourceName`).
fn is_integer_resource(resource: &str) -> bool {
    const COUNTED: [&str; 9] = [
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    ];
    COUNTED.contains(&resource) || is_extended_resource(resource)
}

/// A resource of a domain that is not Kubernetes' own (follows `IsExtendedResourceName`).
pub fn is_extended_resource(resource: &str) -> bool {
    !is_native_resource(resource)
        && !resource.starts_with("requests.")
        && names::is_qualified_name(&format!("requests.{resource}")).is_empty()
}

/// Begins the names of resources that are huge pages of one size; the kernel's folders are named alike.
pub const HUGE_PAGES: &str = "hugepages-";

/// Follows `IsHugePageResourceName`.
pub fn is_huge_page_resource(resource: &str) -> bool {
    resource.starts_with(HUGE_PAGES)
}

/// Without a domain, or in `kubernetes.io`.
pub fn is_native_resource(resource: &str) -> bool {
    !resource.contains('/') || resource.contains("kubernetes.io/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn nothing_is_the_same_as_empty() {
        assert!(same(&json!({"a": [], "b": {"c": {}}, "d": 1}), &json!({"d": 1})));
        assert!(!same(&json!({"a": [1]}), &json!({})));
        assert!(!same(&json!({"a": ""}), &json!({"a": "x"})));
        assert!(!same(&json!({"a": false}), &json!({"a": true})));
    }

    #[test]
    fn port_names_have_a_letter_and_no_loose_hyphens() {
        for good in ["http", "a-1", "1a"] {
            assert!(port_name(good).is_empty(), "{good}");
        }
        for bad in ["", "1", "a--b", "-a", "A", "a-name-too-long-by-far"] {
            assert!(!port_name(bad).is_empty(), "{bad}");
        }
    }

    #[test]
    fn selectors_are_checked_term_by_term() {
        let selector = json!({"matchExpressions": [
            {"key": "a", "operator": "In"},
            {"key": "a", "operator": "Exists", "values": ["x"]},
            {"key": "-", "operator": "Near"}]});
        let mut errors = ErrorList::new();
        label_selector(&At::new(&selector, Path::new("s")), &mut errors);
        let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "s.matchExpressions[0].values",
                "s.matchExpressions[1].values",
                "s.matchExpressions[2].operator",
                "s.matchExpressions[2].key"
            ]
        );
    }

    #[test]
    fn extended_resources_are_whole() {
        let amounts = json!({"example.com/gpu": "500m", "cpu": "500m"});
        let mut errors = ErrorList::new();
        for (name, quantity) in At::new(&amounts, Path::new("limits")).entries() {
            resource_quantity(name, &quantity, &mut errors);
        }
        assert_eq!(errors.len(), 1);
        assert_eq!(
            errors[0].to_string(),
            "limits[example.com/gpu]: Invalid value: \"500m\": must be an integer"
        );
    }
}
