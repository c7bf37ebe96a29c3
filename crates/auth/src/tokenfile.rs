//! Bearer tokens from a file of comma-separated values: token, user, uid and, quoted, groups (follows
//! `pkg/authentication/token/tokenfile`).

use std::collections::HashMap;

use ring::digest::{SHA256, digest};

use crate::user::UserInfo;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("token file '{path}' must have at least 3 columns (token, user name, user uid), found {found}")]
    Columns { path: String, found: usize },
    #[error("token file '{path}': record on line {line}: extraneous or missing \" in quoted-field")]
    Quote { path: String, line: usize },
}

/// Users by the digest of their token, so that looking one up takes no time that tells of others.
#[derive(Clone, Debug, Default)]
pub struct TokenFile(HashMap<Vec<u8>, UserInfo>);

impl TokenFile {
    /// `path` is for messages.
    pub fn parse(text: &str, path: &str) -> Result<TokenFile, Error> {
        let mut users = HashMap::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            let quote = || Error::Quote { path: path.to_owned(), line: index + 1 };
            let fields = split(line).ok_or_else(quote)?;
            let [token, name, uid, rest @ ..] = &fields[..] else {
                return Err(Error::Columns { path: path.to_owned(), found: fields.len() });
            };
            if token.is_empty() {
                tracing::warn!(path, line = index + 1, "empty token has been found in token file");
                continue;
            }
            let groups = rest.first().map_or("", String::as_str).split(',').map(str::trim);
            let mut user = UserInfo::new(name, groups.filter(|group| !group.is_empty()));
            user.uid.clone_from(uid);
            users.insert(digest(&SHA256, token.as_bytes()).as_ref().to_vec(), user);
        }
        Ok(TokenFile(users))
    }

    pub fn user(&self, token: &str) -> Option<&UserInfo> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(digest(&SHA256, token.as_bytes()).as_ref())
    }
}

/// The fields of a line; a quoted one may hold commas, and quotes twice.
fn split(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Some(fields),
            None => return None,
        }
    }
}

/// What stands before the closing quote, and what after it.
fn unquote(mut text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    loop {
        let (before, after) = text.split_once('"')?;
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                text = more;
            }
            None => return Some((field, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_line_is_a_user() {
        let file = TokenFile::parse(
            "t1,ann,1\nt2,bob,2,\"dev,ops\"\n\n,nobody,3\nt4,\"a \"\"b\"\"\",4,x,more\n",
            "f",
        );
        let file = file.expect("parses");
        assert_eq!(file.user("t1").map(|user| user.uid.as_str()), Some("1"));
        let bob = file.user("t2").expect("is there");
        assert_eq!(bob.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(file.user("t4").map(|user| user.name.as_str()), Some("a \"b\""));
        assert_eq!(file.user(""), None);
        assert_eq!(
            TokenFile::parse("t,u", "f").err().map(|error| error.to_string()).as_deref(),
            Some("token file 'f' must have at least 3 columns (token, user name, user uid), found 2")
        );
        assert!(TokenFile::parse("t,\"u,1", "f").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_never_lets_an_empty_token_in(text in "[a-z,\"\n]{0,60}") {
            let lets_in = TokenFile::parse(&text, "f").is_ok_and(|file| file.user("").is_some());
            prop_assert!(!lets_in);
        }

        #[test]
        fn what_is_quoted_comes_back(name in "[a-z,\" ]{1,20}") {
            let line = format!("t,\"{}\",1", name.replace('"', "\"\""));
            let file = TokenFile::parse(&line, "f").expect("parses");
            prop_assert_eq!(&file.user("t").expect("is there").name, &name);
        }
    }
}
