//! Reads the overlay's two notations; each file explains its own at the top.

use std::collections::BTreeMap;

#[derive(Default)]
pub struct Overlay {
    sections: Vec<Section>,
    enums: BTreeMap<String, Vec<String>>,
}

#[derive(Default)]
struct Section {
    package: String,
    group_version: String,
    types: BTreeMap<String, TypeFacts>,
}

/// What the overlay says of one type.
#[derive(Default)]
pub struct TypeFacts {
    /// Travels on its own, under this group version.
    pub root: Option<String>,
    /// Has `kind` and `apiVersion`.
    pub type_meta: bool,
    fields: BTreeMap<String, FieldFacts>,
}

/// What the overlay says of one field.
#[derive(Clone, Default)]
pub struct FieldFacts {
    pub pointer: bool,
    pub always: bool,
    pub required: bool,
    pub value: bool,
    pub inline: bool,
    pub gone: bool,
    pub off: bool,
    pub json_name: Option<String>,
}

impl TypeFacts {
    pub fn field(&self, name: &str) -> FieldFacts {
        self.fields.get(name).cloned().unwrap_or_default()
    }
}

impl Overlay {
    /// The proto packages the table is made of.
    pub fn packages(&self) -> Vec<String> {
        let mut packages: Vec<String> = self.sections.iter().map(|s| s.package.clone()).collect();
        packages.sort();
        packages.dedup();
        packages
    }

    /// The facts of a message by full name.
    pub fn facts(&self, message: &str) -> Option<&TypeFacts> {
        let (package, name) = message.rsplit_once('.')?;
        self.sections.iter().filter(|s| s.package == package).find_map(|s| s.types.get(name))
    }

    /// The full names of all messages that travel on their own.
    pub fn roots(&self) -> Vec<String> {
        let roots = self.sections.iter().flat_map(|section| {
            let named = section.types.iter().filter(|(_, facts)| facts.root.is_some());
            named.map(|(name, _)| format!("{}.{name}", section.package))
        });
        roots.collect()
    }

    /// The values of the field `Type.field` of a message by full name; empty when any are allowed.
    pub fn enum_values(&self, message: &str, field: &str) -> &[String] {
        self.enums.get(&format!("{message}.{field}")).map_or(&[], Vec::as_slice)
    }
}

pub fn parse(presence: &str, enums: &str) -> Overlay {
    let mut overlay = Overlay::default();
    for line in content(presence) {
        if let Some(header) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            let (package, group_version) =
                header.split_once(' ').expect("a section names package and group version");
            overlay.sections.push(Section {
                package: package.to_owned(),
                group_version: group_version.to_owned(),
                ..Section::default()
            });
            continue;
        }
        let section = overlay.sections.last_mut().expect("a type is in a section");
        parse_type(line, section);
    }
    overlay.enums = parse_enums(enums);
    overlay
}

fn content(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn parse_type(line: &str, section: &mut Section) {
    let (name, marks) = line.split_once(':').unwrap_or((line, ""));
    let bare = name.trim_start_matches(['@', '%']);
    let facts = TypeFacts {
        root: (bare != name).then(|| section.group_version.clone()),
        type_meta: name.starts_with('@'),
        fields: marks.split_whitespace().map(parse_field).collect(),
    };
    assert!(section.types.insert(bare.to_owned(), facts).is_none(), "{bare} occurs once");
}

fn parse_field(text: &str) -> (String, FieldFacts) {
    let mut facts = FieldFacts::default();
    let name = text.trim_start_matches(|mark: char| !mark.is_ascii_alphanumeric());
    for mark in text[..text.len() - name.len()].chars() {
        match mark {
            '*' => facts.pointer = true,
            '!' => (facts.always, facts.required) = (true, true),
            '?' => facts.always = true,
            '^' => facts.required = true,
            '=' => facts.value = true,
            '+' => facts.inline = true,
            '-' => facts.gone = true,
            '_' => facts.off = true,
            '~' => {}
            other => panic!("the mark {other:?} of {text} is unknown"),
        }
    }
    let (name, json_name) = name.split_once(':').map_or((name, None), |(a, b)| (a, Some(b.to_owned())));
    facts.json_name = json_name;
    (name.to_owned(), facts)
}

/// Lines `[package]` and `Type.field Type.field ...: value | value ...`.
fn parse_enums(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut enums = BTreeMap::new();
    let mut package = "";
    for line in content(text) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            package = name;
            continue;
        }
        let (fields, values) = line.split_once(':').expect("an enum has values");
        let values: Vec<String> = values.split('|').map(|v| v.trim().trim_matches('"').to_owned()).collect();
        for field in fields.split_whitespace() {
            enums.insert(format!("{package}.{field}"), values.clone());
        }
    }
    enums
}
