//! The Pod Security Standards' levels and versions, and which of them the labels of a namespace ask for.
//! Follows `PolicyToEvaluate`.

use std::fmt;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::value_at;

const PREFIX: &str = "pod-security.kubernetes.io/";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Level> {
        match text {
            "privileged" => Some(Level::Privileged),
            "baseline" => Some(Level::Baseline),
            "restricted" => Some(Level::Restricted),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }
}

/// A minor version of Kubernetes 1, or whatever is newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Minor(u32),
    Latest,
}

impl Version {
    fn parse(text: &str) -> Option<Version> {
        if text == "latest" {
            return Some(Version::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let canonical = minor == "0" || !minor.starts_with('0');
        let digits = !minor.is_empty() && minor.bytes().all(|b| b.is_ascii_digit());
        (canonical && digits).then(|| minor.parse().ok().map(Version::Minor)).flatten()
    }

    /// Whether rules that came with this minor version are in it.
    pub fn has(self, minor: u32) -> bool {
        match self {
            Version::Minor(own) => own >= minor,
            Version::Latest => true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelVersion {
    pub level: Level,
    pub version: Version,
}

impl LevelVersion {
    pub const PRIVILEGED: LevelVersion = LevelVersion { level: Level::Privileged, version: Version::Latest };

    fn is_equivalent(self, other: LevelVersion) -> bool {
        self == other || (self.level == Level::Privileged && other.level == Level::Privileged)
    }
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Version::Minor(minor) => write!(f, "{}:v1.{minor}", self.level.name()),
            Version::Latest => write!(f, "{}:latest", self.level.name()),
        }
    }
}

/// What a namespace asks for: what is refused, what is noted, what is warned about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub enforce: LevelVersion,
    pub audit: LevelVersion,
    pub warn: LevelVersion,
}

impl Policy {
    pub const PRIVILEGED: Policy = Policy {
        enforce: LevelVersion::PRIVILEGED,
        audit: LevelVersion::PRIVILEGED,
        warn: LevelVersion::PRIVILEGED,
    };

    pub fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|mode| mode.level == Level::Privileged)
    }

    pub fn is_equivalent(&self, other: &Policy) -> bool {
        self.enforce.is_equivalent(other.enforce)
            && self.audit.is_equivalent(other.audit)
            && self.warn.is_equivalent(other.warn)
    }

    /// The policy of a namespace and what is wrong with its labels. What cannot be read is enforced as strictly as can
    /// be, and neither noted nor warned about.
    pub fn of_namespace(namespace: &Value, defaults: &Policy) -> (Policy, ErrorList) {
        let mut policy = *defaults;
        let mut labels = Labels { namespace, errors: Vec::new() };
        let mut enforces = false;
        if let Some(level) = labels.level("enforce") {
            enforces = level.is_some();
            policy.enforce.level = level.unwrap_or(Level::Restricted);
        }
        labels.version("enforce-version", &mut policy.enforce);
        if let Some(level) = labels.level("audit") {
            policy.audit.level = level.unwrap_or(Level::Privileged);
        }
        labels.version("audit-version", &mut policy.audit);
        let warn = labels.level("warn");
        if let Some(level) = warn {
            policy.warn.level = level.unwrap_or(Level::Privileged);
        }
        let warn_version = labels.version("warn-version", &mut policy.warn);
        if warn.is_none() && enforces && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if !warn_version {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, labels.errors)
    }
}

/// Whether a namespace says anything about this mode.
pub fn is_labelled(namespace: &Value, mode: &str) -> bool {
    label(namespace, mode).is_some() || label(namespace, &format!("{mode}-version")).is_some()
}

fn label<'a>(namespace: &'a Value, name: &str) -> Option<&'a str> {
    value_at(namespace, &["metadata", "labels", &format!("{PREFIX}{name}")]).and_then(Value::as_str)
}

struct Labels<'a> {
    namespace: &'a Value,
    errors: ErrorList,
}

impl Labels<'_> {
    /// None when there is no such label, `Some(None)` when its value means nothing.
    fn level(&mut self, name: &str) -> Option<Option<Level>> {
        let text = label(self.namespace, name)?;
        let level = Level::parse(text);
        if level.is_none() {
            self.refuse(name, text.to_owned(), "must be one of privileged, baseline, restricted");
        }
        Some(level)
    }

    /// Whether there is such a label.
    fn version(&mut self, name: &str, mode: &mut LevelVersion) -> bool {
        let Some(text) = label(self.namespace, name).map(str::to_owned) else { return false };
        mode.version = Version::parse(&text).unwrap_or_else(|| {
            self.refuse(name, text, "must be \"latest\" or \"v1.x\"");
            Version::Latest
        });
        true
    }

    fn refuse(&mut self, name: &str, text: String, why: &str) {
        let path = Path::new("metadata").child("labels").key(&format!("{PREFIX}{name}"));
        self.errors.push(Error::invalid(&path, text, why));
    }
}
