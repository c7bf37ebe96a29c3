//! `resource.Quantity`: a fixed-point number with a suffix, such as `100m`, `1.5Gi` or `2e3`.
//!
//! Kept exactly, as whole billionths: upstream rounds anything finer up to that. Text is canonical as upstream's
//! `Quantity.CanonicalizeBytes` makes it: the largest suffix that leaves no fraction.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Billionths in one.
const NANOS: i128 = 1_000_000_000;
/// Billionths in one thousandth.
const NANOS_PER_MILLI: i128 = 1_000_000;
/// Upstream caps binary quantities at the largest `int64`.
const BINARY_MAX: i128 = i64::MAX as i128 * NANOS;
/// The largest amount held: 10^29 units. Larger ones are cut to it.
const NANOS_MAX: u128 = 10_u128.pow(38);
/// Digits read exactly; further ones only decide whether to round up. As many as 128 bits hold.
const DECIMAL_DIGITS_MAX: usize = 38;
/// As above, for a binary suffix: 10^20 * 2^60 still fits 128 bits.
const BINARY_DIGITS_MAX: usize = 20;
/// Digits up to which upstream keeps the text as it was written.
const REUSABLE_DIGITS_MAX: usize = 18;
/// Beyond this decimal exponent every non-zero number is saturated or rounds up to one billionth.
const EXPONENT_MAX: i32 = 60;

/// Which family of suffixes a quantity is written with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `k`, `M`, `G`: powers of 1000.
    #[default]
    DecimalSi,
    /// `Ki`, `Mi`, `Gi`: powers of 1024.
    BinarySi,
    /// `12e6`.
    DecimalExponent,
}

/// Why a text is not a quantity; the wording is upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// An amount of a resource. Equality and order compare amounts, not the way they are written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    pub fn new(value: i64, format: Format) -> Self {
        Quantity { nanos: i128::from(value) * NANOS, format }
    }

    /// Thousandths, as CPU is counted.
    pub fn from_milli(value: i64, format: Format) -> Self {
        Quantity { nanos: i128::from(value) * NANOS_PER_MILLI, format }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// The amount in whole units, rounded away from zero.
    pub fn value(&self) -> i64 {
        saturate(divide_away_from_zero(self.nanos, NANOS))
    }

    /// The amount in thousandths, rounded away from zero.
    pub fn milli_value(&self) -> i64 {
        saturate(divide_away_from_zero(self.nanos, NANOS_PER_MILLI))
    }

    /// The amount as a float, which may lose precision.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANOS as f64
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.nanos.signum() as i32
    }

    /// Adds in place; a zero takes over the other's format, as upstream's `Quantity.Add` does.
    pub fn add(&mut self, other: &Quantity) {
        if self.is_zero() {
            self.format = other.format;
        }
        self.nanos = self.nanos.saturating_add(other.nanos);
    }

    /// Subtracts in place; see [`Quantity::add`].
    pub fn sub(&mut self, other: &Quantity) {
        if self.is_zero() {
            self.format = other.format;
        }
        self.nanos = self.nanos.saturating_sub(other.nanos);
    }

    pub fn neg(&mut self) {
        self.nanos = self.nanos.saturating_neg();
    }

    fn write_binary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        let mut mantissa = self.nanos / NANOS;
        let mut power = 0;
        while power + 1 < SUFFIXES.len() && mantissa % 1024 == 0 {
            mantissa /= 1024;
            power += 1;
        }
        write!(f, "{mantissa}{}", SUFFIXES[power])
    }

    fn write_decimal(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        let mut mantissa = self.nanos;
        let mut exponent = -9_i32;
        while mantissa % 1000 == 0 {
            mantissa /= 1000;
            exponent += 3;
        }
        let suffix = SUFFIXES.get(((exponent + 9) / 3) as usize);
        match (self.format, suffix) {
            (Format::DecimalExponent, _) if exponent == 0 => write!(f, "{mantissa}"),
            (Format::DecimalSi | Format::BinarySi, Some(suffix)) => write!(f, "{mantissa}{suffix}"),
            _ => write!(f, "{mantissa}e{exponent}"),
        }
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

fn divide_away_from_zero(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by == 0 { quotient } else { quotient + value.signum() }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SMALL: i128 = 1024 * NANOS;
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let whole_and_large = self.nanos.abs() >= SMALL && self.nanos % NANOS == 0;
        if self.format == Format::BinarySi && whole_and_large {
            self.write_binary(f)
        } else {
            self.write_decimal(f)
        }
    }
}

/// A quantity's text cut into its parts, not yet understood.
struct Parts<'a> {
    negative: bool,
    /// Digits before the point, without leading zeros.
    whole: &'a str,
    /// Digits after the point.
    fraction: &'a str,
    suffix: &'a str,
}

/// Follows upstream's `parseQuantityString`.
fn split(text: &str) -> Result<Parts<'_>, ParseError> {
    if text.is_empty() {
        return Err(ParseError::Format);
    }
    let negative = text.starts_with('-');
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (digits, rest) = split_digits(unsigned);
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => split_digits(rest),
        None => ("", rest),
    };
    let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let exponent = letters.strip_prefix(['-', '+']).unwrap_or(letters);
    if !exponent.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ParseError::Format);
    }
    // Upstream reads a bare sign, point or suffix as zero digits and then fails on the number.
    if digits.is_empty() && fraction.is_empty() && !unsigned.is_empty() {
        return Err(ParseError::Numeric);
    }
    Ok(Parts { negative, whole: digits.trim_start_matches('0'), fraction, suffix })
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// What a suffix means: a format, and the power of 10 (or of 2, for a binary one).
fn interpret(suffix: &str) -> Option<(Format, i32)> {
    let decimal = |exponent| Some((Format::DecimalSi, exponent));
    let binary = |exponent| Some((Format::BinarySi, exponent));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent: i64 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let bounded = exponent.clamp(-i64::from(EXPONENT_MAX), i64::from(EXPONENT_MAX));
            Some((Format::DecimalExponent, bounded as i32))
        }
    }
}

impl Parts<'_> {
    /// The digits as one number, how many decimal places it must still be shifted left, and whether digits were lost.
    fn mantissa(&self, digits_max: usize) -> (u128, i32, bool) {
        let digits = self.whole.bytes().chain(self.fraction.bytes()).skip_while(|b| *b == b'0');
        let (mut mantissa, mut taken, mut dropped, mut lost) = (0_u128, 0, 0_usize, false);
        for digit in digits {
            if taken < digits_max {
                mantissa = mantissa * 10 + u128::from(digit - b'0');
                taken += 1;
            } else {
                dropped += 1;
                lost |= digit != b'0';
            }
        }
        let shift = dropped as i64 - self.fraction.len() as i64;
        (mantissa, shift.clamp(-1000, 1000) as i32, lost)
    }

    fn quantity(&self) -> Result<Quantity, ParseError> {
        let (mut format, exponent) = interpret(self.suffix).ok_or(ParseError::Suffix)?;
        let binary = format == Format::BinarySi;
        let digits_max = if binary { BINARY_DIGITS_MAX } else { DECIMAL_DIGITS_MAX };
        let (mut mantissa, mut shift, lost) = self.mantissa(digits_max);
        if binary {
            mantissa <<= exponent;
        } else {
            shift += exponent;
        }
        let mut nanos = scale(mantissa, shift + 9, lost);
        if binary {
            nanos = nanos.min(BINARY_MAX);
            if nanos > 0 && nanos < NANOS {
                format = Format::DecimalSi;
            }
        }
        Ok(Quantity { nanos: if self.negative { -nanos } else { nanos }, format })
    }
}

/// `mantissa * 10^shift`, rounded up, at most `NANOS_MAX`.
fn scale(mantissa: u128, shift: i32, lost: bool) -> i128 {
    if mantissa == 0 {
        return 0;
    }
    let scaled = if shift >= 0 {
        10_u128.checked_pow(shift as u32).and_then(|factor| mantissa.checked_mul(factor))
    } else {
        let divisor = 10_u128.checked_pow(shift.unsigned_abs());
        Some(divisor.map_or(1, |d| mantissa / d + u128::from(!mantissa.is_multiple_of(d) || lost)))
    };
    i128::try_from(scaled.unwrap_or(NANOS_MAX).min(NANOS_MAX)).expect("10^38 is below 2^127")
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        split(text)?.quantity()
    }
}

/// The text that upstream would store for this text: most forms are canonical already and returned as they are.
pub fn canonical(text: &str) -> Result<Cow<'_, str>, ParseError> {
    let parts = split(text)?;
    let quantity = parts.quantity()?;
    if is_reused(&parts) { Ok(Cow::Borrowed(text)) } else { Ok(Cow::Owned(quantity.to_string())) }
}

/// Whether upstream's fast path keeps the text unchanged: a heuristic, which also keeps `1.500`.
fn is_reused(parts: &Parts<'_>) -> bool {
    let digits = parts.whole.len() + parts.fraction.len();
    let Some((format, exponent)) = interpret(parts.suffix) else { return false };
    if format == Format::BinarySi {
        let precision = 15 - parts.whole.len() as i32 - exponent * 3 / 10 - 1;
        let value = parts.whole.parse::<i64>().unwrap_or(0);
        return parts.fraction.is_empty() && precision >= 0 && value & 7 != 0;
    }
    let scale = exponent - parts.fraction.len() as i32;
    let ends_in_thousands = parts.fraction.ends_with("000")
        || (parts.fraction.len() < 3 && format!("{}{}", parts.whole, parts.fraction).ends_with("000"));
    digits <= REUSABLE_DIGITS_MAX
        && scale >= -9
        && scale % 3 == 0
        && !ends_in_thousands
        && parts.whole.starts_with(|c| c != '0')
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    /// Takes a string or a number, as upstream does; null is zero.
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        match crate::Value::deserialize(input)? {
            crate::Value::Null => Ok(Quantity::ZERO),
            crate::Value::String(text) => text.trim().parse().map_err(serde::de::Error::custom),
            crate::Value::Number(number) => number.to_string().parse().map_err(serde::de::Error::custom),
            _ => Err(serde::de::Error::custom(ParseError::Format)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expect: &str) {
        let shown = canonical(text).map_or_else(|e| e.to_string(), Cow::into_owned);
        assert_eq!(shown, expect, "{text}");
    }

    #[test]
    fn quantities_take_their_canonical_form() {
        for (text, expect) in [
            ("0", "0"),
            ("0Ki", "0"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            ("1.5", "1500m"),
            ("1.500", "1.500"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("100Ki", "100Ki"),
            ("0.5Ki", "512"),
            ("1000000", "1M"),
            ("1500k", "1500k"),
            ("12e6", "12e6"),
            ("12000e3", "12e6"),
            ("1E", "1E"),
            ("1E3", "1E3"),
            ("1.5E", "1500P"),
            ("-1.5", "-1500m"),
            ("0.0001m", "100n"),
            ("0.0000000001", "1n"),
            ("8Ei", "9223372036854775807"),
            ("12345678901234567890", "12345678901234567890"),
        ] {
            check(text, expect);
        }
    }

    #[test]
    fn what_is_not_a_quantity_is_refused_in_upstreams_words() {
        let format = ParseError::Format.to_string();
        check("", &format);
        check("1 Gi", &format);
        check("ten", &format);
        check("1Gb", &format);
        check("1KiKi", "unable to parse quantity's suffix");
        check("1K", "unable to parse quantity's suffix");
        check("1e", "unable to parse quantity's suffix");
    }

    #[test]
    fn values_round_away_from_zero() {
        let quantity: Quantity = "1100m".parse().expect("parses");
        assert_eq!((quantity.value(), quantity.milli_value()), (2, 1100));
        let quantity: Quantity = "-1100m".parse().expect("parses");
        assert_eq!(quantity.value(), -2);
        assert_eq!("1e50".parse::<Quantity>().expect("parses").value(), i64::MAX);
    }

    #[test]
    fn a_zero_takes_the_format_of_what_is_added() {
        let mut sum = Quantity::ZERO;
        sum.add(&"1Gi".parse().expect("parses"));
        sum.add(&"1Mi".parse().expect("parses"));
        assert_eq!(sum.to_string(), "1025Mi");
        sum.sub(&"1025Mi".parse().expect("parses"));
        assert!(sum.is_zero());
    }

    #[test]
    fn numbers_and_strings_decode_alike() {
        let decode = |text| serde_json::from_str::<Quantity>(text).expect("decodes");
        assert_eq!(decode("2"), decode("\"2000m\""));
        assert_eq!(serde_json::to_string(&decode("\"2000m\"")).expect("encodes"), "\"2\"");
    }

    #[test]
    fn a_binary_quantity_without_a_binary_suffix_reads_back_as_a_decimal_one() {
        check("687.5Ki", "704000");
        check("704000", "704k");
    }

    proptest! {
        #[test]
        fn canonical_text_means_the_same_and_settles(
            text in "[+-]?[0-9]{1,12}(\\.[0-9]{1,6})?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|e3|E-2|)"
        ) {
            let quantity: Quantity = text.parse().expect("in the grammar");
            let shown = quantity.to_string();
            let again: Quantity = shown.parse().expect("canonical text parses");
            prop_assert_eq!(quantity, again, "{} became {}", text, shown);
            // A bare number does not tell its format, so it may change once more (`687.5Ki`, `704000`, `704k`).
            let settled = again.to_string();
            let last: Quantity = settled.parse().expect("canonical text parses");
            prop_assert_eq!(quantity, last, "{} became {}", text, settled);
            prop_assert_eq!(last.to_string(), settled);
        }

        #[test]
        fn any_text_parses_or_is_refused(text in ".{0,24}") {
            let _parsed = canonical(&text).is_ok();
        }

        #[test]
        fn addition_and_subtraction_undo_each_other(a in -1_000_000_i64..1_000_000, b in -1_000_000_i64..1_000_000) {
            let mut sum = Quantity::from_milli(a, Format::DecimalSi);
            sum.add(&Quantity::from_milli(b, Format::DecimalSi));
            prop_assert_eq!(sum.milli_value(), a + b);
            sum.sub(&Quantity::from_milli(b, Format::DecimalSi));
            prop_assert_eq!(sum.milli_value(), a);
        }
    }
}
