//! What containers get for a device, as the Container Device Interface describes it: one file for each claim.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use apimachinery::json;

use super::Settings;

/// The class of devices; the vendor is the driver.
const CLASS: &str = "device";
const VERSION: &str = "0.6.0";

pub fn path(settings: &Settings, claim_uid: &str) -> PathBuf {
    settings.cdi_dir.join(format!("{}-{claim_uid}.json", settings.name))
}

/// The name of a claim's device for runtimes.
pub fn id(settings: &Settings, claim_uid: &str, device: &str) -> String {
    format!("{}/{CLASS}={}", settings.name, name(claim_uid, device))
}

fn name(claim_uid: &str, device: &str) -> String {
    format!("{claim_uid}-{device}")
}

/// Each device is a variable `DEVICE_NAME=claim uid` and a node `/dev/NAME`, which is `/dev/null`.
pub fn write(path: &Path, settings: &Settings, claim_uid: &str, devices: &[&str]) -> io::Result<()> {
    let described = devices.iter().map(|device| {
        let variable = device.to_uppercase().replace('-', "_");
        json!({"name": name(claim_uid, device), "containerEdits": {
            "env": [format!("{variable}={claim_uid}")],
            "deviceNodes": [{"path": format!("/dev/{device}"), "hostPath": "/dev/null"}],
        }})
    });
    let kind = format!("{}/{CLASS}", settings.name);
    let spec = json!({"cdiVersion": VERSION, "kind": kind, "devices": described.collect::<Vec<_>>()});
    fs::create_dir_all(&settings.cdi_dir)?;
    let new = path.with_extension("new");
    fs::write(&new, spec.to_string())?;
    fs::rename(new, path)
}
