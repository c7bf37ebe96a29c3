//! Has a driver grow a volume on the node (follows `csiPlugin.nodeExpandWithClient`).

use std::path::Path;

use csi::v1::node_service_capability::rpc::Type as Capability;
use csi::v1::{CapacityRange, NodeExpandVolumeRequest};
use tonic::Code;

use super::place::Place;
use super::stage::{Staging, secrets};
use crate::volumes::Context;
use crate::volumes::growth::{Refusal, Refused};

/// Grows the volume that the driver finds at `path`.
pub async fn expand(
    cx: &Context<'_>,
    staging: &Staging<'_>,
    path: &Path,
    staged: Option<&Place>,
) -> Result<(), Refused> {
    let source = staging.source;
    if !staging.held.contains(&Capability::ExpandVolume) {
        let why = format!("NodeExpand is not supported by the CSI driver {}", source.driver);
        return Err((Refusal::Unsupported, why));
    }
    let secrets = secrets(cx.client, "NodeExpandSecretRef", source.expand_secret.as_ref()).await;
    let request = NodeExpandVolumeRequest {
        volume_id: source.handle.clone(),
        volume_path: path.display().to_string(),
        capacity_range: Some(CapacityRange { required_bytes: source.capacity.value(), limit_bytes: 0 }),
        staging_target_path: staged.map(|at| at.path.display().to_string()).unwrap_or_default(),
        volume_capability: Some(staging.capability.clone()),
        secrets: secrets.map_err(|why| (Refusal::Transient, why))?,
    };
    staging.driver.plugin.expand(request).await.map_err(|status| {
        let why = super::rpc_error("Expander.NodeExpand failed to expand the volume", &status);
        (refusal(status.code()), why)
    })
}

/// What a driver's answer means (upstream: `isInfeasibleError` and others).
fn refusal(code: Code) -> Refusal {
    match code {
        Code::InvalidArgument | Code::OutOfRange | Code::NotFound => Refusal::Infeasible,
        Code::FailedPrecondition => Refusal::InUse,
        Code::Unimplemented => Refusal::Unsupported,
        code if super::is_final(code) => Refusal::Final,
        _ => Refusal::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_cannot_be_had_differs_from_a_bad_moment() {
        assert_eq!(refusal(Code::OutOfRange), Refusal::Infeasible);
        assert_eq!(refusal(Code::FailedPrecondition), Refusal::InUse);
        assert_eq!(refusal(Code::Aborted), Refusal::Transient);
        assert_eq!(refusal(Code::Internal), Refusal::Final);
    }
}
