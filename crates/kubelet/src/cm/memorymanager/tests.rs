//! Who gets which memory, by example, on a machine of four NUMA nodes with 10 GiB each, of which the first keeps one.

use apimachinery::json;
use proptest::prelude::*;

use super::*;
use crate::cm::topologymanager::ANYWHERE;
use crate::kubeletconfig::MemoryReservation;

const GIB: u64 = 1 << 30;
const PAGES: &str = "hugepages-1Gi";

fn nodes() -> Vec<NodeMemory> {
    let node = |id| NodeMemory { id, bytes: 12 * GIB, huge_pages: [(PAGES.to_owned(), 2 * GIB)].into() };
    (0..4).map(node).collect()
}

fn reservation(numa_node: i32, name: &str, amount: &str) -> MemoryReservation {
    MemoryReservation { numa_node, limits: [(name.to_owned(), amount.parse().expect("an amount"))].into() }
}

fn options() -> Options {
    Options { reserved: vec![reservation(0, "memory", "1Gi")], withheld: [("memory".to_owned(), GIB)].into() }
}

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("memorymanager-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("makes");
        Dir(dir)
    }

    fn open(&self) -> Result<MemoryManager, Error> {
        MemoryManager::open(&nodes(), &options(), &self.0)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("removes");
    }
}

/// Init containers `i..` and containers `a..` that ask for so many GiB.
fn pod(uid: &str, init: &[u64], regular: &[u64]) -> Pod {
    let list = |sizes: &[u64], first: char| -> Vec<apimachinery::Value> {
        let named = sizes.iter().zip(first..);
        let container =
            |(size, name)| json!({"name": name, "resources": {"requests": {"memory": format!("{size}Gi")}}});
        named.map(container).collect()
    };
    apimachinery::from_value(json!({"metadata": {"uid": uid}, "status": {"qosClass": "Guaranteed"},
        "spec": {"initContainers": list(init, 'i'), "containers": list(regular, 'a')}}))
    .expect("a pod")
}

fn allocate(manager: &mut MemoryManager, pod: &Pod, agreed: Hint) -> Result<(), Error> {
    let mut containers = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    containers.try_for_each(|container| manager.allocate(pod, container, agreed))
}

fn anywhere(manager: &mut MemoryManager, pod: &Pod) -> Result<(), Error> {
    allocate(manager, pod, Hint { preferred: false, ..ANYWHERE })
}

fn nodes_of(manager: &MemoryManager, uid: &str, container: &str) -> Vec<u32> {
    manager.nodes_of(uid, container).map(|nodes| nodes.iter().collect()).unwrap_or_default()
}

fn free(manager: &MemoryManager) -> u64 {
    let state = apimachinery::to_value(&manager.machine).expect("encodes");
    let state = state.as_object().expect("by node");
    state.values().filter_map(|node| node["memoryMap"]["memory"]["free"].as_u64()).sum()
}

#[test]
fn a_container_gets_the_first_node_on_which_it_fits() {
    let dir = Dir::new("first");
    let mut manager = dir.open().expect("opens");
    anywhere(&mut manager, &pod("u", &[], &[9, 8])).expect("fits");
    assert_eq!((nodes_of(&manager, "u", "a"), nodes_of(&manager, "u", "b")), (vec![0], vec![1]));
    assert_eq!(free(&manager), 22 * GIB);
    assert!(manager.release("u").expect("releases"));
    assert_eq!(free(&manager), 39 * GIB);
}

#[test]
fn only_guaranteed_pods_have_memory_of_their_own() {
    let dir = Dir::new("burstable");
    let mut manager = dir.open().expect("opens");
    let mut burstable = pod("u", &[], &[1]);
    burstable.status.qos_class = "Burstable".to_owned();
    anywhere(&mut manager, &burstable).expect("is let in");
    assert_eq!(nodes_of(&manager, "u", "a"), Vec::<u32>::new());
    assert!(manager.offers(&burstable, &burstable.spec.containers[0]).is_empty());
}

#[test]
fn a_node_that_serves_a_group_serves_no_container_alone_and_none_of_another_group() {
    let dir = Dir::new("groups");
    let mut manager = dir.open().expect("opens");
    anywhere(&mut manager, &pod("wide", &[], &[12])).expect("fits on two");
    assert_eq!(nodes_of(&manager, "wide", "a"), [0, 1]);
    anywhere(&mut manager, &pod("alone", &[], &[1])).expect("fits on one");
    assert_eq!(nodes_of(&manager, "alone", "a"), [2]);
    // The group has 7 GiB, node 3 has 10, and node 2 must not be grouped.
    let hint = Hint { nodes: Some([2, 3].into_iter().collect()), preferred: false };
    let refused = allocate(&mut manager, &pod("other", &[], &[11]), hint);
    assert!(matches!(refused, Err(Error::Violation)), "{refused:?}");
    assert!(matches!(anywhere(&mut manager, &pod("other", &[], &[11])), Err(Error::TooLittle)));
}

#[test]
fn what_was_agreed_on_is_extended_where_it_is_not_enough() {
    let dir = Dir::new("extended");
    let mut manager = dir.open().expect("opens");
    let hint = |preferred| Hint { nodes: Some([3].into_iter().collect()), preferred };
    allocate(&mut manager, &pod("u", &[], &[15]), hint(false)).expect("fits on two");
    assert_eq!(nodes_of(&manager, "u", "a"), [0, 3]);
    let refused = allocate(&mut manager, &pod("w", &[], &[40]), hint(true));
    assert!(matches!(refused, Err(Error::NotExtended)), "{refused:?}");
}

#[test]
fn later_containers_use_the_memory_of_init_containers_again() {
    let dir = Dir::new("init");
    let mut manager = dir.open().expect("opens");
    anywhere(&mut manager, &pod("u", &[8, 4], &[6, 1])).expect("fits");
    assert_eq!(free(&manager), 31 * GIB);
    let sizes = |name| manager.blocks("u", name).iter().map(|block| block.size / GIB).collect::<Vec<_>>();
    assert_eq!([sizes("i"), sizes("j"), sizes("a"), sizes("b")], [[0], [1], [6], [1]]);
}

#[test]
fn hints_prefer_the_fewest_nodes_and_a_pod_is_seen_as_a_whole() {
    let dir = Dir::new("hints");
    let manager = dir.open().expect("opens");
    let pod = pod("u", &[], &[6, 6]);
    let preferred = |offers: Vec<Offer>| -> Vec<u32> {
        let hints = offers.into_iter().flatten().flatten().filter(|hint| hint.preferred);
        hints.filter_map(|hint| Some(hint.nodes?.count())).collect()
    };
    assert_eq!(preferred(manager.offers(&pod, &pod.spec.containers[0])), [1; 4]);
    assert_eq!(preferred(manager.pod_offers(&pod)), [2; 6]);
}

#[test]
fn huge_pages_come_from_the_same_nodes() {
    let dir = Dir::new("pages");
    let mut manager = dir.open().expect("opens");
    let mut pod = pod("u", &[], &[1]);
    pod.spec.containers[0].resources.requests.insert(PAGES.to_owned(), "4Gi".to_owned());
    anywhere(&mut manager, &pod).expect("fits on two");
    let blocks: Vec<(&str, u64)> =
        manager.blocks("u", "a").iter().map(|block| (block.resource.as_str(), block.size / GIB)).collect();
    assert_eq!((blocks, nodes_of(&manager, "u", "a")), (vec![(PAGES, 4), ("memory", 1)], vec![0, 1]));
}

#[test]
fn the_checkpoint_is_gone_on_from_unless_the_machine_has_changed() {
    let dir = Dir::new("checkpoint");
    let mut manager = dir.open().expect("opens");
    anywhere(&mut manager, &pod("u", &[2], &[12, 1])).expect("fits");
    let again = dir.open().expect("opens again");
    assert_eq!((&again.machine, &again.own), (&manager.machine, &manager.own));
    let smaller: Vec<NodeMemory> = nodes().into_iter().take(3).collect();
    let refused = MemoryManager::open(&smaller, &options(), &dir.0).expect_err("is not the machine");
    assert!(refused.to_string().contains("the expected machine state is different from the real one"));
}

#[test]
fn what_is_reserved_of_nodes_must_be_what_is_withheld_from_pods() {
    let check = |reserved: Vec<MemoryReservation>, expect: &str| {
        let dir = Dir::new("reserved");
        let refused = MemoryManager::open(&nodes(), &Options { reserved, ..options() }, &dir.0);
        assert_eq!(refused.expect_err("is refused").to_string(), expect);
    };
    check(
        vec![reservation(7, "memory", "1Gi")],
        "the reserved memory configuration references a NUMA node 7 that does not exist on this machine",
    );
    check(
        vec![reservation(0, "memory", "1Gi"), reservation(1, "memory", "1Gi")],
        "the total amount \"2Gi\" of type \"memory\" is not equal to the value \"1Gi\" determined by Node Allocatable feature",
    );
    check(
        vec![reservation(0, "memory", "1Gi"), reservation(1, PAGES, "1Gi")],
        "the total amount \"1Gi\" of type \"hugepages-1Gi\" is not equal to the value \"0\" determined by Node Allocatable feature",
    );
    let nothing = Options::default();
    let refused = reserved::by_node(&nodes(), &nothing).expect_err("is refused");
    assert_eq!(refused, reserved::Error::Nothing);
}

proptest! {
    // Each case writes its checkpoint through to the disk many times.
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever comes and goes, what is free is what nobody has.
    #[test]
    fn nothing_is_lost_and_nothing_is_given_twice(
        pods in proptest::collection::vec((proptest::collection::vec(1_u64..14, 0..3), proptest::collection::vec(1_u64..14, 1..3)), 1..8),
        leaves in proptest::collection::vec(0_usize..8, 0..8),
    ) {
        let dir = Dir::new("any");
        let mut manager = dir.open().expect("opens");
        for (number, (init, regular)) in pods.iter().enumerate() {
            let uid = number.to_string();
            if anywhere(&mut manager, &pod(&uid, init, regular)).is_err() {
                manager.release(&uid).expect("releases");
            }
        }
        for number in leaves {
            manager.release(&number.to_string()).expect("releases");
        }
        let given: u64 = manager.own.values().flat_map(BTreeMap::values).flatten().map(|block| block.size).sum();
        prop_assert_eq!(free(&manager) + given, 39 * GIB);
        let again = dir.open().expect("opens again");
        prop_assert_eq!(free(&again), free(&manager));
        for uid in manager.pods() {
            manager.release(&uid).expect("releases");
        }
        prop_assert_eq!(free(&manager), 39 * GIB);
    }
}
