//! Events that are too large: told without their objects, or not at all (upstream: `plugin/pkg/audit/truncate`).

use std::borrow::Cow;
use std::io;

use super::event::Event;
use super::policy::Level;

const ANNOTATION: &str = "audit.k8s.io/truncated";

/// How large an event may be as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    pub max_event_size: u64,
}

/// Why an event is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event is too large even after truncating")]
pub struct TooLarge;

impl Truncation {
    /// The event, without its objects if it is too large with them.
    pub fn apply<'a>(&self, event: &'a Event) -> Result<Cow<'a, Event>, TooLarge> {
        if size(event) <= self.max_event_size {
            return Ok(Cow::Borrowed(event));
        }
        if !matches!(event.level, Level::Request | Level::RequestResponse) {
            return Err(TooLarge);
        }
        let mut annotations = event.annotations.clone();
        annotations.insert(ANNOTATION.to_owned(), "true".to_owned());
        let shorter = Event { request_object: None, response_object: None, annotations, ..event.clone() };
        if size(&shorter) <= self.max_event_size { Ok(Cow::Owned(shorter)) } else { Err(TooLarge) }
    }
}

fn size(event: &Event) -> u64 {
    let mut counted = Counted(0);
    serde_json::to_writer(&mut counted, event).expect("counting does not fail");
    counted.0
}

/// Takes everything, and keeps nothing but how much it was.
struct Counted(u64);

impl io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::tests::event;
    use super::*;

    #[test]
    fn what_is_too_large_loses_its_objects_first() {
        let plain = size(&event());
        let with =
            |object: String, level: Level| Event { request_object: Some(object.into()), level, ..event() };
        let truncation = |max_event_size| Truncation { max_event_size };
        let large = with("x".repeat(1000), Level::Request);
        assert_eq!(truncation(size(&large)).apply(&large).expect("fits").annotations.len(), 0);
        let shorter = truncation(plain + 100).apply(&large).expect("fits without its object").into_owned();
        assert_eq!(shorter.request_object, None);
        assert_eq!(shorter.annotations[ANNOTATION], "true");
        assert_eq!(truncation(plain - 1).apply(&large).err(), Some(TooLarge));
        assert_eq!(truncation(10).apply(&event()).err(), Some(TooLarge));
    }
}
