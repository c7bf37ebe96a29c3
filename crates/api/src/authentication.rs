//! The group `authentication.k8s.io`: requests for tokens (follows `pkg/apis/authentication`).

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};

use crate::defaults::{Fill, fill, object_or_new};
use crate::validation::At;

/// How long a token lives when nobody says.
const EXPIRATION_SECONDS: i64 = 3600;
const EXPIRATION_SECONDS_MIN: i64 = 600;
const EXPIRATION_SECONDS_MAX: i64 = 1 << 32;

/// Defaults of a TokenRequest.
pub fn default_token_request(request: &mut Value) {
    if let Some(spec) = object_or_new(request, "spec") {
        fill(spec, &[("expirationSeconds", Fill::Int(EXPIRATION_SECONDS))]);
    }
}

/// The body of `serviceaccounts/token`.
pub fn validate_token_request(request: &Value) -> ErrorList {
    let seconds = At::root(request).at(&["spec", "expirationSeconds"]);
    let detail = match seconds.int() {
        s if s < EXPIRATION_SECONDS_MIN => "may not specify a duration less than 10 minutes",
        s if s > EXPIRATION_SECONDS_MAX => "may not specify a duration larger than 2^32 seconds",
        _ => return ErrorList::new(),
    };
    vec![Error::invalid(&seconds.path, seconds.int(), detail)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn tokens_live_for_ten_minutes_at_least() {
        let mut request = json!({});
        default_token_request(&mut request);
        assert_eq!(request, json!({"spec": {"expirationSeconds": 3600}}));
        expect_errors(&validate_token_request(&request), &[]);
        let check = |seconds: i64, expect: &[&str]| {
            expect_errors(&validate_token_request(&json!({"spec": {"expirationSeconds": seconds}})), expect);
        };
        check(EXPIRATION_SECONDS_MIN, &[]);
        check(EXPIRATION_SECONDS_MIN - 1, &["spec.expirationSeconds: Invalid value: 599"]);
        check(EXPIRATION_SECONDS_MAX, &[]);
        check(EXPIRATION_SECONDS_MAX + 1, &["spec.expirationSeconds: Invalid value: 4294967297"]);
    }
}
