//! Times as Go's `time.Parse` reads them by a layout, and what it says of those it does not.

use jiff::civil::DateTime;
use jiff::{SignedDuration, Timestamp};

use super::parse_whole_seconds;

/// A date, `T`, a time of day with or without a fraction of seconds, and `Z` or an offset.
pub const RFC3339: Layout = Layout { text: "2006-01-02T15:04:05Z07:00", fraction: None };
/// The same with exactly six decimals.
pub const RFC3339_MICRO: Layout =
    Layout { text: "2006-01-02T15:04:05.000000Z07:00", fraction: Some(".000000") };

#[derive(Clone, Copy, Debug)]
pub struct Layout {
    text: &'static str,
    /// The layout's element for the fraction; without one, any fraction may follow the seconds.
    fraction: Option<&'static str>,
}

impl Layout {
    pub fn parse(self, text: &str) -> Result<Timestamp, String> {
        if self.fraction.is_none()
            && let Some(at) = parse_whole_seconds(text.as_bytes())
        {
            return Ok(at);
        }
        let mut reader = Reader { rest: text.as_bytes() };
        reader.time(self).map_err(|fault| match fault {
            Fault::Unlike(found, element) => format!(
                "parsing time {} as {:?}: cannot parse {} as {element:?}",
                quoted(text.as_bytes()),
                self.text,
                quoted(found)
            ),
            Fault::OutOfRange(what) => {
                format!("parsing time {}: {what} out of range", quoted(text.as_bytes()))
            }
            Fault::ExtraText(found) => {
                format!("parsing time {}: extra text: {}", quoted(text.as_bytes()), quoted(found))
            }
        })
    }
}

enum Fault<'t> {
    /// What stands where an element of the layout should.
    Unlike(&'t [u8], &'static str),
    OutOfRange(&'static str),
    ExtraText(&'t [u8]),
}

struct Reader<'t> {
    rest: &'t [u8],
}

impl<'t> Reader<'t> {
    fn time(&mut self, layout: Layout) -> Result<Timestamp, Fault<'t>> {
        let year = self.digits("2006", 4)?;
        self.skip("-")?;
        let month = self.number("01", "month", 1..=12)?;
        self.skip("-")?;
        let day = self.digits("02", 2)?;
        self.skip("T")?;
        let hour = self.hour()?;
        self.skip(":")?;
        let minute = self.number("04", "minute", 0..=59)?;
        self.skip(":")?;
        let second = self.number("05", "second", 0..=59)?;
        let nanos = self.fraction(layout.fraction)?;
        let offset = self.offset()?;
        if !self.rest.is_empty() {
            return Err(Fault::ExtraText(self.rest));
        }
        let small = |number: i32| i8::try_from(number).expect("it has two digits");
        let year = i16::try_from(year).expect("it has four digits");
        DateTime::new(year, small(month), small(day), small(hour), small(minute), small(second), nanos)
            .ok()
            .ok_or(Fault::OutOfRange("day"))
            .and_then(|local| {
                let at = jiff::tz::Offset::UTC.to_timestamp(local).and_then(|at| at.checked_sub(offset));
                at.map_err(|_| Fault::OutOfRange("year"))
            })
    }

    fn skip(&mut self, separator: &'static str) -> Result<(), Fault<'t>> {
        self.rest =
            self.rest.strip_prefix(separator.as_bytes()).ok_or(Fault::Unlike(self.rest, separator))?;
        Ok(())
    }

    fn digits(&mut self, element: &'static str, count: usize) -> Result<i32, Fault<'t>> {
        let fault = Fault::Unlike(self.rest, element);
        let Some((number, rest)) = self.rest.split_at_checked(count) else { return Err(fault) };
        if !number.iter().all(u8::is_ascii_digit) {
            return Err(fault);
        }
        self.rest = rest;
        Ok(number.iter().fold(0, |sum, digit| sum * 10 + i32::from(digit - b'0')))
    }

    fn number(
        &mut self,
        element: &'static str,
        what: &'static str,
        range: std::ops::RangeInclusive<i32>,
    ) -> Result<i32, Fault<'t>> {
        let number = self.digits(element, 2)?;
        if range.contains(&number) { Ok(number) } else { Err(Fault::OutOfRange(what)) }
    }

    /// One digit is enough for an hour.
    fn hour(&mut self) -> Result<i32, Fault<'t>> {
        let count = if self.rest.get(1).is_some_and(u8::is_ascii_digit) { 2 } else { 1 };
        let hour = self.digits("15", count)?;
        if hour < 24 { Ok(hour) } else { Err(Fault::OutOfRange("hour")) }
    }

    /// Nanoseconds.
    fn fraction(&mut self, element: Option<&'static str>) -> Result<i32, Fault<'t>> {
        let decimals = |rest: &[u8]| rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let point = matches!(self.rest.first(), Some(b'.' | b','));
        let available = if point { decimals(&self.rest[1..]) } else { 0 };
        let count = match element {
            Some(element) => {
                let wanted = element.len() - 1;
                if available < wanted {
                    return Err(Fault::Unlike(self.rest, element));
                }
                wanted
            }
            None => available,
        };
        if count == 0 {
            return Ok(0);
        }
        let (fraction, rest) = self.rest[1..].split_at(count);
        self.rest = rest;
        let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
        Ok(digits.fold(0, |sum, digit| sum * 10 + i32::from(digit - b'0')))
    }

    fn offset(&mut self) -> Result<SignedDuration, Fault<'t>> {
        let fault = Fault::Unlike(self.rest, "Z07:00");
        if let Some(rest) = self.rest.strip_prefix(b"Z") {
            self.rest = rest;
            return Ok(SignedDuration::ZERO);
        }
        let &[sign, h1, h2, b':', m1, m2, ref rest @ ..] = self.rest else { return Err(fault) };
        let two = |tens: u8, ones: u8| {
            let digit = |byte: u8| byte.is_ascii_digit().then(|| i64::from(byte - b'0'));
            Some(digit(tens)? * 10 + digit(ones)?)
        };
        let (Some(hours), Some(minutes)) = (two(h1, h2), two(m1, m2)) else { return Err(fault) };
        // Go lets whole days and hours pass.
        if hours > 24 {
            return Err(Fault::OutOfRange("time zone offset hour"));
        }
        if minutes > 60 {
            return Err(Fault::OutOfRange("time zone offset minute"));
        }
        let offset = SignedDuration::from_mins(hours * 60 + minutes);
        self.rest = rest;
        match sign {
            b'+' => Ok(offset),
            b'-' => Ok(-offset),
            _ => Err(fault),
        }
    }
}

/// As the `quote` of Go's package `time`, which escapes all that is not ASCII byte by byte.
fn quoted(text: &[u8]) -> String {
    let escaped = text.iter().map(|&byte| match byte {
        b'"' | b'\\' => format!("\\{}", char::from(byte)),
        b' '..=b'\x7f' => char::from(byte).to_string(),
        byte => format!("\\x{byte:02x}"),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::format_micro_time;

    #[test]
    fn times_are_read_as_go_reads_them() {
        for (layout, text, expect) in [
            (RFC3339, "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000Z"),
            (RFC3339, "2026-01-02T3:04:05.25+01:30", "2026-01-02T01:34:05.250000Z"),
            (RFC3339, "2026-01-02T03:04:05,1234567891234-24:60", "2026-01-03T04:04:05.123456Z"),
            (RFC3339_MICRO, "2026-01-02T03:04:05.000001-01:00", "2026-01-02T04:04:05.000001Z"),
        ] {
            assert_eq!(layout.parse(text).map(format_micro_time).as_deref(), Ok(expect), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_told_as_go_tells_it() {
        let like = |found: &str, element: &str| format!("cannot parse {found:?} as {element:?}");
        for (text, expect) in [
            ("", like("", "2006")),
            ("yesterday", like("yesterday", "2006")),
            ("2020-01-01", like("", "T")),
            ("2020-01-01 00:00:00Z", like(" 00:00:00Z", "T")),
            ("2020-1-01T00:00:00Z", like("1-01T00:00:00Z", "01")),
            ("2020-01-01T00:00:00", like("", "Z07:00")),
            ("2020-01-01T00:00:00.Z", like(".Z", "Z07:00")),
            ("2020-01-01T00:00:00+0100", like("+0100", "Z07:00")),
        ] {
            let expect = format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": {expect}");
            assert_eq!(RFC3339.parse(text), Err(expect));
        }
        for (text, expect) in [
            ("2020-13-01T00:00:00Z", "month out of range"),
            ("2020-02-30T00:00:00Z", "day out of range"),
            ("2020-01-01T24:00:00Z", "hour out of range"),
            ("2020-01-01T00:60:00Z", "minute out of range"),
            ("2020-01-01T00:00:60Z", "second out of range"),
            ("2020-01-01T00:00:00+25:00", "time zone offset hour out of range"),
            ("2020-01-01T00:00:00Zx", "extra text: \"x\""),
        ] {
            assert_eq!(RFC3339.parse(text), Err(format!("parsing time {text:?}: {expect}")));
        }
        assert_eq!(
            RFC3339_MICRO.parse("2020-01-01T00:00:00Z"),
            Err("parsing time \"2020-01-01T00:00:00Z\" as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"Z\" as \".000000\""
                .to_owned())
        );
        assert_eq!(
            RFC3339.parse("\u{e9}"),
            Err("parsing time \"\\xc3\\xa9\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\\xc3\\xa9\" as \"2006\""
                .to_owned())
        );
    }
}
