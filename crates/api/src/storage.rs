//! The group `storage.k8s.io` (follows `pkg/registry/storage` and `pkg/apis/storage`).

pub mod csi;
pub mod csidriver;
pub mod csinode;
pub mod csistoragecapacity;
pub mod localpath;
pub mod storageclass;
pub mod volumeattachment;
pub mod volumeattributesclass;

use apimachinery::field::{Error, ErrorList};
use apimachinery::names;

use crate::validation::At;

/// The longest name of a CSI driver.
const DRIVER_NAME_MAX: usize = 63;
/// Parameters of a class, by number and by bytes.
const PARAMETERS_MAX: usize = 512;
const PARAMETERS_SIZE_MAX: usize = 256 * 1024;

/// The name a CSI driver gives itself (follows `ValidateCSIDriverName`).
pub fn csi_driver_name(name: &At, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.push(name.required(""));
        return;
    }
    if name.len() > DRIVER_NAME_MAX {
        errors.push(Error::too_long(&name.path, DRIVER_NAME_MAX));
    }
    for complaint in names::is_dns1123_subdomain(&name.text().to_lowercase()) {
        errors.push(name.invalid(complaint));
    }
}

/// Who makes the volumes of a class (follows `validateProvisioner`).
fn provisioner(name: &At, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.push(name.required(""));
    } else {
        let lower = name.text().to_lowercase();
        errors.extend(
            names::is_qualified_name(&lower)
                .into_iter()
                .map(|c| Error::invalid(&name.path, lower.clone(), c)),
        );
    }
}

/// What a driver is told about the volumes of a class (follows `validateParameters`).
fn parameters(parameters: &At, errors: &mut ErrorList) {
    if parameters.len() > PARAMETERS_MAX {
        errors.push(Error::too_long(&parameters.path, PARAMETERS_MAX));
        return;
    }
    for (key, _) in parameters.entries().filter(|(key, _)| key.is_empty()) {
        errors.push(Error::invalid(&parameters.path, key, "field can not be empty."));
    }
    if size(parameters) > PARAMETERS_SIZE_MAX {
        errors.push(Error::too_long(&parameters.path, PARAMETERS_SIZE_MAX));
    }
}

/// The bytes of a map of texts.
fn size(map: &At) -> usize {
    map.entries().map(|(key, value)| key.len() + value.text().len()).sum()
}
