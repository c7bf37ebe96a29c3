//! The functions, a module per library.

pub mod authz;
pub(crate) mod convert;
pub(crate) mod formats;
mod lists;
mod net;
mod operators;
mod optional;
pub(crate) mod patches;
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
        formats::ROWS,
        authz::ROWS,
        patches::ROWS,
    ];
    tables.into_iter().flatten().copied()
}
