//! Features by upstream's names, and which are on. Most are simply there, or not; those in [`SWITCHED`] can be turned on
//! and off here. Follows `component-base/featuregate`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use client::zpages::{Flags, Pages};

use crate::negotiation::Formats;

/// CBOR in requests and responses. What upstream stores in it is stored in the other encodings here.
pub const CBOR: &str = "CBORServingAndStorage";

/// The pages `/statusz` and `/flagz`.
pub const STATUSZ: &str = "ComponentStatusz";
pub const FLAGZ: &str = "ComponentFlagz";

/// What the flag changes.
pub const SWITCHED: [&str; 3] = [CBOR, STATUSZ, FLAGZ];

/// All that are of a stage, as one name.
const STAGES: [(&str, &str); 2] = [("AllAlpha", "alpha"), ("AllBeta", "beta")];

const TABLE: &str = include_str!("features.txt");

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    #[error("malformed pair {0:?}, expect string=bool")]
    Malformed(String),
    #[error("invalid value of {name}: {value}, expect true or false")]
    Value { name: String, value: String },
    #[error("unrecognized feature gate: {0}")]
    Unknown(String),
    #[error("cannot set feature gate {name} to {wanted}, feature is locked to {locked}")]
    Locked { name: String, wanted: bool, locked: bool },
}

struct Row {
    name: &'static str,
    stage: &'static str,
    default: bool,
    locked: bool,
}

fn rows() -> impl Iterator<Item = Row> {
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut words = line.split(' ');
        let (name, stage, default) = (words.next()?, words.next()?, words.next()? == "true");
        Some(Row { name, stage, default, locked: words.next() == Some("locked") })
    })
}

/// Which features are on that are not by default, and the reverse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    set: BTreeMap<&'static str, bool>,
}

impl Features {
    /// From pairs such as `A=true`, of which the later ones count.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = &'a str>) -> Result<Features, FeatureError> {
        let mut features = Features::default();
        for pair in pairs.into_iter().map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| FeatureError::Malformed(pair.to_owned()))?;
            let (name, value) = (name.trim(), value.trim());
            let on = value
                .parse()
                .map_err(|_| FeatureError::Value { name: name.to_owned(), value: value.to_owned() })?;
            features.switch(name, on)?;
        }
        Ok(features)
    }

    fn switch(&mut self, name: &str, on: bool) -> Result<(), FeatureError> {
        if let Some((_, stage)) = STAGES.iter().find(|(all, _)| *all == name) {
            for row in rows().filter(|row| row.stage == *stage && !row.locked) {
                self.set.insert(row.name, on);
            }
            return Ok(());
        }
        let row =
            rows().find(|row| row.name == name).ok_or_else(|| FeatureError::Unknown(name.to_owned()))?;
        if row.locked && row.default != on {
            return Err(FeatureError::Locked { name: name.to_owned(), wanted: on, locked: row.default });
        }
        self.set.insert(row.name, on);
        Ok(())
    }

    /// Whether a feature of [`SWITCHED`] is on.
    pub fn is_on(&self, name: &str) -> bool {
        let default = || rows().any(|row| row.name == name && row.default);
        self.set.get(name).copied().unwrap_or_else(default)
    }

    /// What was asked to be other than it is by default, and cannot be here.
    pub fn without_effect(&self) -> Vec<&'static str> {
        let changed = rows().filter(|row| self.set.get(row.name).is_some_and(|on| *on != row.default));
        changed.map(|row| row.name).filter(|name| !SWITCHED.contains(name)).collect()
    }

    pub fn formats(&self) -> Formats {
        Formats { cbor: self.is_on(CBOR) }
    }

    /// What a component says of itself.
    pub fn pages(&self, component: &'static str, flags: Flags) -> Pages {
        let flags = self.is_on(FLAGZ).then_some(flags);
        Pages { component, statusz: self.is_on(STATUSZ), flags, cbor: self.formats().cbor }
    }

    /// `kubernetes_feature_enabled`, as Prometheus reads it: what is on here.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let help = "[BETA] This metric records the data about the stage and enablement of a k8s feature.";
        client::metrics::head(&mut text, "kubernetes_feature_enabled", help, "gauge");
        for Row { name, stage, default, .. } in rows() {
            let on = if SWITCHED.contains(&name) { self.is_on(name) } else { default };
            let stage = if matches!(stage, "ga") { String::new() } else { stage.to_uppercase() };
            let labels = format!("name={name:?},stage={stage:?}");
            writeln!(text, "kubernetes_feature_enabled{{{labels}}} {}", u8::from(on))
                .expect("a String takes everything");
        }
        text
    }
}

impl client::metrics::Source for Features {
    fn write(&self, text: &mut String) {
        text.push_str(&self.render());
    }
}

#[cfg(test)]
mod tests {
    use client::zpages::Page;

    use super::*;

    fn check(pairs: &[&str], expect: Result<bool, &str>) {
        let found = Features::parse(pairs.iter().copied());
        let found = found.map(|features| features.is_on(CBOR)).map_err(|error| error.to_string());
        assert_eq!(found, expect.map_err(str::to_owned), "{pairs:?}");
    }

    #[test]
    fn features_are_switched_by_upstreams_names() {
        check(&[], Ok(false));
        check(&["CBORServingAndStorage=true"], Ok(true));
        check(&["AllAlpha=true", ""], Ok(true));
        check(&["AllAlpha=true", "CBORServingAndStorage=false"], Ok(false));
        check(&["AllBeta=true"], Ok(false));
        check(&["Nonsense=true"], Err("unrecognized feature gate: Nonsense"));
        check(
            &["CBORServingAndStorage"],
            Err("malformed pair \"CBORServingAndStorage\", expect string=bool"),
        );
        check(&["AllAlpha=yes"], Err("invalid value of AllAlpha: yes, expect true or false"));
        let locked = "cannot set feature gate APIServerTracing to false, feature is locked to true";
        check(&["APIServerTracing=false"], Err(locked));
    }

    #[test]
    fn pages_are_switched_off() {
        let served = |pairs: &[&str]| {
            let features = Features::parse(pairs.iter().copied()).expect("known");
            features.pages("x", Flags::default()).served().map(Page::path).collect::<Vec<_>>()
        };
        assert_eq!(served(&[]), ["/flagz", "/statusz"]);
        assert_eq!(served(&["ComponentStatusz=false"]), ["/flagz"]);
        assert_eq!(served(&["AllBeta=false"]), [""; 0]);
    }

    #[test]
    fn what_cannot_be_switched_is_told() {
        let features =
            Features::parse(["APIServerIdentity=false", "APIResponseCompression=true"]).expect("known");
        assert_eq!(features.without_effect(), ["APIServerIdentity"]);
    }

    #[test]
    fn every_row_of_the_table_is_read() {
        assert_eq!(rows().count(), TABLE.lines().count() - 1);
        assert!(rows().all(|row| ["alpha", "beta", "ga", "deprecated"].contains(&row.stage)));
    }
}
