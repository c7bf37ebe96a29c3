//! The kubelet's paths.

/// A container of a pod; `uid` and `container` may be empty.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    pub container: String,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    Healthz,
    Pods,
    Logs(Target),
    Exec(Target),
    Attach(Target),
    PortForward(Target),
}

impl Route {
    /// `/exec/NAMESPACE/POD[/UID]/CONTAINER`, and the like.
    pub fn parse(path: &str) -> Option<Route> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (first, rest) = parts.split_first()?;
        let in_container = || match rest {
            [namespace, pod, container] => Some(target(namespace, pod, "", container)),
            [namespace, pod, uid, container] => Some(target(namespace, pod, uid, container)),
            _ => None,
        };
        match *first {
            "healthz" if rest.is_empty() => Some(Route::Healthz),
            "pods" if rest.is_empty() => Some(Route::Pods),
            "containerLogs" => in_container().map(Route::Logs),
            "exec" => in_container().map(Route::Exec),
            "attach" => in_container().map(Route::Attach),
            "portForward" => match rest {
                [namespace, pod] => Some(Route::PortForward(target(namespace, pod, "", ""))),
                [namespace, pod, uid] => Some(Route::PortForward(target(namespace, pod, uid, ""))),
                _ => None,
            },
            _ => None,
        }
    }

    /// The subresource of `nodes` that a user must be allowed (follows upstream's `getNodeSubresource`).
    pub fn subresource(&self) -> &'static str {
        match self {
            Route::Healthz => "healthz",
            Route::Pods => "pods",
            Route::Logs(_) | Route::Exec(_) | Route::Attach(_) | Route::PortForward(_) => "proxy",
        }
    }
}

fn target(namespace: &str, pod: &str, uid: &str, container: &str) -> Target {
    Target { namespace: namespace.into(), pod: pod.into(), uid: uid.into(), container: container.into() }
}

/// The values of one query parameter, in order.
pub fn query_values<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = String> + 'a {
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (unescape(key) == name).then(|| unescape(value))
    })
}

pub fn query_value(query: &str, name: &str) -> Option<String> {
    query_values(query, name).next()
}

pub fn query_flag(query: &str, name: &str) -> bool {
    query_value(query, name).is_some_and(|value| matches!(value.as_str(), "true" | "1"))
}

/// Decodes `%XX` and `+`; a broken escape stays as it is.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten();
        let code = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, code) {
            (_, Some(code)) => {
                bytes.push(code);
                rest = &tail[2..];
            }
            (b'+', None) => bytes.push(b' '),
            (other, None) => bytes.push(*other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_a_container_with_or_without_uid() {
        assert_eq!(Route::parse("/exec/n/p/c"), Some(Route::Exec(target("n", "p", "", "c"))));
        assert_eq!(Route::parse("/exec/n/p/u/c"), Some(Route::Exec(target("n", "p", "u", "c"))));
        assert_eq!(Route::parse("/portForward/n/p"), Some(Route::PortForward(target("n", "p", "", ""))));
        for bad in ["/", "/exec/n/p", "/exec/n/p/u/c/x", "/nope", "/healthz/x"] {
            assert_eq!(Route::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn query_values_keep_their_order_and_lose_their_escapes() {
        let query = "command=sh&command=-c&command=echo+%22a%26b%22&tty=true&x=%zz";
        assert_eq!(query_values(query, "command").collect::<Vec<_>>(), ["sh", "-c", "echo \"a&b\""]);
        assert!(query_flag(query, "tty") && !query_flag(query, "stdin"));
        assert_eq!(query_value(query, "x").as_deref(), Some("%zz"));
    }
}
