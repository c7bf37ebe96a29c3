//! Confinement by AppArmor: which profile a container's processes get, and the default one, which the kernel is given when
//! it is first asked for (follows containerd's `generateApparmorSpecOpts` and `contrib/apparmor`).

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cri::SecurityProfile;
use crate::cri::security_profile::ProfileType;

const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";
/// Translates profiles for the kernel; as with containerd, a node without it confines nothing.
const PARSERS: [&str; 2] = ["/sbin/apparmor_parser", "/usr/sbin/apparmor_parser"];
const DEFAULT_PROFILE: &str = "coxswain-default";
/// What a container may not do though it be root: change the node's kernel through `/proc` and `/sys`, mount, look into
/// processes that are not confined likewise.
const DEFAULT_TEXT: &str = include_str!("apparmor.txt");

/// Whether the kernel can hold processes to profiles (follows libcontainer's `apparmor.IsEnabled`).
pub fn is_enabled() -> bool {
    Path::new(PROFILES).exists() && std::fs::read_to_string(ENABLED).is_ok_and(|text| text.starts_with('Y'))
}

/// The profile of a container that asks for this one, or for none; `None` is unconfined.
pub(crate) fn profile(asked: Option<&SecurityProfile>, privileged: bool) -> Result<Option<String>, String> {
    decide(asked, privileged, parser().is_some(), is_loaded)
}

fn decide(
    asked: Option<&SecurityProfile>,
    privileged: bool,
    supported: bool,
    is_loaded: impl Fn(&str) -> bool,
) -> Result<Option<String>, String> {
    let default = || (!privileged).then(|| DEFAULT_PROFILE.to_owned());
    let Some(asked) = asked else { return Ok(default().filter(|_| supported)) };
    match asked.profile_type() {
        ProfileType::Unconfined => Ok(None),
        _ if !supported => Err("apparmor is not supported".to_owned()),
        ProfileType::RuntimeDefault => Ok(default()),
        ProfileType::Localhost if is_loaded(&asked.localhost_ref) => Ok(Some(asked.localhost_ref.clone())),
        ProfileType::Localhost => Err(format!("apparmor profile not found {}", asked.localhost_ref)),
    }
}

/// Sees to it that the kernel has a profile that is the runtime's own.
pub(crate) fn provide(name: &str) -> io::Result<()> {
    if name != DEFAULT_PROFILE || is_loaded(name) {
        return Ok(());
    }
    let Some(parser) = parser() else { return Err(io::ErrorKind::NotFound.into()) };
    let mut loading = Command::new(parser)
        .args(["--replace", "--skip-cache"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = loading.stdin.take() {
        stdin.write_all(DEFAULT_TEXT.as_bytes())?;
    }
    let output = loading.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

fn parser() -> Option<&'static str> {
    PARSERS.into_iter().find(|path| is_enabled() && Path::new(path).exists())
}

fn is_loaded(name: &str) -> bool {
    std::fs::read_to_string(PROFILES).is_ok_and(|profiles| lists(&profiles, name))
}

/// The kernel lists a profile a line, with its mode: `name (enforce)`.
fn lists(profiles: &str, name: &str) -> bool {
    profiles.lines().filter_map(|line| line.rsplit_once(" (")).any(|(known, _)| known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_confined_unless_it_asks_not_to_be() {
        let asked = |kind: ProfileType| {
            Some(SecurityProfile { profile_type: kind.into(), localhost_ref: "mine".to_owned() })
        };
        let check = |asked: Option<SecurityProfile>, privileged: bool, expect: Option<&str>| {
            let found = decide(asked.as_ref(), privileged, true, |name| name == "mine").unwrap();
            assert_eq!(found.as_deref(), expect, "{asked:?} {privileged}");
        };
        check(None, false, Some(DEFAULT_PROFILE));
        check(None, true, None);
        check(asked(ProfileType::RuntimeDefault), false, Some(DEFAULT_PROFILE));
        check(asked(ProfileType::RuntimeDefault), true, None);
        check(asked(ProfileType::Unconfined), false, None);
        check(asked(ProfileType::Localhost), false, Some("mine"));
        check(asked(ProfileType::Localhost), true, Some("mine"));
    }

    #[test]
    fn what_cannot_be_enforced_is_refused() {
        let asked = |kind: ProfileType| SecurityProfile {
            profile_type: kind.into(),
            localhost_ref: "theirs".to_owned(),
        };
        let check = |asked: Option<&SecurityProfile>, supported: bool, expect: Option<&str>| {
            let found = decide(asked, false, supported, |_| false);
            assert_eq!(found.err().as_deref(), expect, "{asked:?}");
        };
        check(None, false, None);
        check(Some(&asked(ProfileType::Unconfined)), false, None);
        check(Some(&asked(ProfileType::RuntimeDefault)), false, Some("apparmor is not supported"));
        check(Some(&asked(ProfileType::Localhost)), true, Some("apparmor profile not found theirs"));
    }

    #[test]
    fn profiles_are_found_by_their_whole_name() {
        let profiles = "docker-default (enforce)\na name (with) spaces (complain)\n";
        assert!(lists(profiles, "docker-default") && lists(profiles, "a name (with) spaces"));
        assert!(!lists(profiles, "docker") && !lists(profiles, ""));
    }
}
