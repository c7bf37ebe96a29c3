//! Which users of the node a pod with users of its own gets (`hostUsers: false`): a range for each pod, remembered in
//! the pod's folder for as long as it is on the node (follows `pkg/kubelet/userns`).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use api::view::core::Pod;
use runtime::cri;
use serde::{Deserialize, Serialize};

use crate::cm::checkpoint;
use crate::volumes::pod_dir;

/// How many users and groups a pod has (upstream's `userNamespaces.idsPerPod` default).
pub const IDS_PER_POD: u32 = 65536;

const FILE: &str = "userns";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("can't set `spec.hostUsers: false`, runtime does not support user namespaces")]
    Runtime,
    #[error("create user namespace: could not find an empty slot to allocate a user namespace")]
    Full,
    #[error("create user namespace: write {0}: {1}")]
    Write(PathBuf, io::Error),
}

/// What a pod's folder says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mappings {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

/// Hands ranges out. The first is left to the node, whose root is in it.
#[derive(Debug)]
pub struct Users {
    root_dir: PathBuf,
    /// Whether the runtime can make user namespaces.
    supported: bool,
    ids_per_pod: u32,
    /// The first id of each pod, by uid.
    taken: Mutex<BTreeMap<String, u32>>,
}

impl Users {
    /// Takes up what the folders of pods say.
    pub fn open(root_dir: &Path, ids_per_pod: u32, supported: bool) -> Self {
        let pods = fs::read_dir(root_dir.join("pods")).into_iter().flatten().flatten();
        let recorded = pods.filter_map(|entry| {
            let uid = entry.file_name().into_string().ok()?;
            Some((uid, first_id(&fs::read(entry.path().join(FILE)).ok()?, ids_per_pod)?))
        });
        Users { root_dir: root_dir.to_owned(), supported, ids_per_pod, taken: Mutex::new(recorded.collect()) }
    }

    /// The users of a pod: the node's, or the range that is its own from now on.
    pub fn of(&self, pod: &Pod) -> Result<cri::UserNamespace, Error> {
        if pod.spec.host_users != Some(false) {
            return Ok(cri::UserNamespace { mode: cri::NamespaceMode::Node as i32, ..Default::default() });
        }
        if !self.supported {
            return Err(Error::Runtime);
        }
        let uid = &pod.metadata.uid;
        let mut taken = self.taken();
        let host_id = match taken.get(uid) {
            Some(known) => *known,
            None => {
                let free = self.free(&taken).ok_or(Error::Full)?;
                self.write(uid, free)?;
                taken.insert(uid.clone(), free);
                free
            }
        };
        let range = vec![cri::IdMapping { host_id, container_id: 0, length: self.ids_per_pod }];
        Ok(cri::UserNamespace { mode: cri::NamespaceMode::Pod as i32, uids: range.clone(), gids: range })
    }

    /// The pod is gone from the node; its file goes with its folder.
    pub fn release(&self, uid: &str) {
        self.taken().remove(uid);
    }

    fn free(&self, taken: &BTreeMap<String, u32>) -> Option<u32> {
        let taken: std::collections::BTreeSet<u32> = taken.values().copied().collect();
        let ranges = u32::MAX / self.ids_per_pod;
        (1..ranges).map(|number| number * self.ids_per_pod).find(|first| !taken.contains(first))
    }

    fn write(&self, uid: &str, host_id: u32) -> Result<(), Error> {
        let range = vec![Mapping { host_id, container_id: 0, length: self.ids_per_pod }];
        let mappings = Mappings { uid_mappings: range.clone(), gid_mappings: range };
        let path = pod_dir(&self.root_dir, uid).join(FILE);
        checkpoint::write(&path, &mappings).map_err(|error| Error::Write(path, error))
    }

    /// No holder of the lock leaves the table half written, so one that panicked does no harm.
    fn taken(&self) -> MutexGuard<'_, BTreeMap<String, u32>> {
        self.taken.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The range that a file tells of, if it is one that this kubelet would give.
fn first_id(bytes: &[u8], ids_per_pod: u32) -> Option<u32> {
    let mappings: Mappings = serde_json::from_slice(bytes).ok()?;
    let [range] = mappings.uid_mappings[..] else { return None };
    let ours = range.container_id == 0
        && range.length == ids_per_pod
        && range.host_id >= ids_per_pod
        && range.host_id.is_multiple_of(ids_per_pod);
    (ours && mappings.gid_mappings == mappings.uid_mappings).then_some(range.host_id)
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    struct Dir(PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("removes");
        }
    }

    fn dir(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("userns-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("makes");
        Dir(dir)
    }

    fn pod(uid: &str, host_users: Option<bool>) -> Pod {
        let value = json!({"metadata": {"uid": uid}, "spec": {"hostUsers": host_users}});
        apimachinery::from_value(value).expect("a pod")
    }

    fn first(users: &Users, uid: &str) -> u32 {
        users.of(&pod(uid, Some(false))).expect("a range").uids[0].host_id
    }

    #[test]
    fn each_pod_has_a_range_of_its_own_that_outlives_the_kubelet() {
        let dir = dir("ranges");
        let users = Users::open(&dir.0, IDS_PER_POD, true);
        assert_eq!([first(&users, "a"), first(&users, "b"), first(&users, "a")], [65536, 131_072, 65536]);
        let users = Users::open(&dir.0, IDS_PER_POD, true);
        assert_eq!([first(&users, "c"), first(&users, "b")], [196_608, 131_072]);
        users.release("a");
        assert_eq!(first(&users, "d"), 65536);
    }

    #[test]
    fn who_does_not_ask_has_the_users_of_the_node() {
        let users = Users::open(Path::new("/nowhere"), IDS_PER_POD, false);
        for host_users in [None, Some(true)] {
            let of = users.of(&pod("a", host_users)).expect("the node's");
            assert_eq!((of.mode, of.uids.len()), (cri::NamespaceMode::Node as i32, 0));
        }
        let refused = users.of(&pod("a", Some(false))).expect_err("unsupported").to_string();
        assert_eq!(refused, "can't set `spec.hostUsers: false`, runtime does not support user namespaces");
    }

    #[test]
    fn a_file_that_no_kubelet_wrote_counts_for_nothing() {
        let file = |host: u32, container: u32| {
            let range = json!([{"hostId": host, "containerId": container, "length": IDS_PER_POD}]);
            json!({"uidMappings": range, "gidMappings": range}).to_string()
        };
        let check = |text: &str, expect| assert_eq!(first_id(text.as_bytes(), IDS_PER_POD), expect, "{text}");
        check(&file(131_072, 0), Some(131_072));
        check(&file(0, 0), None);
        check(&file(131_073, 0), None);
        check(&file(131_072, 1), None);
        check("{", None);
        check("{\"uidMappings\": [], \"gidMappings\": []}", None);
    }
}
