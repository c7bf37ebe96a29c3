//! Which of the built-in groups, versions and resources are served (`--runtime-config`).
//! Follows `resourceconfig.MergeAPIResourceConfigs` and `APIEnablementOptions.Validate`.

use std::collections::{BTreeMap, BTreeSet};

use api::{CATALOGUE, Resource};
use apimachinery::GroupVersion;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnablementError {
    #[error("invalid runtime-config with only api/all=false")]
    Nothing,
    #[error("runtime-config invalid key {0}")]
    Key(String),
    #[error("unknown api groups {0}")]
    UnknownGroups(String),
    #[error("invalid value {0}={1}")]
    StageValue(String, String),
    #[error("invalid value of {0}: {1}, err: strconv.ParseBool: parsing {1:?}: invalid syntax")]
    Value(String, String),
    #[error("group version {0} that has not been registered")]
    UnknownVersion(GroupVersion),
    #[error("invalid key {0}: group/version/resource and resource is always lowercase plural, not {1:?}")]
    Capitals(String, String),
}

/// A name for the versions that are of a stage.
type Stage = (&'static str, fn(&str) -> bool);

/// In the order in which they are decided about.
const STAGES: [Stage; 4] = [
    ("api/all", |_| true),
    ("api/ga", |version| !version.contains("alpha") && !version.contains("beta")),
    ("api/beta", |version| version.contains("beta")),
    ("api/alpha", |version| version.contains("alpha")),
];

/// What the operator decided; what they say nothing about is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enablement {
    /// In the order of [`STAGES`].
    stages: [Option<bool>; STAGES.len()],
    versions: BTreeMap<GroupVersion, bool>,
    resources: BTreeMap<(GroupVersion, String), bool>,
}

impl Enablement {
    /// From pairs such as `batch/v1=false`, of which the later ones count.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = &'a str>) -> Result<Enablement, EnablementError> {
        let split = |pair: &'a str| pair.split_once('=').unwrap_or((pair, ""));
        let pairs: BTreeMap<&str, &str> = pairs
            .into_iter()
            .map(|pair| split(pair.trim()))
            .map(|(key, value)| (key.trim(), value.trim()))
            .filter(|(key, _)| !key.is_empty())
            .collect();
        if pairs.len() == 1 && pairs.get("api/all") == Some(&"false") {
            return Err(EnablementError::Nothing);
        }
        let mut enablement = Enablement::default();
        let mut unknown = BTreeSet::new();
        for (key, value) in pairs {
            match STAGES.iter().position(|(stage, _)| *stage == key) {
                Some(stage) => enablement.stages[stage] = Some(of_stage(key, value)?),
                None => enablement.decide(key, value, &mut unknown)?,
            }
        }
        if unknown.is_empty() {
            return Ok(enablement);
        }
        let unknown: Vec<String> = unknown.into_iter().collect();
        Err(EnablementError::UnknownGroups(unknown.join(",")))
    }

    /// About one version or one resource.
    fn decide(
        &mut self,
        key: &str,
        value: &str,
        unknown: &mut BTreeSet<String>,
    ) -> Result<(), EnablementError> {
        let parts: Vec<&str> = key.split('/').collect();
        let (group, version, resource) = match parts[..] {
            [group, version] => (group, version, None),
            [group, version, resource] => (group, version, Some(resource)),
            _ => return Err(EnablementError::Key(key.to_owned())),
        };
        let version = GroupVersion::new(group, version);
        let mut of_group = CATALOGUE.iter().filter(|kind| kind.resource.group == group).peekable();
        if of_group.peek().is_none() {
            unknown.insert(version.to_string());
            return Ok(());
        }
        if of_group.all(|kind| kind.resource.version != version.version) {
            return Err(EnablementError::UnknownVersion(version));
        }
        let on = value_of(key, value)?;
        match resource {
            None => drop(self.versions.insert(version, on)),
            Some(resource) if resource.chars().any(char::is_uppercase) => {
                return Err(EnablementError::Capitals(key.to_owned(), resource.to_owned()));
            }
            Some(resource) => drop(self.resources.insert((version, resource.to_owned()), on)),
        }
        Ok(())
    }

    /// Whether all is served that there is.
    pub fn is_everything(&self) -> bool {
        *self == Enablement::default()
    }

    pub fn serves(&self, resource: &Resource) -> bool {
        if self.is_everything() {
            return true;
        }
        let version = resource.gvr().group_version();
        let own = self.resources.get(&(version.clone(), resource.plural.to_owned()));
        own.copied().unwrap_or_else(|| self.serves_version(&version))
    }

    fn serves_version(&self, version: &GroupVersion) -> bool {
        let of_stage = STAGES.iter().zip(self.stages).filter(|((_, is_in), _)| is_in(&version.version));
        let stage = of_stage.filter_map(|(_, on)| on).next_back();
        self.versions.get(version).copied().or(stage).unwrap_or(true)
    }

    /// Whether anything of a version is served.
    pub fn serves_any_of(&self, version: &GroupVersion) -> bool {
        let is_of = |resource: &Resource| resource.gvr().group_version() == *version;
        CATALOGUE.iter().any(|kind| is_of(&kind.resource) && self.serves(&kind.resource))
    }
}

fn of_stage(key: &str, value: &str) -> Result<bool, EnablementError> {
    value.parse().map_err(|_| EnablementError::StageValue(key.to_owned(), value.to_owned()))
}

/// As `strconv.ParseBool`; a key alone stands for true.
fn value_of(key: &str, value: &str) -> Result<bool, EnablementError> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(EnablementError::Value(key.to_owned(), value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use api::resource;
    use proptest::prelude::*;

    use super::*;

    fn check(config: &str, resource: Resource, expect: bool) {
        let enablement = Enablement::parse(config.split(',')).expect("is valid");
        assert_eq!(enablement.serves(&resource), expect, "{config} {resource:?}");
    }

    #[test]
    fn the_narrowest_decision_counts() {
        check("", resource::PODS, true);
        check("apps/v1=false", resource::DEPLOYMENTS, false);
        check("apps/v1=false", resource::PODS, true);
        check("apps/v1=false,apps/v1/deployments=true", resource::DEPLOYMENTS, true);
        check("apps/v1/daemonsets=false", resource::DEPLOYMENTS, true);
        check("api/all=false,/v1=true", resource::PODS, true);
        check("api/all=false,/v1", resource::DEPLOYMENTS, false);
        check("api/all=false,api/ga=true", resource::DEPLOYMENTS, true);
        check("api/beta=false", resource::DEPLOYMENTS, true);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_in_upstreams_words() {
        let refused = |config: &str, expect: &str| {
            let error = Enablement::parse(config.split(',')).expect_err("is refused");
            assert_eq!(error.to_string(), expect);
        };
        refused("api/all=false", "invalid runtime-config with only api/all=false");
        refused("v1=true", "runtime-config invalid key v1");
        refused("b.example/v1=true,a.example/v1=true", "unknown api groups a.example/v1,b.example/v1");
        refused("api/ga=yes", "invalid value api/ga=yes");
        refused(
            "apps/v1=yes",
            "invalid value of apps/v1: yes, err: strconv.ParseBool: parsing \"yes\": invalid syntax",
        );
        refused("apps/v9=true", "group version apps/v9 that has not been registered");
        let capitals = "invalid key apps/v1/Deployments: group/version/resource and resource is always lowercase plural, not \"Deployments\"";
        refused("apps/v1/Deployments=true", capitals);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z0-9/=,. ]{0,40}") {
            Enablement::parse(text.split(',')).ok();
        }
    }
}
