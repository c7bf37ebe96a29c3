//! What pods and volumes refer to by name (upstream: `VisitPodSecretNames`, `VisitPodConfigmapNames`,
//! `VisitPVSecretNames`, `resourceclaim.Name`).

use std::collections::HashSet;

use apimachinery::Value;
use apimachinery::meta::str_at;

/// A namespace and a name.
pub type NamespacedName = (Box<str>, Box<str>);
/// A resource and a name in the pod's namespace.
pub type Use = (&'static str, Box<str>);

pub const CLAIMS: &str = "persistentvolumeclaims";
const RESOURCE_CLAIMS: &str = "resourceclaims";

/// On the pod that mirrors one the kubelet has from a file.
const MIRROR_POD: &str = "kubernetes.io/config.mirror";

/// Sources of volumes in a pod whose `secretRef` names a Secret.
const SECRET_REF_SOURCES: [&str; 6] = ["cephfs", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"];

/// Sources of persistent volumes whose `secretRef` names a Secret, and whether the claim's namespace stands for a
/// missing one.
const VOLUME_SECRET_REFS: [(&str, bool); 7] = [
    ("cephfs", true),
    ("cinder", false),
    ("flexVolume", true),
    ("rbd", true),
    ("scaleIO", true),
    ("iscsi", true),
    ("storageos", false),
];

/// The Secrets of a CSI volume that its node needs; those of the controller are none of its business.
const CSI_NODE_SECRETS: [&str; 3] = ["nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"];

/// The resources that pods use.
pub fn used_resource(resource: &str) -> Option<&'static str> {
    ["secrets", "configmaps", CLAIMS, "serviceaccounts", RESOURCE_CLAIMS].into_iter().find(|r| *r == resource)
}

fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// What this pod makes its node need. A mirror pod makes it need nothing: the node itself has written it.
pub fn of_pod(pod: &Value) -> HashSet<Use> {
    let mut uses = Uses(HashSet::new());
    if !pod["metadata"]["annotations"][MIRROR_POD].is_null() {
        return uses.0;
    }
    let spec = &pod["spec"];
    uses.put("serviceaccounts", &spec["serviceAccountName"]);
    for secret in items(spec, "imagePullSecrets") {
        uses.put("secrets", &secret["name"]);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        items(spec, list).iter().for_each(|container| uses.put_environment(container));
    }
    for volume in items(spec, "volumes") {
        uses.put_volume(volume);
        if !volume["ephemeral"].is_null() {
            let claim = format!("{}-{}", str_at(pod, &["metadata", "name"]), str_at(volume, &["name"]));
            uses.put(CLAIMS, &claim.into());
        }
    }
    uses.put_resource_claims(pod);
    uses.0
}

struct Uses(HashSet<Use>);

impl Uses {
    fn put(&mut self, resource: &'static str, name: &Value) {
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            self.0.insert((resource, name.into()));
        }
    }

    fn put_environment(&mut self, container: &Value) {
        for source in items(container, "envFrom") {
            self.put("secrets", &source["secretRef"]["name"]);
            self.put("configmaps", &source["configMapRef"]["name"]);
        }
        for variable in items(container, "env") {
            self.put("secrets", &variable["valueFrom"]["secretKeyRef"]["name"]);
            self.put("configmaps", &variable["valueFrom"]["configMapKeyRef"]["name"]);
        }
    }

    fn put_volume(&mut self, volume: &Value) {
        self.put("secrets", &volume["secret"]["secretName"]);
        self.put("secrets", &volume["azureFile"]["secretName"]);
        self.put("secrets", &volume["csi"]["nodePublishSecretRef"]["name"]);
        for source in SECRET_REF_SOURCES {
            self.put("secrets", &volume[source]["secretRef"]["name"]);
        }
        self.put("configmaps", &volume["configMap"]["name"]);
        self.put(CLAIMS, &volume["persistentVolumeClaim"]["claimName"]);
        for source in items(&volume["projected"], "sources") {
            self.put("secrets", &source["secret"]["name"]);
            self.put("configmaps", &source["configMap"]["name"]);
        }
    }

    /// Claims by name, those made from templates by the name their status gives, and the one made for extended resources.
    fn put_resource_claims(&mut self, pod: &Value) {
        let (spec, status) = (&pod["spec"], &pod["status"]);
        for claim in items(spec, "resourceClaims") {
            self.put(RESOURCE_CLAIMS, &claim["resourceClaimName"]);
            let made = items(status, "resourceClaimStatuses").iter().find(|s| s["name"] == claim["name"]);
            if let Some(made) = made.filter(|_| !claim["resourceClaimTemplateName"].is_null()) {
                self.put(RESOURCE_CLAIMS, &made["resourceClaimName"]);
            }
        }
        self.put(RESOURCE_CLAIMS, &status["extendedResourceClaimStatus"]["resourceClaimName"]);
    }
}

/// The Secrets that a node needs to mount this persistent volume.
pub fn secrets_of_volume(volume: &Value) -> HashSet<NamespacedName> {
    let spec = &volume["spec"];
    let claim_namespace = str_at(spec, &["claimRef", "namespace"]);
    let mut secrets = HashSet::new();
    let mut put = |namespace: &str, or_claims: bool, name: &str| {
        let namespace = if namespace.is_empty() && or_claims { claim_namespace } else { namespace };
        if !name.is_empty() {
            secrets.insert((namespace.into(), name.into()));
        }
    };
    let azure = &spec["azureFile"];
    put(str_at(azure, &["secretNamespace"]), true, str_at(azure, &["secretName"]));
    for (source, or_claims) in VOLUME_SECRET_REFS {
        let reference = &spec[source]["secretRef"];
        put(str_at(reference, &["namespace"]), or_claims, str_at(reference, &["name"]));
    }
    for field in CSI_NODE_SECRETS {
        let reference = &spec["csi"][field];
        put(str_at(reference, &["namespace"]), false, str_at(reference, &["name"]));
    }
    secrets
}
