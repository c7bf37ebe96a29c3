//! The formats that strings can be asked to have. Follows `strfmt.Default` and `supportedVersionedFormats`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use regex::Regex;

/// Formats that one pattern describes.
const PATTERNS: &[(&str, &str)] = &[
    ("bsonobjectid", "^[0-9a-fA-F]{24}$"),
    ("uuid", "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"),
    ("uuid3", "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$"),
    ("uuid4", "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"),
    ("uuid5", "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"),
    ("ssn", "^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$"),
    ("hexcolor", "^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"),
    (
        "rgbcolor",
        r"^rgb\(\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])\s*,\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])\s*,\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])\s*\)$",
    ),
    ("k8sshortname", "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"),
    ("k8slongname", r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
    ("email", r"^[^\s@<>]+@[^\s@<>]+$|^[^<>@]*<[^\s@<>]+@[^\s@<>]+>$"),
    (
        "mac",
        "^([0-9a-fA-F]{2}([:-])[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){4}|([0-9a-fA-F]{2}[:-]){7}[0-9a-fA-F]{2}|([0-9a-fA-F]{4}\\.){2,3}[0-9a-fA-F]{4})$",
    ),
];

/// Whether a text has a format.
type Holds = fn(&str) -> bool;

/// Formats that code describes.
const RULES: &[(&str, Holds)] = &[
    ("uri", is_uri),
    ("hostname", is_hostname),
    ("ipv4", |text| sloppy_ip(text).is_some_and(|ip| ip.is_ipv4())),
    ("ipv6", |text| text.contains(':') && text.parse::<Ipv6Addr>().is_ok()),
    ("cidr", is_cidr),
    ("isbn", |text| is_isbn10(text) || is_isbn13(text)),
    ("isbn10", is_isbn10),
    ("isbn13", is_isbn13),
    ("creditcard", is_credit_card),
    ("byte", is_base64),
    ("password", |_| true),
    ("date", |text| text.len() == "2006-01-02".len() && text.parse::<jiff::civil::Date>().is_ok()),
    ("datetime", is_date_time),
    ("duration", is_duration),
];

static COMPILED: LazyLock<Vec<(&str, Regex)>> = LazyLock::new(|| {
    let compile =
        |(name, pattern): &(&'static str, &str)| (*name, Regex::new(pattern).expect("the pattern is one"));
    PATTERNS.iter().map(compile).collect()
});

/// `date-time` and `datetime` are one.
fn normalized(format: &str) -> String {
    format.replace('-', "")
}

pub fn is_known(format: &str) -> bool {
    let format = normalized(format);
    PATTERNS.iter().any(|(name, _)| *name == format) || RULES.iter().any(|(name, _)| *name == format)
}

/// Whether the text has the format; unknown formats are had by all.
pub fn holds(format: &str, text: &str) -> bool {
    const LONG_NAME_MAX: usize = 253;
    let format = normalized(format);
    if format == "k8slongname" && text.len() > LONG_NAME_MAX {
        return false;
    }
    if let Some((_, regex)) = COMPILED.iter().find(|(name, _)| *name == format) {
        return regex.is_match(text);
    }
    RULES.iter().find(|(name, _)| *name == format).is_none_or(|(_, rule)| rule(text))
}

/// As `url.ParseRequestURI`: an absolute URI or an absolute path.
fn is_uri(text: &str) -> bool {
    let clean = !text.is_empty() && !text.contains(|c: char| c.is_control() || c == ' ');
    let scheme = text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
            && (rest.starts_with('/') || !rest.is_empty())
    });
    clean && (text.starts_with('/') || scheme)
}

fn is_hostname(text: &str) -> bool {
    const NAME_MAX: usize = 255;
    const LABEL_MAX: usize = 63;
    const TOP_LEVEL_MIN: usize = 2;
    let is_part = |c: char| c.is_alphanumeric() || (!c.is_ascii() && !c.is_whitespace() && !c.is_control());
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= LABEL_MAX
            && label.chars().all(|c| is_part(c) || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let labels: Vec<&str> = text.split('.').collect();
    let top = labels.last().copied().unwrap_or_default();
    let top_fits =
        labels.len() == 1 || (top.chars().count() >= TOP_LEVEL_MIN && top.chars().all(char::is_alphabetic));
    text.len() <= NAME_MAX && labels.iter().all(|label| is_label(label)) && top_fits
}

/// An address as Go took it before 1.17: zeros may stand before its numbers.
fn sloppy_ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse().ok();
    }
    let octets: Vec<u8> = text
        .split('.')
        .map(|part| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten())
        .collect::<Option<_>>()?;
    <[u8; 4]>::try_from(octets).ok().map(|octets| Ipv4Addr::from(octets).into())
}

fn is_cidr(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else { return false };
    let Some(address) = sloppy_ip(address) else { return false };
    let max = if address.is_ipv4() { 32 } else { 128 };
    prefix.parse::<u8>().is_ok_and(|prefix| prefix <= max)
}

fn without_separators(text: &str) -> Vec<char> {
    text.chars().filter(|c| !matches!(c, ' ' | '-')).collect()
}

fn is_isbn10(text: &str) -> bool {
    let chars = without_separators(text);
    let digit = |(at, c): (usize, &char)| match c {
        'X' if at == 9 => Some(10),
        c => c.to_digit(10),
    };
    let digits: Option<Vec<u32>> = chars.iter().enumerate().map(digit).collect();
    digits.is_some_and(|digits| {
        digits.len() == 10
            && digits.iter().zip(1u32..).map(|(digit, weight)| digit * weight).sum::<u32>() % 11 == 0
    })
}

fn is_isbn13(text: &str) -> bool {
    let digits: Option<Vec<u32>> = without_separators(text).iter().map(|c| c.to_digit(10)).collect();
    digits.is_some_and(|digits| {
        digits.len() == 13
            && digits.iter().zip([1, 3].iter().cycle()).map(|(digit, weight)| digit * weight).sum::<u32>()
                % 10
                == 0
    })
}

fn is_credit_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let luhn: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match at % 2 {
            0 => *digit,
            _ => (digit * 2) / 10 + (digit * 2) % 10,
        })
        .sum();
    (13..=16).contains(&digits.len()) && luhn.is_multiple_of(10)
}

fn is_base64(text: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

/// RFC 3339, as loosely as `strfmt.IsDateTime`: a date, `T`, and a time of day.
fn is_date_time(text: &str) -> bool {
    let Some((date, time)) = text.split_once(['T', 't']) else { return false };
    let zone_at = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let clock = time[..zone_at].split('.').next().unwrap_or_default();
    let fits = |part: Option<&str>, max: u8| {
        part.is_some_and(|part| part.len() == 2 && part.parse::<u8>().is_ok_and(|number| number <= max))
    };
    let mut parts = clock.split(':');
    date.len() == 10
        && date.parse::<jiff::civil::Date>().is_ok()
        && fits(parts.next(), 23)
        && fits(parts.next(), 59)
        && fits(parts.next(), 59)
        && parts.next().is_none()
}

/// Go's durations, or a number with the name of a unit: `1h30m`, `22 ns`, `3 weeks`.
fn is_duration(text: &str) -> bool {
    static GO: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^[-+]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$")
            .expect("the pattern is one")
    });
    static WORDS: LazyLock<Regex> = LazyLock::new(|| {
        let units = "ns|nanos?|nanoseconds?|us|µs|micros?|microseconds?|ms|millis?|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|wks?|weeks?";
        Regex::new(&format!(r"(?i)^([0-9]+)\s*({units})$")).expect("the pattern is one")
    });
    GO.is_match(text) || WORDS.is_match(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_their_formats_or_not() {
        for (format, yes, no) in [
            ("date-time", "2024-01-02T03:04:05Z", "2024-01-02"),
            ("date", "2024-02-29", "2023-02-29"),
            ("ipv4", "10.0.0.01", "10.0.0"),
            ("ipv6", "fe80::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("hostname", "a-b.example.com", "-a.example.com"),
            ("uri", "https://example.com/a", "example com"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123"),
            ("byte", "aGk=", "a"),
            ("duration", "1h30m", "soon"),
            ("isbn", "0321751043", "0321751044"),
            ("creditcard", "4111-1111-1111-1111", "4111-1111-1111-1112"),
            ("mac", "01:02:03:04:ab:cd", "01:02"),
            ("email", "a@example.com", "a.example.com"),
            ("rgbcolor", "rgb(255,0,10)", "rgb(256,0,0)"),
            ("k8s-short-name", "a-b", "a.b"),
            ("k8s-long-name", "a.b", "A.b"),
        ] {
            assert!(is_known(format), "{format}");
            assert!(holds(format, yes), "{format} {yes}");
            assert!(!holds(format, no), "{format} {no}");
        }
        assert!(!is_known("anything") && holds("anything", "x"));
    }
}
