//! How a registry wants to be convinced: basic authentication, or a bearer token from its token service.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// What the kubelet found in pull secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// Sent as is instead of asking a token service.
    pub registry_token: Option<String>,
}

impl Credentials {
    /// From `auth` of a Docker configuration: base64 of `user:password`.
    pub fn from_auth(auth: &str) -> Option<Credentials> {
        let text = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
        let (username, password) = text.trim_end_matches('\0').split_once(':')?;
        Some(Credentials {
            username: username.to_owned(),
            password: password.to_owned(),
            registry_token: None,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.username.is_empty() && self.registry_token.is_none()
    }

    pub fn basic(&self) -> Option<String> {
        let pair = format!("{}:{}", self.username, self.password);
        (!self.username.is_empty()).then(|| format!("Basic {}", STANDARD.encode(pair)))
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// Reads one `WWW-Authenticate` header.
    pub fn parse(header: &str) -> Option<Challenge> {
        let (scheme, parameters) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let parameter = |name: &str| {
            parameters.split(',').find_map(|pair| {
                let (key, value) = pair.trim().split_once('=')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim_matches('"').to_owned())
            })
        };
        Some(Challenge::Bearer { realm: parameter("realm")?, service: parameter("service") })
    }
}

pub fn token_url(realm: &str, service: Option<&str>, repository: &str) -> String {
    let joint = if realm.contains('?') { '&' } else { '?' };
    let mut url = format!("{realm}{joint}scope={}", escape(&format!("repository:{repository}:pull")));
    if let Some(service) = service {
        url.push_str(&format!("&service={}", escape(service)));
    }
    url
}

fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

pub fn token_in(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    answer.token.or(answer.access_token).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = Challenge::parse(r#"Bearer realm="https://auth.example/token",service="reg",scope="x""#);
        let expect =
            Challenge::Bearer { realm: "https://auth.example/token".into(), service: Some("reg".into()) };
        assert_eq!(bearer, Some(expect));
        assert_eq!(Challenge::parse("basic realm=\"r\""), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Digest x=1"), None);
        assert_eq!(Challenge::parse("Bearer service=\"no realm\""), None);
    }

    #[test]
    fn a_token_is_asked_for_by_repository() {
        let url = token_url("https://a/t", Some("reg"), "library/nginx");
        assert_eq!(url, "https://a/t?scope=repository%3Alibrary%2Fnginx%3Apull&service=reg");
    }

    #[test]
    fn either_spelling_of_the_token_is_taken() {
        assert_eq!(token_in(br#"{"access_token":"b"}"#).as_deref(), Some("b"));
        assert_eq!(token_in(br#"{"token":"a","access_token":"b"}"#).as_deref(), Some("a"));
        assert_eq!(token_in(b"{}"), None);
    }

    #[test]
    fn docker_configuration_auth_is_read() {
        let found = Credentials::from_auth("dXNlcjpwYXNz").unwrap();
        assert_eq!((found.username.as_str(), found.password.as_str()), ("user", "pass"));
        assert_eq!(found.basic().unwrap(), "Basic dXNlcjpwYXNz");
    }
}
