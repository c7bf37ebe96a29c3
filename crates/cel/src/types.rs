//! Types of expressions, and of the objects they look into.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::escape::escape;

#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// Known only when evaluated.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Arc<Type>),
    Map(Arc<Type>, Arc<Type>),
    Optional(Arc<Type>),
    /// The type of a type.
    Type(Arc<Type>),
    Object(Arc<ObjectType>),
    /// One that only functions look into.
    Opaque(&'static str),
    /// A parameter of a function's signature.
    Param(char),
    /// What the checker has yet to find out.
    Var(usize),
}

/// An object with declared fields.
#[derive(Debug, PartialEq)]
pub struct ObjectType {
    pub name: String,
    fields: BTreeMap<String, Field>,
    /// Whether there may be others, of which nothing is known.
    is_open: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    /// As JSON has it.
    pub name: Arc<str>,
    pub of: Type,
}

impl ObjectType {
    /// `fields` are named as in JSON; those that no identifier can name are left out.
    pub fn new(name: impl Into<String>, fields: impl IntoIterator<Item = (String, Type)>) -> Arc<ObjectType> {
        let fields = fields
            .into_iter()
            .filter_map(|(name, of)| Some((escape(&name)?, Field { name: name.into(), of })));
        Arc::new(ObjectType { name: name.into(), fields: fields.collect(), is_open: false })
    }

    /// An object that may have any fields.
    pub fn open(name: impl Into<String>) -> Arc<ObjectType> {
        Arc::new(ObjectType { name: name.into(), fields: BTreeMap::new(), is_open: true })
    }

    /// The same with a field of this type.
    pub fn with(&self, name: &str, of: Type) -> Arc<ObjectType> {
        let mut fields = self.fields.clone();
        fields.extend(escape(name).map(|escaped| (escaped, Field { name: name.into(), of })));
        Arc::new(ObjectType { name: self.name.clone(), fields, is_open: self.is_open })
    }

    /// The field's name in JSON, and its type.
    pub(crate) fn field(&self, identifier: &str) -> Option<(Arc<str>, Type)> {
        match self.fields.get(identifier) {
            Some(field) => Some((field.name.clone(), field.of.clone())),
            None => self.is_open.then(|| (identifier.into(), Type::Dyn)),
        }
    }
}

impl Type {
    pub fn list(of: Type) -> Type {
        Type::List(Arc::new(of))
    }

    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new(key), Arc::new(value))
    }

    pub fn optional(of: Type) -> Type {
        Type::Optional(Arc::new(of))
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn => f.write_str("dyn"),
            Type::Null => f.write_str("null"),
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::Uint => f.write_str("uint"),
            Type::Double => f.write_str("double"),
            Type::String => f.write_str("string"),
            Type::Bytes => f.write_str("bytes"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::Duration => f.write_str("duration"),
            Type::List(of) => write!(f, "list({of})"),
            Type::Map(key, value) => write!(f, "map({key}, {value})"),
            Type::Optional(of) => write!(f, "optional_type({of})"),
            Type::Type(of) => write!(f, "type({of})"),
            Type::Object(object) => f.write_str(&object.name),
            Type::Opaque(name) => f.write_str(name),
            Type::Param(name) => write!(f, "<{name}>"),
            Type::Var(_) => f.write_str("dyn"),
        }
    }
}
