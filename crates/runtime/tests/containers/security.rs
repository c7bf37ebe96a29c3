//! Identity, capabilities, seccomp, paths and namespaces of containers.

use runtime::cri::*;

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_and_groups_are_as_asked() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let mut config = shell("number", "id -u; id -g; id -G; echo $HOME");
    security(&mut config).run_as_user = Some(Int64Value { value: 1000 });
    security(&mut config).supplemental_groups = vec![2000];
    assert_eq!(node.script(&sandbox, config).await, (0, "1000\n1000\n1000 50 2000\n/tmp\n".to_owned()));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn capabilities_are_dropped_and_added() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let script = "grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status";
    let text = |set: &str, nnp: u8| format!("CapEff:\t{set}\nCapBnd:\t{set}\nNoNewPrivs:\t{nnp}\n");
    let (_, output) = node.script(&sandbox, shell("default", script)).await;
    assert_eq!(output, text("00000000a80425fb", 0));
    let mut config = shell("dropped", script);
    security(&mut config).capabilities =
        Some(Capability { drop_capabilities: vec!["ALL".to_owned()], ..Default::default() });
    security(&mut config).no_new_privs = true;
    let (_, output) = node.script(&sandbox, config).await;
    assert_eq!(output, text("0000000000000000", 1));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_seccomp_profile_refuses_new_namespaces() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let script = "grep Seccomp: /proc/self/status; unshare -u true 2>/dev/null || echo refused; echo done";
    for (name, no_new_privs) in [("plain", false), ("locked", true)] {
        let mut config = shell(name, script);
        let security = security(&mut config);
        security.no_new_privs = no_new_privs;
        security.seccomp = Some(SecurityProfile::default());
        let (code, output) = node.script(&sandbox, config).await;
        assert_eq!((code, output.as_str()), (0, "Seccomp:\t2\nrefused\ndone\n"), "{name}");
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_are_masked_and_the_root_read_only() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let script = "wc -c < /proc/timer_list; ls /proc/scsi | wc -l; \
        echo 1 > /proc/sys/kernel/hostname || echo kept; touch /file || echo frozen; touch /dev/shm/x && echo ok";
    let mut config = shell("main", script);
    let security = security(&mut config);
    security.readonly_rootfs = true;
    security.masked_paths = ["/proc/timer_list", "/proc/scsi", "/proc/absent"].map(str::to_owned).to_vec();
    security.readonly_paths = vec!["/proc/sys".to_owned()];
    let (_, output) = node.script(&sandbox, config).await;
    assert_eq!(output, "0\n0\nkept\nfrozen\nok\n");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_of_the_node_are_out_of_reach() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    // The kernel's log, which root may read where nothing but the device's number stands in the way.
    let script = "mknod /tmp/log c 1 11 && echo made; head -c 1 /tmp/log 2>&1 | grep -o 'not permitted'; \
        head -c 3 /dev/zero | wc -c";
    let (_, output) = node.script(&sandbox, shell("main", script)).await;
    assert_eq!(output, "made\nnot permitted\n3\n");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_privileged_container_may_do_what_the_node_may() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let mut config = shell("main", "mount -t tmpfs none /tmp && ls /dev/kmsg && echo ok");
    security(&mut config).privileged = true;
    assert_eq!(node.script(&sandbox, config).await, (0, "/dev/kmsg\nok\n".to_owned()));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_privileged_container_sees_the_nodes_cgroups_of_version_2_and_no_other_does() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let script = "cat /proc/self/cgroup; test -d /sys/fs/cgroup$ROOT && echo there";
    for privileged in [false, true] {
        let mut config = shell(&format!("main-{privileged}"), script);
        config.envs = vec![KeyValue { key: "ROOT".to_owned(), value: node.cgroup_root.clone() }];
        security(&mut config).privileged = privileged;
        let output = node.script(&sandbox, config).await.1;
        let sees = runtime::Cgroups::detect().unwrap().is_v2() && privileged;
        assert_eq!(output.contains(&node.cgroup_root), sees, "{output}");
        assert_eq!(output.ends_with("there\n"), sees, "{output}");
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pid_namespaces_are_own_or_shared() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let mut own = shell("own", "echo $$");
    security(&mut own).namespace_options =
        Some(NamespaceOption { pid: NamespaceMode::Container as i32, ..Default::default() });
    assert_eq!(node.script(&sandbox, own).await.1, "1\n");

    let mut config = node.sandbox_config();
    config.metadata.as_mut().unwrap().name = "shared".to_owned();
    let options = NamespaceOption { pid: NamespaceMode::Pod as i32, ..Default::default() };
    config.linux.as_mut().unwrap().security_context =
        Some(LinuxSandboxSecurityContext { namespace_options: Some(options.clone()), ..Default::default() });
    let shared = node.run_sandbox(config).await;
    let mut first = sleeper("first");
    security(&mut first).namespace_options = Some(options.clone());
    node.run(&shared, first).await;
    let mut second = shell("second", "ps | grep -c 'sleep 100[0]'; grep -l cox-pod-init /proc/1/comm");
    security(&mut second).namespace_options = Some(options);
    assert_eq!(node.script(&shared, second).await.1, "2\n/proc/1/comm\n");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_may_look_at_another_ones_processes() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let mut target = sleeper("target");
    let own = NamespaceOption { pid: NamespaceMode::Container as i32, ..Default::default() };
    security(&mut target).namespace_options = Some(own);
    let target = node.run(&sandbox, target).await;
    let mut debugger = shell("debugger", "ps | grep -c 'trap .exi[t]'");
    let options = NamespaceOption {
        pid: NamespaceMode::Target as i32,
        target_id: target.clone(),
        ..Default::default()
    };
    security(&mut debugger).namespace_options = Some(options);
    assert_eq!(node.script(&sandbox, debugger).await, (0, "1\n".to_owned()));
    assert_eq!(node.status(&target).await.state(), ContainerState::ContainerRunning);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nodes_namespaces_are_used_when_asked_for() {
    let mut node = Node::new().await;
    let mut config = node.sandbox_config();
    let options = NamespaceOption {
        network: NamespaceMode::Node as i32,
        pid: NamespaceMode::Node as i32,
        ipc: NamespaceMode::Node as i32,
        ..Default::default()
    };
    config.linux.as_mut().unwrap().security_context =
        Some(LinuxSandboxSecurityContext { namespace_options: Some(options.clone()), ..Default::default() });
    let sandbox = node.run_sandbox(config).await;
    let mut main = shell("main", "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done");
    security(&mut main).namespace_options = Some(options);
    let expect: String = ["net", "ipc", "uts", "pid"]
        .map(|name| format!("{}\n", std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display()))
        .concat();
    assert_eq!(node.script(&sandbox, main).await, (0, expect));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bidirectional_mount_shows_the_node_what_is_mounted_in_it() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let shared = node.dir.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let none: Option<&str> = None;
    nix::mount::mount(Some("none"), &shared, Some("tmpfs"), nix::mount::MsFlags::empty(), none).unwrap();
    nix::mount::mount(none, &shared, none, nix::mount::MsFlags::MS_SHARED, none).unwrap();
    let mut config =
        shell("main", "mkdir /shared/in && mount -t tmpfs inner /shared/in && touch /shared/in/file");
    security(&mut config).privileged = true;
    config.mounts = vec![Mount {
        container_path: "/shared".to_owned(),
        host_path: shared.display().to_string(),
        propagation: MountPropagation::PropagationBidirectional as i32,
        ..Default::default()
    }];
    let (code, _) = node.script(&sandbox, config).await;
    assert_eq!(code, 0);
    assert!(shared.join("in/file").exists());
    nix::mount::umount2(&shared.join("in"), nix::mount::MntFlags::MNT_DETACH).unwrap();
    nix::mount::umount2(&shared, nix::mount::MntFlags::MNT_DETACH).unwrap();
    node.finish().await;
}

/// The pod's users 0 to 65535 are those of the node from here on.
const FIRST_ID: u32 = 65536 * 3;

fn own_users() -> NamespaceOption {
    let range = vec![IdMapping { host_id: FIRST_ID, container_id: 0, length: 65536 }];
    let mode = NamespaceMode::Pod as i32;
    let users = UserNamespace { mode, uids: range.clone(), gids: range };
    NamespaceOption {
        pid: NamespaceMode::Container as i32,
        userns_options: Some(users),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_with_users_of_its_own_finds_its_files_to_be_its_own() {
    let mut node = Node::new().await;
    let mut config = node.sandbox_config();
    let linux = config.linux.as_mut().unwrap();
    linux.sysctls.insert("kernel.shm_rmid_forced".to_owned(), "1".to_owned());
    linux.security_context =
        Some(LinuxSandboxSecurityContext { namespace_options: Some(own_users()), ..Default::default() });
    let sandbox = node.run_sandbox(config).await;
    let volume = node.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("given"), "x").unwrap();
    let script = "cat /proc/self/uid_map | tr -s ' '; stat -c '%u %g' / /bin /etc /etc/hosts /volume /volume/given /dev \
        /made/here; touch /root-file /volume/made && chown 7:8 /volume/made && stat -c '%u %g' /volume/made; \
        cat /proc/sys/kernel/shm_rmid_forced; echo told > /dev/stdout; cat /proc/self/setgroups";
    let mut config = shell("main", script);
    config.mounts = ["/volume", "/made/here"]
        .map(|container_path| Mount {
            host_path: volume.display().to_string(),
            container_path: container_path.to_owned(),
            uid_mappings: own_users().userns_options.unwrap().uids,
            gid_mappings: own_users().userns_options.unwrap().gids,
            ..Default::default()
        })
        .to_vec();
    security(&mut config).namespace_options = Some(own_users());
    let (code, output) = node.script(&sandbox, config).await;
    let expect = format!(" 0 {FIRST_ID} 65536\n{}7 8\n1\ntold\nallow\n", "0 0\n".repeat(8));
    assert_eq!((code, output), (0, expect));
    use std::os::unix::fs::MetadataExt as _;
    // What a volume holds belongs on the node to those it belongs to in the pod.
    assert_eq!(std::fs::metadata(volume.join("made")).unwrap().uid(), 7);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_root_of_a_pods_own_users_may_do_there_what_root_may() {
    let mut node = Node::new().await;
    let mut config = node.sandbox_config();
    config.linux.as_mut().unwrap().security_context =
        Some(LinuxSandboxSecurityContext { namespace_options: Some(own_users()), ..Default::default() });
    let sandbox = node.run_sandbox(config).await;
    let script = "ip link set lo mtu 1000 && cat /sys/class/net/lo/mtu; \
        mknod /root/disk b 254 0 2>/dev/null || echo refused; \
        mount -t tmpfs none /tmp && echo mounted; umount /proc 2>/dev/null || echo kept";
    let mut config = shell("main", script);
    let security = security(&mut config);
    security.namespace_options = Some(own_users());
    // Where the kernel has AppArmor, the default profile keeps even root from mounting.
    security.apparmor = Some(SecurityProfile {
        profile_type: security_profile::ProfileType::Unconfined as i32,
        ..Default::default()
    });
    security.capabilities = Some(Capability {
        add_capabilities: vec!["SYS_ADMIN".to_owned(), "NET_ADMIN".to_owned()],
        ..Default::default()
    });
    let (_, output) = node.script(&sandbox, config).await;
    assert_eq!(output, "1000\nrefused\nmounted\nkept\n");
    let mut sleeper = sleeper("sleeper");
    self::security(&mut sleeper).namespace_options = Some(own_users());
    let id = node.run(&sandbox, sleeper).await;
    let told = String::from_utf8(node.exec(&id, &["cat", "/proc/self/uid_map"]).await.stdout).unwrap();
    assert_eq!(told.split_whitespace().collect::<Vec<_>>(), ["0", &FIRST_ID.to_string(), "65536"]);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_that_the_user_wrote_decides_call_by_call() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let path = node.dir.path().join("profile.json");
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 17}]}"#;
    std::fs::write(&path, profile).unwrap();
    let script = "grep Seccomp: /proc/self/status; mkdir /made 2>&1; touch /other && echo ok";
    for (name, no_new_privs) in [("plain", false), ("locked", true)] {
        let mut config = shell(name, script);
        let security = security(&mut config);
        security.no_new_privs = no_new_privs;
        security.seccomp = Some(SecurityProfile {
            profile_type: security_profile::ProfileType::Localhost as i32,
            localhost_ref: path.display().to_string(),
        });
        let (_, output) = node.script(&sandbox, config).await;
        assert_eq!(output, "Seccomp:\t2\nmkdir: can't create directory '/made': File exists\nok\n", "{name}");
    }
    let mut config = shell("missing", script);
    security(&mut config).seccomp = Some(SecurityProfile {
        profile_type: security_profile::ProfileType::Localhost as i32,
        localhost_ref: "/no/such/profile.json".to_owned(),
    });
    let refused = node.try_create(&sandbox, config).await.expect_err("no profile");
    assert!(refused.message().contains("failed to load seccomp profile"), "{refused}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_can_be_opened_by_name_whoever_the_process_runs_as() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let mut config = shell("main", "echo told > /dev/stdout");
    security(&mut config).run_as_user = Some(Int64Value { value: 1000 });
    assert_eq!(node.script(&sandbox, config).await, (0, "told\n".to_owned()));
    node.finish().await;
}
