//! When images came and were used last, and which go first (follows `image_gc_manager.go`). Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

/// An image as the runtime lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub id: String,
    pub bytes: i64,
    /// The operator's: never to be removed.
    pub pinned: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    image: Image,
    first_seen: Timestamp,
    last_used: Timestamp,
}

#[derive(Debug, Default)]
pub struct Records {
    by_id: BTreeMap<String, Record>,
}

impl Records {
    /// `used` are the ids of images that containers were made of. Images that are there when the node starts count as
    /// old; others came when they were seen first.
    pub fn note(&mut self, images: Vec<Image>, used: &BTreeSet<String>, now: Timestamp) {
        let first_seen = if self.by_id.is_empty() { Timestamp::MIN } else { now };
        let mut known = std::mem::take(&mut self.by_id);
        for image in images {
            let new = Record { image: image.clone(), first_seen, last_used: Timestamp::MIN };
            let mut record = known.remove(&image.id).unwrap_or(new);
            if used.contains(&image.id) {
                record.last_used = now;
            }
            self.by_id.insert(image.id.clone(), Record { image, ..record });
        }
    }

    /// What may go at the time of the last note: the image that was used longest ago first, of equals the one that came first.
    fn unused(&self, now: Timestamp) -> Vec<&Record> {
        let free = |record: &&Record| !record.image.pinned && record.last_used < now;
        let mut unused: Vec<&Record> = self.by_id.values().filter(free).collect();
        unused.sort_by_key(|record| (record.last_used, record.first_seen));
        unused
    }

    /// Images to be removed for so many bytes, none of them younger than `age_min`.
    pub fn for_space(&self, bytes: i64, age_min: Duration, now: Timestamp) -> Vec<Image> {
        let mut freed = 0_i64;
        let old = |record: &&Record| since(record.first_seen, now) >= age_min;
        let mut chosen = Vec::new();
        for record in self.unused(now).into_iter().filter(old) {
            if freed >= bytes {
                break;
            }
            freed = freed.saturating_add(record.image.bytes);
            chosen.push(record.image.clone());
        }
        chosen
    }

    /// Images that nobody has used for longer than `age_max`.
    pub fn for_age(&self, age_max: Duration, now: Timestamp) -> Vec<Image> {
        let unused = self.unused(now).into_iter();
        let old = unused.filter(|record| since(record.last_used, now) > age_max);
        old.map(|record| record.image.clone()).collect()
    }
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    const AGE_MIN: Duration = Duration::from_secs(120);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
    }

    fn image(id: &str, bytes: i64) -> Image {
        Image { id: id.into(), bytes, pinned: false }
    }

    fn ids(images: &[Image]) -> Vec<&str> {
        images.iter().map(|image| image.id.as_str()).collect()
    }

    #[test]
    fn the_image_used_longest_ago_goes_first_and_no_more_than_needed() {
        let all = || vec![image("a", 10), image("b", 10), image("c", 10), image("d", 10)];
        let mut records = Records::default();
        records.note(all(), &["a".into(), "b".into()].into(), at(0));
        records.note(all(), &["b".into()].into(), at(10));
        records.note(all(), &["d".into()].into(), at(20));
        let chosen = |bytes| records.for_space(bytes, AGE_MIN, at(20));
        assert_eq!(ids(&chosen(i64::MAX)), ["c", "a", "b"]);
        assert_eq!(ids(&chosen(11)), ["c", "a"]);
        assert!(chosen(0).is_empty());
    }

    #[test]
    fn young_and_pinned_images_stay() {
        let mut records = Records::default();
        records.note(vec![image("old", 1)], &BTreeSet::new(), at(0));
        let pinned = Image { pinned: true, ..image("pinned", 1) };
        let all = || vec![image("old", 1), image("young", 1), pinned.clone()];
        records.note(all(), &BTreeSet::new(), at(10));
        records.note(all(), &BTreeSet::new(), at(129));
        assert_eq!(ids(&records.for_space(i64::MAX, AGE_MIN, at(129))), ["old"]);
        records.note(all(), &BTreeSet::new(), at(130));
        assert_eq!(ids(&records.for_space(i64::MAX, AGE_MIN, at(130))), ["old", "young"]);
    }

    #[test]
    fn what_nobody_used_for_long_goes_by_its_age() {
        let mut records = Records::default();
        let all = || vec![image("a", 1), image("b", 1)];
        records.note(all(), &["a".into(), "b".into()].into(), at(0));
        records.note(all(), &["b".into()].into(), at(50));
        records.note(all(), &BTreeSet::new(), at(101));
        assert_eq!(ids(&records.for_age(Duration::from_secs(100), at(101))), ["a"]);
    }

    #[test]
    fn a_removed_image_is_forgotten() {
        let mut records = Records::default();
        records.note(vec![image("a", 1)], &["a".into()].into(), at(0));
        records.note(vec![image("b", 1)], &BTreeSet::new(), at(1));
        assert_eq!(ids(&records.for_space(i64::MAX, Duration::ZERO, at(1))), ["b"]);
    }
}
