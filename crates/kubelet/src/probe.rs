//! Runs probes: one task per probe of a running container, which tells the pod's worker when the verdict changes
//! (follows the kubelet's `prober/worker.go`).

pub mod grpc;
pub mod http;
mod metrics;
pub mod tcp;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::view::core::{Container, Handler, Probe};
use apimachinery::Value;
use jiff::{SignedDuration, Timestamp};
use runtime::cri;
use tokio::sync::mpsc;

use crate::worker::{Message, Runtime};

pub use metrics::{ProbeMetrics, Probed};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeType {
    Startup,
    Readiness,
    Liveness,
}

impl ProbeType {
    /// As events name it: `Liveness probe failed`.
    pub fn as_str(self) -> &'static str {
        match self {
            ProbeType::Startup => "Startup",
            ProbeType::Readiness => "Readiness",
            ProbeType::Liveness => "Liveness",
        }
    }

    /// Whether its failure restarts the container.
    pub fn restarts(self) -> bool {
        self != ProbeType::Readiness
    }
}

/// A verdict that stood its threshold, or a single probe to be told of as an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub container_id: String,
    pub container_name: String,
    pub kind: ProbeType,
    /// `None`: the verdict has not changed.
    pub passed: Option<bool>,
    /// The event's reason and message.
    pub warning: Option<(&'static str, String)>,
}

/// The container that is probed.
pub struct Target {
    pub runtime: Runtime,
    pub container_id: String,
    pub spec: Container,
    pub pod_ip: Option<IpAddr>,
}

/// Counts results against thresholds. Pure.
#[derive(Debug)]
pub struct Threshold {
    success: i32,
    failure: i32,
    last: Option<bool>,
    run: i32,
    stands: Option<bool>,
}

impl Threshold {
    pub fn new(probe: &Probe) -> Self {
        Threshold {
            success: probe.success_threshold.max(1),
            failure: probe.failure_threshold.max(1),
            last: None,
            run: 0,
            stands: None,
        }
    }

    /// The verdict, when this result is the one that changes it.
    pub fn count(&mut self, passed: bool) -> Option<bool> {
        self.run = if self.last == Some(passed) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(passed);
        let needed = if passed { self.success } else { self.failure };
        if self.run < needed || self.stands == Some(passed) {
            return None;
        }
        self.stands = Some(passed);
        self.stands
    }
}

/// What is left of a probe's initial delay, which counts from the start of the container.
pub fn delay(probe: &Probe, started_at: Option<Timestamp>, now: Timestamp) -> Duration {
    let delay = SignedDuration::from_secs(probe.initial_delay_seconds.into());
    let running = started_at.map_or(SignedDuration::ZERO, |at| now.duration_since(at));
    Duration::try_from(delay - running).unwrap_or_default()
}

/// Where it is told how probes of a container went.
pub struct Record {
    pub metrics: Arc<ProbeMetrics>,
    pub probed: Probed,
}

/// Probes until the channel closes; a startup probe until it passed. Liveness stops at its first failure for good.
pub async fn run(
    target: Target,
    kind: ProbeType,
    probe: Probe,
    delay: Duration,
    record: Record,
    verdicts: mpsc::Sender<Message>,
) {
    let seconds = |n: i32, min: u64| Duration::from_secs(u64::try_from(n).unwrap_or(0).max(min));
    tokio::time::sleep(delay).await;
    let mut ticker = tokio::time::interval(seconds(probe.period_seconds, 1));
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let timeout = seconds(probe.timeout_seconds, 1);
    let mut threshold = Threshold::new(&probe);
    loop {
        ticker.tick().await;
        let began = tokio::time::Instant::now();
        let result = persist(&target, &probe.handler, timeout).await;
        let passed = match &result {
            Err(Trouble::Errored(_)) => None,
            told => {
                record.metrics.record(&record.probed, kind.as_str(), told.is_ok(), began.elapsed());
                threshold.count(told.is_ok())
            }
        };
        let warning = warning(kind, result);
        if passed.is_none() && warning.is_none() {
            continue;
        }
        let verdict = Verdict {
            container_id: target.container_id.clone(),
            container_name: target.spec.name.clone(),
            kind,
            passed,
            warning,
        };
        let over =
            matches!((kind, passed), (ProbeType::Startup, Some(_)) | (ProbeType::Liveness, Some(false)));
        if verdicts.send(Message::Probe(verdict)).await.is_err() || over {
            return;
        }
    }
}

/// Why a probe or hook did not succeed, in words for users.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It says that the container is not well.
    #[error("{0}")]
    Failed(String),
    /// It could not be made, which tells nothing of the container.
    #[error("{0}")]
    Errored(String),
}

/// How often a probe is made that cannot be (upstream's `maxProbeRetries`).
const ATTEMPTS_MAX: usize = 3;

async fn persist(target: &Target, handler: &Handler, timeout: Duration) -> Result<Option<String>, Trouble> {
    let handler = with_static_variables(handler, &target.spec);
    let mut result = attempt(target, &handler, timeout).await;
    for _ in 1..ATTEMPTS_MAX {
        if !matches!(result, Err(Trouble::Errored(_))) {
            break;
        }
        result = attempt(target, &handler, timeout).await;
    }
    result
}

/// A probe's command knows those variables of the container that stand in its spec
/// (upstream: `ExpandContainerCommandOnlyStatic`).
fn with_static_variables(handler: &Handler, spec: &Container) -> Handler {
    let mut handler = handler.clone();
    if let Some(exec) = &mut handler.exec {
        let value = |name: &str| spec.env.iter().rev().find(|of| of.name == name).map(|of| of.value.clone());
        exec.command = exec.command.iter().map(|part| crate::env::expand(part, value)).collect();
    }
    handler
}

/// What users are to be warned of.
fn warning(kind: ProbeType, result: Result<Option<String>, Trouble>) -> Option<(&'static str, String)> {
    let kind = kind.as_str();
    match result {
        Ok(None) => None,
        Ok(Some(output)) => Some(("ProbeWarning", format!("{kind} probe warning: {output}"))),
        Err(Trouble::Failed(output)) => Some(("Unhealthy", format!("{kind} probe failed: {output}"))),
        Err(Trouble::Errored(why)) => {
            Some(("Unhealthy", format!("{kind} probe errored and resulted in unknown state: {why}")))
        }
    }
}

/// One try of a probe or hook, and what to warn of though it went well; the error is what the user reads.
pub async fn attempt(
    target: &Target,
    handler: &Handler,
    timeout: Duration,
) -> Result<Option<String>, Trouble> {
    let host = |own: &str| {
        if own.is_empty() { target.pod_ip.map(|ip| ip.to_string()) } else { Some(own.to_owned()) }
    };
    let no_address = || Trouble::Errored("the pod has no address yet".to_owned());
    if let Some(exec) = &handler.exec {
        return run_command(target, exec.command.clone(), timeout).await.map(|()| None);
    }
    if let Some(get) = &handler.http_get {
        let port = port(&get.port, &target.spec)?;
        let host = host(&get.host).ok_or_else(no_address)?;
        return http::get(get, &host, port, timeout).await.map_err(Trouble::Failed);
    }
    if let Some(socket) = &handler.tcp_socket {
        let port = port(&socket.port, &target.spec)?;
        let host = host(&socket.host).ok_or_else(no_address)?;
        return tcp::connect(&host, port, timeout).await.map(|()| None).map_err(Trouble::Failed);
    }
    if let Some(action) = &handler.grpc {
        let service = action.service.clone().unwrap_or_default();
        let host = host("").ok_or_else(no_address)?;
        let checked = grpc::check(&host, action.port, service, timeout).await;
        return checked.map(|()| None).map_err(Trouble::Failed);
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(None);
    }
    Err(Trouble::Errored("missing probe handler".to_owned()))
}

/// A number, or the name of one of the container's ports.
fn port(value: &Value, spec: &Container) -> Result<u16, Trouble> {
    if let Some(number) = value.as_u64() {
        return u16::try_from(number).map_err(|_| Trouble::Errored(format!("invalid port number: {number}")));
    }
    let name = value.as_str().unwrap_or_default();
    let named = spec.ports.iter().find(|p| p.name == name).map(|p| p.container_port);
    let unknown = || Trouble::Errored(format!("couldn't find port {name:?} in the container"));
    named.or_else(|| name.parse().ok()).ok_or_else(unknown)
}

/// What a connection that could not be made says, as Go words it.
fn undialed(host: &str, port: u16, error: &std::io::Error) -> String {
    let why = match error.raw_os_error() {
        Some(code) => {
            let words = nix::errno::Errno::from_raw(code).desc();
            let (first, rest) = words.split_at(1);
            format!("connect: {}{rest}", first.to_lowercase())
        }
        None => error.to_string(),
    };
    format!("dial tcp {}:{port}: {why}", bracketed(host))
}

/// A host as it stands before a port.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

async fn run_command(target: &Target, cmd: Vec<String>, timeout: Duration) -> Result<(), Trouble> {
    let words = cmd.join(" ");
    let request = cri::ExecSyncRequest {
        container_id: target.container_id.clone(),
        cmd,
        timeout: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
    };
    let answer =
        target.runtime.runtime.clone().exec_sync(request).await.map_err(|status| match status.code() {
            tonic::Code::DeadlineExceeded => {
                Trouble::Failed(format!("command timed out: {words:?} timed out after {timeout:?}"))
            }
            _ => Trouble::Errored(status.message().to_owned()),
        })?;
    let answer = answer.into_inner();
    if answer.exit_code == 0 {
        return Ok(());
    }
    let output = [answer.stdout, answer.stderr].concat();
    Err(Trouble::Failed(String::from_utf8_lossy(&output).trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn check(probe: Value, results: &[bool], expect: &[Option<bool>]) {
        let mut threshold = Threshold::new(&apimachinery::from_value(probe).expect("a probe"));
        let verdicts: Vec<_> = results.iter().map(|passed| threshold.count(*passed)).collect();
        assert_eq!(verdicts, expect);
    }

    #[test]
    fn a_verdict_changes_at_its_threshold() {
        let (yes, no) = (Some(true), Some(false));
        check(
            json!({"failureThreshold": 3}),
            &[true, true, false, false, false, false, true],
            &[yes, None, None, None, no, None, yes],
        );
        check(
            json!({"successThreshold": 2, "failureThreshold": 1}),
            &[false, true, true, false],
            &[no, None, yes, no],
        );
        check(json!({"failureThreshold": 2}), &[false, true, false, false], &[None, yes, None, no]);
    }

    #[test]
    fn the_initial_delay_counts_from_the_start_of_the_container() {
        let probe: Probe = apimachinery::from_value(json!({"initialDelaySeconds": 30})).expect("a probe");
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1000);
        let left = |age: i64| delay(&probe, Some(now - SignedDuration::from_secs(age)), now).as_secs();
        assert_eq!([left(0), left(10), left(30), left(900)], [30, 20, 0, 0]);
        assert_eq!(delay(&probe, None, now).as_secs(), 30);
    }

    #[test]
    fn a_probe_that_cannot_be_made_is_told_apart_from_one_that_fails() {
        let check = |trouble: Trouble, expect: &str| {
            let told = warning(ProbeType::Liveness, Err(trouble));
            assert_eq!(told, Some(("Unhealthy", expect.to_owned())));
        };
        check(Trouble::Failed("no".to_owned()), "Liveness probe failed: no");
        let expect = "Liveness probe errored and resulted in unknown state: no such file";
        check(Trouble::Errored("no such file".to_owned()), expect);
    }

    #[test]
    fn a_command_knows_the_variables_of_the_spec() {
        let spec = json!({"env": [{"name": "A", "value": "x"}, {"name": "B", "valueFrom": {}}]});
        let spec: Container = apimachinery::from_value(spec).expect("a container");
        let handler = json!({"exec": {"command": ["$(A)y", "$$(A)", "$(B)", "$(C)"]}});
        let handler: Handler = apimachinery::from_value(handler).expect("a handler");
        let command = with_static_variables(&handler, &spec).exec.expect("a command").command;
        assert_eq!(command, ["xy", "$(A)", "", "$(C)"]);
    }

    #[tokio::test]
    async fn a_refused_connection_is_told_of_in_go_s_words() {
        // Bound, so that the port is nobody else's, but not listening.
        let deaf = tokio::net::TcpSocket::new_v4().expect("a socket");
        deaf.bind("127.0.0.1:0".parse().expect("an address")).expect("binds");
        let port = deaf.local_addr().expect("bound").port();
        let patience = Duration::from_secs(60);
        let expect = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(tcp::connect("127.0.0.1", port, patience).await, Err(expect.clone()));
        let why = grpc::check("127.0.0.1", port, String::new(), patience).await.expect_err("nobody listens");
        assert!(
            why.starts_with(&format!("error: failed to connect service at \"127.0.0.1:{port}\": ")),
            "{why}"
        );
        let get = apimachinery::from_value(json!({"path": "/x", "scheme": "HTTP"})).expect("an action");
        let expect = format!("Get \"http://127.0.0.1:{port}/x\": {expect}");
        assert_eq!(http::get(&get, "127.0.0.1", port, patience).await, Err(expect));
    }

    #[test]
    fn a_port_may_be_a_name() {
        let spec: Container =
            apimachinery::from_value(json!({"ports": [{"name": "web", "containerPort": 8080}]}))
                .expect("a container");
        assert_eq!(port(&json!("web"), &spec), Ok(8080));
        assert_eq!(port(&json!(80), &spec), Ok(80));
        assert_eq!(port(&json!("81"), &spec), Ok(81));
        assert!(port(&json!("nope"), &spec).is_err());
        assert!(port(&json!(70000), &spec).is_err());
    }
}
