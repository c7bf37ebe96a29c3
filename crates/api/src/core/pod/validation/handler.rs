//! Probes and lifecycle handlers: what is called, and how often (follows `validateProbe`, `validateHandler`).

use apimachinery::field::{Error, ErrorList};

use super::Context;
use crate::validation::{At, http_header_name, port_number, port_number_or_name};

const SCHEMES: [&str; 2] = ["HTTP", "HTTPS"];
const PROBE_NUMBERS: [&str; 5] =
    ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];
const HANDLERS: [(&str, Check); 5] =
    [("exec", exec), ("httpGet", http_get), ("tcpSocket", tcp_socket), ("grpc", grpc), ("sleep", sleep)];
const SIGNALS_WINDOWS: [&str; 2] = ["SIGKILL", "SIGTERM"];
const SIGNALS_LINUX: [&str; 34] = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];
/// Real-time signals are written relative to their ends: `SIGRTMIN+1..15`, `SIGRTMAX-1..14`.
const REAL_TIME: [(&str, u32); 2] = [("SIGRTMIN+", 15), ("SIGRTMAX-", 14)];

type Check = fn(&At, &Context, &mut ErrorList);

pub fn probe(probe: &At, readiness: bool, context: &Context, errors: &mut ErrorList) {
    handler(probe, context, errors);
    for field in PROBE_NUMBERS {
        probe.get(field).check_nonnegative(errors);
    }
    let grace = probe.get("terminationGracePeriodSeconds");
    if grace.is_set() && grace.int() <= 0 {
        errors.push(grace.invalid("must be greater than 0"));
    }
    let successes = probe.get("successThreshold");
    if readiness && grace.is_set() {
        errors.push(grace.invalid("must not be set for readinessProbes"));
    } else if !readiness && successes.int() != 1 {
        errors.push(Error::invalid(&successes.path, successes.int(), "must be 1"));
    }
}

pub fn lifecycle(lifecycle: &At, context: &Context, errors: &mut ErrorList) {
    for field in ["postStart", "preStop"] {
        if let Some(at) = lifecycle.field(field) {
            handler(&at, context, errors);
        }
    }
    if let Some(signal) = lifecycle.field("stopSignal") {
        stop_signal(&signal, context, errors);
    }
}

fn handler(handler: &At, context: &Context, errors: &mut ErrorList) {
    let mut found = false;
    for (field, check) in HANDLERS {
        let Some(action) = handler.field(field) else { continue };
        if found {
            errors.push(action.forbidden("may not specify more than 1 handler type"));
        } else {
            check(&action, context, errors);
        }
        found = true;
    }
    if !found {
        errors.push(handler.required("must specify a handler type"));
    }
}

fn exec(action: &At, _: &Context, errors: &mut ErrorList) {
    if action.get("command").is_empty() {
        errors.push(action.get("command").required(""));
    }
}

fn http_get(action: &At, _: &Context, errors: &mut ErrorList) {
    if action.get("path").is_empty() {
        errors.push(action.get("path").required(""));
    }
    port_number_or_name(&action.get("port"), errors);
    let scheme = action.get("scheme");
    if !SCHEMES.contains(&scheme.text()) {
        errors.push(Error::not_supported(&scheme.path, scheme.text(), &SCHEMES));
    }
    let headers = action.get("httpHeaders");
    for header in headers.items() {
        header.get("name").under(&headers.path).check(http_header_name, errors);
    }
}

fn tcp_socket(action: &At, _: &Context, errors: &mut ErrorList) {
    port_number_or_name(&action.get("port"), errors);
}

fn grpc(action: &At, _: &Context, errors: &mut ErrorList) {
    port_number(&action.get("port"), errors);
}

fn sleep(action: &At, context: &Context, errors: &mut ErrorList) {
    let seconds = action.get("seconds").int();
    if let Some(grace) = context.grace_period.filter(|grace| !(0..=*grace).contains(&seconds)) {
        let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.push(Error::invalid(&action.path, seconds, detail));
    }
}

fn stop_signal(signal: &At, context: &Context, errors: &mut ErrorList) {
    match context.spec.pointer("/os/name").and_then(apimachinery::Value::as_str) {
        None => errors.push(signal.forbidden("may not be set for containers with empty `spec.os.name`")),
        Some("windows") => signal.check_optional_enum(&SIGNALS_WINDOWS, errors),
        Some("linux") if !is_linux_signal(signal.text()) => errors.push(signal.not_supported(&SIGNALS_LINUX)),
        Some(_) => {}
    }
}

fn is_linux_signal(signal: &str) -> bool {
    SIGNALS_LINUX.contains(&signal)
        || matches!(signal, "SIGRTMIN" | "SIGRTMAX")
        || REAL_TIME.iter().any(|(prefix, max)| {
            signal
                .strip_prefix(prefix)
                .and_then(|n| n.parse().ok())
                .is_some_and(|n: u32| (1..=*max).contains(&n))
        })
}
