//! Capability names and numbers, and the set a container starts with (containerd's default).

/// Names by number, without `CAP_`, see capability.h.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

pub const COUNT: u32 = NAMES.len() as u32;
/// Every capability there is.
pub const ALL: u64 = (1 << COUNT) - 1;

/// The bit of a capability spelled as Kubernetes does (`NET_ADMIN`) or as Linux does (`CAP_NET_ADMIN`).
pub fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == short).map(|number| 1 << number)
}

/// The set given to a container that asks for nothing.
pub fn default_set() -> u64 {
    DEFAULT.iter().filter_map(|name| bit(name)).fold(0, |set, bit| set | bit)
}

/// Applies `add` and `drop`, where `ALL` stands for every capability. An unknown name is an error, as in upstream.
pub fn adjust(base: u64, add: &[String], drop: &[String]) -> Result<u64, String> {
    let has_all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let mut set = if has_all(add) { ALL } else { base };
    if has_all(drop) {
        set = 0;
    }
    for (names, adds) in [(add, true), (drop, false)] {
        for name in names.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")) {
            let bit = bit(name).ok_or_else(|| format!("unknown capability {name:?}"))?;
            set = if adds { set | bit } else { set & !bit };
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(add: &[&str], drop: &[&str], expect: u64) {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(adjust(default_set(), &owned(add), &owned(drop)), Ok(expect), "+{add:?} -{drop:?}");
    }

    #[test]
    fn capabilities_are_added_to_and_dropped_from_the_default_set() {
        let admin = bit("CAP_NET_ADMIN").unwrap();
        check(&[], &[], default_set());
        check(&["NET_ADMIN"], &[], default_set() | admin);
        check(&["NET_ADMIN"], &["ALL"], admin);
        check(&["ALL"], &["SYS_ADMIN"], ALL & !bit("SYS_ADMIN").unwrap());
        check(&["all"], &[], ALL);
    }

    #[test]
    fn an_unknown_capability_is_refused() {
        assert!(adjust(0, &["FLY".to_owned()], &[]).is_err());
    }
}
