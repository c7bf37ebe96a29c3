//! Configurations from files, folders and flags.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

/// As upstream 1.36 writes its defaults.
const UPSTREAMS_DEFAULTS: &str = include_str!("testdata/defaults.yaml");

fn own() -> Own {
    Own {
        port: 10350,
        cluster_dns: vec![IpAddr::from([10, 43, 0, 10])],
        cluster_domain: "cluster.local".to_owned(),
        pod_logs_dir: "/var/lib/c/pods".to_owned(),
        cgroup_root: "/c".to_owned(),
        guest_on_disk_bytes: None,
    }
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kubeletconfig-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("makes");
        Folder(path)
    }

    /// A file with the kind and this text.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("makes");
        std::fs::write(&path, format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{text}")).expect("writes");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("removes");
    }
}

fn load_file(path: &Path) -> Result<(KubeletConfiguration, Vec<String>), Error> {
    load(&own(), &Sources { file: Some(path.to_owned()), ..Sources::default() })
}

fn load_text(name: &str, text: &str) -> Result<KubeletConfiguration, String> {
    let folder = Folder::new(name);
    load_file(&folder.write("config.yaml", text)).map(|(read, _)| read).map_err(|error| error.to_string())
}

#[test]
fn upstreams_defaults_are_the_types_own_and_bring_no_warning() {
    let (read, warnings) = {
        let folder = Folder::new("defaults");
        load_file(&folder.write("config.yaml", UPSTREAMS_DEFAULTS)).expect("loads")
    };
    assert_eq!(warnings, Vec::<String>::new());
    let expect = KubeletConfiguration {
        cluster_dns: own().cluster_dns,
        cluster_domain: own().cluster_domain,
        cgroup_root: own().cgroup_root,
        container_runtime_endpoint: "unix:///run/containerd/containerd.sock".to_owned(),
        // Upstream leaves it out when it is false.
        kernel_memcg_notification: true,
        logging: read.logging.clone(),
        ..KubeletConfiguration::default()
    };
    assert_eq!(read, expect);
}

#[test]
fn without_any_file_the_clusters_own_values_hold() {
    let (read, warnings) = load(&own(), &Sources::default()).expect("loads");
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!((read.port, read.healthz_port, read.read_only_port), (10350, 10348, 0));
    assert_eq!(read.pod_logs_dir, "/var/lib/c/pods");
    assert!(!read.fail_cgroup_v1 && !read.serialize_image_pulls);
    assert_eq!(read.eviction_hard["memory.available"], "100Mi");
}

#[test]
fn a_guest_asks_for_little_of_its_hosts_disk_and_leaves_images_alone() {
    let read = |bytes: i64| {
        let own = Own { guest_on_disk_bytes: Some(bytes), ..own() };
        load(&own, &Sources::default()).expect("loads").0
    };
    let free = |bytes: i64, signal: &str| read(bytes).eviction_hard[signal].clone();
    assert_eq!(read(1 << 40).image_gc_high_threshold_percent, 100);
    assert_eq!(
        (free(1 << 40, "nodefs.available"), free(1 << 40, "imagefs.available")),
        ("1Gi".into(), "1Gi".into())
    );
    assert_eq!(
        (free(8 << 30, "nodefs.available"), free(8 << 30, "imagefs.available")),
        ("10%".into(), "1Gi".into())
    );
    assert_eq!(free(1 << 30, "imagefs.available"), "15%");
    assert_eq!(free(1 << 40, "nodefs.inodesFree"), "5%");
}

#[test]
fn drop_ins_come_in_the_order_of_their_names_and_flags_last() {
    let folder = Folder::new("drop-ins");
    let file = folder.write("config.yaml", "maxPods: 10\nevictionHard: {memory.available: 1Gi}\nport: 1");
    folder.write("conf.d/20-b.conf", "maxPods: 30\nevictionHard: {nodefs.available: 1%}");
    folder.write("conf.d/10-a.conf", "maxPods: 20\npodsPerCore: 7\nclusterDomain: a.test");
    folder
        .write("conf.d/30-nested/c.conf", "podsPerCore: null\nauthentication: {anonymous: {enabled: true}}");
    folder.write("conf.d/40-not-one.yaml", "maxPods: -5");
    let flags = [("port".to_owned(), json!(10260))].into_iter().collect();
    let sources = Sources { file: Some(file), dir: Some(folder.0.join("conf.d")), flags };
    let (read, _) = load(&own(), &sources).expect("loads");
    assert_eq!((read.max_pods, read.pods_per_core, read.port), (30, 0, 10260));
    assert_eq!(read.cluster_domain, "a.test");
    assert!(read.authentication.anonymous.enabled && read.authentication.webhook.enabled);
    let hard: Vec<&str> = read.eviction_hard.keys().map(String::as_str).collect();
    assert_eq!(hard, ["memory.available", "nodefs.available"]);
}

#[test]
fn zeros_that_mean_nothing_leave_the_defaults() {
    let text = "maxPods: 0\nevictionPressureTransitionPeriod: 0s\nregistryPullQPS: 0\nclusterDNS: null";
    let read = load_text("zeros", text).expect("loads");
    assert_eq!((read.max_pods, read.registry_pull_qps), (110, 0));
    assert_eq!(read.eviction_pressure_transition_period, seconds(300));
    assert_eq!(read.cluster_dns, own().cluster_dns);
}

#[test]
fn thresholds_given_take_the_place_of_the_defaults_unless_they_are_to_be_merged() {
    let hard = |text: &str| load_text("thresholds", text).expect("loads").eviction_hard;
    assert_eq!(hard("evictionHard: {memory.available: 1Gi}").len(), 1);
    let merged = hard("mergeDefaultEvictionSettings: true\nevictionHard: {memory.available: 1Gi}");
    assert_eq!((merged.len(), merged["memory.available"].as_str()), (5, "1Gi"));
    assert_eq!(hard("maxPods: 1").len(), 5);
}

#[test]
fn a_frequency_of_looking_is_also_that_of_telling() {
    let report = |text: &str| load_text("frequency", text).expect("loads").node_status_report_frequency;
    assert_eq!(report(""), seconds(300));
    assert_eq!(report("nodeStatusUpdateFrequency: 20s"), seconds(20));
    assert_eq!(report("nodeStatusUpdateFrequency: 20s\nnodeStatusReportFrequency: 1m"), seconds(60));
}

#[test]
fn relative_paths_are_those_of_the_files_folder() {
    let folder = Folder::new("paths");
    let file = folder.write("config.yaml", "staticPodPath: manifests\nresolvConf: ''");
    let (read, _) = load_file(&file).expect("loads");
    assert_eq!(read.static_pods(), Some(folder.0.join("manifests")));
    assert_eq!(read.resolv_conf, "");
}

#[test]
fn what_is_unknown_doubled_or_of_another_kind_is_refused_by_name() {
    let check = |text: &str, expect: &str| {
        let error = load_text("strict", text).expect_err("refuses");
        assert!(error.contains(expect), "{error}");
    };
    check("maxPod: 1", r#"strict decoding error: unknown field "maxPod""#);
    check("authentication: {anonymus: {}}", r#"unknown field "authentication.anonymus""#);
    check(
        "registerWithTaints: [{key: a, efect: NoSchedule}]",
        r#"unknown field "registerWithTaints[0].efect""#,
    );
    check("maxPods: 1\nmaxPods: 2", r#"duplicate field "maxPods""#);
    check("maxPods: many", r#"field "maxPods": invalid type"#);
    check("userNamespaces: {ids: 65536}", r#"unknown field "userNamespaces.ids""#);
    check("syncFrequency: 5", r#"field "syncFrequency": invalid type"#);
    check("authorization: {mode: Never}", "unknown variant `Never`");
    let folder = Folder::new("kind");
    let other = folder.0.join("other.yaml");
    std::fs::write(&other, "apiVersion: v1\nkind: Pod\n").expect("writes");
    let error = load_file(&other).expect_err("refuses").to_string();
    assert!(error.contains(r#"no kind "Pod" is registered for version "v1""#), "{error}");
    std::fs::write(&other, "").expect("writes");
    assert!(load_file(&other).expect_err("refuses").to_string().ends_with("was empty"));
}

#[test]
fn what_cannot_be_is_told_in_upstreams_words() {
    let check = |text: &str, expect: &str| {
        let error = load_text("invalid", text).expect_err("refuses");
        assert_eq!(error, format!("failed to validate kubelet configuration, error: {expect}"), "{text}");
    };
    check("maxPods: -1", "invalid configuration: maxPods (--max-pods) -1 must not be a negative number");
    check(
        "imageGCHighThresholdPercent: 50\nimageGCLowThresholdPercent: 60",
        "invalid configuration: imageGCLowThresholdPercent (--image-gc-low-threshold) 60 must be less than imageGCHighThresholdPercent (--image-gc-high-threshold) 50",
    );
    check(
        "imageMaximumGCAge: 1m",
        "invalid configuration: imageMaximumGCAge 1m0s must be greater than imageMinimumGCAge 2m0s",
    );
    check(
        "userNamespaces: {idsPerPod: 7}",
        "invalid configuration: kubelet user namespace length 7 is not a multiple of 65536",
    );
    check("port: 70000", "invalid configuration: port (--port) 70000 must be between 1 and 65535, inclusive");
    check(
        "shutdownGracePeriod: 10s\nshutdownGracePeriodCriticalPods: 20s",
        "invalid configuration: shutdownGracePeriodCriticalPods 20s must be <= shutdownGracePeriod 10s",
    );
    check(
        "enforceNodeAllocatable: [system-reserved]",
        r#"invalid configuration: systemReservedCgroup (--system-reserved-cgroup) must be specified when "system-reserved" or "system-reserved-compressible" included in enforceNodeAllocatable (--enforce-node-allocatable)"#,
    );
    check(
        "enforceNodeAllocatable: [everything]",
        r#"invalid configuration: option "everything" specified for enforceNodeAllocatable (--enforce-node-allocatable). Valid options are "pods", "system-reserved", "system-reserved-compressible", "kube-reserved", "kube-reserved-compressible" or "none""#,
    );
    check(
        "containerLogMaxFiles: 1\nmaxPods: -1",
        "[invalid configuration: maxPods (--max-pods) -1 must not be a negative number, invalid configuration: containerLogMaxFiles must be greater than 1]",
    );
    check(
        "evictionSoft: {memory.available: 1Gi}",
        "invalid configuration: grace period must be specified for the soft eviction threshold memory.available",
    );
    check("podLogsDir: /var//log", r#"invalid configuration: pod logs path "/var//log" must be normalized"#);
}

#[test]
fn what_is_shown_can_be_read_again() {
    let (read, _) = load(&own(), &Sources::default()).expect("loads");
    let shown = read.shown();
    assert_eq!(shown["imageMinimumGCAge"], "2m0s");
    assert_eq!(shown["authentication"]["webhook"]["cacheTTL"], "2m0s");
    assert_eq!(shown.get("maxParallelImagePulls"), None);
    let folder = Folder::new("shown-again");
    let path = folder.0.join("config.json");
    let mut document = shown;
    document["apiVersion"] = API_VERSION.into();
    document["kind"] = KIND.into();
    std::fs::write(&path, document.to_string()).expect("writes");
    assert_eq!(load_file(&path).expect("loads").0, read);
}

#[test]
fn cpus_are_listed_in_ranges() {
    assert_eq!(cpus_of("0-3,5"), Some(5));
    assert_eq!(cpus_of("1,1-2"), Some(2));
    for bad in ["", "3-1", "a", "0-99999"] {
        assert_eq!(cpus_of(bad), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn no_text_breaks_the_reader(text in ".{0,200}") {
        drop(load::parse(format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{text}").as_bytes()));
        prop_assert!(cpus_of(&text).is_none_or(|cpus| cpus > 0));
    }
}

#[test]
fn cgroups_of_the_system_need_a_root_that_the_operator_names() {
    let error = load_text("homeless", "systemCgroups: /system").expect_err("refused");
    let expect = "failed to validate kubelet configuration, error: invalid configuration: systemCgroups (--system-cgroups) was specified and cgroupRoot (--cgroup-root) was not specified";
    assert_eq!(error, expect);
    load_text("housed", "systemCgroups: /system\ncgroupRoot: /pods").expect("loads");
}
