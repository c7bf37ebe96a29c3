//! System calls by name, as seccomp profiles write them.

use super::seccomp::{ALLOWED, ALLOWED_HERE, BY_CAPABILITY};

/// Name (with `SYS_`) and number.
pub type Call = (&'static str, libc::c_long);

macro_rules! calls {
    ($($name:ident)*) => { [$((stringify!($name), libc::$name)),*] };
}
pub(super) use calls;

const PREFIX: &str = "SYS_";

/// Calls that the default filter never allows, or only with certain arguments.
#[rustfmt::skip]
const OTHERS: &[Call] = &calls![
    SYS_add_key SYS_clone SYS_clone3 SYS_io_uring_enter SYS_io_uring_register SYS_io_uring_setup SYS_kexec_load
    SYS_keyctl SYS_migrate_pages SYS_move_pages SYS_nfsservctl SYS_personality SYS_pivot_root SYS_request_key
    SYS_socket SYS_swapoff SYS_swapon SYS_userfaultfd
];

/// The number of a call on this architecture; none for calls that it does not have.
pub fn number(name: &str) -> Option<libc::c_long> {
    let by_capability = BY_CAPABILITY.iter().flat_map(|(_, calls)| *calls);
    let mut known = ALLOWED.iter().chain(ALLOWED_HERE).chain(by_capability).chain(OTHERS);
    known.find(|(known, _)| known.strip_prefix(PREFIX) == Some(name)).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_known_by_name() {
        assert_eq!(number("mkdirat"), Some(libc::SYS_mkdirat));
        assert_eq!(number("unshare"), Some(libc::SYS_unshare));
        assert_eq!(number("keyctl"), Some(libc::SYS_keyctl));
        assert_eq!(number("SYS_mkdirat"), None);
        assert_eq!(number("no_such_call"), None);
    }
}
