//! Frames of watches, each encoded once per (event, form) and shared by all who are to get it.

use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};

use api::Resource;
use apimachinery::Status;
use bytes::Bytes;
use parking_lot::Mutex;
use store::Revision;

use crate::negotiation::{Format, Shape, Target};
use crate::view::View;
use crate::wire;

/// Enough for a burst of thousands of pods to reach every watcher before its frames are dropped from here.
const CACHE_BYTES_MAX: usize = 4 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameType {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

impl FrameType {
    pub fn name(self) -> &'static str {
        match self {
            FrameType::Added => "ADDED",
            FrameType::Modified => "MODIFIED",
            FrameType::Deleted => "DELETED",
            FrameType::Bookmark => "BOOKMARK",
            FrameType::Error => "ERROR",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct FrameKey {
    /// Of the object within, which together with the type of event tells frames apart.
    revision: Revision,
    frame_type: FrameType,
    format: u8,
    shape: Shape,
    beta: bool,
    resource: Resource,
}

/// Few frames are of one revision, and each delivery looks one up.
impl Hash for FrameKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.revision.hash(state);
    }
}

impl FrameKey {
    fn new(view: &View, frame_type: FrameType, revision: Revision) -> FrameKey {
        let Target { format, shape, beta, .. } = view.target;
        FrameKey { revision, frame_type, format: format as u8, shape, beta, resource: view.kind.resource }
    }
}

#[derive(Default)]
struct Frames {
    by_key: HashMap<FrameKey, Bytes>,
    /// Oldest first.
    order: VecDeque<FrameKey>,
    bytes: usize,
}

#[derive(Default)]
pub struct FrameCache(Mutex<Frames>);

impl FrameCache {
    /// The frame of an event whose object is `stored` at `revision`.
    pub fn frame(
        &self,
        view: &View,
        frame_type: FrameType,
        revision: Revision,
        stored: &Bytes,
    ) -> Result<Bytes, Status> {
        // A table's cells tell the age, so its frames are nobody else's.
        if view.target.shape == Shape::Table {
            return encode(view, frame_type, stored);
        }
        let key = FrameKey::new(view, frame_type, revision);
        if let Some(frame) = self.0.lock().by_key.get(&key) {
            return Ok(frame.clone());
        }
        let frame = encode(view, frame_type, stored)?;
        self.0.lock().insert(key, frame.clone());
        Ok(frame)
    }
}

impl Frames {
    fn insert(&mut self, key: FrameKey, frame: Bytes) {
        self.bytes += frame.len();
        if self.by_key.insert(key, frame.clone()).is_some() {
            self.bytes -= frame.len();
        } else {
            self.order.push_back(key);
        }
        while self.bytes > CACHE_BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            self.bytes -= self.by_key.remove(&oldest).map_or(0, |frame| frame.len());
        }
    }
}

/// A frame that is not cached: bookmarks, and objects of tables.
pub fn encode(view: &View, frame_type: FrameType, stored: &Bytes) -> Result<Bytes, Status> {
    wrap(view.target, frame_type, &view.type_name(false), &view.object(stored))
}

/// The frame that tells a watcher why its watch ends.
pub fn error(target: Target, status: &Status) -> Result<Bytes, Status> {
    let json = crate::draft::to_json(status);
    wrap(target, FrameType::Error, wire::STATUS_TYPE, &json)
}

fn wrap(target: Target, frame_type: FrameType, type_name: &str, json: &[u8]) -> Result<Bytes, Status> {
    match target.format {
        Format::Protobuf => return wire::protobuf_frame(frame_type.name(), type_name, json),
        Format::Cbor => return wire::cbor_frame(frame_type.name(), json),
        Format::Json | Format::Yaml => {}
    }
    let name = frame_type.name();
    let mut frame = Vec::with_capacity(json.len() + name.len() + 24);
    frame.extend_from_slice(b"{\"type\":\"");
    frame.extend_from_slice(name.as_bytes());
    frame.extend_from_slice(b"\",\"object\":");
    frame.extend_from_slice(json);
    frame.extend_from_slice(b"}\n");
    Ok(frame.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_forgets_the_oldest_frames_first() {
        let mut frames = Frames::default();
        let key = |revision| FrameKey {
            revision: Revision(revision),
            frame_type: FrameType::Added,
            format: 0,
            shape: Shape::Object,
            beta: false,
            resource: api::resource::PODS,
        };
        let frame = Bytes::from(vec![0; CACHE_BYTES_MAX / 2]);
        for revision in 1..=3 {
            frames.insert(key(revision), frame.clone());
        }
        assert!(!frames.by_key.contains_key(&key(1)));
        assert!(frames.by_key.contains_key(&key(3)));
        assert_eq!(frames.bytes, 2 * frame.len());
    }
}
