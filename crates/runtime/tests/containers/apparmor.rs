//! Confinement by AppArmor. The kernel of a node without it, or without its parser, is asked in vain.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use runtime::cri::security_profile::ProfileType;
use runtime::cri::*;

use crate::harness::*;

const PARSER: &str = "/sbin/apparmor_parser";
/// What the default profile forbids though the container has the right; all of it would stay within its pod.
const SCRIPT: &str = "cat /proc/self/attr/current; echo x > /proc/sys/kernel/domainname && echo written; \
    mkdir /tmp/x && mount -t tmpfs x /tmp/x && echo mounted; echo done";

fn has_apparmor() -> bool {
    runtime::apparmor::is_enabled() && Path::new(PARSER).exists()
}

fn config(name: &str, profile: Option<SecurityProfile>) -> ContainerConfig {
    let mut config = shell(name, SCRIPT);
    let security = security(&mut config);
    let capabilities = Capability { add_capabilities: vec!["SYS_ADMIN".to_owned()], ..Default::default() };
    security.capabilities = Some(capabilities);
    security.apparmor = profile;
    config
}

fn profile(kind: ProfileType, name: &str) -> Option<SecurityProfile> {
    Some(SecurityProfile { profile_type: kind.into(), localhost_ref: name.to_owned() })
}

/// A profile that an administrator has loaded.
struct Loaded {
    name: String,
}

impl Loaded {
    fn new(rules: &str) -> Self {
        let name = format!("coxswain-test-{}", std::process::id());
        let loaded = Loaded { name };
        loaded.parse("--replace", rules);
        loaded
    }

    fn parse(&self, what: &str, rules: &str) {
        let mut parser = Command::new(PARSER).arg(what).stdin(Stdio::piped()).spawn().unwrap();
        let text = format!("profile {} flags=(attach_disconnected) {{ {rules} }}\n", self.name);
        parser.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(parser.wait().unwrap().success());
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.parse("--remove", "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_held_to_the_profile_it_names() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let free = node.script(&sandbox, config("free", profile(ProfileType::Unconfined, ""))).await.1;
    assert!(free.ends_with("written\nmounted\ndone\n"), "{free}");
    if has_apparmor() {
        for (name, asked) in [("default", profile(ProfileType::RuntimeDefault, "")), ("unasked", None)] {
            let (_, output) = node.script(&sandbox, config(name, asked)).await;
            assert_eq!(output, "coxswain-default (enforce)\ndone\n", "{name}");
        }
        let id = node.run(&sandbox, sleeper("main")).await;
        let beside = node.exec(&id, &["/bin/cat", "/proc/self/attr/current"]).await;
        assert_eq!(beside.stdout, b"coxswain-default (enforce)\n");
        let loaded = Loaded::new("capability, file, mount, deny /proc/sys/** w,");
        let (_, output) =
            node.script(&sandbox, config("own", profile(ProfileType::Localhost, &loaded.name))).await;
        assert_eq!(output, format!("{} (enforce)\nmounted\ndone\n", loaded.name));
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_that_cannot_be_applied_is_refused() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let absent = profile(ProfileType::Localhost, "coxswain-absent");
    let expect = match has_apparmor() {
        true => "apparmor profile not found coxswain-absent",
        false => "apparmor is not supported",
    };
    let refused = node.try_create(&sandbox, config("absent", absent)).await.unwrap_err();
    assert!(refused.message().ends_with(expect), "{}", refused.message());
    node.finish().await;
}
