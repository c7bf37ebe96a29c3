//! Volumes, and how containers mount them (follows `ValidateVolumes`, `ValidateVolumeMounts`).
//!
//! The sources of the retired in-tree drivers are checked as those of PersistentVolumes are.

use std::collections::BTreeSet;

use apimachinery::field::{Error, ErrorList, Path};

use super::container::PULL_POLICIES;
use super::{Context, Scope, env};
use crate::core::persistentvolume::sources;
use crate::core::persistentvolumeclaim::validation::{Lenience, validate_spec};
use crate::objectmeta::validate_template;
use crate::storage::csi_driver_name;
use crate::validation::{At, dns1123_label, dns1123_subdomain};

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const FILE_MODE_MAX: i64 = 0o777;
const ONE_SOURCE: &str = "may not specify more than 1 volume type";
const DUPLICATE_PATHS: &str = "conflicting duplicate paths";
const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const PROPAGATIONS: [&str; 3] = ["Bidirectional", "HostToContainer", "None"];
const RECURSIVE_READ_ONLY: [&str; 3] = ["Disabled", "Enabled", "IfPossible"];
const DOWNWARD_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

type Check = fn(&At, &mut ErrorList);

/// Every source in upstream's order.
const SOURCES: [(&str, Check); 30] = [
    ("emptyDir", empty_dir),
    ("hostPath", host_path),
    ("gitRepo", git_repo),
    ("gcePersistentDisk", sources::gce_persistent_disk),
    ("awsElasticBlockStore", sources::aws_elastic_block_store),
    ("secret", secret),
    ("nfs", nfs),
    ("iscsi", iscsi),
    ("glusterfs", sources::glusterfs),
    ("flocker", sources::flocker),
    ("persistentVolumeClaim", persistent_volume_claim),
    ("rbd", sources::rbd),
    ("cinder", cinder),
    ("cephfs", sources::cephfs),
    ("quobyte", sources::quobyte),
    ("downwardAPI", downward_api),
    ("fc", sources::fc),
    ("flexVolume", sources::flex_volume),
    ("configMap", config_map),
    ("azureFile", sources::azure_file),
    ("vsphereVolume", sources::vsphere_volume),
    ("photonPersistentDisk", sources::photon_persistent_disk),
    ("portworxVolume", sources::portworx_volume),
    ("azureDisk", sources::azure_disk),
    ("storageos", storageos),
    ("projected", projected),
    ("scaleIO", sources::scale_io),
    ("csi", csi),
    ("ephemeral", ephemeral),
    ("image", image),
];

/// Checks all volumes; returns the names containers may mount.
pub fn validate_all<'a>(volumes: &At<'a>, scope: Scope, errors: &mut ErrorList) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for volume in volumes.items() {
        let before = errors.len();
        source(&volume, scope, errors);
        let name = volume.get("name");
        if name.is_empty() {
            errors.push(name.required(""));
        } else {
            dns1123_label(&name, errors);
        }
        if names.contains(name.text()) {
            errors.push(name.duplicate());
        }
        if errors.len() == before {
            names.insert(name.text());
        }
    }
    names
}

fn source(volume: &At, scope: Scope, errors: &mut ErrorList) {
    let mut found = false;
    for (field, check) in SOURCES {
        let Some(at) = volume.field(field) else { continue };
        if found {
            errors.push(at.forbidden(ONE_SOURCE));
            continue;
        }
        found = true;
        if field == "image" && scope == Scope::Pod && at.get("reference").is_empty() {
            errors.push(at.get("reference").required(""));
        }
        check(&at, errors);
        if field == "iscsi" && sources::is_portal_too_long(volume.get("name").text(), &at) {
            errors.push(volume.get("name").under(&at.path.child("name")).invalid(sources::PORTAL_TOO_LONG));
        }
    }
    if !found {
        errors.push(volume.required("must specify a volume type"));
    }
}

pub fn required(source: &At, field: &str, errors: &mut ErrorList) {
    if source.get(field).is_empty() {
        errors.push(source.get(field).required(""));
    }
}

fn empty_dir(source: &At, errors: &mut ErrorList) {
    let limit = source.get("sizeLimit");
    if limit.quantity().is_some_and(|q| q.sign() < 0) {
        errors.push(limit.forbidden("SizeLimit field must be a valid resource quantity"));
    }
}

pub fn host_path(source: &At, errors: &mut ErrorList) {
    let path = source.get("path");
    if path.is_empty() {
        errors.push(path.required(""));
        return;
    }
    no_backsteps(&path, errors);
    source.get("type").check_optional_enum(&HOST_PATH_TYPES, errors);
}

fn git_repo(source: &At, errors: &mut ErrorList) {
    required(source, "repository", errors);
    descending_path(&source.get("directory"), errors);
}

pub fn nfs(source: &At, errors: &mut ErrorList) {
    required(source, "server", errors);
    required(source, "path", errors);
    let path = source.get("path");
    if !path.text().starts_with('/') {
        errors.push(Error::invalid(&path.path, path.text(), "must be an absolute path"));
    }
}

fn persistent_volume_claim(source: &At, errors: &mut ErrorList) {
    required(source, "claimName", errors);
}

fn iscsi(source: &At, errors: &mut ErrorList) {
    sources::iscsi_target(source, errors);
    sources::iscsi_initiator(source, errors);
}

fn cinder(source: &At, errors: &mut ErrorList) {
    required(source, "volumeID", errors);
    named_secret(source, errors);
}

fn storageos(source: &At, errors: &mut ErrorList) {
    sources::storageos_volume(source, errors);
    named_secret(source, errors);
}

pub fn named_secret(source: &At, errors: &mut ErrorList) {
    if let Some(secret) = source.field("secretRef") {
        required(&secret, "name", errors);
    }
}

fn csi(source: &At, errors: &mut ErrorList) {
    csi_driver_name(&source.get("driver"), errors);
    let Some(secret) = source.field("nodePublishSecretRef") else { return };
    let name = secret.get("name");
    if name.is_empty() {
        errors.push(name.required(""));
    } else {
        // Upstream tells the name without the field that holds it.
        dns1123_subdomain(&name.under(&source.path.child("name")), errors);
    }
}

fn ephemeral(source: &At, errors: &mut ErrorList) {
    let template = source.get("volumeClaimTemplate");
    if !template.is_set() {
        errors.push(template.required(""));
        return;
    }
    validate_template(&template.get("metadata"), errors);
    validate_spec(&template.get("spec"), Lenience::default(), errors);
}

fn image(source: &At, errors: &mut ErrorList) {
    source.get("pullPolicy").check_enum(&PULL_POLICIES, errors);
}

fn secret(source: &At, errors: &mut ErrorList) {
    required(source, "secretName", errors);
    files(source, errors);
}

fn config_map(source: &At, errors: &mut ErrorList) {
    required(source, "name", errors);
    files(source, errors);
}

fn files(source: &At, errors: &mut ErrorList) {
    mode(&source.get("defaultMode"), errors);
    for item in source.get("items").items() {
        key_to_path(&item, errors);
    }
}

fn mode(mode: &At, errors: &mut ErrorList) {
    if mode.is_set() && !(0..=FILE_MODE_MAX).contains(&mode.int()) {
        errors.push(mode.invalid(FILE_MODE));
    }
}

fn key_to_path(item: &At, errors: &mut ErrorList) {
    required(item, "key", errors);
    required(item, "path", errors);
    non_reserved_path(&item.get("path"), errors);
    mode(&item.get("mode"), errors);
}

fn downward_api(source: &At, errors: &mut ErrorList) {
    mode(&source.get("defaultMode"), errors);
    for file in source.get("items").items() {
        // Upstream reports every file at the volume itself.
        downward_file(&file.under(&source.path), errors);
    }
}

fn downward_file(file: &At, errors: &mut ErrorList) {
    required(file, "path", errors);
    non_reserved_path(&file.get("path"), errors);
    match (file.field("fieldRef"), file.field("resourceFieldRef")) {
        (Some(reference), other) => {
            env::field_selector(&reference, &DOWNWARD_FIELDS, errors);
            if other.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(Error::invalid(&file.path, "resource", detail));
            }
        }
        (None, Some(reference)) => env::resource_selector(&reference, true, errors),
        (None, None) => errors.push(file.required("one of fieldRef and resourceFieldRef is required")),
    }
    mode(&file.get("mode"), errors);
}

fn projected(source: &At, errors: &mut ErrorList) {
    mode(&source.get("defaultMode"), errors);
    let mut paths = BTreeSet::new();
    for part in source.get("sources").items() {
        let kinds = [
            "secret",
            "configMap",
            "downwardAPI",
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
        ];
        for kind in kinds {
            if let Some(at) = part.field(kind) {
                projection(kind, &at, &source.path, &mut paths, errors);
            }
        }
        if kinds.iter().filter(|kind| part.get(kind).is_set()).count() > 1 {
            errors.push(part.forbidden("may not specify more than 1 volume type per source"));
        }
    }
}

fn projection<'a>(
    kind: &str,
    at: &At<'a>,
    volume: &Path,
    paths: &mut BTreeSet<&'a str>,
    errors: &mut ErrorList,
) {
    let mut claim = |path: &'a str, shown: &str, errors: &mut ErrorList| {
        if !path.is_empty() && !paths.insert(path) {
            errors.push(Error::invalid(volume, shown, DUPLICATE_PATHS));
        }
    };
    match kind {
        "secret" | "configMap" => {
            required(at, "name", errors);
            for item in at.get("items").items() {
                key_to_path(&item, errors);
                claim(item.get("path").text(), at.get("name").text(), errors);
            }
        }
        "downwardAPI" => {
            for file in at.get("items").items() {
                downward_file(&file.under(&at.path), errors);
                claim(file.get("path").text(), file.get("path").text(), errors);
            }
        }
        "serviceAccountToken" => token(at, volume, errors),
        _ => {
            let path = at.get("path");
            non_reserved_path(&path, errors);
            claim(path.text(), path.text(), errors);
        }
    }
}

fn token(at: &At, volume: &Path, errors: &mut ErrorList) {
    let seconds = at.get("expirationSeconds");
    if seconds.int() < TOKEN_SECONDS_MIN {
        let detail = "may not specify a duration less than 10 minutes";
        errors.push(Error::invalid(&seconds.path, seconds.int(), detail));
    }
    if seconds.int() > TOKEN_SECONDS_MAX {
        errors.push(seconds.invalid("may not specify a duration larger than 2^32 seconds"));
    }
    let path = at.get("path").under(&volume.child("path"));
    if path.is_empty() {
        errors.push(path.required(""));
    } else {
        non_reserved_path(&path, errors);
    }
}

/// A pod without a service account has no token to project.
pub fn no_service_account_token(volumes: &At, errors: &mut ErrorList) {
    for volume in volumes.items() {
        for source in volume.at(&["projected", "sources"]).items() {
            if let Some(token) = source.field("serviceAccountToken") {
                errors.push(token.forbidden("must not be specified when serviceAccountName is not set"));
            }
        }
    }
}

fn descending_path(path: &At, errors: &mut ErrorList) {
    if path.text().starts_with('/') {
        errors.push(path.invalid("must be a relative path"));
    }
    no_backsteps(path, errors);
}

pub fn no_backsteps(path: &At, errors: &mut ErrorList) {
    if path.text().split('/').any(|part| part == "..") {
        errors.push(path.invalid("must not contain '..'"));
    }
}

/// A path inside the volume that does not collide with the atomic writer's `..data`.
fn non_reserved_path(path: &At, errors: &mut ErrorList) {
    descending_path(path, errors);
    if path.text().starts_with("..") && !path.text().starts_with("../") {
        errors.push(path.invalid("must not start with '..'"));
    }
}

/// A path below a mount or a profile directory.
pub fn relative_path(path: &At, errors: &mut ErrorList) {
    descending_path(path, errors);
}

pub fn mounts(container: &At, context: &Context, errors: &mut ErrorList) {
    let mounts = container.get("volumeMounts");
    let devices = container.get("volumeDevices");
    let mut paths = BTreeSet::new();
    for mount in mounts.items() {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        if name.is_empty() {
            errors.push(name.required(""));
        }
        if !context.volumes.contains(name.text()) {
            errors.push(Error::not_found(&name.path, name.text()));
        }
        if path.is_empty() {
            errors.push(path.required(""));
        }
        if !paths.insert(path.text()) {
            errors.push(path.invalid("must be unique"));
        }
        if devices.items().any(|d| d.get("name").text() == name.text()) {
            errors.push(name.invalid("must not already exist in volumeDevices"));
        }
        if devices.items().any(|d| d.get("devicePath").text() == path.text()) {
            errors.push(path.invalid("must not already exist as a path in volumeDevices"));
        }
        mount_options(&mount, &mounts.path, container, errors);
    }
}

fn mount_options(mount: &At, mounts: &Path, container: &At, errors: &mut ErrorList) {
    let (sub_path, expression) = (mount.get("subPath"), mount.get("subPathExpr"));
    if !sub_path.is_empty() {
        descending_path(&sub_path.under(&mounts.child("subPath")), errors);
    }
    if !expression.is_empty() {
        if !sub_path.is_empty() {
            errors.push(expression.invalid("subPathExpr and subPath are mutually exclusive"));
        }
        descending_path(&expression.under(&mounts.child("subPathExpr")), errors);
    }
    let propagation = mount.get("mountPropagation").under(&mounts.child("mountPropagation"));
    propagation.check_optional_enum(&PROPAGATIONS, errors);
    let privileged = container.at(&["securityContext", "privileged"]).is_true();
    if propagation.text() == "Bidirectional" && !privileged {
        errors.push(
            propagation
                .forbidden("Bidirectional mount propagation is available only to privileged containers"),
        );
    }
    let recursive = mount.get("recursiveReadOnly").under(&mounts.child("recursiveReadOnly"));
    recursive.check_optional_enum(&RECURSIVE_READ_ONLY, errors);
    if matches!(recursive.text(), "Enabled" | "IfPossible") {
        if !mount.get("readOnly").is_true() {
            errors.push(recursive.forbidden("may only be specified when readOnly is true"));
        }
        if !matches!(propagation.text(), "" | "None") {
            let detail = "may only be specified when mountPropagation is None or not specified";
            errors.push(recursive.forbidden(detail));
        }
    }
}

pub fn devices(container: &At, context: &Context, errors: &mut ErrorList) {
    let volumes = At::new(context.spec, Path::new("spec")).get("volumes");
    let mounts = container.get("volumeMounts");
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for device in container.get("volumeDevices").items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        if name.is_empty() {
            errors.push(name.required(""));
        }
        if !name.is_empty() && !names.insert(name.text()) {
            errors.push(name.invalid("must be unique"));
        }
        if !context.volumes.contains(name.text()) {
            errors.push(Error::not_found(&name.path, name.text()));
        } else if !volumes.items().any(|v| v.get("name").text() == name.text() && is_claim(&v)) {
            let detail =
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
            errors.push(name.invalid(detail));
        }
        if path.is_empty() {
            errors.push(path.required(""));
        }
        if path.text().split('/').any(|part| part == "..") {
            errors.push(path.invalid("can not contain backsteps ('..')"));
        } else if !paths.insert(path.text()) {
            errors.push(path.invalid("must be unique"));
        }
        if mounts.items().any(|m| m.get("name").text() == name.text()) {
            errors.push(name.invalid("must not already exist in volumeMounts"));
        }
        if mounts.items().any(|m| m.get("mountPath").text() == path.text()) {
            errors.push(path.invalid("must not already exist as a path in volumeMounts"));
        }
    }
}

fn is_claim(volume: &At) -> bool {
    volume.get("persistentVolumeClaim").is_set() || volume.get("ephemeral").is_set()
}
