//! A structural schema, read once from a definition's `openAPIV3Schema` into the form that pruning, defaulting and
//! validation walk. Follows `k8s.io/apiextensions-apiserver/pkg/apiserver/schema.Structural`.
//!
//! Reading is lenient: whether a schema is structural was judged when its definition was written.

use apimachinery::{Map, Value};
use regex::Regex;

/// One node of a schema; also used for the nodes within `allOf` and its like, which carry value validations only.
#[derive(Clone, Debug, Default)]
pub struct Structural {
    pub ty: Type,
    pub nullable: bool,
    pub int_or_string: bool,
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`
    pub embedded: bool,
    pub list: ListType,
    /// `x-kubernetes-map-type: atomic`
    pub atomic_map: bool,
    pub properties: Properties,
    pub additional: Additional,
    pub items: Option<Box<Structural>>,
    pub default: Option<Box<Value>>,
    /// Absent where there is nothing to check.
    pub checks: Option<Box<Checks>>,
    /// `x-kubernetes-validations`
    pub rules: Vec<Rule>,
}

/// Fields by name, in the order of their names and without spare room: a server holds many schemas.
#[derive(Clone, Debug, Default)]
pub struct Properties(Box<[(Box<str>, Structural)]>);

impl Properties {
    pub fn get(&self, name: &str) -> Option<&Structural> {
        let at = self.0.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        Some(&self.0[at].1)
    }

    pub fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Structural)> {
        self.0.iter().map(|(name, schema)| (&**name, schema))
    }

    pub fn values(&self) -> impl Iterator<Item = &Structural> {
        self.0.iter().map(|(_, schema)| schema)
    }
}

impl FromIterator<(Box<str>, Structural)> for Properties {
    fn from_iter<I: IntoIterator<Item = (Box<str>, Structural)>>(fields: I) -> Properties {
        let mut fields: Vec<_> = fields.into_iter().collect();
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        Properties(fields.into())
    }
}

/// `type`; the empty type allows everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Type {
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    fn parse(text: &str) -> Type {
        match text {
            "object" => Type::Object,
            "array" => Type::Array,
            "string" => Type::String,
            "integer" => Type::Integer,
            "number" => Type::Number,
            "boolean" => Type::Boolean,
            _ => Type::Any,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Type::Any => "",
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
        }
    }
}

/// `x-kubernetes-list-type`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    /// With its `x-kubernetes-list-map-keys`.
    Map(Vec<Box<str>>),
}

/// `additionalProperties`
#[derive(Clone, Debug, Default)]
pub enum Additional {
    #[default]
    Unsaid,
    /// `true`: anything, of which nothing is known.
    Anything,
    Schema(Box<Structural>),
}

impl Additional {
    pub fn schema(&self) -> Option<&Structural> {
        match self {
            Additional::Schema(schema) => Some(schema),
            Additional::Unsaid | Additional::Anything => None,
        }
    }
}

/// What a value must be beyond its type.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    /// Empty when absent or not supported for the type.
    pub format: Box<str>,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub multiple_of: Option<f64>,
    pub max_length: Option<i64>,
    pub min_length: Option<i64>,
    pub pattern: Option<Pattern>,
    pub max_items: Option<i64>,
    pub min_items: Option<i64>,
    pub unique_items: bool,
    pub max_properties: Option<i64>,
    pub min_properties: Option<i64>,
    pub required: Vec<Box<str>>,
    pub enumeration: Vec<Value>,
    pub all_of: Vec<Structural>,
    pub any_of: Vec<Structural>,
    pub one_of: Vec<Structural>,
    pub not: Option<Box<Structural>>,
}

/// A regular expression with its text, which messages show.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub text: Box<str>,
    /// The complaint where it is not one.
    pub regex: Result<Regex, Box<str>>,
}

/// A compiled pattern may take this much memory; a larger one counts as invalid.
const REGEX_BYTES_MAX: usize = 1 << 20;

impl Pattern {
    fn new(text: &str) -> Pattern {
        let built = regex::RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build();
        Pattern { text: text.into(), regex: built.map_err(|error| error.to_string().into()) }
    }
}

/// One rule of `x-kubernetes-validations`, as it was written.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    pub rule: String,
    pub message: String,
    pub message_expression: String,
    pub reason: Option<String>,
    pub field_path: String,
    pub optional_old_self: Option<bool>,
}

impl Structural {
    /// Reads an `openAPIV3Schema`.
    pub fn parse(schema: &Value) -> Structural {
        let Some(schema) = schema.as_object() else { return Structural::default() };
        let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or_default();
        let flag = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or_default();
        let ty = Type::parse(text("type"));
        let int_or_string = flag("x-kubernetes-int-or-string");
        Structural {
            ty,
            nullable: flag("nullable"),
            int_or_string,
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            list: list_type(schema),
            atomic_map: text("x-kubernetes-map-type") == "atomic",
            properties: properties(schema),
            additional: match schema.get("additionalProperties") {
                Some(Value::Bool(true)) => Additional::Anything,
                Some(nested @ Value::Object(_)) => Additional::Schema(Box::new(Structural::parse(nested))),
                _ => Additional::Unsaid,
            },
            items: schema
                .get("items")
                .filter(|items| items.is_object())
                .map(|i| Box::new(Structural::parse(i))),
            default: schema
                .get("default")
                .filter(|value| !value.is_null())
                .map(|value| Box::new(value.clone())),
            checks: checks(schema, ty, int_or_string),
            rules: schema
                .get("x-kubernetes-validations")
                .and_then(|rules| serde::Deserialize::deserialize(rules).ok())
                .unwrap_or_default(),
        }
    }

    /// The schema of a field, be it named or one of the additional ones; `None` when nothing is known of it.
    pub fn field(&self, name: &str) -> Option<&Structural> {
        self.properties.get(name).or_else(|| self.additional.schema())
    }

    /// Whether this node or one below it says so.
    fn any(&self, says: &impl Fn(&Structural) -> bool) -> bool {
        says(self)
            || self.properties.values().any(|schema| schema.any(says))
            || self.additional.schema().is_some_and(|schema| schema.any(says))
            || self.items.as_ref().is_some_and(|schema| schema.any(says))
    }

    pub fn has_defaults(&self) -> bool {
        self.any(&|schema| schema.default.is_some())
    }

    pub fn has_rules(&self) -> bool {
        self.any(&|schema| !schema.rules.is_empty())
    }
}

fn properties(schema: &Map) -> Properties {
    let properties = schema.get("properties").and_then(Value::as_object);
    let parsed = properties.into_iter().flatten();
    parsed.map(|(name, schema)| (name.as_str().into(), Structural::parse(schema))).collect()
}

fn list_type(schema: &Map) -> ListType {
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListType::Set,
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            ListType::Map(keys.into_iter().flatten().filter_map(Value::as_str).map(Into::into).collect())
        }
        _ => ListType::Atomic,
    }
}

fn checks(schema: &Map, ty: Type, int_or_string: bool) -> Option<Box<Checks>> {
    const KEYS: [&str; 20] = [
        "format",
        "maximum",
        "exclusiveMaximum",
        "minimum",
        "exclusiveMinimum",
        "multipleOf",
        "maxLength",
        "minLength",
        "pattern",
        "maxItems",
        "minItems",
        "uniqueItems",
        "maxProperties",
        "minProperties",
        "required",
        "enum",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
    ];
    if !KEYS.iter().any(|key| schema.contains_key(key)) {
        return None;
    }
    let number = |key: &str| schema.get(key).and_then(Value::as_f64);
    let count = |key: &str| schema.get(key).and_then(Value::as_i64);
    let flag = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or_default();
    let list = |key: &str| schema.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let schemas = |key: &str| list(key).iter().map(Structural::parse).collect();
    let text = |key: &str| schema.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    Some(Box::new(Checks {
        format: text("format")
            .filter(|format| is_supported(format, ty, int_or_string))
            .unwrap_or_default()
            .into(),
        maximum: number("maximum"),
        exclusive_maximum: flag("exclusiveMaximum"),
        minimum: number("minimum"),
        exclusive_minimum: flag("exclusiveMinimum"),
        multiple_of: number("multipleOf"),
        max_length: count("maxLength"),
        min_length: count("minLength"),
        pattern: text("pattern").map(Pattern::new),
        max_items: count("maxItems"),
        min_items: count("minItems"),
        unique_items: flag("uniqueItems"),
        max_properties: count("maxProperties"),
        min_properties: count("minProperties"),
        required: list("required").iter().filter_map(Value::as_str).map(Into::into).collect(),
        enumeration: list("enum").to_vec(),
        all_of: schemas("allOf"),
        any_of: schemas("anyOf"),
        one_of: schemas("oneOf"),
        not: schema.get("not").filter(|not| not.is_object()).map(|not| Box::new(Structural::parse(not))),
    }))
}

/// Formats that do not belong to their type are ignored (follows `StripUnsupportedFormatsPostProcess`).
fn is_supported(format: &str, ty: Type, int_or_string: bool) -> bool {
    match ty {
        _ if int_or_string => false,
        Type::Any | Type::String => cel::strfmt::is_known(format),
        Type::Integer => matches!(format, "int32" | "int64"),
        Type::Number => matches!(format, "float" | "double"),
        Type::Object | Type::Array | Type::Boolean => false,
    }
}
