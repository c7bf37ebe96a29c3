//! The Container Device Interface: files of vendors say what a container needs to use a device that is asked for as
//! `vendor.com/class=name` (follows `pkg/cdi` of `container-device-interface`).
//!
//! What a device brings becomes part of what the CRI asks for. Hooks are refused: no program of another's runs here
//! between the runtime and the container.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cri::{ContainerConfig, Device, KeyValue, Mount};
use crate::{Error, Result};

/// Where descriptions are; a later folder's win over an earlier one's.
const DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// A longer file describes no device.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A file: devices of one kind.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    kind: String,
    devices: Vec<NamedDevice>,
    /// For each container that gets any of the devices.
    container_edits: Edits,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NamedDevice {
    name: String,
    container_edits: Edits,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    /// `NAME=value`.
    env: Vec<String>,
    device_nodes: Vec<DeviceNode>,
    mounts: Vec<BindMount>,
    hooks: Vec<serde_json::Value>,
    net_devices: Vec<serde_json::Value>,
    intel_rdt: Option<serde_json::Value>,
    #[serde(rename = "additionalGids")]
    additional_gids: Vec<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DeviceNode {
    path: String,
    /// Where it is on the node, if elsewhere.
    host_path: String,
    /// Some of `rwm`; all of them if nothing is said.
    permissions: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BindMount {
    host_path: String,
    container_path: String,
    options: Vec<String>,
    #[serde(rename = "type")]
    kind: String,
}

/// Adds what the devices that the container asks for bring.
pub fn inject(config: &mut ContainerConfig) -> Result<()> {
    inject_from(&DIRS.map(Path::new), config)
        .map_err(|why| Error::InvalidArgument(format!("CDI device injection failed: {why}")))
}

fn inject_from(dirs: &[&Path], config: &mut ContainerConfig) -> std::result::Result<(), String> {
    if config.cdi_devices.is_empty() {
        return Ok(());
    }
    let specs = read(dirs);
    let devices = devices(&specs);
    let wanted = std::mem::take(&mut config.cdi_devices);
    let missing: Vec<&str> = wanted
        .iter()
        .map(|device| device.name.as_str())
        .filter(|name| !devices.contains_key(*name))
        .collect();
    if !missing.is_empty() {
        return Err(format!("unresolvable CDI devices {}", missing.join(", ")));
    }
    let mut of_specs: Vec<&Spec> = Vec::new();
    for device in &wanted {
        let (spec, edits) = devices[&device.name];
        if !of_specs.iter().any(|known| std::ptr::eq(*known, spec)) {
            of_specs.push(spec);
            apply(&spec.container_edits, config).map_err(|why| format!("{}: {why}", spec.kind))?;
        }
        apply(edits, config).map_err(|why| format!("{}: {why}", device.name))?;
    }
    Ok(())
}

/// With the number of the folder that each is in. A file that cannot be read takes nothing but its own devices away.
fn read(dirs: &[&Path]) -> Vec<(usize, Spec)> {
    let mut specs = Vec::new();
    for (priority, dir) in dirs.iter().enumerate() {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> =
            entries.map(|entry| entry.path()).filter(|path| is_spec(path)).collect();
        files.sort();
        for file in files {
            match read_file(&file) {
                Ok(spec) => specs.push((priority, spec)),
                Err(why) => tracing::warn!(file = %file.display(), why, "CDI devices are left out"),
            }
        }
    }
    specs
}

fn is_spec(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "json" || kind == "yaml")
}

/// JSON is YAML too.
fn read_file(path: &Path) -> std::result::Result<Spec, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("it has {size} bytes, more than {FILE_BYTES_MAX}"));
    }
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let spec: Spec = serde_saphyr::from_slice(&text).map_err(|error| error.to_string())?;
    match spec.kind.split_once('/') {
        Some((vendor, class)) if !vendor.is_empty() && !class.is_empty() => Ok(spec),
        _ => Err(format!("{:?} is no kind such as vendor.com/class", spec.kind)),
    }
}

/// A device, and the file that describes it.
type Found<'s> = (&'s Spec, &'s Edits);

/// By name. Of two in folders of equal rank nobody knows which is meant: neither is to be had.
fn devices<'s>(specs: &'s [(usize, Spec)]) -> BTreeMap<String, Found<'s>> {
    let mut found: BTreeMap<String, Vec<(usize, Found<'s>)>> = BTreeMap::new();
    for (rank, spec) in specs {
        for device in &spec.devices {
            let name = format!("{}={}", spec.kind, device.name);
            found.entry(name).or_default().push((*rank, (spec, &device.container_edits)));
        }
    }
    let of_highest_rank = |all: Vec<(usize, Found<'s>)>| {
        let highest = all.iter().map(|(rank, _)| *rank).max();
        let mut highest = all.into_iter().filter(move |(rank, _)| Some(*rank) == highest);
        highest.next().filter(|_| highest.next().is_none()).map(|(_, device)| device)
    };
    found.into_iter().filter_map(|(name, all)| Some((name, of_highest_rank(all)?))).collect()
}

fn apply(edits: &Edits, config: &mut ContainerConfig) -> std::result::Result<(), String> {
    let unknown = [
        ("hooks", !edits.hooks.is_empty()),
        ("netDevices", !edits.net_devices.is_empty()),
        ("intelRdt", edits.intel_rdt.is_some()),
    ];
    if let Some((what, _)) = unknown.iter().find(|(_, given)| *given) {
        return Err(format!("{what} are not supported by this runtime"));
    }
    for pair in &edits.env {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("{pair:?} is no variable"))?;
        config.envs.push(KeyValue { key: key.to_owned(), value: value.to_owned() });
    }
    for node in &edits.device_nodes {
        config.devices.push(node.device()?);
    }
    for mount in &edits.mounts {
        config.mounts.push(mount.mount()?);
    }
    if !edits.additional_gids.is_empty() {
        let security = config.linux.get_or_insert_default().security_context.get_or_insert_default();
        security.supplemental_groups.extend(edits.additional_gids.iter().map(|gid| i64::from(*gid)));
    }
    Ok(())
}

impl DeviceNode {
    fn device(&self) -> std::result::Result<Device, String> {
        let host_path = if self.host_path.is_empty() { &self.path } else { &self.host_path };
        if !Path::new(host_path).exists() {
            return Err(format!("there is no device {host_path} on this node"));
        }
        let permissions = if self.permissions.is_empty() { "rwm" } else { &self.permissions };
        Ok(Device {
            container_path: self.path.clone(),
            host_path: host_path.clone(),
            permissions: permissions.to_owned(),
        })
    }
}

impl BindMount {
    fn mount(&self) -> std::result::Result<Mount, String> {
        if !matches!(self.kind.as_str(), "" | "none" | "bind") {
            return Err(format!("mounts of type {} are not supported by this runtime", self.kind));
        }
        Ok(Mount {
            container_path: self.container_path.clone(),
            host_path: self.host_path.clone(),
            readonly: self.options.iter().any(|option| option == "ro"),
            ..Default::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::CdiDevice;

    const GPUS: &str = r#"{"cdiVersion": "0.6.0", "kind": "vendor.com/gpu",
        "containerEdits": {"env": ["VENDOR=1"], "additionalGids": [44]},
        "devices": [
            {"name": "0", "containerEdits": {"env": ["GPU=0"], "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/null", "permissions": "rw"}]}},
            {"name": "1", "containerEdits": {"env": ["GPU=1"], "mounts": [{"hostPath": "/lib", "containerPath": "/gpu", "options": ["ro", "rbind"]}]}},
            {"name": "hooked", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/bin/true"}]}}]}"#;

    fn inject_names(files: &[(&str, &str)], names: &[&str]) -> std::result::Result<ContainerConfig, String> {
        let root = tempfile::tempdir().expect("a folder");
        let dirs = ["etc", "run"].map(|name| root.path().join(name));
        for dir in &dirs {
            fs::create_dir(dir).expect("makes");
        }
        for (name, text) in files {
            fs::write(root.path().join(name), text).expect("writes");
        }
        let cdi_devices = names.iter().map(|name| CdiDevice { name: (*name).to_owned() }).collect();
        let mut config = ContainerConfig { cdi_devices, ..Default::default() };
        inject_from(&[&dirs[0], &dirs[1]], &mut config).map(|()| config)
    }

    fn variables(config: &ContainerConfig) -> Vec<String> {
        config.envs.iter().map(|pair| format!("{}={}", pair.key, pair.value)).collect()
    }

    #[test]
    fn a_container_gets_what_its_devices_bring_and_what_their_file_says_once() {
        let names = ["vendor.com/gpu=1", "vendor.com/gpu=0"];
        let config = inject_names(&[("etc/gpu.json", GPUS)], &names).expect("injects");
        assert_eq!(variables(&config), ["VENDOR=1", "GPU=1", "GPU=0"]);
        let device = &config.devices[0];
        assert_eq!((device.host_path.as_str(), device.container_path.as_str()), ("/dev/null", "/dev/gpu0"));
        assert!(config.mounts[0].readonly && config.mounts[0].container_path == "/gpu");
        let security = config.linux.and_then(|linux| linux.security_context).expect("a security context");
        assert_eq!(security.supplemental_groups, [44]);
    }

    #[test]
    fn a_file_of_the_running_system_wins_and_of_two_equals_neither_is_taken() {
        let yaml = "kind: vendor.com/gpu\ndevices:\n- name: '0'\n  containerEdits: {env: [GPU=new]}\n";
        let names = ["vendor.com/gpu=0"];
        let config =
            inject_names(&[("etc/gpu.json", GPUS), ("run/gpu.yaml", yaml)], &names).expect("injects");
        assert_eq!(variables(&config), ["GPU=new"]);
        let twice = inject_names(&[("run/a.json", GPUS), ("run/b.yaml", yaml), ("run/c.yaml", yaml)], &names);
        assert_eq!(twice, Err("unresolvable CDI devices vendor.com/gpu=0".to_owned()));
    }

    #[test]
    fn what_cannot_be_done_is_refused_and_who_asks_for_nothing_reads_nothing() {
        let refused = |name: &str| inject_names(&[("etc/gpu.json", GPUS)], &[name]).expect_err("is refused");
        assert_eq!(
            refused("vendor.com/gpu=hooked"),
            "vendor.com/gpu=hooked: hooks are not supported by this runtime"
        );
        assert_eq!(refused("vendor.com/gpu=7"), "unresolvable CDI devices vendor.com/gpu=7");
        assert!(inject_names(&[("etc/bad.json", "{")], &[]).is_ok());
        assert!(
            inject_names(&[("etc/bad.json", "{"), ("etc/gpu.json", GPUS)], &["vendor.com/gpu=0"]).is_ok()
        );
    }
}
