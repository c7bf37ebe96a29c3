//! ImageLocality: better a node that has the pod's images, the larger the better, damped by how many
//! nodes have them.

use std::collections::HashMap;

use crate::framework::{MAX_NODE_SCORE, Score};
use crate::nodeinfo::NodeInfo;
use crate::podinfo::PodInfo;
use crate::snapshot::Snapshot;

const MIB: i64 = 1024 * 1024;
/// Images smaller than this in sum make no difference (upstream: minThreshold).
const MIN_BYTES: i64 = 23 * MIB;
/// Beyond this many bytes per container no difference is made (upstream: maxContainerThreshold).
const MAX_CONTAINER_BYTES: i64 = 1000 * MIB;

struct ImageLocality<'a> {
    images: Vec<String>,
    containers: i64,
    /// How many nodes have an image.
    spread: HashMap<&'a str, i64>,
    nodes: i64,
}

pub fn score<'a>(
    pod: &'a PodInfo,
    snapshot: &'a Snapshot,
    _: &[&'a NodeInfo],
) -> Option<Box<dyn Score + 'a>> {
    let spec = &pod.pod.spec;
    let containers = || spec.init_containers.iter().chain(&spec.containers);
    let images: Vec<String> = containers().map(|container| normalized(&container.image)).collect();
    let mut spread = HashMap::new();
    for image in snapshot.nodes.iter().flat_map(|node| &node.node.status.images) {
        for name in &image.names {
            *spread.entry(name.as_str()).or_insert(0) += 1;
        }
    }
    let containers = images.len() as i64;
    Some(Box::new(ImageLocality { images, containers, spread, nodes: snapshot.nodes.len() as i64 }))
}

/// An image without tag or digest is its `latest` (upstream: normalizedImageName).
fn normalized(name: &str) -> String {
    let after_path = name.rfind('/').map_or(name, |slash| &name[slash..]);
    if after_path.contains(':') { name.to_owned() } else { format!("{name}:latest") }
}

impl Score for ImageLocality<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let sizes = self.images.iter().filter_map(|image| {
            let found = node.node.status.images.iter().find(|known| known.names.contains(image))?;
            let spread = self.spread.get(image.as_str()).copied().unwrap_or(0);
            Some((found.size_bytes as f64 * (spread as f64 / self.nodes.max(1) as f64)) as i64)
        });
        let max = MAX_CONTAINER_BYTES * self.containers;
        if max <= MIN_BYTES {
            return 0;
        }
        let sum = sizes.sum::<i64>().clamp(MIN_BYTES, max);
        MAX_NODE_SCORE * (sum - MIN_BYTES) / (max - MIN_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use crate::testing::check_scores;

    #[test]
    fn the_node_that_has_the_image_is_better() {
        let images = json!([{"names": ["docker.io/library/big:latest"], "sizeBytes": 1_000_000_000}]);
        let having = json!({"metadata": {"name": "b"}, "status": {"images": images}});
        let spec = json!({"containers": [{"image": "docker.io/library/big"}]});
        check_scores(super::score, spec, &[json!({"metadata": {"name": "a"}}), having], &[0, 46]);
    }
}
