//! VolumeAttachment (follows `pkg/registry/storage/volumeattachment`).

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::managedfields::{Set, reset_fields_and_metadata};
use apimachinery::meta::str_at;
use apimachinery::{Value, json, names};
use jiff::Timestamp;

use super::{csi_driver_name, size};
use crate::columns::{AGE, NAME, age, column, name};
use crate::core::persistentvolume::{self, validation};
use crate::defaults::{Fill, fill, object, object_or_new};
use crate::strategy::{Column, Strategy, keep, keep_all_metadata};
use crate::validation::{At, dns1123_subdomain, inclusive_range};

/// What a driver may say about an attached volume, in bytes.
const METADATA_SIZE_MAX: usize = 256 * 1024;
/// The longest error message.
const MESSAGE_MAX: usize = 1024;

const ATTACHER: Column = Column { format: "name", ..column("Attacher", "string", "Driver that attaches.") };

const COLUMNS: [Column; 6] = [
    NAME,
    ATTACHER,
    column("PV", "string", "Volume that is attached."),
    column("Node", "string", "Node it is attached to."),
    column("Attached", "boolean", "Whether it is attached already."),
    AGE,
];

pub struct VolumeAttachment;

impl Strategy for VolumeAttachment {
    fn default(&self, obj: &mut Value) {
        if let Some(status) = object_or_new(obj, "status") {
            fill(status, &[("attached", Fill::Bool(false))]);
        }
        let source = object(obj, "spec").and_then(|spec| object_or_new(spec, "source"));
        if let Some(spec) = source.and_then(|source| object(source, "inlineVolumeSpec")) {
            persistentvolume::default_spec(spec);
        }
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        obj["status"] = json!({"attached": false});
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
    }

    fn reset_fields(&self, subresource: &str) -> &'static Set {
        reset_fields_and_metadata(subresource)
    }

    fn prepare_for_status_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "spec");
        keep_all_metadata(obj, old);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let root = At::root(obj);
        let spec = root.get("spec");
        csi_driver_name(&spec.get("attacher"), &mut errors);
        source(&spec.get("source"), &mut errors);
        dns1123_subdomain(&spec.get("nodeName"), &mut errors);
        status(&root.get("status"), &mut errors);
        if let Some(volume) = spec.get("source").field("persistentVolumeName") {
            let path = Path::new("spec.source.persistentVolumeName");
            volume.under(&path).check(names::is_dns1123_subdomain, &mut errors);
        }
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(obj);
        At::root(obj).get("spec").check_unchanged(&At::root(old).get("spec"), &mut errors);
        errors
    }

    fn validate_status_update(&self, obj: &Value, _old: &Value) -> ErrorList {
        self.validate(obj)
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            name(obj),
            str_at(obj, &["spec", "attacher"]).into(),
            str_at(obj, &["spec", "source", "persistentVolumeName"]).into(),
            str_at(obj, &["spec", "nodeName"]).into(),
            At::root(obj).at(&["status", "attached"]).is_true().into(),
            age(obj, now),
        ]
    }
}

fn source(source: &At, errors: &mut ErrorList) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (source.field("inlineVolumeSpec"), source.field("persistentVolumeName")) {
        (None, None) => errors.push(source.required(ONE)),
        (Some(_), Some(_)) => errors.push(source.forbidden(ONE)),
        (None, Some(volume)) if volume.is_empty() => {
            errors.push(volume.required("must specify non empty persistentVolumeName"));
        }
        (None, Some(_)) => {}
        (Some(spec), None) => validation::inline_spec(&spec, errors),
    }
}

fn status(status: &At, errors: &mut ErrorList) {
    let metadata = status.get("attachmentMetadata");
    if size(&metadata) > METADATA_SIZE_MAX {
        errors.push(Error::too_long(&metadata.path, METADATA_SIZE_MAX));
    }
    for field in ["attachError", "detachError"] {
        let error = status.get(field);
        if error.get("message").len() > MESSAGE_MAX {
            errors.push(Error::too_long(&error.get("message").path, METADATA_SIZE_MAX));
        }
        let code = error.get("errorCode");
        if code.int() < 0 {
            errors.push(code.invalid(inclusive_range(0, i64::from(i32::MAX))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;

    #[test]
    fn attachments_are_checked_and_stay() {
        let of = |source: Value| {
            let mut obj = json!({"metadata": {"name": "a"}, "spec": {"attacher": "d", "nodeName": "n", "source": source}});
            VolumeAttachment.default(&mut obj);
            obj
        };
        let check =
            |source: Value, expect: &[&str]| expect_errors(&VolumeAttachment.validate(&of(source)), expect);
        check(json!({"persistentVolumeName": "v"}), &[]);
        check(json!({}), &["spec.source: Required value: must specify exactly one of inlineVolumeSpec"]);
        check(
            json!({"persistentVolumeName": "V"}),
            &["spec.source.persistentVolumeName: Invalid value: \"V\": a lowercase RFC 1123"],
        );
        let csi = json!({"driver": "d", "volumeHandle": "h"});
        check(json!({"inlineVolumeSpec": {"accessModes": ["ReadWriteOnce"], "csi": csi}}), &[]);
        check(
            json!({"inlineVolumeSpec": {"accessModes": ["ReadWriteOnce"], "csi": csi, "storageClassName": "c"}}),
            &[
                "spec.source.inlineVolumeSpec.storageClassName: Forbidden: may not be specified in the context",
            ],
        );
        let old = of(json!({"persistentVolumeName": "v"}));
        expect_errors(
            &VolumeAttachment.validate_update(&of(json!({"persistentVolumeName": "w"})), &old),
            &["spec: Invalid value"],
        );
        let mut failed = old.clone();
        failed["status"] =
            json!({"attached": false, "attachError": {"message": "x".repeat(1025), "errorCode": -1}});
        expect_errors(
            &VolumeAttachment.validate_status_update(&failed, &old),
            &[
                "status.attachError.message: Too long: may not be more than 262144 bytes",
                "status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            ],
        );
    }
}
