//! A schema as expressions know it: the type that they are checked against, and the shape that they see values in.
//! Follows `common.SchemaDeclType`.

use cel::{Listed, ObjectType, Shape, Type};

use crate::structural::{self, ListType, Structural};

/// What is known of a value. Of what a schema leaves open nothing is, and rules cannot name it.
#[derive(Clone, Debug)]
pub struct Declared {
    pub of: Type,
    pub shape: Shape,
}

impl Declared {
    fn new(of: Type, shape: Shape) -> Option<Declared> {
        Some(Declared { of, shape })
    }
}

/// `is_root` adds what every object has. Objects of different places are of different types, so that each is named
/// by where it is, beginning with `name`.
pub fn declare(schema: &Structural, is_root: bool, name: &str) -> Option<Declared> {
    if schema.int_or_string {
        return Declared::new(Type::Dyn, Shape::Plain);
    }
    match schema.ty {
        structural::Type::Array => {
            let item = schema.items.as_deref()?;
            let item = declare(item, item.embedded, &format!("{name}.@idx"))?;
            let shape = Shape::List(listed(&schema.list), Box::new(item.shape));
            Declared::new(Type::list(item.of), shape)
        }
        structural::Type::Object => object(schema, is_root, name),
        structural::Type::String => {
            let (of, shape) = match schema.checks.as_deref().map_or("", |checks| &*checks.format) {
                "byte" => (Type::Bytes, Shape::Bytes),
                "duration" => (Type::Duration, Shape::Duration),
                "date" | "date-time" => (Type::Timestamp, Shape::Timestamp),
                _ => (Type::String, Shape::Plain),
            };
            Declared::new(of, shape)
        }
        structural::Type::Boolean => Declared::new(Type::Bool, Shape::Plain),
        structural::Type::Number => Declared::new(Type::Double, Shape::Double),
        structural::Type::Integer => Declared::new(Type::Int, Shape::Plain),
        structural::Type::Any => None,
    }
}

fn listed(list: &ListType) -> Listed {
    match list {
        ListType::Atomic => Listed::Atomic,
        ListType::Set => Listed::Set,
        ListType::Map(keys) => Listed::Map(keys.clone()),
    }
}

fn object(schema: &Structural, is_root: bool, name: &str) -> Option<Declared> {
    if let (Some(value), false) = (schema.additional.schema(), is_root) {
        let value = declare(value, value.embedded, &format!("{name}.@elem"))?;
        return Declared::new(Type::map(Type::String, value.of), Shape::Map(Box::new(value.shape)));
    }
    let mut fields: Vec<(&str, Declared)> = Vec::new();
    for (field, schema) in schema.properties.iter() {
        if let Some(declared) = declare(schema, schema.embedded, &format!("{name}.{field}")) {
            fields.push((field, declared));
        }
    }
    if is_root && !says_what_it_is(schema) {
        fields.retain(|(field, _)| !matches!(*field, "apiVersion" | "kind" | "metadata"));
        fields.extend(identity(name));
    }
    let types = fields.iter().map(|(field, declared)| ((*field).to_owned(), declared.of.clone()));
    let of = Type::Object(ObjectType::new(name, types));
    let shapes = fields.into_iter().map(|(field, declared)| (field.into(), declared.shape));
    Declared::new(of, Shape::Object(shapes.collect()))
}

fn says_what_it_is(schema: &Structural) -> bool {
    let text = |schema: Option<&Structural>| schema.is_some_and(|s| s.ty == structural::Type::String);
    let own = |name: &str| schema.properties.get(name);
    let of_metadata = |name: &str| own("metadata").and_then(|metadata| metadata.properties.get(name));
    let texts = [own("kind"), own("apiVersion"), of_metadata("name"), of_metadata("generateName")];
    texts.into_iter().all(text)
}

/// What every object has; of its metadata only what it is called.
fn identity(name: &str) -> [(&'static str, Declared); 3] {
    let text = || Declared { of: Type::String, shape: Shape::Plain };
    let names = ["name", "generateName"].map(|field| (field.to_owned(), Type::String));
    let metadata = ObjectType::new(format!("{name}.metadata"), names);
    let shapes = ["name", "generateName"].map(|field| (field.into(), Shape::Plain));
    let metadata = Declared { of: Type::Object(metadata), shape: Shape::Object(shapes.into()) };
    [("apiVersion", text()), ("kind", text()), ("metadata", metadata)]
}
