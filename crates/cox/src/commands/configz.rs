//! What components show at `/configz`: their settings, in the form of upstream's configuration files. Only what has an effect
//! here is shown.

use std::path::Path;
use std::time::Duration;

use apimachinery::time::format_duration;
use apimachinery::{Value, json};
use jiff::SignedDuration;

use crate::cli::{ControllerManagerArgs, OneElectionArgs, SchedulerArgs};
use crate::services::control_plane::{self, CONTROLLER_MANAGER, SCHEDULER};

/// A KubeSchedulerConfiguration.
pub fn of_scheduler(args: &SchedulerArgs) -> Value {
    json!({"componentconfig": {
        "kind": "KubeSchedulerConfiguration",
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "clientConnection": client_connection(&args.component.kubeconfig),
        "leaderElection": leader_election(&args.leader_election, SCHEDULER),
        "profiles": [{"schedulerName": scheduler::DEFAULT_SCHEDULER_NAME}],
    }})
}

/// A KubeControllerManagerConfiguration.
pub fn of_controller_manager(args: &ControllerManagerArgs) -> Value {
    let disabled = control_plane::disabled_controllers(args.ingress);
    let controllers: Vec<String> =
        std::iter::once("*".to_owned()).chain(disabled.iter().map(|name| format!("-{name}"))).collect();
    let cidrs: Vec<String> = args.cluster_cidr.iter().map(ToString::to_string).collect();
    json!({"kubecontrollermanager.config.k8s.io": {
        "kind": "KubeControllerManagerConfiguration",
        "apiVersion": "kubecontrollermanager.config.k8s.io/v1alpha1",
        "Generic": {
            "ClientConnection": client_connection(&args.component.kubeconfig),
            "LeaderElection": leader_election(&args.leader_election, CONTROLLER_MANAGER),
            "Controllers": controllers,
        },
        "KubeCloudShared": {"ClusterCIDR": cidrs.join(",")},
        "CSRSigningController": {
            "ClusterSigningCertFile": shown(args.cluster_signing_cert_file.as_deref()),
            "ClusterSigningKeyFile": shown(args.cluster_signing_key_file.as_deref()),
            "ClusterSigningDuration": format_duration(args.signing.cluster_signing_duration),
        },
        "NodeIPAMController": {
            "NodeCIDRMaskSizeIPv4": args.node_ipam.node_cidr_mask_size_ipv4,
            "NodeCIDRMaskSizeIPv6": args.node_ipam.node_cidr_mask_size_ipv6,
        },
        "SAController": {"RootCAFile": shown(args.root_ca_file.as_deref())},
    }})
}

fn client_connection(kubeconfig: &Path) -> Value {
    json!({"kubeconfig": shown(Some(kubeconfig))})
}

fn leader_election(args: &OneElectionArgs, component: &str) -> Value {
    let election = &args.election;
    json!({
        "leaderElect": election.leader_elect.unwrap_or(true),
        "leaseDuration": duration(election.leader_elect_lease_duration),
        "renewDeadline": duration(election.leader_elect_renew_deadline),
        "retryPeriod": duration(election.leader_elect_retry_period),
        "resourceLock": election.leader_elect_resource_lock,
        "resourceName": args.leader_elect_resource_name.as_deref().unwrap_or(component),
        "resourceNamespace": election.leader_elect_resource_namespace,
    })
}

fn shown(path: Option<&Path>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

fn duration(duration: Duration) -> String {
    format_duration(SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn what_flags_say_is_shown_as_upstream_writes_it() {
        let given = ["cox", "scheduler", "--kubeconfig", "/k", "--leader-elect-lease-duration", "90s"];
        let Command::Scheduler(args) = Cli::try_parse_from(given).expect("flags").command else {
            panic!("is the scheduler's command");
        };
        let shown = &of_scheduler(&args)["componentconfig"];
        assert_eq!(shown["clientConnection"]["kubeconfig"], "/k");
        let election = &shown["leaderElection"];
        assert_eq!((&election["leaseDuration"], &election["retryPeriod"]), (&json!("1m30s"), &json!("2s")));
        assert_eq!(election["resourceName"], "kube-scheduler");

        let given = ["cox", "controller-manager", "--kubeconfig", "/k", "--ingress=false"];
        let Command::ControllerManager(args) = Cli::try_parse_from(given).expect("flags").command else {
            panic!("is the controllers' command");
        };
        let shown = &of_controller_manager(&args)["kubecontrollermanager.config.k8s.io"];
        assert_eq!(shown["Generic"]["Controllers"], json!(["*", "-ingress-controller"]));
        assert_eq!(shown["Generic"]["LeaderElection"]["leaderElect"], true);
        assert_eq!(shown["NodeIPAMController"]["NodeCIDRMaskSizeIPv4"], 24);
    }
}
