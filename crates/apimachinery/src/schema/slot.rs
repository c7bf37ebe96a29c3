//! Fields by name, for who reads many objects: what is asked of each is small and side by side, and two words tell nearly
//! all names of a type apart.

use std::ops::Range;
use std::sync::OnceLock;

use super::{Field, TypeId};

/// The first eight bytes of a name, as a number. Heads are in the order of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head(u64);

impl Head {
    pub fn of(name: &[u8]) -> Head {
        let mut first = [0; 8];
        let known = name.len().min(8);
        first[..known].copy_from_slice(&name[..known]);
        Head(u64::from_be_bytes(first))
    }

    /// Of a name of so many bytes that `text` begins with. What follows the name spares counting its bytes.
    #[inline]
    pub fn at_start(text: &[u8], name_bytes: usize) -> Head {
        let Some(first) = text.first_chunk() else { return Head::of(&text[..name_bytes]) };
        let beyond = u64::MAX.checked_shr(8 * name_bytes as u32).unwrap_or(0);
        Head(u64::from_be_bytes(*first) & !beyond)
    }
}

/// The heads of sorted names, side by side; made when first asked for, after which the names are to stay.
#[derive(Clone, Debug, Default)]
pub struct Heads(OnceLock<Box<[Head]>>);

impl Heads {
    /// Where among the names those are that have this head.
    pub(super) fn places<'n>(&self, names: impl Iterator<Item = &'n [u8]>, head: Head) -> Range<usize> {
        let heads = self.0.get_or_init(|| names.map(Head::of).collect());
        let first = heads.partition_point(|other| *other < head);
        first..first + heads[first..].iter().take_while(|other| **other == head).count()
    }
}

/// What of a field is needed to find it and to write it to protobuf.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    head: Head,
    tail: [u8; 8],
    name_bytes: u32,
    pub ty: TypeId,
    pub tag: u32,
    pub wrap: [u8; 2],
}

impl Slot {
    pub(super) fn of(field: &Field) -> Slot {
        let name = field.name.as_bytes();
        let Field { ty, tag, wrap, .. } = *field;
        let name_bytes = u32::try_from(name.len()).expect("a name is smaller than 4 GiB");
        Slot { head: Head::of(name), tail: tail(name), name_bytes, ty, tag, wrap }
    }
}

/// The last eight bytes; a shorter name's head tells it all.
#[inline]
fn tail(name: &[u8]) -> [u8; 8] {
    name.last_chunk().copied().unwrap_or_default()
}

/// The place of the field `name` among the slots of a type. `next` is where it most likely is, or soon after. `full` tells
/// the whole name of a field, which is asked for where its ends do not tell.
#[inline]
pub(super) fn place<'a>(
    slots: &[Slot],
    name: &[u8],
    head: Head,
    next: usize,
    full: impl Fn(usize) -> Option<&'a [u8]>,
) -> Option<usize> {
    let is_behind = slots.get(next.wrapping_sub(1)).is_some_and(|last| head <= last.head);
    let mut at = if is_behind { 0 } else { next };
    loop {
        let slot = slots.get(at)?;
        if slot.head > head {
            return None;
        }
        if slot.head == head && slot.name_bytes as usize == name.len() && slot.tail == tail(name) {
            // The ends of a longer name do not meet.
            if name.len() <= 16 || full(at) == Some(name) {
                return Some(at);
            }
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_name_is_no_part_of_its_head() {
        for name in ["", "a", "podIP", "hostname", "hostnameOverride"] {
            let text = format!("{name}\": \"value\"");
            for text in [&text, name] {
                assert_eq!(Head::at_start(text.as_bytes(), name.len()), Head::of(name.as_bytes()), "{text}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn heads_are_in_the_order_of_names(a in "[ -~]{0,12}", b in "[ -~]{0,12}") {
            let heads = [&a, &b].map(|name| Head::of(name.as_bytes()));
            proptest::prop_assert!(heads[0] == heads[1] || (heads[0] < heads[1]) == (a < b));
        }
    }
}
