//! Joins messages and overlay into the table of types reachable from those that travel on their own.

use std::collections::{BTreeMap, HashMap};

use crate::comments::Comment;
use crate::overlay::{FieldFacts, Overlay, TypeFacts};
use crate::sources::{Element, Message, Messages, ProtoField, Shape};
use crate::table::{Embedded, Field, Kind, ListType, Scalar, Type};

const META: &str = "apimachinery.pkg.apis.meta.v1";
const JSON_SCHEMA: &str = "apiextensions_apiserver.pkg.apis.apiextensions.v1";

pub fn join(messages: &Messages, overlay: &Overlay) -> Vec<Type> {
    let mut joiner =
        Joiner { messages, overlay, types: Vec::new(), named: BTreeMap::new(), anonymous: HashMap::new() };
    for root in overlay.roots() {
        joiner.message(&root);
    }
    joiner.types
}

/// What a message holds: fields of its own and of messages embedded in it.
#[derive(Default)]
struct Inside {
    fields: Vec<Field>,
    embedded: Vec<Embedded>,
}

struct Joiner<'a> {
    messages: &'a Messages,
    overlay: &'a Overlay,
    types: Vec<Type>,
    named: BTreeMap<String, u32>,
    anonymous: HashMap<Kind, u32>,
}

impl Joiner<'_> {
    /// The type of a message by full name, made when first asked for.
    fn message(&mut self, name: &str) -> u32 {
        if let Some(id) = self.named.get(name) {
            return *id;
        }
        let messages = self.messages;
        let message = messages.get(name).unwrap_or_else(|| panic!("{name} is defined"));
        if name.rsplit('.').next().is_some_and(|n| n == "ExtraValue" || n == "Verbs") {
            let item = self.anonymous(Kind::Scalar(Scalar::String));
            let id = self.anonymous(Kind::List { item, list_type: ListType::Atomic, wrapped: true });
            self.named.insert(name.to_owned(), id);
            return id;
        }
        let id = self.types.len() as u32;
        self.named.insert(name.to_owned(), id);
        let comment = Comment::parse(&message.comment);
        let openapi_name = openapi_name(name);
        self.types.push(Type {
            name: openapi_name,
            description: comment.description.clone(),
            kind: Kind::Any,
        });
        let kind = self.special(name).unwrap_or_else(|| self.object(name, message, &comment));
        self.types[id as usize].kind = kind;
        id
    }

    fn anonymous(&mut self, kind: Kind) -> u32 {
        if let Some(id) = self.anonymous.get(&kind) {
            return *id;
        }
        let id = self.types.len() as u32;
        self.types.push(Type { name: String::new(), description: String::new(), kind: kind.clone() });
        self.anonymous.insert(kind, id);
        id
    }

    /// The messages whose JSON form is not an object of their fields.
    fn special(&mut self, name: &str) -> Option<Kind> {
        let (package, short) = name.rsplit_once('.')?;
        let kind = match short {
            "Quantity" => Kind::Scalar(Scalar::Quantity),
            "IntOrString" => Kind::Scalar(Scalar::IntOrString),
            "Time" if package == META => Kind::Scalar(Scalar::Time),
            "MicroTime" if package == META => Kind::Scalar(Scalar::MicroTime),
            "Duration" if package == META => Kind::Scalar(Scalar::Duration),
            "RawExtension" | "FieldsV1" => Kind::Any,
            "JSON" if package == JSON_SCHEMA => Kind::Any,
            "JSONSchemaPropsOrBool" => {
                let other = self.anonymous(Kind::Scalar(Scalar::Bool));
                self.json_schema_or(2, other, 1)
            }
            "JSONSchemaPropsOrArray" => {
                let item = self.message(&format!("{JSON_SCHEMA}.JSONSchemaProps"));
                let other = self.anonymous(Kind::List { item, list_type: ListType::Atomic, wrapped: false });
                self.json_schema_or(1, other, 2)
            }
            "JSONSchemaPropsOrStringArray" => {
                let item = self.anonymous(Kind::Scalar(Scalar::String));
                let other = self.anonymous(Kind::List { item, list_type: ListType::Atomic, wrapped: false });
                self.json_schema_or(1, other, 2)
            }
            _ => return None,
        };
        Some(kind)
    }

    fn json_schema_or(&mut self, object_tag: u32, other: u32, other_tag: u32) -> Kind {
        let object = self.message(&format!("{JSON_SCHEMA}.JSONSchemaProps"));
        Kind::Union { object, object_tag, other, other_tag }
    }

    fn object(&mut self, name: &str, message: &Message, comment: &Comment) -> Kind {
        let no_facts = TypeFacts::default();
        let facts = self.overlay.facts(name).unwrap_or(&no_facts);
        let mut inside = Inside::default();
        self.fields(name, message, facts, &Embedded::default(), &mut inside);
        let Inside { mut fields, embedded } = inside;
        if facts.type_meta {
            fields.extend(self.type_meta());
        }
        let atomic = comment.marker("structType").or(comment.marker("mapType")) == Some("atomic");
        Kind::Object { atomic, group_versions: facts.root.iter().cloned().collect(), fields, embedded }
    }

    fn fields(
        &mut self,
        name: &str,
        message: &Message,
        facts: &TypeFacts,
        within: &Embedded,
        out: &mut Inside,
    ) {
        for proto in &message.fields {
            let field_facts = facts.field(&proto.name);
            if field_facts.gone {
                continue;
            }
            if field_facts.inline {
                self.inline(proto, within, out);
            } else {
                out.fields.push(self.field(name, proto, &field_facts, within.wrap));
            }
        }
    }

    /// The fields of an embedded message, which JSON has in the embedding object.
    fn inline(&mut self, proto: &ProtoField, within: &Embedded, out: &mut Inside) {
        let Shape::One(Element::Message(inner)) = &proto.shape else {
            panic!("only a single message can be inline, not {}", proto.name);
        };
        let tag = u8::try_from(proto.tag).expect("tags of embedded messages are small");
        let type_name = inner.rsplit('.').next().unwrap_or_default();
        let embedded = match within.wrap {
            [0, 0] => Embedded { wrap: [tag, 0], name: type_name.to_owned() },
            [outer, 0] => Embedded { wrap: [outer, tag], name: format!("{}.{type_name}", within.name) },
            _ => panic!("{} is embedded too deeply", proto.name),
        };
        let no_facts = TypeFacts::default();
        let facts = self.overlay.facts(inner).unwrap_or(&no_facts);
        let messages = self.messages;
        self.fields(inner, &messages[inner.as_str()], facts, &embedded, out);
        out.embedded.push(embedded);
    }

    fn field(&mut self, message: &str, proto: &ProtoField, facts: &FieldFacts, wrap: [u8; 2]) -> Field {
        let comment = Comment::parse(&proto.comment);
        let strategy = comment.marker("patchStrategy").unwrap_or_default();
        let ty = self.shape(&proto.shape, &comment);
        let is_object = matches!(self.types[ty as usize].kind, Kind::Object { .. });
        let atomic = comment.marker("structType").filter(|_| is_object).or(comment.marker("mapType"));
        Field {
            name: facts.json_name.clone().unwrap_or_else(|| proto.name.clone()),
            ty,
            tag: proto.tag,
            wrap,
            required: facts.required,
            off: facts.off,
            presence: presence(proto, facts),
            default: comment.marker("default").map(default),
            atomic: atomic.map(|a| a == "atomic"),
            patch_merge: strategy.split(',').any(|s| s == "merge"),
            patch_retain_keys: strategy.split(',').any(|s| s == "retainKeys"),
            patch_merge_key: comment.marker("patchMergeKey").map(str::to_owned),
            enum_values: self.overlay.enum_values(message, &proto.name).to_vec(),
            description: comment.description,
        }
    }

    fn shape(&mut self, shape: &Shape, comment: &Comment) -> u32 {
        match shape {
            Shape::One(element) => self.element(element),
            Shape::Repeated(element) => {
                let item = self.element(element);
                let keys: Vec<String> = comment.all("listMapKey").map(str::to_owned).collect();
                let list_type = match comment.marker("listType") {
                    Some("set") => ListType::Set,
                    Some("map") => ListType::Map(keys),
                    _ => ListType::Atomic,
                };
                self.anonymous(Kind::List { item, list_type, wrapped: false })
            }
            Shape::Map(element) => {
                let value = self.element(element);
                self.anonymous(Kind::Map { value, atomic: comment.marker("mapType") == Some("atomic") })
            }
        }
    }

    fn element(&mut self, element: &Element) -> u32 {
        let scalar = match element {
            Element::Message(name) => return self.message(name),
            Element::String => Scalar::String,
            Element::Bytes => Scalar::Bytes,
            Element::Bool => Scalar::Bool,
            Element::Int32 => Scalar::Int32,
            Element::Int64 => Scalar::Int64,
            Element::Double => Scalar::Double,
        };
        self.anonymous(Kind::Scalar(scalar))
    }

    /// `kind` and `apiVersion`, which travel beside the message in protobuf.
    fn type_meta(&mut self) -> [Field; 2] {
        let ty = self.anonymous(Kind::Scalar(Scalar::String));
        let field = |name: &str, description: &str| Field {
            name: name.to_owned(),
            description: description.to_owned(),
            ty,
            ..Field::default()
        };
        [
            field(
                "apiVersion",
                "The versioned schema of this representation of the object, as group/version.",
            ),
            field("kind", "The kind of object this is, in CamelCase. It cannot be changed."),
        ]
    }
}

/// The JSON text of a `+default`, which may name a constant of upstream's.
fn default(marker: &str) -> String {
    match marker {
        "ref(AzureSharedBlobDisk)" => "\"Shared\"",
        "ref(AzureDataDiskCachingReadWrite)" => "\"ReadWrite\"",
        literal => literal,
    }
    .to_owned()
}

fn presence(proto: &ProtoField, facts: &FieldFacts) -> u8 {
    const OMIT_EMPTY: u8 = 0;
    const POINTER: u8 = 1;
    const ALWAYS: u8 = 2;
    match &proto.shape {
        Shape::One(Element::Message(name)) => {
            let scalar_like =
                ["Quantity", "IntOrString", "Time", "MicroTime", "Duration", "Verbs", "ExtraValue"];
            let short = name.rsplit('.').next().unwrap_or_default();
            let value = facts.value || matches!(short, "ObjectMeta" | "ListMeta");
            match (scalar_like.contains(&short), value) {
                (true, _) if facts.pointer => POINTER,
                (true, _) if facts.always => ALWAYS,
                (true, _) => OMIT_EMPTY,
                (false, true) => ALWAYS,
                (false, false) => POINTER,
            }
        }
        _ if facts.pointer => POINTER,
        _ if facts.always => ALWAYS,
        _ => OMIT_EMPTY,
    }
}

/// `api.core.v1.Pod` is `io.k8s.api.core.v1.Pod`; package names have dashes where proto has underscores.
fn openapi_name(message: &str) -> String {
    let (package, name) = message.rsplit_once('.').expect("a message is in a package");
    format!("io.k8s.{}.{name}", package.replace('_', "-"))
}
