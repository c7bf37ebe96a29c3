//! Which sysctls pods may set: the safe ones, and those that the operator allows (follows `sysctl/allowlist.go`). Pure.

use api::core::pod::SAFE_SYSCTLS;
use api::view::core::Pod;

use super::Refusal;

/// Those of the namespace of inter-process communication.
const IPC: [&str; 10] = [
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.shm",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.msg",
];
const IPC_PREFIX: &str = "fs.mqueue.";
const NET_PREFIX: &str = "net.";

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the sysctls {0:?} are not known to be namespaced")]
pub struct PatternError(String);

/// A kernel namespace, as upstream's messages name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Namespace {
    Ipc,
    Net,
}

impl Namespace {
    fn of(name: &str) -> Option<Self> {
        if IPC.contains(&name) || name.starts_with(IPC_PREFIX) {
            Some(Namespace::Ipc)
        } else {
            name.starts_with(NET_PREFIX).then_some(Namespace::Net)
        }
    }

    fn name(self) -> &'static str {
        match self {
            Namespace::Ipc => "IPC",
            Namespace::Net => "Net",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowlist(Vec<Pattern>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    text: String,
    /// Whether `text` is only the beginning.
    prefix: bool,
    namespace: Namespace,
}

impl Allowlist {
    /// The safe sysctls and `unsafe_patterns`: names, or beginnings of names with a `*`.
    pub fn new(unsafe_patterns: &[String]) -> Result<Self, PatternError> {
        let patterns = SAFE_SYSCTLS.into_iter().chain(unsafe_patterns.iter().map(String::as_str));
        patterns.map(Pattern::parse).collect::<Result<_, _>>().map(Allowlist)
    }

    pub(super) fn admit(&self, pod: &Pod) -> Result<(), Refusal> {
        let sysctls = pod.spec.security_context.iter().flat_map(|context| &context.sysctls);
        for sysctl in sysctls {
            self.check(&sysctl.name, pod.spec.host_network, pod.spec.host_ipc)
                .map_err(|why| Refusal::new("SysctlForbidden", format!("forbidden sysctl: {why}")))?;
        }
        Ok(())
    }

    fn check(&self, name: &str, host_network: bool, host_ipc: bool) -> Result<(), String> {
        let name = normalize(name);
        let pattern = self.0.iter().find(|pattern| pattern.matches(&name));
        let pattern = pattern.ok_or_else(|| format!("{name:?} not allowlisted"))?;
        let of_host = match pattern.namespace {
            Namespace::Ipc => host_ipc,
            Namespace::Net => host_network,
        };
        if of_host {
            return Err(format!("{name:?} not allowed with host {} enabled", pattern.namespace.name()));
        }
        Ok(())
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, PatternError> {
        let name = normalize(text);
        let (name, prefix) = match name.split_once('*') {
            Some((beginning, _)) => (beginning.to_owned(), true),
            None => (name, false),
        };
        match Namespace::of(&name) {
            Some(namespace) => Ok(Pattern { text: name, prefix, namespace }),
            None => Err(PatternError(name)),
        }
    }

    fn matches(&self, name: &str) -> bool {
        if self.prefix { name.starts_with(&self.text) } else { name == self.text }
    }
}

/// `a/b.c` and `a.b/c` are the same name, spelled with slashes and with dots.
fn normalize(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name[at..].starts_with('/') => {
            let swap = |c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            };
            name.chars().map(swap).collect()
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(allowed: &[&str], name: &str, host: bool, expect: Result<(), &str>) {
        let allowed: Vec<String> = allowed.iter().map(|text| (*text).to_owned()).collect();
        let list = Allowlist::new(&allowed).expect("patterns");
        assert_eq!(list.check(name, host, host), expect.map_err(str::to_owned), "{name}");
    }

    #[test]
    fn safe_sysctls_are_allowed_in_every_spelling() {
        check(&[], "net.ipv4.tcp_syncookies", false, Ok(()));
        check(&[], "net/ipv4/tcp_syncookies", false, Ok(()));
        check(&[], "kernel.shm_rmid_forced", false, Ok(()));
    }

    #[test]
    fn others_need_the_operators_word() {
        check(&[], "kernel.msgmax", false, Err("\"kernel.msgmax\" not allowlisted"));
        check(&["kernel.msg*"], "kernel.msgmax", false, Ok(()));
        check(&["net.core.somaxconn"], "net.core.somaxconn", false, Ok(()));
        check(
            &["net.core.somaxconn"],
            "net.core.somaxconn2",
            false,
            Err("\"net.core.somaxconn2\" not allowlisted"),
        );
    }

    #[test]
    fn what_would_be_the_hosts_own_is_refused() {
        let why = "\"net.ipv4.tcp_syncookies\" not allowed with host Net enabled";
        check(&[], "net.ipv4.tcp_syncookies", true, Err(why));
        let why = "\"kernel.shm_rmid_forced\" not allowed with host IPC enabled";
        check(&[], "kernel.shm_rmid_forced", true, Err(why));
    }

    #[test]
    fn a_sysctl_of_the_whole_machine_cannot_be_allowed() {
        let error = Allowlist::new(&["vm.swappiness".to_owned()]);
        assert_eq!(error, Err(PatternError("vm.swappiness".to_owned())));
    }

    proptest! {
        #[test]
        fn any_name_has_one_normal_form(name in "[a-z./*]{0,12}") {
            prop_assert_eq!(normalize(&normalize(&name)), normalize(&name));
        }
    }
}
