//! The parameters of a request, as they stand behind the path, and their escapes.

/// The values of one query parameter, in order.
pub fn query_values<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = String> + 'a {
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (unescape(key) == name).then(|| unescape(value))
    })
}

pub fn query_value(query: &str, name: &str) -> Option<String> {
    query_values(query, name).next()
}

pub fn query_flag(query: &str, name: &str) -> bool {
    query_value(query, name).is_some_and(|value| matches!(value.as_str(), "true" | "1"))
}

/// The ports that a value lists, with commas between them; zero too. What is none is refused as Go's
/// `ParseUint` does.
pub fn ports(value: &str) -> impl Iterator<Item = Result<u16, String>> {
    value.split(',').map(|text| {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("strconv.ParseUint: parsing {text:?}: invalid syntax"));
        }
        text.parse().map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"))
    })
}

/// Decodes `%XX` and `+`.
fn unescape(text: &str) -> String {
    decode(&text.replace('+', " "))
}

/// Decodes `%XX`, as in a path; a broken escape stays as it is.
pub fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten();
        let code = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, code) {
            (_, Some(code)) => {
                bytes.push(code);
                rest = &tail[2..];
            }
            (other, None) => bytes.push(*other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_values_keep_their_order_and_lose_their_escapes() {
        let query = "command=sh&command=-c&command=echo+%22a%26b%22&tty=true&x=%zz";
        assert_eq!(query_values(query, "command").collect::<Vec<_>>(), ["sh", "-c", "echo \"a&b\""]);
        assert!(query_flag(query, "tty") && !query_flag(query, "stdin"));
        assert_eq!(query_value(query, "x").as_deref(), Some("%zz"));
        assert_eq!(decode("a+b%20c%"), "a+b c%");
    }

    #[test]
    fn ports_are_read_as_go_reads_numbers() {
        let check = |value: &str, expect: Result<Vec<u16>, &str>| {
            let read = ports(value).collect::<Result<Vec<_>, _>>();
            assert_eq!(read.as_deref().map_err(String::as_str), expect.as_deref().map_err(|why| *why));
        };
        check("80,0,65535", Ok(vec![80, 0, 65535]));
        check("65536", Err("strconv.ParseUint: parsing \"65536\": value out of range"));
        check("80,", Err("strconv.ParseUint: parsing \"\": invalid syntax"));
        check("+80", Err("strconv.ParseUint: parsing \"+80\": invalid syntax"));
    }
}
