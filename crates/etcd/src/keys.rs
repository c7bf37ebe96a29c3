//! Ranges of keys, in etcd's notation.

use bytes::Bytes;

/// Stands for "all keys from here on" at the end of a range.
pub const ALL: Bytes = Bytes::from_static(&[0]);

/// The first of all keys.
pub const FIRST: Bytes = Bytes::from_static(&[0]);

/// The end of the range of all keys that start with `prefix`.
pub fn end_of_prefix(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end.into();
        }
    }
    ALL
}

/// The first key behind `key`.
pub fn after(key: &[u8]) -> Bytes {
    let mut next = key.to_vec();
    next.push(0);
    next.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_first_key_without_it() {
        for (prefix, end) in [
            (&b"/registry/"[..], &b"/registry0"[..]),
            (&b"a\xff"[..], &b"b"[..]),
            (&b"\xff\xff"[..], &b"\0"[..]),
            (&b""[..], &b"\0"[..]),
        ] {
            assert_eq!(end_of_prefix(prefix), end, "{prefix:?}");
        }
        assert!(after(b"a") > b"a"[..] && after(b"a") < b"aa"[..]);
    }
}
