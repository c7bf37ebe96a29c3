//! Image names, normalised as Docker does: `nginx` is `docker.io/library/nginx:latest`.

use std::fmt;

use super::{Error, Result};

/// distribution/reference's NameTotalLengthMax.
const NAME_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;
const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const DEFAULT_TAG: &str = "latest";
const SHA256_HEX_CHARS: usize = 64;

/// A full image name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Host and port of the registry.
    pub domain: String,
    pub path: String,
    pub tag: Option<String>,
    /// `sha256:..`
    pub digest: Option<String>,
}

impl Reference {
    pub fn parse(text: &str) -> Result<Reference> {
        let fail = |reason| Error::InvalidName(text.to_owned(), reason);
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(fail("invalid digest")),
            None => (text, None),
        };
        // A colon before the last slash belongs to a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(fail("invalid tag"));
        }
        let (domain, path) = split_domain(name);
        if !is_host(&domain)
            || path.is_empty()
            || domain.len() + path.len() >= NAME_BYTES_MAX
            || !path.split('/').all(is_component)
        {
            return Err(fail("invalid reference format"));
        }
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned()));
        Ok(Reference { domain, path, tag, digest })
    }

    /// Name without tag and digest.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// What a registry's manifest endpoint is asked for: the digest if there is one.
    pub fn selector(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or(DEFAULT_TAG)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

fn split_domain(name: &str) -> (String, String) {
    match name.split_once('/') {
        Some((first, rest)) if is_domain(first) => {
            let domain = if first == LEGACY_DOMAIN { DEFAULT_DOMAIN } else { first };
            let official = domain == DEFAULT_DOMAIN && !rest.contains('/');
            (domain.to_owned(), if official { format!("library/{rest}") } else { rest.to_owned() })
        }
        Some(_) => (DEFAULT_DOMAIN.to_owned(), name.to_owned()),
        None => (DEFAULT_DOMAIN.to_owned(), format!("library/{name}")),
    }
}

fn is_domain(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.chars().any(|c| c.is_ascii_uppercase())
}

/// A host name or address with an optional port.
fn is_host(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_port = |port: &str| !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
    let host_is_good = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(is_label),
    };
    host_is_good && port.is_none_or(is_port)
}

fn is_component(component: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let edge = |c: Option<char>| c.is_some_and(plain);
    edge(component.chars().next())
        && edge(component.chars().next_back())
        && component.chars().all(|c| plain(c) || matches!(c, '.' | '_' | '-'))
        && !component.contains("..")
        && !component.contains("___")
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= TAG_BYTES_MAX
        && tag.chars().next().is_some_and(word)
        && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

/// Whether this is `sha256:` and 64 hexadecimal digits: digests become file names.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == SHA256_HEX_CHARS && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expect: &str) {
        assert_eq!(Reference::parse(text).unwrap().to_string(), expect);
    }

    #[test]
    fn names_are_normalised_as_docker_does() {
        check("nginx", "docker.io/library/nginx:latest");
        check("nginx:1.27", "docker.io/library/nginx:1.27");
        check("org/app", "docker.io/org/app:latest");
        check("index.docker.io/nginx", "docker.io/library/nginx:latest");
        check("localhost/app", "localhost/app:latest");
        check("localhost:5000/a/b:v1", "localhost:5000/a/b:v1");
        check("registry.k8s.io/e2e-test-images/agnhost:2.53", "registry.k8s.io/e2e-test-images/agnhost:2.53");
        let digest = format!("sha256:{}", "a".repeat(64));
        check(&format!("nginx@{digest}"), &format!("docker.io/library/nginx@{digest}"));
        check(&format!("q.io/x:v1@{digest}"), &format!("q.io/x:v1@{digest}"));
    }

    #[test]
    fn bad_names_are_refused() {
        for text in
            ["", "Nginx", "a//b", "/a", "a:", "a@sha256:12", "a b", "../etc", "q.io/../x", "a:-x", "a/"]
        {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_is_stable(text in "\\PC{0,40}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
            }
        }
    }
}
