//! The functions, a module per library.

pub(crate) mod convert;
mod lists;
mod net;
mod operators;
mod optional;
mod quantity;
mod regexes;
pub mod semver;
mod sets;
mod strings;
pub mod url;

use crate::signature::Row;

pub(crate) fn rows() -> impl Iterator<Item = Row> {
    let tables = [
        operators::ROWS,
        convert::ROWS,
        strings::ROWS,
        lists::ROWS,
        sets::ROWS,
        regexes::ROWS,
        optional::ROWS,
        quantity::ROWS,
        net::ROWS,
        url::ROWS,
        semver::ROWS,
    ];
    tables.into_iter().flatten().copied()
}
