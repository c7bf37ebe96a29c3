//! Percent-encoding, as it stands in URLs and in the names of headers.

/// Undoes `%xx`, and `+` for space where `plus` says so. What is not UTF-8 is replaced; a stray `%` stays.
pub fn decode(text: &str, plus: bool) -> String {
    if !text.bytes().any(|b| b == b'%' || (plus && b == b'+')) {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |i: usize| bytes.get(i).and_then(|b| (*b as char).to_digit(16));
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
                continue;
            }
            (b'+', ..) if plus => out.push(b' '),
            (byte, ..) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_comes_back_and_a_stray_percent_stays() {
        assert_eq!(decode("example.com%2fa%20b", false), "example.com/a b");
        assert_eq!(decode("a+b%zz%", true), "a b%zz%");
        assert_eq!(decode("a+b", false), "a+b");
    }
}
