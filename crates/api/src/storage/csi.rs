//! Names that controllers, kubelets and CSI drivers agree on.

use sha2::{Digest, Sha256};

/// What `status.volumesAttached` and `status.volumesInUse` of nodes call a volume (upstream:
/// `GetUniqueVolumeNameFromSpec`).
pub fn unique_name(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}

/// The VolumeAttachment of a volume on a node (upstream: `getAttachmentName`).
pub fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    format!("csi-{}", hex_digest(&[handle, driver, node]))
}

/// SHA-256 over the parts, one after another.
pub fn hex_digest(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_upstream() {
        assert_eq!(unique_name("d.example", "h"), "kubernetes.io/csi/d.example^h");
        let expect = "csi-ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(attachment_name("a", "b", "c"), expect);
    }
}
