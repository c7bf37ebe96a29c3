//! Reads the `.proto` texts, comments included, into plain messages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cargo_metadata::MetadataCommand;
use prost_reflect::prost::Message as _;
use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
};

/// The package that ships upstream's texts, and the folder of the version this table starts from.
const SOURCE_PACKAGE: &str = "k8s-rs-pb";
const SOURCE_VERSION: &str = "v1_35";
/// The overlay's folder of texts for the version served, which is also the prefix of their package names.
const ADDITIONS: &str = "v1_36";

/// By full name, for example `api.core.v1.Pod`.
pub type Messages = BTreeMap<String, Message>;

#[derive(Default)]
pub struct Message {
    pub comment: String,
    pub fields: Vec<ProtoField>,
}

pub struct ProtoField {
    pub name: String,
    pub tag: u32,
    pub comment: String,
    pub shape: Shape,
}

#[derive(Clone, PartialEq)]
pub enum Shape {
    One(Element),
    Repeated(Element),
    Map(Element),
}

#[derive(Clone, PartialEq)]
pub enum Element {
    String,
    Bytes,
    Bool,
    Int32,
    Int64,
    Double,
    Message(String),
}

/// The descriptors of `packages` and of the overlay's additions, comments included.
pub fn load(manifest: &Path, overlay: &Path, packages: &[String]) -> FileDescriptorSet {
    let root = source_dir(manifest).join("src").join(SOURCE_VERSION);
    let additions = overlay.join(ADDITIONS);
    let mut files: Vec<PathBuf> =
        packages.iter().map(|p| root.join(p.replace('.', "/")).join("generated.proto")).collect();
    let listing = std::fs::read_dir(&additions).expect("the overlay has additions");
    files.extend(listing.map(|entry| entry.expect("the overlay is readable").path()));
    files.sort();
    protox::Compiler::new([&root, &additions])
        .and_then(|mut compiler| {
            compiler.include_source_info(true).include_imports(true).open_files(&files)?;
            Ok(compiler.file_descriptor_set())
        })
        .expect("the proto texts are well-formed")
}

/// The set in its binary form, without comments.
pub fn encode(mut set: FileDescriptorSet) -> Vec<u8> {
    set.file.iter_mut().for_each(|file| file.source_code_info = None);
    set.encode_to_vec()
}

/// All messages, with the additions merged in.
pub fn messages(set: &FileDescriptorSet) -> Messages {
    let mut messages = Messages::new();
    let (added, base): (Vec<_>, Vec<_>) =
        set.file.iter().partition(|file| file.package().starts_with(ADDITIONS));
    for file in base.into_iter().chain(added) {
        collect(file, &mut messages);
    }
    messages
}

fn source_dir(manifest: &Path) -> PathBuf {
    let metadata = MetadataCommand::new()
        .manifest_path(manifest)
        .exec()
        .expect("cargo metadata describes this workspace");
    let package = metadata.packages.iter().find(|p| p.name.as_str() == SOURCE_PACKAGE);
    let package = package.expect("the package with the proto texts is a dependency");
    package.manifest_path.parent().expect("a manifest is in a folder").to_path_buf().into()
}

fn collect(file: &FileDescriptorProto, messages: &mut Messages) {
    let comments = comments_by_path(file);
    let comment = |path: &[i32]| comments.get(path).cloned().unwrap_or_default();
    let package = file.package();
    for (at, proto) in file.message_type.iter().enumerate() {
        let name = plain_name(&format!("{package}.{}", proto.name()));
        let message = messages.entry(name).or_default();
        if message.comment.is_empty() {
            message.comment = comment(&[4, at as i32]);
        }
        for (index, field) in proto.field.iter().enumerate() {
            message.fields.push(ProtoField {
                name: field.name().to_owned(),
                tag: u32::try_from(field.number()).expect("tags are positive"),
                comment: comment(&[4, at as i32, 2, index as i32]),
                shape: shape(field, proto),
            });
        }
    }
}

fn comments_by_path(file: &FileDescriptorProto) -> BTreeMap<&[i32], String> {
    let locations = file.source_code_info.as_ref().map_or(&[][..], |info| &info.location);
    locations
        .iter()
        .filter_map(|l| l.leading_comments.as_ref().map(|text| (l.path.as_slice(), text.clone())))
        .collect()
}

/// The name without the leading dot and the additions' prefix.
fn plain_name(name: &str) -> String {
    let name = name.trim_start_matches('.');
    name.strip_prefix(ADDITIONS).map_or(name, |rest| rest.trim_start_matches('.')).to_owned()
}

fn shape(field: &FieldDescriptorProto, parent: &DescriptorProto) -> Shape {
    if field.label() != Label::Repeated {
        return Shape::One(element(field));
    }
    let entry = parent.nested_type.iter().find(|nested| {
        nested.options.as_ref().is_some_and(|o| o.map_entry())
            && field.type_name().rsplit('.').next() == Some(nested.name())
    });
    match entry {
        Some(entry) => {
            let value = entry.field.iter().find(|f| f.number() == 2).expect("a map entry has a value");
            Shape::Map(element(value))
        }
        None => Shape::Repeated(element(field)),
    }
}

fn element(field: &FieldDescriptorProto) -> Element {
    match field.r#type() {
        Type::String => Element::String,
        Type::Bytes => Element::Bytes,
        Type::Bool => Element::Bool,
        Type::Int32 | Type::Uint32 => Element::Int32,
        Type::Int64 | Type::Uint64 => Element::Int64,
        Type::Double => Element::Double,
        Type::Message => Element::Message(plain_name(field.type_name())),
        other => panic!("field {} has the unexpected type {other:?}", field.name()),
    }
}
