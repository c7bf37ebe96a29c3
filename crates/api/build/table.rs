//! The table's rows as the build makes them; `apimachinery::schema` has their meaning.

#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    Object { atomic: bool, group_versions: Vec<String>, fields: Vec<Field>, embedded: Vec<Embedded> },
    Map { value: u32, atomic: bool },
    List { item: u32, list_type: ListType, wrapped: bool },
    Scalar(Scalar),
    Union { object: u32, object_tag: u32, other: u32, other_tag: u32 },
    Any,
}

/// In the order of `apimachinery::schema::Scalar`, which the reader relies on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scalar {
    String,
    Bytes,
    Bool,
    Int32,
    Int64,
    Double,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    Duration,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub enum ListType {
    Atomic,
    Set,
    Map(Vec<String>),
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Type {
    /// The OpenAPI name; empty for an anonymous type.
    pub name: String,
    pub description: String,
    pub kind: Kind,
}

#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Embedded {
    pub wrap: [u8; 2],
    pub name: String,
}

#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Field {
    pub name: String,
    pub description: String,
    pub ty: u32,
    pub tag: u32,
    pub wrap: [u8; 2],
    pub required: bool,
    pub off: bool,
    /// 0 omitted when empty, 1 pointer, 2 always written.
    pub presence: u8,
    /// JSON text.
    pub default: Option<String>,
    /// Whether the field says atomic (true) or granular (false) itself.
    pub atomic: Option<bool>,
    pub patch_merge: bool,
    pub patch_retain_keys: bool,
    pub patch_merge_key: Option<String>,
    pub enum_values: Vec<String>,
}
