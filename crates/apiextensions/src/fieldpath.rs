//! The `fieldPath` of a rule: where below its value a mistake is told. Follows `cel.ValidFieldPath`.

use crate::structural::Structural;

/// The path as messages show it, without the dot it begins with; it must lead through the schema.
pub fn read(path: &str, schema: &Structural) -> Result<String, String> {
    let mut reader = Reader { rest: path };
    let mut schema = schema;
    let mut shown = String::new();
    while let Some(token) = reader.next() {
        let name = match token {
            "." => reader.next().ok_or("unexpected end of JSON path")?.to_owned(),
            "[" => reader.quoted()?,
            other => return Err(format!("expected [ or . but got: {other}")),
        };
        if schema.properties.is_empty() {
            schema = schema.additional.schema().ok_or("does not refer to a valid field")?;
            shown.push_str(&format!("[{name}]"));
        } else {
            schema = schema.properties.get(&name).ok_or("does not refer to a valid field")?;
            if !shown.is_empty() {
                shown.push('.');
            }
            shown.push_str(&name);
        }
    }
    Ok(shown)
}

struct Reader<'p> {
    rest: &'p str,
}

impl<'p> Reader<'p> {
    /// A delimiter, a text in quotes, or what stands before the next delimiter.
    fn next(&mut self) -> Option<&'p str> {
        let first = self.rest.chars().next()?;
        let end = match first {
            '.' | '[' | ']' => 1,
            '\'' => self.end_of_quoted(),
            _ => self.rest.find(['.', '[', ']']).unwrap_or(self.rest.len()),
        };
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(token)
    }

    fn end_of_quoted(&self) -> usize {
        let mut escaped = false;
        for (at, c) in self.rest.char_indices().skip(1) {
            if c == '\'' && !escaped {
                return at + 1;
            }
            escaped = c == '\\' && !escaped;
        }
        self.rest.len()
    }

    /// `'name']`, behind the bracket that opens it.
    fn quoted(&mut self) -> Result<String, String> {
        let token = self.next().ok_or("unexpected end of JSON path")?;
        let name = token.strip_prefix('\'').and_then(|token| token.strip_suffix('\''));
        let name = name.ok_or_else(|| format!("expected single quoted string but got {token}"))?;
        match self.next() {
            Some("]") => unescaped(name),
            Some(other) => Err(format!("expected ] but got {other}")),
            None => Err("unexpected end of JSON path".to_owned()),
        }
    }
}

fn unescaped(text: &str) -> Result<String, String> {
    let mut made = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            made.push(c);
            continue;
        }
        made.push(match chars.next() {
            Some('a') => '\x07',
            Some('b') => '\x08',
            Some('f') => '\x0c',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('v') => '\x0b',
            Some(c @ ('\'' | '\\')) => c,
            other => {
                let shown = other.map(String::from).unwrap_or_default();
                return Err(format!("invalid string literal: invalid escape char \\{shown}"));
            }
        });
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use proptest::prelude::*;

    fn schema() -> Structural {
        Structural::parse(&json!({"type": "object", "properties": {
            "a": {"type": "object", "properties": {"b.c": {"type": "string"}}},
            "m": {"type": "object", "additionalProperties": {"type": "string"}}}}))
    }

    #[test]
    fn a_path_leads_through_the_schema() {
        for (path, expect) in [
            (".a", Ok("a")),
            (".a['b.c']", Ok("a.b.c")),
            (".m['x']", Ok("m[x]")),
            (".m.x", Ok("m[x]")),
            ("['a']", Ok("a")),
            (".z", Err("does not refer to a valid field")),
            ("a", Err("expected [ or . but got: a")),
            (".a[0]", Err("expected single quoted string but got 0")),
            (".a['b.c'", Err("unexpected end of JSON path")),
            (".", Err("unexpected end of JSON path")),
        ] {
            let found = read(path, &schema());
            assert_eq!(found.as_deref().map_err(String::as_str), expect, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in "[.am'\\[\\]\\\\é]{0,20}") {
            let _checked = read(&path, &schema());
        }
    }
}
