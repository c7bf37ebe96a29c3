//! Stored objects in protobuf. What a list has made of an entry stays beside it, so that the next list need not: as its
//! message while the room for messages lasts, beyond that as the message's length, which a list must know beforehand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::vec::IntoIter;

use apimachinery::Status;
use apimachinery::codec::protobuf::{self, Alike, List};
use apimachinery::schema::TypeId;
use store::Entry;
use tokio::task::yield_now;

use crate::pieces::{Form, Pieces};

/// Messages of some 4,000 pods: as much as those who list in protobuf - kubelets, upstream's controllers and scheduler -
/// mostly ask for. Nobody but them causes it to be used.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// So many messages may be made before others get their turn.
const TURN_ENTRIES: usize = 64;

/// The room for messages, shared by all entries of a store.
#[derive(Debug)]
pub struct Encodings {
    left: Arc<AtomicUsize>,
}

impl Default for Encodings {
    fn default() -> Self {
        Encodings { left: Arc::new(AtomicUsize::new(KEPT_BYTES_MAX)) }
    }
}

/// What is beside an entry.
enum Known {
    Message(Kept),
    Length(usize),
}

impl Known {
    fn len(&self) -> usize {
        match self {
            Known::Message(kept) => kept.message.len(),
            Known::Length(length) => *length,
        }
    }
}

/// A message and the room it takes, which it gives back when its entry goes.
struct Kept {
    message: Box<[u8]>,
    left: Arc<AtomicUsize>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.left.fetch_add(self.message.len(), Ordering::Relaxed);
    }
}

impl Encodings {
    /// The list of stored objects of a type as a document. `empty` is the JSON of a list of its kind without items.
    pub async fn list(
        &self,
        types: ListTypes,
        empty: &[u8],
        entries: Vec<Arc<Entry>>,
    ) -> Result<Pieces<Messages, IntoIter<Arc<Entry>>>, Status> {
        let mut list = List::new(api::schema(), types.list, empty).map_err(Status::internal)?;
        let mut maker = Maker { item: types.item, alike: Alike::default(), message: Vec::new() };
        for turn in entries.chunks(TURN_ENTRIES) {
            for entry in turn {
                list.expect(self.length(entry, &mut maker)?);
            }
            yield_now().await;
        }
        let head = list.head();
        Ok(Pieces::new(Messages { list, maker }, head, entries.into_iter()))
    }

    /// How long the entry's message is.
    fn length(&self, entry: &Entry, maker: &mut Maker) -> Result<usize, Status> {
        if let Some(known) = entry.beside.get::<Known>() {
            return Ok(known.len());
        }
        let message = maker.message(entry)?;
        let length = message.len();
        let known = match self.take(length) {
            Some(left) => Known::Message(Kept { message: message.into(), left }),
            None => Known::Length(length),
        };
        entry.beside.keep(known);
        Ok(length)
    }

    /// Takes room, if there is so much.
    fn take(&self, bytes: usize) -> Option<Arc<AtomicUsize>> {
        let less = |left: usize| left.checked_sub(bytes);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok()?;
        Some(self.left.clone())
    }
}

/// The types of a list and of its items.
#[derive(Clone, Copy, Debug)]
pub struct ListTypes {
    pub list: TypeId,
    pub item: TypeId,
}

/// Makes the messages of a list's items.
struct Maker {
    item: TypeId,
    alike: Alike,
    /// The last one made.
    message: Vec<u8>,
}

impl Maker {
    fn message(&mut self, entry: &Entry) -> Result<&[u8], Status> {
        let Maker { item, alike, message } = self;
        message.clear();
        protobuf::append_message(api::schema(), *item, &entry.bytes, alike, message)
            .map_err(Status::internal)?;
        Ok(message)
    }
}

/// A list in protobuf, all of whose items are known to be encodable.
pub struct Messages {
    list: List,
    maker: Maker,
}

impl Form<Arc<Entry>> for Messages {
    fn push(&mut self, entry: Arc<Entry>, _first: bool, out: &mut Vec<u8>) {
        match entry.beside.get() {
            Some(Known::Message(kept)) => self.list.push_item(&kept.message, out),
            _ => {
                let message = self.maker.message(&entry);
                self.list.push_item(message.expect("it was encoded before, for its length"), out);
            }
        }
    }

    fn finish(&self, out: &mut Vec<u8>) {
        List::push_tail(out);
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};
    use store::{Beside, Key, Meta, Revision};

    use super::*;

    fn entry(name: &str) -> Arc<Entry> {
        let object =
            json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"a": "1"}});
        Arc::new(Entry {
            key: Key::new("configmaps", "default", name),
            revision: Revision(1),
            created: Revision(1),
            bytes: object.to_string().into(),
            meta: Meta::default(),
            beside: Beside::default(),
        })
    }

    async fn listed(encodings: &Encodings, entries: &[Arc<Entry>]) -> Value {
        let type_id = |name: &str| api::schema().lookup(name).expect("is a type");
        let types = ListTypes {
            list: type_id("io.k8s.api.core.v1.ConfigMapList"),
            item: type_id("io.k8s.api.core.v1.ConfigMap"),
        };
        let empty =
            br#"{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[]}"#;
        let pieces = encodings.list(types, empty, entries.to_vec()).await.expect("encodes");
        let bytes = pieces.collect::<Vec<_>>().concat();
        protobuf::decode_any(api::schema(), &bytes).expect("is a list")
    }

    async fn check(encodings: &Encodings, entries: &[Arc<Entry>]) {
        let list = listed(encodings, entries).await;
        assert_eq!(list["kind"], "ConfigMapList");
        assert_eq!(list["metadata"]["resourceVersion"], "7");
        let items = list["items"].as_array().map_or(&[][..], Vec::as_slice);
        let names: Vec<&str> = items.iter().filter_map(|item| item["metadata"]["name"].as_str()).collect();
        assert_eq!(names, entries.iter().map(|entry| &*entry.key.name).collect::<Vec<_>>());
        assert!(items.iter().all(|item| item["data"]["a"] == "1"));
    }

    #[tokio::test]
    async fn a_list_is_the_same_with_and_without_room_for_its_messages() {
        let entries = ["a", "b", "c"].map(entry);
        for room in [KEPT_BYTES_MAX, 40, 0] {
            let encodings = Encodings { left: Arc::new(AtomicUsize::new(room)) };
            let fresh = entries.each_ref().map(|e| entry(&e.key.name));
            check(&encodings, &fresh).await;
            check(&encodings, &fresh).await;
            check(&encodings, &[]).await;
        }
    }

    #[tokio::test]
    async fn room_is_given_back_with_the_entry() {
        let encodings = Encodings::default();
        let entries = ["a", "b"].map(entry);
        check(&encodings, &entries).await;
        assert!(encodings.left.load(Ordering::Relaxed) < KEPT_BYTES_MAX);
        drop(entries);
        assert_eq!(encodings.left.load(Ordering::Relaxed), KEPT_BYTES_MAX);
    }
}
