//! The events of one pod.

use api::view::core::{Container, ObjectReference, Pod};
use client::EventRecorder;
use client::event::EventType;

use super::{Shared, Worker};
use crate::admission::Refusal;

/// Words events about a pod and its containers.
pub struct PodEvents<'a> {
    pub recorder: &'a EventRecorder,
    pub pod: &'a Pod,
}

impl PodEvents<'_> {
    pub fn pod(&self, kind: EventType, reason: &str, message: String) {
        self.recorder.event(&self.reference(String::new()), kind, reason, message);
    }

    pub fn container(&self, container: &Container, kind: EventType, reason: &str, message: String) {
        let field = crate::pod::all_containers(self.pod)
            .find(|(c, _)| c.name == container.name)
            .map(|(_, field)| field);
        let field_path = format!("{}{{{}}}", field.unwrap_or("spec.containers"), container.name);
        self.recorder.event(&self.reference(field_path), kind, reason, message);
    }

    fn reference(&self, field_path: String) -> ObjectReference {
        let meta = &self.pod.metadata;
        ObjectReference {
            kind: "Pod".to_owned(),
            api_version: "v1".to_owned(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            field_path,
        }
    }
}

impl Shared {
    pub fn tell_refused(&self, pod: &Pod, refusal: &Refusal) {
        let events = PodEvents { recorder: &self.recorder, pod };
        events.pod(EventType::Warning, &refusal.reason, refusal.message.clone());
        self.metrics.rejected(&refusal.reason);
    }
}

impl Worker {
    pub(super) fn events(&self) -> PodEvents<'_> {
        PodEvents { recorder: &self.shared.recorder, pod: &self.pod }
    }

    pub(super) fn warn_of(&self, container: &str, reason: &str, message: String) {
        let named = crate::pod::all_containers(&self.pod).find(|(spec, _)| spec.name == container);
        if let Some((spec, _)) = named {
            self.events().container(spec, EventType::Warning, reason, message);
        }
    }
}
