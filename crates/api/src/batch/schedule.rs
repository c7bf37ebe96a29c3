//! Schedules of CronJobs: five fields or a descriptor, read as `robfig/cron` `ParseStandard` reads them, which is what
//! upstream uses, its complaints included.

use jiff::civil::{DateTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp, ToSpan};

/// A schedule that does not come true within this many years never does (30 February).
const YEARS_AHEAD_MAX: i16 = 5;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("empty spec string")]
    Empty,
    #[error("expected exactly 5 fields, found {0}: [{1}]")]
    Fields(usize, String),
    #[error("too many hyphens: {0}")]
    Hyphens(String),
    #[error("too many slashes: {0}")]
    Slashes(String),
    #[error("failed to parse int from {0}: strconv.Atoi: parsing {0:?}: invalid syntax")]
    Number(String),
    #[error("negative number ({0}) not allowed: {0}")]
    Negative(i64),
    #[error("beginning of range ({0}) below minimum ({1}): {2}")]
    BelowMinimum(u32, u32, String),
    #[error("end of range ({0}) above maximum ({1}): {2}")]
    AboveMaximum(u32, u32, String),
    #[error("beginning of range ({0}) beyond end of range ({1}): {2}")]
    Backwards(u32, u32, String),
    #[error("step of range should be a positive number: {0}")]
    NoStep(String),
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
    #[error("failed to parse duration {0}")]
    Duration(String),
    #[error("provided bad location {0}: unknown time zone {0}")]
    Location(String),
}

/// The values of one field, as bits, and whether it was a star.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    bits: u64,
    star: bool,
}

impl Field {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.bits & (1 << value) != 0)
    }
}

#[derive(Clone, Debug, PartialEq)]
enum When {
    Fields {
        minute: Field,
        hour: Field,
        day: Field,
        month: Field,
        weekday: Field,
    },
    /// At least a second.
    Every(SignedDuration),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    when: When,
    /// A zone in the schedule itself (`TZ=`), which wins over the CronJob's.
    zone: Option<TimeZone>,
}

struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MINUTE: Bounds = Bounds { min: 0, max: 59, names: &[] };
const HOUR: Bounds = Bounds { min: 0, max: 23, names: &[] };
const DAY: Bounds = Bounds { min: 1, max: 31, names: &[] };
const MONTH: Bounds = Bounds {
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAY: Bounds = Bounds { min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

const DESCRIPTORS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

impl std::str::FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Schedule, Error> {
        if text.is_empty() {
            return Err(Error::Empty);
        }
        let (zone, text) = split_zone(text)?;
        let when = match text.strip_prefix("@every ") {
            Some(duration) => When::Every(every(duration).ok_or_else(|| Error::Duration(text.to_owned()))?),
            None if text.starts_with('@') => {
                let known = DESCRIPTORS.iter().find(|(name, _)| *name == text);
                fields(known.ok_or_else(|| Error::Descriptor(text.to_owned()))?.1)?
            }
            None => fields(text)?,
        };
        Ok(Schedule { when, zone })
    }
}

impl Schedule {
    /// The first time after `after` that the schedule names, in `zone` unless it has one of its own; `None` when there
    /// is none within years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let zone = self.zone.as_ref().unwrap_or(zone);
        match &self.when {
            When::Every(duration) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(*duration).ok()
            }
            When::Fields { minute, hour, day, month, weekday } => {
                let days = Days { day: *day, month: *month, weekday: *weekday };
                next_in(&days, *hour, *minute, after, zone)
            }
        }
    }
}

/// Days that match: by day of the month and weekday, or by either if neither is a star.
struct Days {
    day: Field,
    month: Field,
    weekday: Field,
}

impl Days {
    fn has(&self, date: DateTime) -> bool {
        let by_day = self.day.has(date.day());
        let by_weekday = self.weekday.has(Weekday::to_sunday_zero_offset(date.weekday()));
        let matches =
            if self.day.star || self.weekday.star { by_day && by_weekday } else { by_day || by_weekday };
        self.month.has(date.month()) && matches
    }
}

/// Walks the wall clock: days, then hours, then minutes. A wall time that a change of clocks skips does not come;
/// one that comes twice counts once.
fn next_in(days: &Days, hour: Field, minute: Field, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let start = after.to_zoned(zone.clone()).datetime();
    let start = start.with().second(0).subsec_nanosecond(0).build().ok()?;
    let mut at = start.checked_add(1.minute()).ok()?;
    let last_year = at.year().saturating_add(YEARS_AHEAD_MAX);
    while at.year() <= last_year {
        if !days.has(at) {
            at = midnight(at)?.checked_add(1.day()).ok()?;
        } else if !hour.has(at.hour()) {
            at = start_of_hour(at)?.checked_add(1.hour()).ok()?;
        } else if !minute.has(at.minute()) {
            at = at.checked_add(1.minute()).ok()?;
        } else {
            match instant(at, zone).filter(|instant| *instant > after) {
                Some(instant) => return Some(instant),
                None => at = at.checked_add(Span::new().minutes(1)).ok()?,
            }
        }
    }
    None
}

fn midnight(at: DateTime) -> Option<DateTime> {
    at.with().hour(0).minute(0).build().ok()
}

fn start_of_hour(at: DateTime) -> Option<DateTime> {
    at.with().minute(0).build().ok()
}

/// When a wall time comes; `None` if it is skipped.
fn instant(at: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(at);
    let instant = ambiguous.compatible().ok()?;
    (instant.to_zoned(zone.clone()).datetime() == at).then_some(instant)
}

fn split_zone(text: &str) -> Result<(Option<TimeZone>, &str), Error> {
    let Some(rest) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) else {
        return Ok((None, text));
    };
    let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let zone = TimeZone::get(name).map_err(|_| Error::Location(name.to_owned()))?;
    Ok((Some(zone), rest.trim()))
}

/// A Go duration of at least a second, in whole seconds.
fn every(text: &str) -> Option<SignedDuration> {
    let duration = apimachinery::time::parse_duration(text)?;
    Some(SignedDuration::from_secs(duration.as_secs().max(1)))
}

fn fields(text: &str) -> Result<When, Error> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = parts.as_slice() else {
        return Err(Error::Fields(parts.len(), parts.join(" ")));
    };
    Ok(When::Fields {
        minute: field(minute, &MINUTE)?,
        hour: field(hour, &HOUR)?,
        day: field(day, &DAY)?,
        month: field(month, &MONTH)?,
        weekday: field(weekday, &WEEKDAY)?,
    })
}

fn field(text: &str, bounds: &Bounds) -> Result<Field, Error> {
    let mut field = Field { bits: 0, star: false };
    for range in text.split(',').filter(|range| !range.is_empty()) {
        let (bits, star) = parse_range(range, bounds)?;
        field.bits |= bits;
        field.star |= star;
    }
    Ok(field)
}

fn parse_range(text: &str, bounds: &Bounds) -> Result<(u64, bool), Error> {
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let star = matches!(ends[0], "*" | "?");
    let (start, mut end) = if star {
        (bounds.min, bounds.max)
    } else {
        let start = number_or_name(ends[0], bounds)?;
        match ends.as_slice() {
            [_] => (start, start),
            [_, end] => (start, number_or_name(end, bounds)?),
            _ => return Err(Error::Hyphens(text.to_owned())),
        }
    };
    let step = match parts.as_slice() {
        [_] => 1,
        [_, step] => {
            if ends.len() == 1 {
                end = bounds.max;
            }
            number(step)?
        }
        _ => return Err(Error::Slashes(text.to_owned())),
    };
    let shown = || text.to_owned();
    match () {
        () if start < bounds.min => Err(Error::BelowMinimum(start, bounds.min, shown())),
        () if end > bounds.max => Err(Error::AboveMaximum(end, bounds.max, shown())),
        () if start > end => Err(Error::Backwards(start, end, shown())),
        () if step == 0 => Err(Error::NoStep(shown())),
        () => {
            let step = usize::try_from(step).unwrap_or(usize::MAX);
            let bits = (start..=end).step_by(step).fold(0, |bits, value| bits | 1 << value);
            Ok((bits, star && step == 1))
        }
    }
}

fn number_or_name(text: &str, bounds: &Bounds) -> Result<u32, Error> {
    let named = bounds.names.iter().position(|name| name.eq_ignore_ascii_case(text));
    match named.and_then(|position| u32::try_from(position).ok()) {
        Some(position) => Ok(bounds.min + position),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, Error> {
    let number: i64 = text.parse().map_err(|_| Error::Number(text.to_owned()))?;
    if number < 0 {
        return Err(Error::Negative(number));
    }
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    /// The next time, or the complaint.
    fn check(schedule: &str, zone: &str, after: &str, expect: &str) {
        let zone = TimeZone::get(zone).expect("a zone");
        let found = match schedule.parse::<Schedule>() {
            Ok(schedule) => {
                schedule.next(at(after), &zone).map_or("never".to_owned(), |next| next.to_string())
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expect, "{schedule} after {after}");
    }

    #[test]
    fn the_next_time_is_that_of_cron() {
        let utc = |schedule: &str, after: &str, expect: &str| check(schedule, "UTC", after, expect);
        utc("*/5 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z");
        utc("*/5 * * * *", "2026-01-01T00:04:59Z", "2026-01-01T00:05:00Z");
        utc("30 8 * * mon-fri", "2026-01-02T09:00:00Z", "2026-01-05T08:30:00Z");
        utc("0 0 13 * 5", "2026-01-10T00:00:00Z", "2026-01-13T00:00:00Z");
        utc("0 0 13 * *", "2026-01-14T00:00:00Z", "2026-02-13T00:00:00Z");
        utc("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z");
        utc("0 0 30 2 *", "2026-01-01T00:00:00Z", "never");
        utc("@hourly", "2026-01-01T23:10:00Z", "2026-01-02T00:00:00Z");
        utc("@every 90s", "2026-01-01T00:00:00.7Z", "2026-01-01T00:01:30Z");
        utc("TZ=America/New_York 0 9 * * *", "2026-01-01T00:00:00Z", "2026-01-01T14:00:00Z");
    }

    #[test]
    fn clocks_that_change_skip_or_repeat_no_run() {
        let berlin =
            |schedule: &str, after: &str, expect: &str| check(schedule, "Europe/Berlin", after, expect);
        // 2:30 does not come on 29 March 2026.
        berlin("30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z");
        // It comes twice on 25 October 2026, and counts once.
        berlin("30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z");
        berlin("30 2 * * *", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z");
    }

    #[test]
    fn what_is_no_schedule_is_refused_in_upstreams_words() {
        let refused = |schedule: &str, expect: &str| check(schedule, "UTC", "2026-01-01T00:00:00Z", expect);
        refused("", "empty spec string");
        refused("* * * *", "expected exactly 5 fields, found 4: [* * * *]");
        refused("60 * * * *", "end of range (60) above maximum (59): 60");
        refused("* * 0 * *", "beginning of range (0) below minimum (1): 0");
        refused("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1");
        refused("*/0 * * * *", "step of range should be a positive number: */0");
        refused("1-2-3 * * * *", "too many hyphens: 1-2-3");
        refused("*/1/2 * * * *", "too many slashes: */1/2");
        refused("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax");
        refused("@never", "unrecognized descriptor: @never");
    }

    proptest! {
        #[test]
        fn the_next_time_lies_ahead_and_none_is_passed_over(
            minute in 0_u32..60, hour in 0_u32..24, seconds in 0_i64..200_000_000
        ) {
            let schedule: Schedule = format!("{minute} {hour} * * *").parse().expect("parses");
            let after = Timestamp::from_second(1_700_000_000 + seconds).expect("in range");
            let next = schedule.next(after, &TimeZone::UTC).expect("comes daily");
            prop_assert!(next > after);
            prop_assert!(next.as_second() - after.as_second() <= 24 * 3600);
            prop_assert_eq!(next.as_second() % 86_400, i64::from(hour * 3600 + minute * 60));
        }

        #[test]
        fn any_text_is_a_schedule_or_refused(text in "[0-9*/,@ a-z-]{0,30}") {
            if let Ok(schedule) = text.parse::<Schedule>() {
                let after = Timestamp::from_second(1_700_000_000).expect("in range");
                prop_assert!(schedule.next(after, &TimeZone::UTC).is_none_or(|next| next > after));
            }
        }
    }
}
