//! The sources of a PersistentVolume, each with its defaults and checks (follows `ValidatePersistentVolumeSpec`). What a
//! pod's volume may have in the same form is checked for it as well.

use apimachinery::field::{Error, ErrorList};
use apimachinery::names;

use crate::core::pod::validation::volume::{host_path, named_secret, nfs, no_backsteps, required};
use crate::defaults::Fill;
use crate::storage::csi_driver_name;
use crate::validation::{At, dns1123_label, dns1123_subdomain, inclusive_range};

type Check = fn(&At, &mut ErrorList);

/// A source: its field, the name that "more than 1" complaints use, and its check.
type Source = (&'static str, &'static str, Check);

/// The longest Quobyte tenant, an UUID.
const TENANT_MAX: usize = 64;
/// The highest number of a partition or LUN.
const NUMBER_MAX: i64 = 255;
/// The longest `<volume name>:<target portal>` when an initiator is named.
const PORTAL_MAX: usize = 64;
const VALID_FORMAT: &str = "must be valid format";
const CACHING_MODES: [&str; 3] = ["None", "ReadOnly", "ReadWrite"];
const DISK_KINDS: [&str; 3] = ["Dedicated", "Managed", "Shared"];
const MANAGED_DISK_URI: &str =
    "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
const BLOB_DISK_URI: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
const HOST_PORTS: &str = "must be a host:port pair or multiple pairs separated by commas";

/// Defaults of single sources.
pub const DEFAULTS: &[(&str, &[(&str, Fill)])] = &[
    (
        "azureDisk",
        &[
            ("cachingMode", Fill::Text("ReadWrite")),
            ("fsType", Fill::Text("ext4")),
            ("kind", Fill::Text("Shared")),
            ("readOnly", Fill::Bool(false)),
        ],
    ),
    ("hostPath", &[("type", Fill::Text(""))]),
    ("iscsi", &[("iscsiInterface", Fill::Text("default"))]),
    (
        "rbd",
        &[
            ("keyring", Fill::Text("/etc/ceph/keyring")),
            ("pool", Fill::Text("rbd")),
            ("user", Fill::Text("admin")),
        ],
    ),
    ("scaleIO", &[("fsType", Fill::Text("xfs")), ("storageMode", Fill::Text("ThinProvisioned"))]),
];

/// In the order in which upstream looks for them.
pub const SOURCES: [Source; 22] = [
    ("hostPath", "hostPath", host_path),
    ("gcePersistentDisk", "gcePersistentDisk", gce_persistent_disk),
    ("awsElasticBlockStore", "awsElasticBlockStore", aws_elastic_block_store),
    ("glusterfs", "glusterfs", glusterfs),
    ("flocker", "flocker", flocker),
    ("nfs", "nfs", nfs),
    ("rbd", "rbd", rbd),
    ("quobyte", "quobyte", quobyte),
    ("cephfs", "cephFS", cephfs),
    ("iscsi", "iscsi", iscsi),
    ("cinder", "cinder", cinder),
    ("fc", "fc", fc),
    ("flexVolume", "flexVolume", flex_volume),
    ("azureFile", "azureFile", azure_file),
    ("vsphereVolume", "vsphereVolume", vsphere_volume),
    ("photonPersistentDisk", "photonPersistentDisk", photon_persistent_disk),
    ("portworxVolume", "portworxVolume", portworx_volume),
    ("azureDisk", "azureDisk", azure_disk),
    ("scaleIO", "scaleIO", scale_io),
    ("local", "local", local),
    ("storageos", "storageos", storageos),
    ("csi", "csi", csi),
];

pub fn gce_persistent_disk(source: &At, errors: &mut ErrorList) {
    // Upstream names the field as it once was.
    let source = source.under(&crate::validation::parent(&source.path).child("persistentDisk"));
    required(&source, "pdName", errors);
    partition(&source, errors);
}

pub fn aws_elastic_block_store(source: &At, errors: &mut ErrorList) {
    required(source, "volumeID", errors);
    partition(source, errors);
}

fn partition(source: &At, errors: &mut ErrorList) {
    let partition = source.get("partition");
    if !(0..=NUMBER_MAX).contains(&partition.int()) {
        errors.push(partition.invalid(inclusive_range(1, NUMBER_MAX)));
    }
}

pub fn glusterfs(source: &At, errors: &mut ErrorList) {
    required(source, "endpoints", errors);
    required(source, "path", errors);
    let Some(namespace) = source.field("endpointsNamespace") else { return };
    if namespace.is_empty() {
        errors.push(namespace.invalid("if the endpointnamespace is set, it must be a valid namespace name"));
    } else {
        dns1123_label(&namespace, errors);
    }
}

pub fn flocker(source: &At, errors: &mut ErrorList) {
    let (name, uuid) = (source.get("datasetName"), source.get("datasetUUID"));
    if name.is_empty() && uuid.is_empty() {
        errors.push(source.required("one of datasetName and datasetUUID is required"));
    }
    if !name.is_empty() && !uuid.is_empty() {
        let detail = "datasetName and datasetUUID can not be specified simultaneously";
        errors.push(Error::invalid(&source.path, "resource", detail));
    }
    if name.text().contains('/') {
        errors.push(name.invalid("must not contain '/'"));
    }
}

pub fn rbd(source: &At, errors: &mut ErrorList) {
    required(source, "monitors", errors);
    required(source, "image", errors);
}

pub fn quobyte(source: &At, errors: &mut ErrorList) {
    let registry = source.get("registry");
    if registry.is_empty() {
        errors.push(registry.required(HOST_PORTS));
    } else if source.get("tenant").len() > TENANT_MAX {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(source.get("tenant").required(detail));
    } else {
        let pairs = registry.text().split(',');
        let bad = pairs.filter(|pair| !pair.rsplit_once(':').is_some_and(|(host, _)| is_host(host)));
        errors.extend(bad.map(|_| registry.invalid(HOST_PORTS)));
    }
    required(source, "volume", errors);
}

/// A host before its port: an IPv6 address stands in brackets.
fn is_host(host: &str) -> bool {
    !host.contains(':') || (host.starts_with('[') && host.ends_with(']'))
}

pub fn cephfs(source: &At, errors: &mut ErrorList) {
    required(source, "monitors", errors);
}

fn iscsi(source: &At, errors: &mut ErrorList) {
    iscsi_target(source, errors);
    named_secret(source, errors);
    iscsi_initiator(source, errors);
}

pub fn iscsi_target(source: &At, errors: &mut ErrorList) {
    required(source, "targetPortal", errors);
    let iqn = source.get("iqn");
    if iqn.is_empty() {
        errors.push(iqn.required(""));
    } else {
        iqn.check(iscsi_name, errors);
    }
    let lun = source.get("lun");
    if !(0..=NUMBER_MAX).contains(&lun.int()) {
        errors.push(Error::invalid(&lun.path, lun.int(), inclusive_range(0, NUMBER_MAX)));
    }
    let secret = source.get("secretRef");
    let authenticates = source.get("chapAuthDiscovery").is_true() || source.get("chapAuthSession").is_true();
    if authenticates && !secret.is_set() {
        errors.push(secret.required(""));
    }
}

pub fn iscsi_initiator(source: &At, errors: &mut ErrorList) {
    if let Some(initiator) = source.field("initiatorName") {
        initiator.under(&source.path.child("initiatorname")).check(iscsi_name, errors);
    }
}

/// The length of a portal with the volume's name, which iscsiadm limits.
pub fn iscsi_portal(volume: &str, source: &At, errors: &mut ErrorList) {
    let portal = source.get("targetPortal");
    if is_portal_too_long(volume, source) {
        errors.push(portal.under(&source.path.child("targetportal")).invalid(PORTAL_TOO_LONG));
    }
}

pub const PORTAL_TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

pub fn is_portal_too_long(volume: &str, source: &At) -> bool {
    source.get("initiatorName").is_set() && volume.len() + 1 + source.get("targetPortal").len() > PORTAL_MAX
}

fn iscsi_name(name: &str) -> Vec<String> {
    let complaint = match name.get(..3) {
        Some("iqn" | "eui" | "naa") if is_iscsi_name(name) => return Vec::new(),
        Some("iqn" | "eui" | "naa") => VALID_FORMAT.to_owned(),
        _ => format!("{VALID_FORMAT} starting with iqn, eui, or naa"),
    };
    vec![complaint]
}

/// An iSCSI name of RFC 3720: `iqn.2026-01.com.example:disk`, or `eui.` and `naa.` with hexadecimal digits.
fn is_iscsi_name(name: &str) -> bool {
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|b| b.is_ascii_alphanumeric());
    // Any one character may stand where the dot should.
    let rest = name.get(4..).unwrap_or_default();
    match name.get(..3) {
        Some("eui") => digits(rest, 16),
        Some("naa") => digits(rest, 32),
        Some("iqn") => is_qualified_iscsi_name(name),
        _ => false,
    }
}

fn is_qualified_iscsi_name(name: &str) -> bool {
    let Some((authority, unique)) = name.strip_prefix("iqn.").and_then(|rest| rest.split_once(':')) else {
        return false;
    };
    let Some((date, domain)) = authority.split_once('.') else { return false };
    let is_date = date.len() == 7
        && date.bytes().enumerate().all(|(i, b)| if i == 4 { b == b'-' } else { b.is_ascii_digit() });
    let is_domain =
        !domain.is_empty() && domain.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    let is_unique = !unique.is_empty() && !unique.contains([',', ';', '*', '&', '$', '|', ' ', '\t', '\n']);
    is_date && is_domain && is_unique
}

fn cinder(source: &At, errors: &mut ErrorList) {
    required(source, "volumeID", errors);
    namespaced_secret(source, errors);
}

fn namespaced_secret(source: &At, errors: &mut ErrorList) {
    if let Some(secret) = source.field("secretRef") {
        required(&secret, "name", errors);
        required(&secret, "namespace", errors);
    }
}

pub fn fc(source: &At, errors: &mut ErrorList) {
    let (names, ids, lun) = (source.get("targetWWNs"), source.get("wwids"), source.get("lun"));
    if names.is_empty() && ids.is_empty() {
        errors.push(names.required("must specify either targetWWNs or wwids, but not both"));
    }
    if !names.is_empty() && !ids.is_empty() {
        errors.push(names.invalid("targetWWNs and wwids can not be specified simultaneously"));
    }
    if names.is_empty() {
        return;
    }
    if !lun.is_set() {
        errors.push(lun.required("lun is required if targetWWNs is specified"));
    } else if !(0..=NUMBER_MAX).contains(&lun.int()) {
        errors.push(lun.invalid(inclusive_range(0, NUMBER_MAX)));
    }
}

pub fn flex_volume(source: &At, errors: &mut ErrorList) {
    required(source, "driver", errors);
    for (key, option) in source.get("options").entries() {
        let domain = key.split_once('/').map_or(key, |(domain, _)| domain);
        let normalized = format!(".{}", domain.to_lowercase());
        if normalized.ends_with(".kubernetes.io") || normalized.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(Error::invalid(&option.path, key, detail));
        }
    }
}

pub fn azure_file(source: &At, errors: &mut ErrorList) {
    required(source, "secretName", errors);
    required(source, "shareName", errors);
    if source.get("secretNamespace").is_set() {
        required(source, "secretNamespace", errors);
    }
}

pub fn vsphere_volume(source: &At, errors: &mut ErrorList) {
    required(source, "volumePath", errors);
}

pub fn photon_persistent_disk(source: &At, errors: &mut ErrorList) {
    required(source, "pdID", errors);
}

pub fn portworx_volume(source: &At, errors: &mut ErrorList) {
    required(source, "volumeID", errors);
}

pub fn azure_disk(source: &At, errors: &mut ErrorList) {
    required(source, "diskName", errors);
    required(source, "diskURI", errors);
    source.get("cachingMode").check_optional_enum(&CACHING_MODES, errors);
    let (kind, uri) = (source.get("kind"), source.get("diskURI"));
    kind.check_optional_enum(&DISK_KINDS, errors);
    let is_managed = kind.text() == "Managed";
    if is_managed && !uri.text().starts_with("/subscriptions/") {
        errors.push(Error::not_supported(&uri.path, uri.text(), &[MANAGED_DISK_URI]));
    }
    if kind.is_set() && !is_managed && !uri.text().starts_with("https://") {
        errors.push(Error::not_supported(&uri.path, uri.text(), &[BLOB_DISK_URI]));
    }
}

pub fn scale_io(source: &At, errors: &mut ErrorList) {
    for field in ["gateway", "system", "volumeName"] {
        required(source, field, errors);
    }
}

fn local(source: &At, errors: &mut ErrorList) {
    let path = source.get("path");
    if path.is_empty() {
        errors.push(path.required(""));
    } else {
        no_backsteps(&path, errors);
    }
}

fn storageos(source: &At, errors: &mut ErrorList) {
    storageos_volume(source, errors);
    namespaced_secret(source, errors);
}

pub fn storageos_volume(source: &At, errors: &mut ErrorList) {
    let (name, namespace) = (source.get("volumeName"), source.get("volumeNamespace"));
    if name.is_empty() {
        errors.push(name.required(""));
    } else {
        dns1123_label(&name, errors);
    }
    if !namespace.is_empty() {
        dns1123_label(&namespace, errors);
    }
}

fn csi(source: &At, errors: &mut ErrorList) {
    csi_driver_name(&source.get("driver"), errors);
    required(source, "volumeHandle", errors);
    for field in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let Some(secret) = source.field(field) else { continue };
        let (name, namespace) = (secret.get("name"), secret.get("namespace"));
        if name.is_empty() {
            errors.push(name.required(""));
        } else {
            dns1123_subdomain(&name, errors);
        }
        if namespace.is_empty() {
            errors.push(namespace.required(""));
        } else {
            namespace.check(names::is_dns1123_label, errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iscsi_names_have_three_forms() {
        for good in
            ["iqn.2015-02.example.com:test", "eui.0123456789abcdef", "naa.0123456789abcdef0123456789abcdef"]
        {
            assert!(is_iscsi_name(good), "{good}");
        }
        for bad in
            ["", "x", "iqn.2015-2.example.com:t", "iqn.2015-02.example.com", "eui.01", "iqn.2015-02.a:b c"]
        {
            assert!(!is_iscsi_name(bad), "{bad}");
        }
    }
}
