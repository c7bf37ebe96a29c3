//! Ranges and multiples of numbers. Whole numbers compare as such, others as Go's `float64`.

use apimachinery::Value;
use serde_json::Number;

use super::complaint::{Complaint, Outcome};
use crate::structural::{Checks, Type};

/// Whether a number without a fraction could stand for this value.
pub fn is_whole(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

/// Whether two numbers are the same, however they are written.
pub fn equal(a: &Value, b: &Value) -> bool {
    matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if a == b)
}

pub fn check(number: &Number, ty: Type, checks: &Checks, path: &str) -> Outcome {
    let mut outcome = Outcome::default();
    let float = number.as_f64().unwrap_or(f64::MAX);
    outcome_of_range(float, number.as_i64(), "Checked", ty, checks, path, &mut outcome);
    if let Some(factor) = checks.multiple_of {
        let whole = number.as_i64().filter(|_| factor.fract() == 0.0);
        let holds = match whole {
            Some(number) => factor as i64 != 0 && number % (factor as i64) == 0,
            None if factor < 1.0 => is_json_integer(1.0 / factor * float),
            None => is_json_integer(float / factor),
        };
        if !holds {
            let what = format!("should be a multiple of {}", go_float(factor));
            outcome.add(Complaint::invalid(path, number.clone(), what));
        }
    }
    bound(
        number,
        float,
        (checks.maximum, checks.exclusive_maximum),
        &MAXIMUM,
        (ty, checks, path),
        &mut outcome,
    );
    bound(
        number,
        float,
        (checks.minimum, checks.exclusive_minimum),
        &MINIMUM,
        (ty, checks, path),
        &mut outcome,
    );
    outcome.count();
    outcome
}

/// How one end of a range is told and kept.
struct End {
    name: &'static str,
    words: [&'static str; 2],
    /// Whether a value beyond the bound is greater.
    upper: bool,
}

const MAXIMUM: End = End {
    name: "Maximum boundary",
    words: ["should be less than or equal to", "should be less than"],
    upper: true,
};
const MINIMUM: End = End {
    name: "Minimum boundary",
    words: ["should be greater than or equal to", "should be greater than"],
    upper: false,
};

fn bound(
    number: &Number,
    float: f64,
    (limit, exclusive): (Option<f64>, bool),
    end: &End,
    (ty, checks, path): (Type, &Checks, &str),
    outcome: &mut Outcome,
) {
    let Some(limit) = limit else { return };
    let whole_limit = (limit.fract() == 0.0).then_some(limit as i64);
    outcome_of_range(limit, whole_limit, end.name, ty, checks, path, outcome);
    let (ordering, shown) = match number.as_i64() {
        Some(number) => (number.partial_cmp(&(limit as i64)), (limit as i64).to_string()),
        None => (float.partial_cmp(&limit), go_float(limit)),
    };
    let is_beyond = ordering.is_some_and(|ordering| match end.upper {
        true => ordering.is_gt(),
        false => ordering.is_lt(),
    });
    if is_beyond || (exclusive && ordering.is_some_and(std::cmp::Ordering::is_eq)) {
        let what = format!("{} {shown}", end.words[usize::from(exclusive)]);
        outcome.add(Complaint::invalid(path, number.clone(), what));
    }
}

/// Complains when a number is not one its type and format can hold (follows `IsValueValidAgainstRange`).
fn outcome_of_range(
    float: f64,
    whole: Option<i64>,
    what: &str,
    ty: Type,
    checks: &Checks,
    path: &str,
    outcome: &mut Outcome,
) {
    let whole =
        whole.or_else(|| (float.fract() == 0.0 && float.abs() < i64::MAX as f64).then_some(float as i64));
    let fits = match (ty, &*checks.format) {
        (Type::Integer, "int32") => whole.is_some_and(|number| i32::try_from(number).is_ok()),
        (Type::Integer, _) => whole.is_some(),
        (Type::Number, "float") => float.abs() <= f64::from(f32::MAX),
        _ => true,
    };
    if fits {
        return;
    }
    let name = ty.name();
    outcome.add(Complaint::general(match &*checks.format {
        "" => format!("{what} value must be of type {name} (default format) in {path}"),
        format => format!("{what} value must be of type {name} with format {format} in {path}"),
    }));
}

/// Whether a quotient is whole but for the error of its computation (follows `swag.IsFloat64AJSONInteger`).
fn is_json_integer(number: f64) -> bool {
    const EPSILON: f64 = 1e-9;
    number.is_finite() && (number - number.round()).abs() <= EPSILON * number.abs().max(1.0)
}

/// A number as Go's `%v` shows it.
pub fn go_float(number: f64) -> String {
    const EXPONENT_MIN: i32 = -4;
    const EXPONENT_MAX: i32 = 6;
    let scientific = format!("{number:e}");
    let exponent: i32 = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or_default();
    if number == 0.0 || (EXPONENT_MIN..EXPONENT_MAX).contains(&exponent) {
        return number.to_string();
    }
    let mantissa = scientific.split('e').next().unwrap_or_default();
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}
