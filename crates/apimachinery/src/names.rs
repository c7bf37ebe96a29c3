//! What names may look like, with upstream's messages (`k8s.io/apimachinery/pkg/util/validation`).
//! Each `is_*` returns the complaints; none means valid.

/// RFC 1123 label: 63 bytes.
pub const DNS1123_LABEL_MAX: usize = 63;
/// RFC 1123 subdomain: 253 bytes.
pub const DNS1123_SUBDOMAIN_MAX: usize = 253;
/// Label values and the name part of qualified names: 63 bytes.
pub const LABEL_VALUE_MAX: usize = 63;
/// Total size of all annotations of an object.
pub const TOTAL_ANNOTATION_SIZE_MAX: usize = 256 * 1024;
/// Room left for the random suffix of a generated name.
pub const GENERATE_NAME_PREFIX_MAX: usize = 63 - 5;

const DNS1123_LABEL_MESSAGE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS1123_SUBDOMAIN_MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS1035_LABEL_MESSAGE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const LABEL_KEY_MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE_MESSAGE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_MAP_KEY_MESSAGE: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const PATH_SEGMENT_FORBIDDEN: [&str; 2] = [".", ".."];

fn too_long(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// Keys and values of labels are counted in other words than names are.
fn too_many_bytes(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn matches_dns1123_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.iter().all(|&b| lower_alphanumeric(b) || b == b'-')
        && lower_alphanumeric(bytes[0])
        && lower_alphanumeric(bytes[bytes.len() - 1])
}

/// The qualified-name pattern without its prefix: `([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]`.
fn matches_qualified(text: &str) -> bool {
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && bytes[0].is_ascii_alphanumeric()
        && bytes[bytes.len() - 1].is_ascii_alphanumeric()
}

pub fn is_dns1123_label(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > DNS1123_LABEL_MAX {
        complaints.push(too_long(DNS1123_LABEL_MAX));
    }
    if text.split('.').all(matches_dns1123_label) {
        if text.contains('.') {
            complaints.push("must not contain dots".to_owned());
        }
    } else {
        complaints.push(DNS1123_LABEL_MESSAGE.to_owned());
    }
    complaints
}

/// As [`is_dns1123_subdomain`], for kinds whose names upstream validates declaratively, which counts bytes.
pub fn is_long_name(text: &str) -> Vec<String> {
    let mut complaints = is_dns1123_subdomain(text);
    if text.len() > DNS1123_SUBDOMAIN_MAX {
        complaints[0] = format!("must be no more than {DNS1123_SUBDOMAIN_MAX} bytes");
    }
    complaints
}

pub fn is_dns1123_subdomain(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > DNS1123_SUBDOMAIN_MAX {
        complaints.push(too_long(DNS1123_SUBDOMAIN_MAX));
    }
    if !text.split('.').all(matches_dns1123_label) {
        complaints.push(DNS1123_SUBDOMAIN_MESSAGE.to_owned());
    }
    complaints
}

pub fn is_dns1035_label(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > DNS1123_LABEL_MAX {
        complaints.push(too_long(DNS1123_LABEL_MAX));
    }
    if !matches_dns1123_label(text) || !text.as_bytes()[0].is_ascii_lowercase() {
        complaints.push(DNS1035_LABEL_MESSAGE.to_owned());
    }
    complaints
}

/// A label or annotation key: an optional DNS prefix, a slash, and a name part.
pub fn is_qualified_name(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut parts = text.split('/');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, None) => name,
        (Some(prefix), Some(name), None) => {
            if prefix.is_empty() {
                complaints.push("prefix part must be non-empty".to_owned());
            } else {
                complaints.extend(is_long_name(prefix).into_iter().map(|c| format!("prefix part {c}")));
            }
            name
        }
        _ => {
            complaints.push(format!("a valid label key {LABEL_KEY_MESSAGE} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"));
            return complaints;
        }
    };
    if name.is_empty() {
        complaints.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_VALUE_MAX {
        complaints.push(format!("name part {}", too_many_bytes(LABEL_VALUE_MAX)));
    }
    if !matches_qualified(name) {
        complaints.push(format!("name part {LABEL_KEY_MESSAGE}"));
    }
    complaints
}

pub fn is_label_value(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > LABEL_VALUE_MAX {
        complaints.push(too_many_bytes(LABEL_VALUE_MAX));
    }
    if !text.is_empty() && !matches_qualified(text) {
        complaints.push(LABEL_VALUE_MESSAGE.to_owned());
    }
    complaints
}

/// A key of a ConfigMap or Secret.
pub fn is_config_map_key(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > DNS1123_SUBDOMAIN_MAX {
        complaints.push(too_long(DNS1123_SUBDOMAIN_MAX));
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    {
        complaints.push(CONFIG_MAP_KEY_MESSAGE.to_owned());
    }
    match text {
        "." => complaints.push("must not be '.'".to_owned()),
        ".." => complaints.push("must not be '..'".to_owned()),
        other if other.starts_with("..") => complaints.push("must not start with '..'".to_owned()),
        _ => {}
    }
    complaints
}

/// A name that stands in a URL path (RBAC names).
pub fn is_path_segment_name(text: &str) -> Vec<String> {
    if let Some(forbidden) = PATH_SEGMENT_FORBIDDEN.iter().find(|f| **f == text) {
        return vec![format!("may not be '{forbidden}'")];
    }
    ["/", "%"].iter().filter(|c| text.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_subdomains_follow_rfc_1123() {
        for good in ["a", "a-b", "1a", &"x".repeat(63)] {
            assert!(is_dns1123_label(good).is_empty(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", &"x".repeat(64)] {
            assert!(!is_dns1123_label(bad).is_empty(), "{bad}");
        }
        assert!(is_dns1123_subdomain("a.b-c.d").is_empty());
        assert!(!is_dns1123_subdomain("a..b").is_empty());
        assert!(!is_dns1123_subdomain(&"x".repeat(254)).is_empty());
    }

    #[test]
    fn a_dns_1035_label_starts_with_a_letter() {
        assert!(is_dns1035_label("a1").is_empty());
        assert!(!is_dns1035_label("1a").is_empty());
        assert!(!is_dns1035_label("").is_empty());
    }

    #[test]
    fn a_qualified_name_has_at_most_one_slash() {
        for good in ["app", "example.com/My_Name", "kubernetes.io/a.b"] {
            assert!(is_qualified_name(good).is_empty(), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "Ex ample/a", "-a"] {
            assert!(!is_qualified_name(bad).is_empty(), "{bad}");
        }
    }

    #[test]
    fn what_is_only_too_much_for_a_label_is_told_so() {
        assert_eq!(is_dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(is_dns1123_label("A.b"), [DNS1123_LABEL_MESSAGE]);
        assert!(is_qualified_name("a/b/c")[0].starts_with("a valid label key must consist of"));
        let long = format!("{}/b", "a".repeat(254));
        assert_eq!(is_qualified_name(&long), ["prefix part must be no more than 253 bytes"]);
    }

    #[test]
    fn config_map_keys_do_not_climb_directories() {
        assert!(is_config_map_key("a.b_C-1").is_empty());
        for bad in ["", ".", "..", "..a", "a/b"] {
            assert!(!is_config_map_key(bad).is_empty(), "{bad}");
        }
    }
}
