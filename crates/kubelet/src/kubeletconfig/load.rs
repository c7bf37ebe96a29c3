//! Puts a configuration together: what the cluster decides, a file, drop-ins in the order of their names, and flags;
//! each says more than those before it (follows `loadConfigFile` and `mergeKubeletConfigurations`).

use std::path::{Path, PathBuf};

use apimachinery::codec::{Format, decode_untyped};
use apimachinery::patch::merge_patch;
use apimachinery::{Map, Value};

use super::{API_VERSION, KIND, KubeletConfiguration, Own, Table, effect, validation};

/// Of the files in a folder that count.
const DROP_IN_ENDING: &str = "conf";
/// A file that is longer is no configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to load kubelet config file, path: {0}, error: {1}")]
    File(PathBuf, Reason),
    #[error("failed to merge kubelet configs: failed to load kubelet dropin file, path: {0}, error: {1}")]
    DropIn(PathBuf, Reason),
    #[error("failed to merge kubelet configs: failed to walk through kubelet dropin directory {0:?}: {1}")]
    Walk(PathBuf, std::io::Error),
    #[error("failed to decode the kubelet configuration: {0}")]
    Decode(String),
    #[error("failed to validate kubelet configuration, error: {}", one_or_list(.0))]
    Invalid(Vec<String>),
}

/// Why a file is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    #[error("failed to read kubelet config file {0:?}, error: {1}")]
    Read(PathBuf, std::io::Error),
    #[error("kubelet config file {0:?} was empty")]
    Empty(PathBuf),
    #[error("kubelet config file {0:?} is longer than {FILE_BYTES_MAX} bytes")]
    TooLong(PathBuf),
    #[error("failed to decode: {0}")]
    Decode(#[from] apimachinery::codec::Error),
    #[error("failed to decode: no kind {kind:?} is registered for version {version:?}")]
    Kind { kind: String, version: String },
    #[error("failed to decode: strict decoding error: {0}")]
    Strict(String),
}

/// As upstream's aggregates print themselves.
fn one_or_list(errors: &[String]) -> String {
    match errors {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    /// Of drop-ins.
    pub dir: Option<PathBuf>,
    /// Fields that flags say.
    pub flags: Map,
}

/// The configuration, and what to warn of: fields that are set but do nothing here.
pub fn load(own: &Own, sources: &Sources) -> Result<(KubeletConfiguration, Vec<String>), Error> {
    let mut document = match &sources.file {
        Some(path) => read(path).map_err(|reason| Error::File(path.clone(), reason))?,
        None => Value::Object(Map::new()),
    };
    settle_thresholds(&mut document, own.eviction_hard());
    for path in drop_ins(sources.dir.as_deref())? {
        let more = read(&path).map_err(|reason| Error::DropIn(path.clone(), reason))?;
        merge_patch(&mut document, more);
    }
    if let Value::Object(fields) = &mut document {
        fields.extend(sources.flags.clone());
    }
    settle_report_frequency(&mut document);
    remove_unset(&mut document);
    let homeless = system_without_root(&document);
    let mut merged = Value::Object(own.document());
    merge_patch(&mut merged, document);
    let configuration = decode(merged).map_err(Error::Decode)?;
    let refused = effect::refused(&configuration);
    let errors = validation::validate(&configuration).into_iter().chain(homeless).chain(refused);
    let errors: Vec<String> = errors.collect();
    if !errors.is_empty() {
        return Err(Error::Invalid(errors));
    }
    let warnings = effect::without_effect(&configuration);
    Ok((configuration, warnings))
}

/// That the cluster has a cgroup for its pods does not say where those of the system are.
fn system_without_root(document: &Value) -> Option<String> {
    let given = |field: &str| document[field].as_str().is_some_and(|value| !value.is_empty());
    (given("systemCgroups") && !given("cgroupRoot")).then(|| {
        "invalid configuration: systemCgroups (--system-cgroups) was specified and cgroupRoot (--cgroup-root) was not specified".to_owned()
    })
}

/// The fields of a file, without its kind; relative paths are those of its folder.
fn read(path: &Path) -> Result<Value, Reason> {
    let unreadable = |error| Reason::Read(path.to_owned(), error);
    let path = std::path::absolute(path).map_err(unreadable)?;
    let length = std::fs::metadata(&path).map_err(unreadable)?.len();
    if length > FILE_BYTES_MAX {
        return Err(Reason::TooLong(path));
    }
    let bytes = std::fs::read(&path).map_err(unreadable)?;
    if bytes.is_empty() {
        return Err(Reason::Empty(path));
    }
    let mut document = parse(&bytes)?;
    if let Some(folder) = path.parent() {
        make_absolute(&mut document, folder);
    }
    Ok(document)
}

/// Strict: fields that are unknown or stand twice are errors.
pub fn parse(bytes: &[u8]) -> Result<Value, Reason> {
    let (mut document, doubled) = decode_untyped(Format::Yaml, bytes)?;
    let text = |field: &str| document[field].as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if version != API_VERSION || kind != KIND {
        return Err(Reason::Kind { kind, version });
    }
    if let Value::Object(fields) = &mut document {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    let mut present = document.clone();
    remove_nulls(&mut present);
    let read = decode(present.clone()).map_err(Reason::Strict)?;
    let known = apimachinery::to_value(read).map_err(|error| Reason::Strict(error.to_string()))?;
    let mut wrong = doubled;
    unknown_fields(&present, &known, "", &mut wrong);
    if wrong.is_empty() { Ok(document) } else { Err(Reason::Strict(wrong.join(", "))) }
}

/// Names the field that is wrong, which the whole would not.
fn decode(document: Value) -> Result<KubeletConfiguration, String> {
    let Value::Object(fields) = &document else { return Err("it is no object".to_owned()) };
    for (name, value) in fields {
        let alone = Map::from_iter([(name.clone(), value.clone())]);
        let read = apimachinery::from_value::<KubeletConfiguration>(Value::Object(alone));
        read.map_err(|error| format!("field {name:?}: {error}"))?;
    }
    apimachinery::from_value(document).map_err(|error| error.to_string())
}

/// Fields given that were not taken over into what was read.
fn unknown_fields(given: &Value, read: &Value, at: &str, found: &mut Vec<String>) {
    match (given, read) {
        (Value::Object(given), Value::Object(read)) => {
            for (name, value) in given {
                let at = if at.is_empty() { name.to_string() } else { format!("{at}.{name}") };
                match read.get(name) {
                    Some(read) => unknown_fields(value, read, &at, found),
                    // Some that are empty are not written.
                    None if value == "" => {}
                    None => found.push(format!("unknown field {at:?}")),
                }
            }
        }
        (Value::Array(given), Value::Array(read)) => {
            for (index, (given, read)) in given.iter().zip(read).enumerate() {
                unknown_fields(given, read, &format!("{at}[{index}]"), found);
            }
        }
        _ => {}
    }
}

/// Upstream's `KubeletConfigurationPathRefs`.
const PATHS: [&str; 7] = [
    "/staticPodPath",
    "/authentication/x509/clientCAFile",
    "/tlsCertFile",
    "/tlsPrivateKeyFile",
    "/resolvConf",
    "/volumePluginDir",
    "/podLogsDir",
];

fn make_absolute(document: &mut Value, folder: &Path) {
    for pointer in PATHS {
        if let Some(Value::String(path)) = document.pointer_mut(pointer)
            && !path.is_empty()
            && Path::new(path.as_str()).is_relative()
        {
            *path = folder.join(path.as_str()).display().to_string().into();
        }
    }
}

/// The files of a folder and of those below it, in the order of their names.
fn drop_ins(dir: Option<&Path>) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    if let Some(dir) = dir {
        walk(dir, &mut found).map_err(|error| Error::Walk(dir.to_owned(), error))?;
    }
    Ok(found)
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(dir)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            walk(&path, found)?;
        } else if path.extension().is_some_and(|ending| ending == DROP_IN_ENDING) {
            found.push(path);
        }
    }
    Ok(())
}

/// A file without `evictionHard`, or one that wants so, has the default ones; drop-ins add to them.
fn settle_thresholds(document: &mut Value, default: Table) {
    let merges = document["mergeDefaultEvictionSettings"] == true;
    let given = document.get("evictionHard").filter(|given| given.is_object()).cloned();
    let mut hard = match &given {
        Some(_) if !merges => return,
        _ => apimachinery::to_value(default).unwrap_or_default(),
    };
    merge_patch(&mut hard, given.unwrap_or_else(|| Value::Object(Map::new())));
    document["evictionHard"] = hard;
}

/// Where only the one frequency is set, it is the other too.
fn settle_report_frequency(document: &mut Value) {
    let given = |name: &str| document.get(name).filter(|value| !is_unset(value)).cloned();
    if let (Some(update), None) = (given("nodeStatusUpdateFrequency"), given("nodeStatusReportFrequency")) {
        document["nodeStatusReportFrequency"] = update;
    }
}

/// Fields whose zero means that they are not set: upstream's that are no pointers.
const ZERO_IS_UNSET: [&str; 38] = [
    "/syncFrequency",
    "/fileCheckFrequency",
    "/httpCheckFrequency",
    "/address",
    "/port",
    "/authentication/webhook/cacheTTL",
    "/authorization/mode",
    "/authorization/webhook/cacheAuthorizedTTL",
    "/authorization/webhook/cacheUnauthorizedTTL",
    "/registryBurst",
    "/eventBurst",
    "/healthzBindAddress",
    "/streamingConnectionIdleTimeout",
    "/nodeStatusReportFrequency",
    "/nodeStatusUpdateFrequency",
    "/nodeLeaseDurationSeconds",
    "/imageMinimumGCAge",
    "/volumeStatsAggPeriod",
    "/cgroupDriver",
    "/cgroupRoot",
    "/cpuManagerPolicy",
    "/cpuManagerReconcilePeriod",
    "/memoryManagerPolicy",
    "/topologyManagerPolicy",
    "/topologyManagerScope",
    "/runtimeRequestTimeout",
    "/hairpinMode",
    "/maxPods",
    "/maxOpenFiles",
    "/contentType",
    "/kubeAPIBurst",
    "/evictionPressureTransitionPeriod",
    "/containerLogMaxSize",
    "/configMapAndSecretChangeDetectionStrategy",
    "/volumePluginDir",
    "/memoryReservationPolicy",
    "/imagePullCredentialsVerificationPolicy",
    "/podLogsDir",
];

/// Those that are nowhere said, so that their defaults hold.
fn remove_unset(document: &mut Value) {
    for pointer in ZERO_IS_UNSET {
        if let Some(value) = document.pointer_mut(pointer)
            && is_unset(value)
        {
            value.take();
        }
    }
    remove_nulls(document);
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => {
            text.is_empty() || apimachinery::time::parse_duration(text).is_some_and(|time| time.is_zero())
        }
        _ => false,
    }
}

fn remove_nulls(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, value| !value.is_null());
        fields.values_mut().for_each(remove_nulls);
    }
}
