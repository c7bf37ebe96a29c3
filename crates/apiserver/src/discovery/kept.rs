//! Aggregated discovery as it was last written, kept for as long as all that it is written from stays as it is.

use std::sync::atomic::Ordering;

use apimachinery::openapi;
use bytes::Bytes;
use parking_lot::Mutex;
use store::Revision;

use super::Served;
use crate::core::Core;

/// Tells states of what is served apart. A definition that comes or changes has a revision above all others, and one
/// that goes leaves fewer; so no state comes twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    definitions: usize,
    newest: Revision,
    /// Of what others serve.
    changes: u64,
}

impl State {
    fn now(core: &Core) -> State {
        let definitions = core.customresources.all(&core.store);
        let newest = definitions.iter().map(|definition| definition.entry.revision).max();
        State {
            definitions: definitions.len(),
            newest: newest.unwrap_or_default(),
            changes: core.aggregator.changes.load(Ordering::Acquire),
        }
    }
}

/// A document, and what tells it from what it was before.
#[derive(Clone, Debug)]
pub struct Document {
    pub bytes: Bytes,
    pub tag: String,
}

/// The documents for `/apis` and for `/api`.
#[derive(Debug, Default)]
pub struct Kept(Mutex<[Option<(State, Document)>; 2]>);

impl Kept {
    /// The document for `/api` (core) or `/apis`. The state is read first, so that nothing newer is missed for long.
    pub fn aggregated(&self, core: &Core, is_core: bool) -> Document {
        let (state, place) = (State::now(core), usize::from(is_core));
        if let Some((_, document)) = self.0.lock()[place].as_ref().filter(|(of, _)| *of == state) {
            return document.clone();
        }
        let bytes = Bytes::from(Served::new(core).aggregated(is_core).to_string());
        let document = Document { tag: openapi::hash(&bytes), bytes };
        self.0.lock()[place] = Some((state, document.clone()));
        document
    }
}
