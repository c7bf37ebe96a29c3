//! A stored object and what it is made from.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

use crate::beside::Beside;
use crate::intern::Interner;
use crate::key::Key;

/// What a record costs beside its strings and its JSON: kind, revisions, lengths, allocation headers.
const ENTRY_OVERHEAD_BYTES: usize = 48;

/// The position of one change in the order of all changes; 0 is before the first.
/// On the wire it is `metadata.resourceVersion`, in decimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    pub fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Revision {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Revision, Self::Err> {
        text.parse().map(Revision)
    }
}

/// An object about to be written: its JSON with an empty `resourceVersion`, and the byte offset between the two
/// quotes where the store puts the decimal revision. What is stored is then exactly what a GET returns.
#[derive(Clone, Debug)]
pub struct Draft {
    pub json: Vec<u8>,
    pub revision_at: usize,
    pub meta: Meta,
}

impl Draft {
    /// The JSON with the revision in its place.
    pub(crate) fn finish(&self, revision: Revision) -> Bytes {
        let digits = revision.to_string();
        let (head, tail) = self.json.split_at(self.revision_at);
        let mut bytes = Vec::with_capacity(self.json.len() + digits.len());
        bytes.extend_from_slice(head);
        bytes.extend_from_slice(digits.as_bytes());
        bytes.extend_from_slice(tail);
        Bytes::from(bytes)
    }
}

/// The facts about an object that selectors and indexes need, so that matching never decodes the object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// `metadata.labels`.
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// The field labels the kind's field selectors know, beside `metadata.name` and `metadata.namespace`:
    /// `spec.nodeName`, `status.phase`.
    pub fields: Vec<(Arc<str>, Arc<str>)>,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// The UIDs in `metadata.ownerReferences`.
    pub owners: Vec<Arc<str>>,
}

impl Meta {
    pub fn label(&self, key: &str) -> Option<&str> {
        find(&self.labels, key)
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        find(&self.fields, name)
    }

    /// The same facts with shared strings and no spare capacity.
    pub(crate) fn interned(&self, interner: &mut Interner) -> Meta {
        let mut pairs = |pairs: &[(Arc<str>, Arc<str>)]| {
            pairs.iter().map(|(k, v)| (interner.intern(k), interner.intern(v))).collect::<Vec<_>>()
        };
        let (labels, fields) = (pairs(&self.labels), pairs(&self.fields));
        let owners = self.owners.iter().map(|uid| interner.intern(uid)).collect();
        Meta { labels, fields, uid: self.uid.clone(), owners }
    }

    fn text_bytes(&self) -> usize {
        let pairs = self.labels.iter().chain(&self.fields).map(|(k, v)| k.len() + v.len() + 2);
        let owners = self.owners.iter().map(|uid| uid.len() + 1);
        pairs.chain(owners).sum::<usize>() + self.uid.len()
    }
}

fn find<'a>(pairs: &'a [(Arc<str>, Arc<str>)], key: &str) -> Option<&'a str> {
    pairs.iter().find(|(k, _)| &**k == key).map(|(_, v)| &**v)
}

/// One object at one revision. It never changes; a change makes a new one.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Key,
    /// When this state was written; it is also inside `bytes`.
    pub revision: Revision,
    /// When the object was first written.
    pub created: Revision,
    /// The object's JSON, as a GET returns it.
    pub bytes: Bytes,
    pub meta: Meta,
    pub beside: Beside,
}

impl Entry {
    /// The same object under another revision, inside its JSON too: there its own revision is what comes first under that
    /// name, since `Draft` puts it before everything a user can write.
    pub(crate) fn at_revision(&self, revision: Revision) -> Entry {
        let stamp = |revision: Revision| format!("\"resourceVersion\":\"{revision}\"");
        let (old, new) = (stamp(self.revision), stamp(revision));
        let at = self.bytes.windows(old.len()).position(|window| window == old.as_bytes());
        let bytes = match at {
            Some(at) => [&self.bytes[..at], new.as_bytes(), &self.bytes[at + old.len()..]].concat().into(),
            None => self.bytes.clone(),
        };
        Entry {
            key: self.key.clone(),
            revision,
            created: self.created,
            bytes,
            meta: self.meta.clone(),
            beside: Beside::default(),
        }
    }

    /// About how many bytes the entry takes, in the log as in memory. Depends on the entry alone, so sums stay exact.
    pub(crate) fn weight(&self) -> usize {
        let Key { resource, namespace, name } = &self.key;
        let key = resource.len() + namespace.len() + name.len();
        ENTRY_OVERHEAD_BYTES + key + self.meta.text_bytes() + self.bytes.len()
    }
}

/// An entry that sorts and is found by its key, so that a set of them needs no second copy of the keys.
#[derive(Clone, Debug)]
pub(crate) struct ByKey(pub(crate) Arc<Entry>);

impl Borrow<Key> for ByKey {
    fn borrow(&self) -> &Key {
        &self.0.key
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &ByKey) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

impl Ord for ByKey {
    fn cmp(&self, other: &ByKey) -> Ordering {
        self.0.key.cmp(&other.0.key)
    }
}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &ByKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_under_another_revision_says_so_inside() {
        let json = r#"{"metadata":{"resourceVersion":"","annotations":{"a":"\"resourceVersion\":\"7\""}}}"#;
        let revision_at = json.find(r#"":"","#).expect("a gap") + 3;
        let draft = Draft { json: json.into(), revision_at, meta: Meta::default() };
        let revision = Revision(7);
        let key = Key::cluster("nodes", "n");
        let bytes = draft.finish(revision);
        let (meta, beside) = (Meta::default(), Beside::default());
        let entry = Entry { key, revision, created: revision, bytes, meta, beside };
        let later = entry.at_revision(Revision(10));
        assert_eq!((later.revision, later.created), (Revision(10), revision));
        assert_eq!(later.bytes, draft.finish(Revision(10)));
    }
}
