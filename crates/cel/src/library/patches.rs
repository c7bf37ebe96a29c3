//! What JSON patches need, offered only where they are made. Follows upstream's `library.JSONPatch`.

use crate::library::strings::text;
use crate::signature::Row;
use crate::value::Val;

pub(crate) const ESCAPE_KEY: &str = "jsonpatch.escapeKey";

pub(super) const ROWS: &[Row] = &[("jsonpatch.escapeKey(string) string", |args| {
    Ok(Val::text(text(args, 0)?.replace('~', "~0").replace('/', "~1")))
})];
