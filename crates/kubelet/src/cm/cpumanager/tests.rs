//! Who gets which CPUs, by example, on a machine of two NUMA nodes with four CPUs each.

use apimachinery::json;

use super::*;
use crate::cm::topology::Place;

fn topology() -> Topology {
    Topology::new((0..8).map(|cpu| (cpu, Place { numa_node: cpu / 4, socket: cpu / 4, core: cpu % 4 / 2 })))
}

fn options() -> Options {
    Options { reserved_milli_cpu: 500, ..Default::default() }
}

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("cpumanager-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("makes");
        Dir(dir)
    }

    fn open(&self, options: Options) -> Result<CpuManager, Error> {
        CpuManager::open(topology(), options, &self.0)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("removes");
    }
}

/// Init containers `i..` and containers `a..` that ask for so much CPU.
fn pod(uid: &str, init: &[&str], regular: &[&str]) -> Pod {
    let list = |names: &[&str], first: char| -> Vec<apimachinery::Value> {
        let named = names.iter().zip(first..);
        named.map(|(cpu, name)| json!({"name": name, "resources": {"requests": {"cpu": cpu}}})).collect()
    };
    apimachinery::from_value(json!({"metadata": {"uid": uid}, "status": {"qosClass": "Guaranteed"},
        "spec": {"initContainers": list(init, 'i'), "containers": list(regular, 'a')}}))
    .expect("a pod")
}

fn allocate(manager: &mut CpuManager, pod: &Pod) -> Result<(), Error> {
    let mut containers = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    containers.try_for_each(|container| manager.allocate(pod, container, None))
}

fn cpus(manager: &CpuManager, uid: &str, container: &str) -> String {
    manager.cpus_of(uid, container).to_string()
}

#[test]
fn whole_cpus_of_guaranteed_pods_are_their_own_and_all_others_are_shared() {
    let dir = Dir::new("own");
    let mut manager = dir.open(options()).expect("opens");
    allocate(&mut manager, &pod("u", &[], &["2", "1500m"])).expect("fits");
    assert_eq!((cpus(&manager, "u", "a"), cpus(&manager, "u", "b")), ("2-3".into(), "0-1,4-7".into()));
    let mut burstable = pod("v", &[], &["2"]);
    burstable.status.qos_class = "Burstable".into();
    allocate(&mut manager, &burstable).expect("shares");
    assert_eq!(cpus(&manager, "v", "a"), "0-1,4-7");
    assert!(manager.release("u").expect("writes"));
    assert_eq!(cpus(&manager, "v", "a"), "0-7");
    assert_eq!(manager.allocatable().to_string(), "1-7");
}

#[test]
fn what_init_containers_had_the_others_have_after_them() {
    let dir = Dir::new("init");
    let mut manager = dir.open(options()).expect("opens");
    allocate(&mut manager, &pod("u", &["4"], &["2", "3"])).expect("fits");
    assert_eq!(cpus(&manager, "u", "i"), "4-7");
    let set = |name: &str| manager.cpus_of("u", name);
    assert_eq!((set("a").len(), set("b").len()), (2, 3));
    assert!(set("a").intersection(set("b")).is_empty());
}

#[test]
fn reserved_cpus_are_nobodys_own() {
    let dir = Dir::new("reserved");
    let mut manager = dir.open(options()).expect("opens");
    let error = allocate(&mut manager, &pod("u", &[], &["8"])).expect_err("too many").to_string();
    assert_eq!(error, "not enough cpus available to satisfy request: requested=8, available=7");
    let whole = Options { full_pcpus_only: true, ..options() };
    let mut manager = dir.open(whole).expect("opens");
    let error = allocate(&mut manager, &pod("u", &[], &["3"])).expect_err("half a core").to_string();
    assert_eq!(error, "SMT Alignment Error: requested 3 cpus not multiple cpus per core = 2");
    assert!(matches!(Dir::new("none").open(Options::default()), Err(Error::NothingReserved)));
}

#[test]
fn the_nodes_that_were_agreed_on_come_first() {
    let dir = Dir::new("nodes");
    let mut manager = dir.open(options()).expect("opens");
    let pod = pod("u", &[], &["2"]);
    let container = &pod.spec.containers[0];
    let offer = manager.offer(&pod, container).expect("it matters");
    let preferred: Vec<u32> =
        offer.iter().filter(|h| h.preferred).filter_map(|h| h.nodes?.iter().next()).collect();
    assert_eq!(preferred, [0, 1]);
    manager.allocate(&pod, container, Some([1].into_iter().collect())).expect("fits");
    assert_eq!(cpus(&manager, "u", "a"), "4-5");
}

#[test]
fn a_kubelet_that_starts_again_knows_who_has_what() {
    let dir = Dir::new("again");
    allocate(&mut dir.open(options()).expect("opens"), &pod("u", &[], &["2"])).expect("fits");
    let manager = dir.open(options()).expect("opens");
    assert_eq!((cpus(&manager, "u", "a"), manager.pods()), ("2-3".into(), vec!["u".to_owned()]));
    let other = Options { reserved: "2-3".parse().expect("a list"), ..Default::default() };
    let error = dir.open(other).expect_err("reserved CPUs are taken").to_string();
    assert!(error.contains("not all reserved cpus: \"2-3\" are present"), "{error}");
}
