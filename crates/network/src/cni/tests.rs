//! Plugins of Debian's `containernetworking-plugins`, and configurations by table.

use std::path::{Path, PathBuf};

use apimachinery::{Value, json};

use super::config::NetworkList;
use super::result::addresses;
use super::{Attach, Cni, Config};
use crate::testing::{Namespace, ip};

/// Where Debian's package has them.
const PLUGINS: &str = "/usr/lib/cni";

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("coxswain-cni-{}-{name}", std::process::id()));
        std::fs::create_dir_all(path.join("net.d")).unwrap();
        Folder(path)
    }

    fn write(&self, name: &str, value: &Value) {
        std::fs::write(self.0.join("net.d").join(name), value.to_string()).unwrap();
    }

    fn cni(&self) -> Cni {
        Cni::new(Config {
            conf_dir: self.0.join("net.d"),
            bin_dirs: vec![self.0.join("bin"), PLUGINS.into()],
            state_dir: self.0.join("state"),
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn the_first_configuration_that_can_be_read_counts() {
    let folder = Folder::new("first");
    let load = || NetworkList::load(&folder.0.join("net.d")).map(|list| (list.name, list.plugins.len()));
    let missing = load().unwrap_err().to_string();
    assert!(missing.ends_with("cni plugin not initialized"), "{missing}");
    folder.write("00.txt", &json!({"name": "text", "type": "ptp"}));
    folder.write("10.conf", &json!({"name": "evil", "type": "../../bin/sh"}));
    assert!(load().unwrap_err().to_string().contains("is not a file name"));
    folder.write("30.conf", &json!({"name": "single", "type": "ptp"}));
    assert_eq!(load().unwrap(), ("single".into(), 1));
    folder.write("20.conflist", &json!({"name": "list", "plugins": [{"type": "ptp"}, {"type": "portmap"}]}));
    assert_eq!(load().unwrap(), ("list".into(), 2));
}

#[test]
fn a_plugin_reads_its_part_and_the_capabilities_it_has() {
    let plugin =
        json!({"type": "portmap", "snat": true, "capabilities": {"portMappings": true, "bandwidth": false}});
    let list = NetworkList { name: "net".into(), version: "1.0.0".into(), plugins: vec![plugin.clone()] };
    let capabilities = json!({"portMappings": [], "bandwidth": {}, "dns": {}});
    let expected = json!({"type": "portmap", "snat": true, "name": "net", "cniVersion": "1.0.0",
        "runtimeConfig": {"portMappings": []}, "prevResult": {"ips": []}});
    assert_eq!(list.input(&plugin, &capabilities, Some(&json!({"ips": []}))), expected);
}

#[test]
fn results_of_all_versions_name_addresses() {
    let new = json!({"ips": [{"address": "10.22.0.5/24"}, {"address": "fd00::5/64"}]});
    assert_eq!(addresses(&new), [ip("10.22.0.5"), ip("fd00::5")]);
    let old = json!({"ip4": {"ip": "10.22.0.6/24"}});
    assert_eq!(addresses(&old), [ip("10.22.0.6")]);
    assert!(addresses(&Value::Null).is_empty());
}

fn request(id: &str, netns: &Path) -> Attach {
    Attach {
        sandbox_id: id.into(),
        netns: netns.into(),
        namespace: "default".into(),
        name: "web".into(),
        ..Attach::default()
    }
}

#[test]
fn debians_plugins_connect_pods_and_let_them_go() {
    let folder = Folder::new("debian");
    let ipam = json!({"type": "host-local", "dataDir": folder.0.join("ipam"),
        "ranges": [[{"subnet": "10.22.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]});
    let plugins = json!([
        {"type": "bridge", "bridge": "cni-test0", "isGateway": true, "ipam": ipam},
        {"type": "bandwidth", "capabilities": {"bandwidth": true}},
    ]);
    folder.write("10-test.conflist", &json!({"cniVersion": "0.4.0", "name": "test", "plugins": plugins}));
    let (host, pods) = (Namespace::new(), [Namespace::new(), Namespace::new()]);
    let (cni, paths) = (folder.cni(), pods.each_ref().map(|pod| pod.path.clone()));
    let found = host.block_on(async move || {
        let mut limited = request("one", &paths[0]);
        limited.bandwidth.ingress = Some(100_000_000);
        let first = cni.attach(&limited).await.unwrap();
        assert_eq!(cni.attach(&limited).await.unwrap(), first, "attaching again changes nothing");
        [first[0], cni.attach(&request("two", &paths[1])).await.unwrap()[0]]
    });
    assert_eq!(found, [ip("10.22.0.2"), ip("10.22.0.3")]);
    pods[1].serve_tcp(found[1], 80, "two");
    assert_eq!(pods[0].ask_tcp((found[1], 80).into()).unwrap(), (found[0], "two".into()));
    let (cni, gone) = (folder.cni(), pods[0].links().find("eth0").unwrap().is_some());
    assert!(gone, "it is there before");
    host.block_on(async move || {
        cni.detach("one").await.unwrap();
        cni.detach("one").await.unwrap();
        cni.detach("never").await.unwrap();
    });
    assert_eq!(pods[0].links().find("eth0").unwrap(), None);
    assert!(std::fs::read_dir(folder.0.join("state")).unwrap().count() == 1, "the other's is kept");
}

#[test]
fn what_a_plugin_says_of_its_failure_reaches_the_user_and_nothing_stays() {
    let folder = Folder::new("failing");
    let plugins = json!([
        {"type": "ptp", "ipam": {"type": "static", "addresses": [{"address": "10.23.0.2/24", "gateway": "10.23.0.1"}]}},
        {"type": "tuning", "sysctl": {"net.core.no_such_setting": "1"}},
    ]);
    folder.write("10-test.conflist", &json!({"cniVersion": "0.4.0", "name": "test", "plugins": plugins}));
    let (host, pod) = (Namespace::new(), Namespace::new());
    let (cni, path) = (folder.cni(), pod.path.clone());
    let error =
        host.block_on(async move || cni.attach(&request("one", &path)).await.unwrap_err().to_string());
    assert!(error.starts_with("plugin type=\"tuning\" failed (ADD): "), "{error}");
    assert_eq!(pod.links().find("eth0").unwrap(), None, "the first plugin's work is undone");
    assert_eq!(std::fs::read_dir(folder.0.join("state")).unwrap().count(), 0);
}
