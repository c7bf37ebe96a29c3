//! The one way tests of kinds compare complaints: each expectation is how a message begins.

use apimachinery::field::ErrorList;

#[track_caller]
pub fn expect_errors(found: &ErrorList, expect: &[&str]) {
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    let matches = found.len() == expect.len() && found.iter().zip(expect).all(|(f, e)| f.starts_with(e));
    assert!(matches, "found {found:#?}\nexpected {expect:#?}");
}
