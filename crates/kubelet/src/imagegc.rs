//! Removes images that nobody uses when their disk fills up, or when nobody has used them for long
//! (follows the kubelet's `images/image_gc_manager.go`).

mod records;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::event::EventType;
use jiff::Timestamp;
use runtime::cri::image_service_client::ImageServiceClient;
use runtime::{CriChannel, cri};
use tokio::sync::Mutex;

use crate::eviction::disk;
use crate::node;
use crate::worker::Shared;
use records::{Image, Records};

/// The reason of a removal in metrics; the other is age.
const SPACE: &str = "space";
/// Upstream's `ImageGCPeriod`.
const PERIOD: Duration = Duration::from_secs(300);

/// Upstream's `imageGCHighThresholdPercent`, `imageGCLowThresholdPercent`, `imageMinimumGCAge`, `imageMaximumGCAge`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// From this use of the disk on images are removed ...
    pub high_threshold_percent: i64,
    /// ... until it is down to this.
    pub low_threshold_percent: i64,
    pub age_min: Duration,
    /// `None` for no limit.
    pub age_max: Option<Duration>,
}

pub struct ImageGc {
    shared: Arc<Shared>,
    policy: Policy,
    began_at: Timestamp,
    records: Mutex<Records>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("runtime does not tell of images: {0}")]
    Runtime(#[from] tonic::Status),
    #[error("disk of images cannot be measured: {0}")]
    Disk(#[from] std::io::Error),
    #[error("invalid capacity 0 on image filesystem")]
    NoCapacity,
    #[error(
        "Insufficient free disk space on the node's image filesystem ({percent}% of {capacity} used). Failed to free sufficient space by deleting unused images (freed {freed} bytes). Investigate disk usage, as it could be used by active images, logs, volumes, or other data."
    )]
    NotEnough { percent: i64, capacity: String, freed: i64 },
}

impl ImageGc {
    pub fn new(shared: Arc<Shared>) -> Self {
        let policy = shared.config.kubelet.image_gc();
        ImageGc { shared, policy, began_at: Timestamp::now(), records: Mutex::default() }
    }

    /// Not before it is known which pods there are: what they are made of is used.
    pub async fn run(&self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            if let Err(error) = self.collect(Timestamp::now()).await {
                tracing::warn!(%error, "images could not be collected");
                self.tell(&error);
            }
        }
    }

    fn tell(&self, error: &Error) {
        let reason = match error {
            Error::NoCapacity => "InvalidDiskCapacity",
            Error::NotEnough { .. } => "FreeDiskSpaceFailed",
            Error::Runtime(_) | Error::Disk(_) => return,
        };
        let node = node::reference(&self.shared.config.node_name);
        self.shared.recorder.event(&node, EventType::Warning, reason, error.to_string());
    }

    /// Removes every image that nobody uses, however young the need is.
    pub async fn delete_unused(&self) {
        let now = Timestamp::now();
        let mut records = self.records.lock().await;
        match self.note(&mut records, now).await {
            Ok(()) => drop(self.remove(records.for_space(i64::MAX, self.policy.age_min, now), SPACE).await),
            Err(error) => tracing::warn!(%error, "unused images could not be removed"),
        }
    }

    async fn collect(&self, now: Timestamp) -> Result<(), Error> {
        let mut records = self.records.lock().await;
        self.note(&mut records, now).await?;
        // Before the node has watched for that long, an image's use may not have been seen.
        let watched = Duration::try_from(now.duration_since(self.began_at)).unwrap_or_default();
        if let Some(age_max) = self.policy.age_max.filter(|age_max| watched > *age_max) {
            self.remove(records.for_age(age_max, now), "age").await;
        }
        let Some(place) = self.place().await? else { return Ok(()) };
        let (bytes, _) = disk(&place)?;
        if bytes.capacity == 0 {
            return Err(Error::NoCapacity);
        }
        let available = bytes.available.min(bytes.capacity);
        let Some((percent, wanted)) = self.policy.excess(available, bytes.capacity) else { return Ok(()) };
        let freed = self.remove(records.for_space(wanted, self.policy.age_min, now), SPACE).await;
        if freed < wanted {
            return Err(Error::NotEnough { percent, capacity: size(bytes.capacity), freed });
        }
        Ok(())
    }

    async fn note(&self, records: &mut Records, now: Timestamp) -> Result<(), Error> {
        let mut names = self.names_of_containers().await?;
        names.extend(self.names_of_pods());
        let listed = self.images().list_images(cri::ListImagesRequest::default()).await?.into_inner().images;
        let mut used = BTreeSet::new();
        for name in names {
            let spec = cri::ImageSpec { image: name, ..Default::default() };
            let request = cri::ImageStatusRequest { image: Some(spec), verbose: false };
            // A name that is no image's is nobody's use of one.
            let image = self.images().image_status(request).await.ok().and_then(|a| a.into_inner().image);
            used.extend(image.map(|image| image.id));
        }
        let image = |image: cri::Image| Image {
            id: image.id,
            bytes: i64::try_from(image.size).unwrap_or(i64::MAX),
            pinned: image.pinned,
        };
        records.note(listed.into_iter().map(image).collect(), &used, now);
        Ok(())
    }

    async fn names_of_containers(&self) -> Result<BTreeSet<String>, Error> {
        let request = cri::ListContainersRequest::default();
        let listed = self.shared.runtime.runtime.clone().list_containers(request).await?.into_inner();
        // Runtimes name a container's image by its id, or by one of its references.
        let names =
            |c: cri::Container| [c.image_id, c.image_ref, c.image.map_or_else(String::new, |i| i.image)];
        Ok(listed.containers.into_iter().flat_map(names).filter(|name| !name.is_empty()).collect())
    }

    /// Of pods whose containers may not have started yet, and of volumes, which no container is made of.
    fn names_of_pods(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for active in self.shared.active.list() {
            names.extend(
                crate::pod::all_containers(&active.pod).map(|(container, _)| container.image.clone()),
            );
            let volumes = active.pod.spec.volumes.iter().filter_map(|volume| volume.image.as_ref());
            names.extend(volumes.map(|source| source.reference.clone()));
        }
        names
    }

    fn images(&self) -> ImageServiceClient<CriChannel> {
        self.shared.runtime.images.clone()
    }

    /// Where the images are.
    async fn place(&self) -> Result<Option<PathBuf>, Error> {
        let info = self.images().image_fs_info(cri::ImageFsInfoRequest {}).await?.into_inner();
        let id = info.image_filesystems.into_iter().next().and_then(|usage| usage.fs_id);
        Ok(id.map(|id| PathBuf::from(id.mountpoint)))
    }

    /// How many bytes that freed.
    async fn remove(&self, images: Vec<Image>, reason: &str) -> i64 {
        let mut freed = 0_i64;
        for image in images {
            tracing::info!(image = image.id, bytes = image.bytes, "removing an image that nobody uses");
            let spec = cri::ImageSpec { image: image.id.clone(), ..Default::default() };
            let request = cri::RemoveImageRequest { image: Some(spec) };
            match self.images().remove_image(request).await {
                Ok(_) => {
                    self.shared.metrics.image_removed(reason);
                    freed = freed.saturating_add(image.bytes);
                }
                Err(status) => {
                    tracing::warn!(image = image.id, error = status.message(), "image could not be removed")
                }
            }
        }
        freed
    }
}

impl Policy {
    /// The use in percent, and the bytes to be freed, when there is too little left.
    fn excess(&self, available: i64, capacity: i64) -> Option<(i64, i64)> {
        let wide = |number: i64| i128::from(number);
        let percent = 100 - i64::try_from(wide(available) * 100 / wide(capacity)).unwrap_or(0);
        let target = wide(capacity) * wide(100 - self.low_threshold_percent) / 100;
        let wanted = i64::try_from(target - wide(available)).unwrap_or(i64::MAX);
        (percent >= self.high_threshold_percent).then_some((percent, wanted))
    }
}

/// As upstream prints it: `59.1 GiB`.
fn size(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{amount:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_freed_from_the_high_threshold_down_to_the_low_one() {
        let policy = crate::kubeletconfig::KubeletConfiguration::default().image_gc();
        assert_eq!(policy.excess(160, 1000), None);
        assert_eq!(policy.excess(150, 1000), Some((85, 50)));
        assert_eq!(policy.excess(0, 1000), Some((100, 200)));
        assert_eq!(policy.excess(0, i64::MAX).map(|(percent, _)| percent), Some(100));
    }

    #[test]
    fn sizes_are_told_in_the_largest_unit_that_fits() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(63_457_722_368), "59.1 GiB");
    }
}
