//! Who has which devices, as it is written down: the fields of upstream's `kubelet_internal_checkpoint`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde::{Deserialize, Serialize};

use super::devices::{Devices, Given};
use super::proto::ContainerAllocateResponse;
use crate::cm::checkpoint;

const FILE: &str = "kubelet_internal_checkpoint";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Stored {
    data: Data,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    pod_device_entries: Vec<Entry>,
    registered_devices: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(rename = "PodUID")]
    pod_uid: String,
    #[serde(rename = "ContainerName")]
    container_name: String,
    #[serde(rename = "ResourceName")]
    resource_name: String,
    #[serde(rename = "DeviceIDs")]
    device_ids: BTreeSet<String>,
    #[serde(rename = "AllocResp")]
    alloc_resp: String,
}

pub fn read(dir: &Path) -> Result<Devices, String> {
    let Some(Stored { data }) = checkpoint::read(&dir.join(FILE))? else { return Ok(Devices::default()) };
    let given = data.pod_device_entries.into_iter().map(|entry| {
        let bytes = STANDARD.decode(&entry.alloc_resp).map_err(|error| error.to_string())?;
        let response =
            ContainerAllocateResponse::decode(bytes.as_slice()).map_err(|error| error.to_string())?;
        let given = Given { devices: entry.device_ids, response };
        Ok(((entry.pod_uid, entry.container_name, entry.resource_name), given))
    });
    let given = given.collect::<Result<Vec<_>, String>>()?;
    Ok(Devices::restored(data.registered_devices.into_keys(), given.into_iter()))
}

pub fn write(dir: &Path, devices: &Devices) -> io::Result<()> {
    let entries = devices.all_given().map(|((uid, container, resource), given)| Entry {
        pod_uid: uid.to_owned(),
        container_name: container.to_owned(),
        resource_name: resource.to_owned(),
        device_ids: given.devices.clone(),
        alloc_resp: STANDARD.encode(given.response.encode_to_vec()),
    });
    let registered = devices.healthy().map(|(resource, ids)| (resource.to_owned(), ids));
    let data = Data { pod_device_entries: entries.collect(), registered_devices: registered.collect() };
    checkpoint::write(&dir.join(FILE), &Stored { data })
}
