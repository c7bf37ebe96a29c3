//! The file that says what is encrypted and how: EncryptionConfiguration of `apiserver.config.k8s.io/v1`, read and
//! judged. Follows `encryptionconfig.LoadEncryptionConfig` and `ValidateEncryptionConfiguration`.

mod kms;

use std::collections::BTreeSet;
use std::path::Path as FilePath;

use apimachinery::codec::{Format, decode_untyped};
use apimachinery::field::{Error as FieldError, ErrorList, Path};
use apimachinery::{GroupResource, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::cipher::{Algorithm, Cipher};
use super::kms::{Plugin, Settings};

const API_VERSION: &str = "apiserver.config.k8s.io/v1";
const KIND: &str = "EncryptionConfiguration";
const ALL: &str = "*";
/// What is stored but is no resource.
const NOT_SERVED: [&str; 3] = ["apiserveripinfo", "serviceipallocations", "servicenodeportallocations"];

/// Why a configuration cannot be used, in upstream's words.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "error while parsing file: error while loading file: error reading encryption provider configuration file {0:?}: {1}"
    )]
    Read(String, #[source] std::io::Error),
    #[error(
        "error while parsing file: error while loading file: encryption provider configuration file {0:?} is empty"
    )]
    Empty(String),
    #[error("error while parsing file: error decoding encryption provider configuration file {0:?}: {1}")]
    Decode(String, String),
    #[error("error while parsing file: {0}")]
    Invalid(String),
    #[error("error while building transformers: resource {0:?} is masked by earlier rule {1:?}")]
    Masked(String, String),
    #[error(
        "error while building transformers: KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead.  Set --feature-gates=KMSv1=true to use the deprecated KMSv1 feature."
    )]
    KmsV1,
    #[error("error while building transformers: could not configure KMSv2-Plugin's probe {0:?}, error: {1}")]
    Plugin(String, String),
}

/// One way in which data may be written.
#[derive(Clone, Debug)]
pub enum Provider {
    /// As it is.
    Identity,
    Keys {
        prefix: &'static str,
        /// By their names; what is written is written with the first.
        keys: Vec<(String, Cipher)>,
    },
    Kms(Plugin),
}

/// Makes what a plugin is spoken to with.
pub type Start<'a> = dyn FnMut(Settings) -> std::io::Result<Plugin> + 'a;

/// The providers of some resources, the one that writes first.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Of resources with the same name and group, where either may be `*`.
    pub resource: GroupResource,
    pub providers: Vec<Provider>,
}

struct ProviderKind {
    field: &'static str,
    prefix: &'static str,
    algorithm: Algorithm,
}

const PROVIDERS: [ProviderKind; 3] = [
    ProviderKind { field: "aesgcm", prefix: "k8s:enc:aesgcm:v1:", algorithm: Algorithm::AesGcm },
    ProviderKind { field: "aescbc", prefix: "k8s:enc:aescbc:v1:", algorithm: Algorithm::AesCbc },
    ProviderKind { field: "secretbox", prefix: "k8s:enc:secretbox:v1:", algorithm: Algorithm::Secretbox },
];

pub fn read(path: &FilePath) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|error| ConfigError::Read(path.display().to_string(), error))
}

/// `path` is for messages.
pub fn parse(text: &[u8], path: &str, start: &mut Start<'_>) -> Result<Vec<Rule>, ConfigError> {
    if text.is_empty() {
        return Err(ConfigError::Empty(path.to_owned()));
    }
    let undecodable = |why: String| ConfigError::Decode(path.to_owned(), why);
    let (document, doubled) =
        decode_untyped(Format::Yaml, text).map_err(|error| undecodable(error.to_string()))?;
    let field = |name: &str| document[name].as_str().unwrap_or_default();
    if field("apiVersion") != API_VERSION || field("kind") != KIND {
        let (version, kind) = (field("apiVersion"), field("kind"));
        return Err(undecodable(format!("no kind {kind:?} is registered for version {version:?}")));
    }
    let wrong: Vec<String> = doubled.into_iter().chain(unknown_fields(&document)).collect();
    if !wrong.is_empty() {
        return Err(undecodable(format!("strict decoding error: {}", wrong.join(", "))));
    }
    let errors = validate(&document);
    if !errors.is_empty() {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let why = if texts.len() == 1 { texts[0].clone() } else { format!("[{}]", texts.join(", ")) };
        return Err(ConfigError::Invalid(why));
    }
    rules(&document, start)
}

/// The rules of a valid configuration. A later one for the same resource adds to the earlier.
fn rules(document: &Value, start: &mut Start<'_>) -> Result<Vec<Rule>, ConfigError> {
    let mut rules: Vec<Rule> = Vec::new();
    for entry in items(&document["resources"]) {
        let mut providers = Vec::new();
        for document in items(&entry["providers"]) {
            match document["kms"].is_object() {
                true => providers.push(Provider::Kms(plugin(&document["kms"], start)?)),
                false => providers.extend(provider(document)),
            }
        }
        for text in texts(&entry["resources"]) {
            let resource = group_resource(text);
            let of_group = GroupResource { group: resource.group.clone(), resource: ALL.to_owned() };
            let of_all = GroupResource { group: ALL.to_owned(), resource: ALL.to_owned() };
            for wide in [of_group, of_all] {
                if rules.iter().any(|rule| rule.resource == wide) {
                    return Err(ConfigError::Masked(shown(&resource), shown(&wide)));
                }
            }
            match rules.iter_mut().find(|rule| rule.resource == resource) {
                Some(rule) => rule.providers.extend(providers.iter().cloned()),
                None => rules.push(Rule { resource, providers: providers.clone() }),
            }
        }
    }
    Ok(rules)
}

fn plugin(document: &Value, start: &mut Start<'_>) -> Result<Plugin, ConfigError> {
    if kms::version(document) == kms::V1 {
        return Err(ConfigError::KmsV1);
    }
    let settings = kms::settings(document);
    let name = settings.name.clone();
    start(settings).map_err(|error| ConfigError::Plugin(name, error.to_string()))
}

fn provider(document: &Value) -> Option<Provider> {
    let of_field = |kind: &&ProviderKind| !document[kind.field].is_null();
    let Some(kind) = PROVIDERS.iter().find(of_field) else { return Some(Provider::Identity) };
    let key = |key: &Value| {
        let name = key["name"].as_str()?.to_owned();
        let secret = BASE64.decode(key["secret"].as_str()?).ok()?;
        Some((name, Cipher::new(kind.algorithm, secret)?))
    };
    let keys = items(&document[kind.field]["keys"]).iter().map(key).collect::<Option<_>>()?;
    Some(Provider::Keys { prefix: kind.prefix, keys })
}

/// `secrets`, `deployments.apps`; `*.` is all of the core group.
fn group_resource(text: &str) -> GroupResource {
    let (resource, group) = text.split_once('.').unwrap_or((text, ""));
    GroupResource { group: group.to_owned(), resource: resource.to_owned() }
}

fn shown(resource: &GroupResource) -> String {
    match (resource.resource.as_str(), resource.group.as_str()) {
        (ALL, "") => "*.".to_owned(),
        (resource, "") => resource.to_owned(),
        (resource, group) => format!("{resource}.{group}"),
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    items(value).iter().map(|item| item.as_str().unwrap_or_default())
}

fn unknown_fields(document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = |value: &Value, known: &[&str], path: &str| {
        let fields = value.as_object().into_iter().flat_map(|fields| fields.keys());
        let unknown = fields.filter(|field| !known.contains(&field.as_str()));
        found.extend(unknown.map(|field| format!("unknown field \"{path}{field}\"")));
    };
    look(document, &["apiVersion", "kind", "metadata", "resources"], "");
    for (i, entry) in items(&document["resources"]).iter().enumerate() {
        let path = format!("resources[{i}].");
        look(entry, &["resources", "providers"], &path);
        for (j, provider) in items(&entry["providers"]).iter().enumerate() {
            let path = format!("{path}providers[{j}].");
            look(provider, &["aesgcm", "aescbc", "secretbox", "identity", "kms"], &path);
            look(&provider["kms"], &kms::FIELDS, &format!("{path}kms."));
            for kind in &PROVIDERS {
                look(&provider[kind.field], &["keys"], &format!("{path}{}.", kind.field));
                for (k, key) in items(&provider[kind.field]["keys"]).iter().enumerate() {
                    look(key, &["name", "secret"], &format!("{path}{}.keys[{k}].", kind.field));
                }
            }
        }
    }
    found
}

fn validate(document: &Value) -> ErrorList {
    let root = Path::new("resources");
    let (mut errors, mut plugins) = (ErrorList::new(), BTreeSet::new());
    let entries = items(&document["resources"]);
    if entries.is_empty() {
        errors.push(at_least_one(&root, "resources"));
    }
    for (index, entry) in entries.iter().enumerate() {
        let (resources, providers) =
            (root.index(index).child("resources"), root.index(index).child("providers"));
        if items(&entry["resources"]).is_empty() {
            errors.push(at_least_one(&resources, resources.as_str()));
        }
        validate_overlap(&entry["resources"], &resources, &mut errors);
        for (index, name) in texts(&entry["resources"]).enumerate() {
            if let Some(why) = wrong_name(name) {
                errors.push(FieldError::invalid(&resources.index(index), name, why));
            }
        }
        if items(&entry["providers"]).is_empty() {
            errors.push(at_least_one(&providers, providers.as_str()));
        }
        for (index, provider) in items(&entry["providers"]).iter().enumerate() {
            validate_provider(provider, &providers.index(index), &mut plugins, &mut errors);
        }
    }
    errors
}

fn at_least_one(path: &Path, what: &str) -> FieldError {
    FieldError::required(path, format!("at least one {what} is required"))
}

fn validate_overlap(resources: &Value, path: &Path, errors: &mut ErrorList) {
    let all: Vec<GroupResource> = texts(resources).map(group_resource).collect();
    let pairs =
        || all.iter().enumerate().flat_map(|(i, one)| all[i + 1..].iter().map(move |other| (one, other)));
    let is_everything = |one: &GroupResource| one.resource == ALL && one.group == ALL;
    let masks = |one: &GroupResource, other: &GroupResource| {
        is_everything(one) || (one.resource == ALL && one.group == other.group)
    };
    let mut tell = |why: &str| errors.push(FieldError::invalid(path, resources.clone(), why));
    if pairs().any(|(one, other)| one == other) {
        tell("the same resource cannot be specified multiple times");
    }
    if pairs().any(|(one, other)| one != other && (masks(one, other) || masks(other, one))) {
        tell(
            "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked",
        );
    }
}

fn wrong_name(name: &str) -> Option<&'static str> {
    let GroupResource { group, resource } = group_resource(name);
    match () {
        () if name.chars().any(char::is_uppercase) => {
            Some("resource name should not contain capital letters")
        }
        () if name == ALL => {
            Some("use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources")
        }
        () if NOT_SERVED.contains(&name) => {
            Some("resources which do not have REST API/s cannot be encrypted")
        }
        () if group == "events.k8s.io" => Some(
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file",
        ),
        () if group == "extensions" => {
            Some("'extensions' group has been removed and cannot be used for encryption")
        }
        () if group == ALL && resource != ALL => {
            Some("encrypting the same resource across groups is not supported")
        }
        () => None,
    }
}

/// `plugins` are the names of those that came before.
fn validate_provider<'a>(
    provider: &'a Value,
    path: &Path,
    plugins: &mut BTreeSet<&'a str>,
    errors: &mut ErrorList,
) {
    let given: Vec<&str> = provider
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, v)| !v.is_null())
        .map(|(k, _)| k.as_str())
        .collect();
    // Their names only: what they hold is secret.
    let named = given.join(",");
    match given[..] {
        [] => errors.push(FieldError::invalid(
            path,
            named,
            "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity",
        )),
        ["kms"] => kms::validate(&provider["kms"], &path.child("kms"), plugins, errors),
        [one] => {
            if let Some(kind) = PROVIDERS.iter().find(|kind| kind.field == one) {
                let keys = path.child(one).child("keys");
                validate_keys(&provider[one]["keys"], &keys, kind.algorithm.key_lengths(), errors);
            }
        }
        _ => errors.push(FieldError::invalid(
            path,
            named,
            "more than one provider specified in a single element, should split into different list elements",
        )),
    }
}

fn validate_keys(keys: &Value, path: &Path, lengths: &[usize], errors: &mut ErrorList) {
    if items(keys).is_empty() {
        errors.push(at_least_one(path, "keys"));
    }
    for (index, key) in items(keys).iter().enumerate() {
        let at = path.index(index);
        let text = |field: &str| key[field].as_str().unwrap_or_default();
        for field in ["name", "secret"] {
            if text(field).is_empty() {
                let detail = format!("{field} is a mandatory field for a key");
                errors.push(FieldError::required(&at.child(field), detail));
            }
        }
        if text("secret").is_empty() {
            continue;
        }
        let wrong = match BASE64.decode(text("secret")) {
            Err(_) => Some("secrets must be base64 encoded".to_owned()),
            Ok(secret) if !lengths.contains(&secret.len()) => {
                let expected: Vec<String> = lengths.iter().map(ToString::to_string).collect();
                let (got, expected) = (secret.len(), expected.join(" "));
                Some(format!("secret is not of the expected length, got {got}, expected one of [{expected}]"))
            }
            Ok(_) => None,
        };
        if let Some(why) = wrong {
            errors.push(FieldError::invalid(&at.child("secret"), "REDACTED", why));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n";
    const KEY: &str = "{name: k, secret: MDEyMzQ1Njc4OWFiY2RlZg==}";

    /// No plugin can be spoken to.
    fn nobody(_: Settings) -> std::io::Result<Plugin> {
        Err(std::io::Error::other("nobody"))
    }

    fn check(rest: &str, expect: Result<usize, &str>) {
        let parsed = parse(format!("{HEAD}{rest}").as_bytes(), "f", &mut nobody);
        let found = parsed.map(|rules| rules.len()).map_err(|error| error.to_string());
        assert_eq!(found, expect.map_err(|why| format!("error while {why}")), "{rest}");
    }

    fn entry(resources: &str, providers: &str) -> String {
        format!("resources: [{{resources: [{resources}], providers: [{providers}]}}]")
    }

    #[test]
    fn a_configuration_is_read() {
        let providers = format!("{{aescbc: {{keys: [{KEY}]}}}}, {{identity: {{}}}}");
        check(&entry("secrets, configmaps, '*.apps'", &providers), Ok(3));
        check(&entry("'*.*'", "{identity: {}}"), Ok(1));
    }

    #[test]
    fn what_is_wrong_is_said_as_upstream_says_it() {
        let identity = "{identity: {}}";
        check(
            "resources: []",
            Err("parsing file: resources: Required value: at least one resources is required"),
        );
        check(
            &entry("", identity),
            Err(
                "parsing file: resources[0].resources: Required value: at least one resources[0].resources is required",
            ),
        );
        check(
            &entry("Secrets", identity),
            Err(
                "parsing file: resources[0].resources[0]: Invalid value: \"Secrets\": resource name should not contain capital letters",
            ),
        );
        check(
            &entry("secrets", "{aescbc: {keys: [{name: k, secret: c2hvcnQ=}]}}"),
            Err(
                "parsing file: resources[0].providers[0].aescbc.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 5, expected one of [16 24 32]",
            ),
        );
        check(
            &entry("secrets", "{secretbox: {keys: [{secret: '%'}]}}"),
            Err(
                "parsing file: [resources[0].providers[0].secretbox.keys[0].name: Required value: name is a mandatory field for a key, resources[0].providers[0].secretbox.keys[0].secret: Invalid value: \"REDACTED\": secrets must be base64 encoded]",
            ),
        );
        check(
            &entry("secrets", "{}"),
            Err(
                "parsing file: resources[0].providers[0]: Invalid value: \"\": provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity",
            ),
        );
        check(
            &entry("secrets", "{aes: {}}"),
            Err(
                "parsing file: error decoding encryption provider configuration file \"f\": strict decoding error: unknown field \"resources[0].providers[0].aes\"",
            ),
        );
    }

    #[test]
    fn plugins_are_checked_and_those_of_version_1_refused() {
        let kms = |text: &str| entry("secrets", &format!("{{kms: {{{text}}}}}"));
        check(
            &kms("apiVersion: v2, name: k, endpoint: 'unix:///s'"),
            Err("building transformers: could not configure KMSv2-Plugin's probe \"k\", error: nobody"),
        );
        check(
            &kms("apiVersion: v2, name: 'k:', endpoint: 'http://s', timeout: 0s, cachesize: 5"),
            Err(
                "parsing file: [resources[0].providers[0].kms.name: Invalid value: \"k:\": invalid KMS provider name k:, must not contain ':', resources[0].providers[0].kms.timeout: Invalid value: \"0s\": timeout should be a positive value, resources[0].providers[0].kms.endpoint: Invalid value: \"http://s\": unsupported scheme \"http\" for KMS provider, only unix is supported, resources[0].providers[0].kms.cachesize: Invalid value: 5: cachesize is not supported in v2]",
            ),
        );
        check(
            &kms("apiVersion: v3"),
            Err(
                "parsing file: [resources[0].providers[0].kms.name: Required value: name is a mandatory field for a provider, resources[0].providers[0].kms.endpoint: Invalid value: \"\": endpoint is a mandatory field for a kms, resources[0].providers[0].kms.apiVersion: Invalid value: \"v3\": unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported]",
            ),
        );
        check(
            &kms("name: k, endpoint: 'unix:///s'"),
            Err(
                "building transformers: KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead.  Set --feature-gates=KMSv1=true to use the deprecated KMSv1 feature.",
            ),
        );
        let twice = "{kms: {apiVersion: v2, name: k, endpoint: 'unix:///s'}}, {kms: {apiVersion: v2, name: k, endpoint: 'unix:///s'}}";
        check(
            &entry("secrets", twice),
            Err(
                "parsing file: resources[0].providers[1].kms.name: Invalid value: \"k\": duplicate KMS provider name k, names must be unique",
            ),
        );
        check(
            &kms("size: 1"),
            Err(
                "parsing file: error decoding encryption provider configuration file \"f\": strict decoding error: unknown field \"resources[0].providers[0].kms.size\"",
            ),
        );
    }

    #[test]
    fn rules_that_hide_others_are_refused() {
        let identity = "{identity: {}}";
        check(
            &entry("secrets, '*.'", identity),
            Err(
                "parsing file: resources[0].resources: Invalid value: [\"secrets\",\"*.\"]: using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked",
            ),
        );
        let one = |resources: &str| format!("{{resources: [{resources}], providers: [{identity}]}}");
        check(
            &format!("resources: [{}, {}]", one("'*.'"), one("secrets")),
            Err("building transformers: resource \"secrets\" is masked by earlier rule \"*.\""),
        );
        check(&format!("resources: [{}, {}]", one("secrets"), one("'*.'")), Ok(2));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}") {
            parse(text.as_bytes(), "f", &mut nobody).ok();
            parse(format!("{HEAD}{text}").as_bytes(), "f", &mut nobody).ok();
        }
    }
}
