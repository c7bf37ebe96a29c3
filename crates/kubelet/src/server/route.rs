//! The kubelet's paths, and what of the node a user must be allowed for each.

use client::debug::PPROF;
use client::zpages::Page;

use super::healthz::CHECKS;
use super::node_logs;

/// A container of a pod; `uid` and `container` may be empty.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    pub container: String,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// The check that is meant, or nothing for all.
    Healthz(String),
    Pods,
    RunningPods,
    Configz,
    Page(Page),
    /// What follows `/debug/pprof/`.
    Pprof(String),
    Verbosity,
    Summary,
    Metrics,
    ResourceMetrics,
    CadvisorMetrics,
    ProbeMetrics,
    SliMetrics,
    Checkpoint(Target),
    Logs(Target),
    /// What follows `/logs/`.
    NodeLogs(String),
    Exec(Target),
    Run(Target),
    Attach(Target),
    PortForward(Target),
}

impl Route {
    /// `/exec/NAMESPACE/POD[/UID]/CONTAINER`, and the like.
    pub fn parse(path: &str) -> Option<Route> {
        if let Some(file) = path.strip_prefix(node_logs::PREFIX) {
            return Some(Route::NodeLogs(file.to_owned()));
        }
        if let Some(page) = path.strip_prefix(PPROF) {
            return Some(Route::Pprof(page.to_owned()));
        }
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (first, rest) = parts.split_first()?;
        let in_container = || match rest {
            [namespace, pod, container] => Some(target(namespace, pod, "", container)),
            [namespace, pod, uid, container] => Some(target(namespace, pod, uid, container)),
            _ => None,
        };
        match (*first, rest) {
            ("healthz", []) => Some(Route::Healthz(String::new())),
            ("healthz", [check]) if CHECKS.contains(check) => Some(Route::Healthz((*check).to_owned())),
            ("pods", []) => Some(Route::Pods),
            ("runningpods", []) => Some(Route::RunningPods),
            ("logs", []) => Some(Route::NodeLogs(String::new())),
            ("configz", []) => Some(Route::Configz),
            ("flagz", []) => Some(Route::Page(Page::Flagz)),
            ("statusz", []) => Some(Route::Page(Page::Statusz)),
            ("debug", ["flags", "v"]) => Some(Route::Verbosity),
            ("stats", ["summary"]) => Some(Route::Summary),
            ("metrics", []) => Some(Route::Metrics),
            ("metrics", ["resource"]) => Some(Route::ResourceMetrics),
            ("metrics", ["cadvisor"]) => Some(Route::CadvisorMetrics),
            ("metrics", ["probes"]) => Some(Route::ProbeMetrics),
            ("metrics", ["slis"]) => Some(Route::SliMetrics),
            ("checkpoint", [namespace, pod, container]) => {
                Some(Route::Checkpoint(target(namespace, pod, "", container)))
            }
            ("containerLogs", _) => in_container().map(Route::Logs),
            ("exec", _) => in_container().map(Route::Exec),
            ("run", _) => in_container().map(Route::Run),
            ("attach", _) => in_container().map(Route::Attach),
            ("portForward", [namespace, pod]) => Some(Route::PortForward(target(namespace, pod, "", ""))),
            ("portForward", [namespace, pod, uid]) => {
                Some(Route::PortForward(target(namespace, pod, uid, "")))
            }
            _ => None,
        }
    }

    /// Whether it is refused where `enableDebuggingHandlers` is off (upstream: `InstallDebuggingDisabledHandlers`).
    pub fn is_for_debugging(&self) -> bool {
        use Route::{Attach, Exec, Logs, NodeLogs, PortForward, Pprof, Run, RunningPods};
        let reaches_in = matches!(self, Logs(_) | Exec(_) | Run(_) | Attach(_) | PortForward(_));
        reaches_in || matches!(self, RunningPods | NodeLogs(_) | Pprof(_))
    }
}

/// The subresources of `nodes` of which a user must be allowed one, for any path, known or not
/// (follows `GetRequestAttributes` of the kubelet's `server/auth.go`).
pub fn subresources(path: &str) -> &'static [&'static str] {
    match path.trim_start_matches('/').split('/').next().unwrap_or_default() {
        "pods" | "runningpods" => &["pods", "proxy"],
        "healthz" => &["healthz", "proxy"],
        "configz" => &["configz", "proxy"],
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "checkpoint" => &["checkpoint"],
        "statusz" => &["statusz"],
        "flagz" => &["configz"],
        _ => &["proxy"],
    }
}

fn target(namespace: &str, pod: &str, uid: &str, container: &str) -> Target {
    Target { namespace: namespace.into(), pod: pod.into(), uid: uid.into(), container: container.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_a_container_with_or_without_uid() {
        assert_eq!(Route::parse("/exec/n/p/c"), Some(Route::Exec(target("n", "p", "", "c"))));
        assert_eq!(Route::parse("/exec/n/p/u/c"), Some(Route::Exec(target("n", "p", "u", "c"))));
        assert_eq!(Route::parse("/run/n/p/c"), Some(Route::Run(target("n", "p", "", "c"))));
        assert_eq!(Route::parse("/portForward/n/p"), Some(Route::PortForward(target("n", "p", "", ""))));
        assert_eq!(Route::parse("/runningpods/"), Some(Route::RunningPods));
        assert_eq!(Route::parse("/debug/pprof/"), Some(Route::Pprof(String::new())));
        assert_eq!(Route::parse("/debug/flags/v"), Some(Route::Verbosity));
        assert_eq!(Route::parse("/logs/apt/"), Some(Route::NodeLogs("apt/".to_owned())));
        for bad in ["/", "/exec/n/p", "/exec/n/p/u/c/x", "/nope", "/healthz/x", "/stats", "/checkpoint/n/p"] {
            assert_eq!(Route::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_path_has_something_to_be_allowed() {
        let check = |path: &str, expect: &[&str]| assert_eq!(subresources(path), expect, "{path}");
        check("/metrics/cadvisor", &["metrics"]);
        check("/stats/summary", &["stats"]);
        check("/pods", &["pods", "proxy"]);
        check("/runningpods/", &["pods", "proxy"]);
        check("/healthz/ping", &["healthz", "proxy"]);
        check("/configz", &["configz", "proxy"]);
        check("/statusz", &["statusz"]);
        check("/flagz", &["configz"]);
        check("/logs/syslog", &["log"]);
        check("/metricsx", &["proxy"]);
        check("/exec/n/p/c", &["proxy"]);
        check("/debug/pprof/profile", &["proxy"]);
    }
}
