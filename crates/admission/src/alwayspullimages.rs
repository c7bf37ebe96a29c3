//! AlwaysPullImages: every image is pulled, so that nobody runs one from a node's cache that they could not pull
//! themselves. Off by default. Follows `plugin/pkg/admission/alwayspullimages`.

use std::collections::BTreeSet;

use apimachinery::field::{Error, Path};
use apimachinery::meta::{str_at, value_at};
use apimachinery::{GroupKind, Status, Value};

use crate::chain::Plugin;
use crate::request::{Operation, Request, World};

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
const ALWAYS: &str = "Always";

pub struct AlwaysPullImages;

impl Plugin for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn admit(&self, request: &Request<'_>, pod: &mut Value, _world: &dyn World) -> Result<(), Status> {
        if !concerns(request, pod) {
            return Ok(());
        }
        for field in CONTAINERS {
            for container in pod["spec"].get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
                container["imagePullPolicy"] = ALWAYS.into();
            }
        }
        for volume in pod["spec"].get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(image) = volume.get_mut("image").filter(|image| image.is_object()) {
                image["pullPolicy"] = ALWAYS.into();
            }
        }
        Ok(())
    }

    fn validate(&self, request: &Request<'_>, pod: &Value, _world: &dyn World) -> Result<(), Status> {
        if !concerns(request, pod) {
            return Ok(());
        }
        let mut errors = Vec::new();
        for field in CONTAINERS {
            for (i, container) in containers(pod, field).enumerate() {
                let policy = str_at(container, &["imagePullPolicy"]);
                if policy != ALWAYS {
                    let path = Path::new("spec").child(field).index(i).child("imagePullPolicy");
                    errors.push(Error::not_supported(&path, policy, &[ALWAYS]));
                }
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Status::invalid(&GroupKind::new("", "Pod"), request.name, &errors))
        }
    }
}

/// New pods, and those that get an image they had not.
fn concerns(request: &Request<'_>, pod: &Value) -> bool {
    let images = |pod: &Value| -> BTreeSet<String> {
        let all = CONTAINERS.into_iter().flat_map(|field| containers(pod, field));
        all.map(|container| str_at(container, &["image"]).to_owned()).collect()
    };
    let keeps = |old: &Value| images(pod).is_subset(&images(old));
    request.writes_pod() && !(request.operation == Operation::Update && request.old.is_some_and(keeps))
}

fn containers<'a>(pod: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value_at(pod, &["spec", field]).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use auth::UserInfo;

    use super::*;
    use crate::testing::{Objects, pod, request, run};

    #[test]
    fn images_are_always_pulled() {
        let user = UserInfo::anonymous();
        let create = request(&user, Operation::Create, "pods", "p");
        let given = pod(
            json!({"containers": [{"image": "a", "imagePullPolicy": "Never"}], "volumes": [{"image": {}}]}),
        );
        let found = run(&AlwaysPullImages, &create, given, &Objects::default()).expect("is allowed");
        assert_eq!(found["spec"]["containers"][0]["imagePullPolicy"], "Always");
        assert_eq!(found["spec"]["volumes"][0]["image"]["pullPolicy"], "Always");
    }
}
