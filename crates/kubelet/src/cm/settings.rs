//! What an operator may say of how resources are given out: the fields of upstream's `KubeletConfiguration` that this
//! part of the kubelet reads, with upstream's defaults.

use std::collections::BTreeMap;

use api::validation::is_huge_page_resource;
use apimachinery::quantity::Quantity;

use super::topologymanager::{Policy, Scope};
use super::{cpumanager, memorymanager};
use crate::kubeletconfig::KubeletConfiguration;
use crate::node::amounts;
use crate::resources::SwapBehavior;
use crate::userns::IDS_PER_POD;

/// Options of the static policy of CPUs that are acted on.
pub const FULL_PCPUS_ONLY: &str = "full-pcpus-only";
pub const STRICT_CPU_RESERVATION: &str = "strict-cpu-reservation";

#[derive(Clone, Debug)]
pub struct Settings {
    /// What of the node's swap pods may use.
    pub swap_behavior: SwapBehavior,
    /// How many users a pod with users of its own has.
    pub ids_per_pod: u32,
    /// Containers may have CPUs of their own (`cpuManagerPolicy: static`).
    pub static_cpus: Option<cpumanager::Options>,
    /// Containers have their memory on NUMA nodes of their own (`memoryManagerPolicy: Static`).
    pub static_memory: Option<memorymanager::Options>,
    pub topology_policy: Policy,
    pub topology_scope: Scope,
}

impl Settings {
    /// Of a configuration that has been validated; `withheld_memory` is what it keeps from pods, in bytes.
    pub fn of(configuration: &KubeletConfiguration, withheld_memory: i64) -> Self {
        let ids = configuration.user_namespaces.as_ref().map(|users| users.ids_per_pod);
        Settings {
            swap_behavior: match configuration.memory_swap.swap_behavior.as_str() {
                "LimitedSwap" => SwapBehavior::LimitedSwap,
                _ => SwapBehavior::NoSwap,
            },
            ids_per_pod: ids.and_then(|ids| u32::try_from(ids).ok()).unwrap_or(IDS_PER_POD),
            static_cpus: (configuration.cpu_manager_policy == "static").then(|| static_cpus(configuration)),
            static_memory: (configuration.memory_manager_policy == "Static")
                .then(|| static_memory(configuration, withheld_memory)),
            topology_policy: match configuration.topology_manager_policy.as_str() {
                "best-effort" => Policy::BestEffort,
                "restricted" => Policy::Restricted,
                "single-numa-node" => Policy::SingleNumaNode,
                _ => Policy::None,
            },
            topology_scope: match configuration.topology_manager_scope.as_str() {
                "pod" => Scope::Pod,
                _ => Scope::Container,
            },
        }
    }
}

fn static_cpus(configuration: &KubeletConfiguration) -> cpumanager::Options {
    let asked = |option: &str| {
        configuration.cpu_manager_policy_options.get(option).is_some_and(|value| value == "true")
    };
    let reserved = |table| amounts(table).milli_cpu;
    cpumanager::Options {
        full_pcpus_only: asked(FULL_PCPUS_ONLY),
        strict_reservation: asked(STRICT_CPU_RESERVATION),
        reserved: configuration.reserved_system_cpus.parse().unwrap_or_default(),
        reserved_milli_cpu: reserved(&configuration.system_reserved) + reserved(&configuration.kube_reserved),
    }
}

fn static_memory(configuration: &KubeletConfiguration, withheld_memory: i64) -> memorymanager::Options {
    let bytes = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
    let mut withheld = BTreeMap::from([("memory".to_owned(), bytes(withheld_memory))]);
    for (name, amount) in configuration.system_reserved.iter().chain(&configuration.kube_reserved) {
        if let (true, Ok(amount)) = (is_huge_page_resource(name), amount.parse::<Quantity>()) {
            *withheld.entry(name.clone()).or_default() += bytes(amount.value());
        }
    }
    memorymanager::Options { reserved: configuration.reserved_memory.clone(), withheld }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_says_who_gets_what() {
        let settings = Settings::of(&KubeletConfiguration::default(), 0);
        assert!(settings.static_cpus.is_none());
        assert_eq!((settings.ids_per_pod, settings.topology_policy), (IDS_PER_POD, Policy::None));
        let given = KubeletConfiguration {
            cpu_manager_policy: "static".to_owned(),
            cpu_manager_policy_options: [(FULL_PCPUS_ONLY.to_owned(), "true".to_owned())].into(),
            system_reserved: [("cpu".to_owned(), "300m".to_owned())].into(),
            kube_reserved: [("cpu".to_owned(), "1".to_owned())].into(),
            memory_manager_policy: "Static".to_owned(),
            topology_manager_policy: "restricted".to_owned(),
            topology_manager_scope: "pod".to_owned(),
            ..KubeletConfiguration::default()
        };
        let settings = Settings::of(&given, 5 << 20);
        assert_eq!((settings.topology_policy, settings.topology_scope), (Policy::Restricted, Scope::Pod));
        let memory = settings.static_memory.expect("static");
        assert_eq!(memory.withheld, BTreeMap::from([("memory".to_owned(), 5 << 20)]));
        let cpus = settings.static_cpus.expect("static");
        assert_eq!(
            (cpus.full_pcpus_only, cpus.strict_reservation, cpus.reserved_milli_cpu),
            (true, false, 1300)
        );
    }
}
