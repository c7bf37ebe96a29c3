//! Fields that this kubelet does not act on: some are refused where they are not as by default, since an operator would
//! rely on them; of the others that have no effect is told.

use apimachinery::{Text, Value};

use super::KubeletConfiguration;
use crate::cm::{FULL_PCPUS_ONLY, STRICT_CPU_RESERVATION};

/// With what is the case here, which is all that can be asked for.
const REFUSED: [(&str, &str); 12] = [
    ("enableServer", "the kubelet's own API is always served"),
    ("tlsCipherSuites", "the cipher suites are those of TLS 1.2 and 1.3 that are held to be safe"),
    ("tlsCurvePreferences", "the curves cannot be chosen"),
    ("tlsMinVersion", "it is TLS 1.2"),
    ("cgroupsPerQOS", "pods always have cgroups by quality of service"),
    ("cgroupDriver", "cgroups are made by files"),
    ("topologyManagerPolicyOptions", "the policy has no options"),
    ("qosReserved", "no memory is set aside by quality of service"),
    ("podCIDR", "the API server gives the node its range"),
    ("preloadedImagesVerificationAllowlist", "no credentials are verified of images that are there"),
    ("memoryReservationPolicy", "no memory is protected by cgroups"),
    ("localStorageCapacityIsolation", "ephemeral storage is always accounted"),
];

/// What the defaults of upstream and of the cluster say of credentials comes to the same: none are verified.
const VERIFICATION: &str = "imagePullCredentialsVerificationPolicy";
const NOT_VERIFYING: [&str; 2] = ["NeverVerify", "NeverVerifyPreloadedImages"];

/// What has no counterpart here, or happens by itself.
const WITHOUT_EFFECT: [&str; 27] = [
    "syncFrequency",
    "fileCheckFrequency",
    "enableContentionProfiling",
    "oomScoreAdj",
    "streamingConnectionIdleTimeout",
    "volumeStatsAggPeriod",
    "kubeletCgroups",
    "systemCgroups",
    "cpuManagerReconcilePeriod",
    "runtimeRequestTimeout",
    "hairpinMode",
    "maxOpenFiles",
    "contentType",
    "kubeAPIQPS",
    "kubeAPIBurst",
    "enableControllerAttachDetach",
    "makeIPTablesUtilChains",
    "iptablesMasqueradeBit",
    "iptablesDropBit",
    "containerLogMaxWorkers",
    "containerLogMonitorInterval",
    "configMapAndSecretChangeDetectionStrategy",
    "showHiddenMetricsForVersion",
    "volumePluginDir",
    "enableSystemLogQuery",
    "memoryThrottlingFactor",
    "tracing",
];

/// What is asked for in vain but must not be passed over.
pub fn refused(configuration: &KubeletConfiguration) -> Vec<String> {
    let policy = configuration.image_pull_credentials_verification_policy.as_str();
    let verifies = (!NOT_VERIFYING.contains(&policy)).then(|| {
        format!(
            "{VERIFICATION} {policy:?} is not supported: no credentials are verified of images that are there"
        )
    });
    let changed = changed(configuration);
    let refused = REFUSED.iter().filter_map(|(name, why)| {
        let value = changed.iter().find(|(changed, _)| changed == name)?.1.clone();
        Some(format!("{name} {value} is not supported: {why}"))
    });
    let no_root = (configuration.cgroup_root == "/")
        .then(|| "cgroupRoot \"/\" is not supported: pods need a cgroup of their own".to_owned());
    let refused = refused.chain(unknown_choices(configuration));
    refused.chain(verifies).chain(no_root).map(|why| format!("invalid configuration: {why}")).collect()
}

/// Choices among which there is none of this name.
fn unknown_choices(configuration: &KubeletConfiguration) -> impl Iterator<Item = String> {
    let choices: [(&str, &str, &[&str]); 4] = [
        ("cpuManagerPolicy", &configuration.cpu_manager_policy, &["none", "static"]),
        ("memoryManagerPolicy", &configuration.memory_manager_policy, &["None", "Static"]),
        (
            "topologyManagerPolicy",
            &configuration.topology_manager_policy,
            &["none", "best-effort", "restricted", "single-numa-node"],
        ),
        ("topologyManagerScope", &configuration.topology_manager_scope, &["container", "pod"]),
    ];
    let unknown = choices.into_iter().filter(|(_, chosen, known)| !known.contains(chosen));
    let unknown = unknown.map(|(name, chosen, known)| {
        format!("{name} {chosen:?} is not supported: it is one of {}", known.join(", "))
    });
    let known = [FULL_PCPUS_ONLY, STRICT_CPU_RESERVATION];
    let options = configuration.cpu_manager_policy_options.keys();
    let options = options.filter(move |option| !known.contains(&option.as_str()));
    let options = options.map(move |option| {
        format!("cpuManagerPolicyOptions {option:?} is not supported: known are {}", known.join(", "))
    });
    unknown.chain(options)
}

/// A warning for each field that is set and does nothing.
pub fn without_effect(configuration: &KubeletConfiguration) -> Vec<String> {
    let changed = changed(configuration);
    let known = |(name, _): &&(Text, Value)| WITHOUT_EFFECT.contains(&name.as_str());
    let mut warnings: Vec<String> = changed
        .iter()
        .filter(known)
        .map(|(name, value)| format!("KubeletConfiguration: {name} {value} has no effect here"))
        .collect();
    if !says_nothing(&configuration.logging) {
        warnings.push(format!("KubeletConfiguration: logging {} has no effect here", configuration.logging));
    }
    warnings
}

/// Fields that are not as by default.
fn changed(configuration: &KubeletConfiguration) -> Vec<(Text, Value)> {
    let fields = |of: &KubeletConfiguration| apimachinery::to_value(of).unwrap_or_default();
    let (default, given) = (fields(&KubeletConfiguration::default()), fields(configuration));
    let Value::Object(given) = given else { return Vec::new() };
    given.into_iter().filter(|(name, value)| default.get(name) != Some(value)).collect()
}

/// Whether all that is said of logging is as upstream says it by default, in any of the forms in which it does.
fn says_nothing(logging: &Value) -> bool {
    match logging {
        Value::Object(fields) => fields.values().all(says_nothing),
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => [Some(0), Some(5_000_000_000)].contains(&number.as_i64()),
        Value::String(text) => ["", "0", "text", "5s", "0s"].contains(&text.as_str()),
        Value::Array(items) => items.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one_of_a_field() {
        let fields = apimachinery::to_value(KubeletConfiguration::default()).expect("fields");
        let names = REFUSED.iter().map(|(name, _)| *name).chain(WITHOUT_EFFECT).chain([VERIFICATION]);
        for name in names {
            assert!(fields.get(name).is_some(), "{name}");
        }
    }

    #[test]
    fn the_defaults_are_neither_refused_nor_warned_of() {
        let default = KubeletConfiguration::default();
        assert_eq!(refused(&default), Vec::<String>::new());
        assert_eq!(without_effect(&default), Vec::<String>::new());
    }

    #[test]
    fn what_is_relied_upon_is_refused_and_what_is_not_is_told() {
        let given = KubeletConfiguration {
            cgroup_driver: "systemd".to_owned(),
            topology_manager_policy: "perfect".to_owned(),
            cpu_manager_policy_options: [("align-by-socket".to_owned(), "true".to_owned())].into(),
            hairpin_mode: "none".to_owned(),
            image_pull_credentials_verification_policy: "AlwaysVerify".to_owned(),
            ..KubeletConfiguration::default()
        };
        let refused = refused(&given);
        assert_eq!(refused.len(), 4, "{refused:?}");
        assert!(refused[0].starts_with("invalid configuration: cgroupDriver \"systemd\" is not supported"));
        assert_eq!(without_effect(&given), ["KubeletConfiguration: hairpinMode \"none\" has no effect here"]);
    }
}
