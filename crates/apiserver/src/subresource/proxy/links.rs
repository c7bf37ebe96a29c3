//! Links in what a proxied server says, made to lead through the proxy again. Pure: from one link, or one page of HTML,
//! to another. Follows `Transport` of apimachinery's `proxy`; of a page nothing but the links is changed.

/// Which attributes of which elements are links (upstream: `atomsToAttrs`).
const LINKS: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Elements whose content is text, whatever it looks like.
const RAW_TEXT: [&str; 8] = ["iframe", "noembed", "noframes", "script", "style", "textarea", "title", "xmp"];

/// Where links lead to begin with, and where they are to lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    /// The path on this server under which the other one's root is found.
    pub prefix: String,
    /// The other server, as `address:port`.
    pub server: String,
    /// This server, as the client calls it.
    pub asked_host: String,
}

impl Links {
    /// The link through the proxy; none where it leads there already, or elsewhere, or is relative.
    pub fn rewritten(&self, link: &str) -> Option<String> {
        let Link { host, path, rest } = Link::parse(link);
        let is_asked = host == Some(self.asked_host.as_str());
        let is_elsewhere = host.is_some_and(|host| host != self.server) && !is_asked;
        if is_elsewhere || !path.starts_with('/') {
            return None;
        }
        // What names this server as the client does may go on doing so.
        let origin = if is_asked { &link[..link.len() - path.len() - rest.len()] } else { "" };
        let path = match path.starts_with(&self.prefix) {
            true => path.to_owned(),
            false => joined(&self.prefix, path),
        };
        Some(format!("{origin}{path}{rest}")).filter(|new| new != link)
    }

    /// A page with its links rewritten.
    pub fn rewritten_page(&self, page: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(page.len());
        let mut copied = 0;
        for value in link_values(page) {
            let Ok(link) = std::str::from_utf8(&page[value.clone()]) else { continue };
            let Some(new) = self.rewritten(link.trim()) else { continue };
            out.extend_from_slice(&page[copied..value.start]);
            out.extend_from_slice(new.as_bytes());
            copied = value.end;
        }
        out.extend_from_slice(&page[copied..]);
        out
    }

    /// The path at which a client reaches a path of the other server.
    pub fn path_of(&self, path: &str) -> String {
        joined(&self.prefix, path)
    }
}

/// A link in parts: the server if it names one, the path, and query and fragment.
struct Link<'a> {
    host: Option<&'a str>,
    path: &'a str,
    rest: &'a str,
}

impl Link<'_> {
    fn parse(link: &str) -> Link<'_> {
        let (before, rest) = link.split_at(link.find(['?', '#']).unwrap_or(link.len()));
        let after_scheme = match before.split_once(':') {
            Some((scheme, after)) if is_scheme(scheme) => after,
            _ => before,
        };
        let Some(named) = after_scheme.strip_prefix("//") else {
            return Link { host: None, path: after_scheme, rest };
        };
        let (authority, path) = named.split_at(named.find('/').unwrap_or(named.len()));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        Link { host: Some(host), path, rest }
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// Two paths in one, without `.`, `..` and doubled slashes; a slash at its end stays (Go's `path.Join`).
fn joined(prefix: &str, path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in prefix.split('/').chain(path.split('/')) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let slash = if path.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    format!("/{}{slash}", segments.join("/"))
}

type Span = std::ops::Range<usize>;

/// Where in a page the values of attributes stand that are links, in their order.
fn link_values(page: &[u8]) -> Vec<Span> {
    let mut scanner = Scanner { page, at: 0 };
    let mut found = Vec::new();
    while let Some(name) = scanner.next_start_tag() {
        let links = LINKS.iter().find(|(element, _)| *element == name).map_or(&[][..], |(_, links)| links);
        while let Some((attribute, value)) = scanner.next_attribute() {
            if links.contains(&attribute.as_str()) {
                found.push(value);
            }
        }
        if RAW_TEXT.contains(&name.as_str()) {
            scanner.skip_raw_text(&name);
        }
    }
    found
}

/// Reads tags as browsers do, without ever refusing a page.
struct Scanner<'p> {
    page: &'p [u8],
    /// What stands before is done with. `0 <= at <= page.len()`
    at: usize,
}

impl Scanner<'_> {
    /// The lower-case name of the next start tag, behind which the scanner then stands.
    fn next_start_tag(&mut self) -> Option<String> {
        loop {
            self.at += self.page[self.at..].iter().position(|byte| *byte == b'<')? + 1;
            let rest = &self.page[self.at..];
            match rest.first()? {
                _ if rest.starts_with(b"!--") => self.skip_past(b"-->"),
                b'!' | b'?' | b'/' => self.skip_past(b">"),
                byte if byte.is_ascii_alphabetic() => return Some(self.word(is_end_of_name)),
                _ => {}
            }
        }
    }

    /// The next attribute of the tag, its name in lower case and where its value stands, empty if it has none. At the
    /// tag's end there is none, and the scanner stands behind it.
    fn next_attribute(&mut self) -> Option<(String, Span)> {
        self.skip(|byte| byte.is_ascii_whitespace() || byte == b'/');
        if *self.page.get(self.at)? == b'>' {
            self.at += 1;
            return None;
        }
        // An equals sign that begins a name is part of it.
        let start = self.at;
        self.at += 1;
        self.skip(|byte| !is_end_of_name(byte) && byte != b'=');
        let name = String::from_utf8_lossy(&self.page[start..self.at]).to_ascii_lowercase();
        self.skip(|byte| byte.is_ascii_whitespace());
        if self.page.get(self.at) != Some(&b'=') {
            return Some((name, self.at..self.at));
        }
        self.at += 1;
        self.skip(|byte| byte.is_ascii_whitespace());
        Some((name, self.value()))
    }

    fn value(&mut self) -> Span {
        match self.page.get(self.at).copied() {
            Some(quote @ (b'"' | b'\'')) => {
                let start = self.at + 1;
                self.at = start;
                self.skip(|byte| byte != quote);
                let value = start..self.at;
                self.at = (self.at + 1).min(self.page.len());
                value
            }
            _ => {
                let start = self.at;
                self.skip(|byte| !byte.is_ascii_whitespace() && byte != b'>');
                start..self.at
            }
        }
    }

    /// Goes to the end tag of an element whose content is text.
    fn skip_raw_text(&mut self, name: &str) {
        let name = name.as_bytes();
        while let Some(found) = self.page[self.at..].windows(2).position(|pair| pair == b"</") {
            self.at += found + 2;
            let rest = &self.page[self.at..];
            let ends = rest.get(name.len()).is_none_or(|byte| is_end_of_name(*byte));
            if rest.len() >= name.len() && rest[..name.len()].eq_ignore_ascii_case(name) && ends {
                return;
            }
        }
        self.at = self.page.len();
    }

    fn word(&mut self, is_end: impl Fn(u8) -> bool) -> String {
        let start = self.at;
        self.skip(|byte| !is_end(byte));
        String::from_utf8_lossy(&self.page[start..self.at]).to_ascii_lowercase()
    }

    fn skip(&mut self, skipped: impl Fn(u8) -> bool) {
        let rest = &self.page[self.at..];
        self.at += rest.iter().position(|byte| !skipped(*byte)).unwrap_or(rest.len());
    }

    fn skip_past(&mut self, end: &[u8]) {
        let rest = &self.page[self.at..];
        let found = rest.windows(end.len()).position(|window| window == end);
        self.at += found.map_or(rest.len(), |at| at + end.len());
    }
}

fn is_end_of_name(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>')
}

#[cfg(test)]
mod tests;
