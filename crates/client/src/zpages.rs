//! `/statusz` and `/flagz`: what a component says of itself to who looks for the cause of something (follows the API
//! server library's `statusz` and `flagz`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apimachinery::Status;
use apimachinery::codec::{Format, cbor, yaml};
use apimachinery::version::{GIT_VERSION, MAJOR, MINOR};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, WARNING};
use http::{HeaderMap, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};

use crate::accept::{Alternative, accept, alternatives};
use crate::process;

/// The group that structured answers are of.
const GROUP: &str = "config.k8s.io";
const TEXT: &str = "text/plain";
/// Leads to what is not for finding faults (upstream: `nonDebuggingEndpoints`).
const NOT_FOR_DEBUGGING: [&str; 5] = ["/apis", "/api", "/openid", "/openapi", "/.well-known"];

/// The flags of the command that this process runs, by name, with the values in force; none that is secret.
pub type Flags = Arc<BTreeMap<String, String>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    Statusz,
    Flagz,
}

impl Page {
    pub fn path(self) -> &'static str {
        match self {
            Page::Statusz => "/statusz",
            Page::Flagz => "/flagz",
        }
    }

    fn name(self) -> &'static str {
        &self.path()[1..]
    }

    fn kind(self) -> &'static str {
        match self {
            Page::Statusz => "Statusz",
            Page::Flagz => "Flagz",
        }
    }
}

/// The pages of one component; none by default.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    /// As which the component names itself.
    pub component: &'static str,
    /// Upstream's feature `ComponentStatusz`.
    pub statusz: bool,
    /// What is shown at `/flagz`, which is not there without (upstream's feature `ComponentFlagz`).
    pub flags: Option<Flags>,
    /// Whether CBOR is spoken.
    pub cbor: bool,
}

impl Pages {
    /// With all features as they are by default.
    pub fn new(component: &'static str, flags: Flags) -> Pages {
        Pages { component, statusz: true, flags: Some(flags), cbor: false }
    }

    /// The page at a path, if it is served.
    pub fn at(&self, path: &str) -> Option<Page> {
        self.served().find(|page| page.path() == path)
    }

    /// Where there is something.
    pub fn served(&self) -> impl Iterator<Item = Page> + use<> {
        let (statusz, flagz) = (self.statusz, self.flags.is_some());
        [(Page::Flagz, flagz), (Page::Statusz, statusz)]
            .into_iter()
            .filter_map(|(page, on)| on.then_some(page))
    }

    /// What a page says, in the form that the headers of the request ask for. `paths` are what else the component
    /// serves.
    pub fn answer<'a>(
        &self,
        page: Page,
        paths: impl IntoIterator<Item = &'a str>,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Response<Bytes> {
        let Some(form) = self.form(page, headers) else { return self.refusal(headers) };
        let told = Told { component: self.component, page, content: self.content(page, paths, now) };
        match form {
            Form::Text => response(StatusCode::OK, "text/plain; charset=utf-8", told.text().into()),
            Form::Structured(format, version) => told.structured(format, version),
        }
    }

    fn content<'a>(
        &self,
        page: Page,
        paths: impl IntoIterator<Item = &'a str>,
        now: Timestamp,
    ) -> Content<'_> {
        match (page, &self.flags) {
            (Page::Flagz, flags) => Content::Flags { flags: flags.as_deref() },
            (Page::Statusz, flags) => {
                // It lists all but itself, as it is the last to be there.
                let flagz = flags.as_ref().map(|_| Page::Flagz.path());
                let others = paths.into_iter().filter(|path| *path != page.path());
                let age = SignedDuration::from_secs_f64(process::age_seconds().unwrap_or_default().max(0.0));
                Content::State(State::new(now - age, age.as_secs(), first_segments(others.chain(flagz))))
            }
        }
    }

    /// The form that the client likes best of those that there are.
    fn form(&self, page: Page, headers: &HeaderMap) -> Option<Form> {
        let Some(accept) = accept(headers) else { return Some(Form::Text) };
        let forms_of = |alternative: Alternative<'_>| {
            self.media_types().find_map(|media_type| form(&alternative, media_type, page))
        };
        alternatives(accept).into_iter().find_map(forms_of)
    }

    /// In the order in which they are looked at.
    fn media_types(&self) -> impl Iterator<Item = &'static str> + use<> {
        let cbor = self.cbor.then_some(Format::Cbor.media_type());
        [Format::Json.media_type(), Format::Yaml.media_type(), TEXT].into_iter().chain(cbor)
    }

    fn refusal(&self, headers: &HeaderMap) -> Response<Bytes> {
        let supported: Vec<&str> = self.media_types().collect();
        let status = Status::not_acceptable(&supported.join(", "));
        let wanted = accept(headers).map(alternatives).unwrap_or_default();
        let is_plain = |wanted: &&Alternative<'_>| wanted.parameter("as").is_none();
        let mut formats = wanted.iter().filter(is_plain).filter_map(|wanted| format_of(wanted.essence));
        let format = formats.find(|format| *format != Format::Cbor || self.cbor).unwrap_or(Format::Json);
        response(StatusCode::NOT_ACCEPTABLE, format.media_type(), encode(format, &status))
    }
}

/// How a page is told.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    Text,
    Structured(Format, Version),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1Alpha1,
    V1Beta1,
}

impl Version {
    fn name(self) -> &'static str {
        match self {
            Version::V1Alpha1 => "v1alpha1",
            Version::V1Beta1 => "v1beta1",
        }
    }

    fn parse(name: &str) -> Option<Version> {
        [Version::V1Alpha1, Version::V1Beta1].into_iter().find(|version| version.name() == name)
    }
}

/// Formats that pages have.
fn format_of(media_type: &str) -> Option<Format> {
    Format::from_media_type(media_type).filter(|format| *format != Format::Protobuf)
}

/// What an alternative asks for, as far as it is this media type: text as it is, everything else as a kind and version
/// (upstream: `StatuszEndpointRestrictions`).
fn form(alternative: &Alternative<'_>, media_type: &str, page: Page) -> Option<Form> {
    let is_given = |name: &str| alternative.parameter(name).is_some_and(|value| !value.is_empty());
    if !alternative.contains(media_type) || is_given("stream") || is_given("sv") {
        return None;
    }
    let [kind, group, version] = ["as", "g", "v"].map(|name| alternative.parameter(name));
    let Some(format) = format_of(media_type) else {
        return matches!((kind, group, version), (None, None, None)).then_some(Form::Text);
    };
    let is_ours = kind == Some(page.kind()) && group == Some(GROUP);
    version.filter(|_| is_ours).and_then(Version::parse).map(|version| Form::Structured(format, version))
}

/// What a page has to tell.
#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    State(State),
    Flags {
        #[serde(skip_serializing_if = "is_empty")]
        flags: Option<&'a BTreeMap<String, String>>,
    },
}

fn is_empty(flags: &Option<&BTreeMap<String, String>>) -> bool {
    flags.is_none_or(BTreeMap::is_empty)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct State {
    #[serde(serialize_with = "time")]
    start_time: Timestamp,
    uptime_seconds: i64,
    /// There is no Go.
    go_version: &'static str,
    binary_version: &'static str,
    emulation_version: String,
    paths: BTreeSet<String>,
}

fn time<S: Serializer>(at: &Timestamp, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(&apimachinery::time::format_time(*at))
}

impl State {
    fn new(start_time: Timestamp, uptime_seconds: i64, paths: BTreeSet<String>) -> State {
        State {
            start_time,
            uptime_seconds,
            go_version: "",
            binary_version: binary_version(),
            emulation_version: format!("{MAJOR}.{MINOR}"),
            paths,
        }
    }

    fn text(&self) -> String {
        let State { start_time, uptime_seconds, go_version, binary_version, emulation_version, paths } = self;
        let started = start_time.strftime("%a %b %e %H:%M:%S UTC %Y");
        let (hours, minutes, seconds) =
            (uptime_seconds / 3600, uptime_seconds / 60 % 60, uptime_seconds % 60);
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let paths = if paths.is_empty() { String::new() } else { format!("Paths: {}", paths.join(" ")) };
        format!(
            "\nStarted: {started}\nUp: {hours} hr {minutes:02} min {seconds:02} sec\nGo version: {go_version}\nBinary version: {binary_version}\nEmulation version: {emulation_version}\n{paths}\n"
        )
    }
}

struct Told<'a> {
    component: &'static str,
    page: Page,
    content: Content<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a> {
    kind: &'static str,
    api_version: String,
    metadata: Metadata,
    #[serde(flatten)]
    content: &'a Content<'a>,
}

#[derive(Serialize)]
struct Metadata {
    name: &'static str,
}

impl Told<'_> {
    fn text(&self) -> String {
        let mut text = format!(
            "\n{} {}\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.\n",
            self.component,
            self.page.name()
        );
        match &self.content {
            Content::State(state) => text.push_str(&state.text()),
            Content::Flags { flags } => {
                let flags = flags.iter().copied().flatten();
                text.extend(flags.map(|(name, value)| format!("{name}: {value}\n")));
            }
        }
        text
    }

    fn structured(&self, format: Format, version: Version) -> Response<Bytes> {
        let (kind, name) = (self.page.kind(), version.name());
        let object = Object {
            kind,
            api_version: format!("{GROUP}/{name}"),
            metadata: Metadata { name: self.component },
            content: &self.content,
        };
        let content_type = format!("{};g={GROUP};v={name};as={kind}", format.media_type());
        let mut response = response(StatusCode::OK, &content_type, encode(format, &object));
        if version == Version::V1Alpha1 {
            let page = self.page.name();
            let warning = format!(
                "299 - \"This version of the {page} endpoint is deprecated. Please use a newer version.\""
            );
            let warning = HeaderValue::from_str(&warning).expect("names are plain");
            response.headers_mut().insert(WARNING, warning);
        }
        response
    }
}

fn binary_version() -> &'static str {
    GIT_VERSION.trim_start_matches('v')
}

/// Where paths begin, as far as that is for finding faults (upstream: `aggregatePaths`).
fn first_segments<'a>(paths: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let first = |path: &'a str| path.split('/').nth(1).filter(|segment| !segment.is_empty());
    let segments = paths.filter_map(first).map(|segment| format!("/{segment}"));
    segments.filter(|path| !NOT_FOR_DEBUGGING.contains(&path.as_str())).collect()
}

fn encode(format: Format, object: &impl Serialize) -> Bytes {
    if format == Format::Json {
        let mut text = serde_json::to_vec(object).expect("plain values always render");
        text.push(b'\n');
        return text.into();
    }
    let value = apimachinery::to_value(object).expect("plain values always render");
    match format {
        Format::Cbor => cbor::encode(&value),
        _ => yaml::encode(&value).expect("plain values always render"),
    }
}

fn response(code: StatusCode, content_type: &str, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let content_type = HeaderValue::from_str(content_type).expect("media types are plain");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};
    use http::header::ACCEPT;

    use super::*;

    fn pages() -> Pages {
        let flags = [("v", "2"), ("token", "CLASSIFIED"), ("kubeconfig", "")];
        let flags = flags.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Pages::new("kube-scheduler", Arc::new(flags.into()))
    }

    fn ask(pages: &Pages, page: Page, accept: &str) -> Response<Bytes> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header"));
        let paths = ["/metrics/slis", "/healthz", "/metrics", "/apis/apps", "/", "/version"];
        pages.answer(page, paths, &headers, Timestamp::now())
    }

    fn json_of(response: &Response<Bytes>) -> Value {
        serde_json::from_slice(response.body()).expect("is JSON")
    }

    const NOT_ACCEPTED: &str =
        "only the following media types are accepted: application/json, application/yaml, text/plain";

    /// Which media type comes back.
    fn check(accept: &str, expect: Result<&str, &str>) {
        let answer = ask(&pages(), Page::Statusz, accept);
        let content_type = answer.headers()[CONTENT_TYPE].to_str().expect("is plain");
        let found = match answer.status() {
            StatusCode::OK => Ok(content_type.to_owned()),
            _ => Err(json_of(&answer)["message"].as_str().expect("a message").to_owned()),
        };
        assert_eq!(found.as_deref().map_err(String::as_str), expect, "{accept}");
    }

    #[test]
    fn text_needs_no_asking_and_everything_else_names_its_kind_and_version() {
        let text = Ok("text/plain; charset=utf-8");
        for accept in ["", "*/*", "text/plain", "text/*", "application/json, text/plain;q=0.5"] {
            check(accept, text);
        }
        let beta = "g=config.k8s.io;v=v1beta1;as=Statusz";
        for range in ["application/json", "application/*", "*/*"] {
            let json = format!("application/json;{beta}");
            check(&format!("{range};v=v1beta1;g=config.k8s.io;as=Statusz"), Ok(&json));
        }
        check(&format!("application/yaml;{beta}"), Ok(&format!("application/yaml;{beta}")));
        for accept in [
            "application/json",
            "text/html",
            "application/vnd.kubernetes.protobuf",
            "text/plain;as=Statusz",
            "application/json;v=v1beta1;g=config.k8s.io;as=Flagz",
            "application/json;v=v1;g=config.k8s.io;as=Statusz",
            "application/json;v=v1beta1;g=meta.k8s.io;as=Statusz",
            "application/json;stream=watch;v=v1beta1;g=config.k8s.io;as=Statusz",
            "application/cbor;v=v1beta1;g=config.k8s.io;as=Statusz",
        ] {
            check(accept, Err(NOT_ACCEPTED));
        }
    }

    #[test]
    fn a_refusal_comes_in_the_clients_encoding() {
        let answer = ask(&pages(), Page::Flagz, "application/yaml");
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()[CONTENT_TYPE]),
            (406, &"application/yaml".parse().expect("is one"))
        );
        assert_eq!(yaml::to_value(answer.body()).expect("is YAML")["reason"], "NotAcceptable");
    }

    #[test]
    fn cbor_is_spoken_where_it_is_turned_on() {
        let accept = "application/cbor;v=v1beta1;g=config.k8s.io;as=Flagz";
        let answer = ask(&Pages { cbor: true, ..pages() }, Page::Flagz, accept);
        assert_eq!(cbor::decode(answer.body()).expect("is CBOR")["kind"], "Flagz");
        let refusal = ask(&Pages { cbor: true, ..pages() }, Page::Flagz, "application/json");
        assert_eq!(json_of(&refusal)["message"], format!("{NOT_ACCEPTED}, application/cbor"));
    }

    #[test]
    fn the_state_is_told_as_an_object() {
        let answer = ask(&pages(), Page::Statusz, "application/json;v=v1alpha1;g=config.k8s.io;as=Statusz");
        let warning =
            "299 - \"This version of the statusz endpoint is deprecated. Please use a newer version.\"";
        assert_eq!(answer.headers()[WARNING], warning);
        let object = json_of(&answer);
        assert_eq!(
            (&object["kind"], &object["apiVersion"]),
            (&json!("Statusz"), &json!("config.k8s.io/v1alpha1"))
        );
        assert_eq!(object["metadata"], json!({"name": "kube-scheduler"}));
        assert_eq!(object["paths"], json!(["/flagz", "/healthz", "/metrics", "/version"]));
        assert_eq!(
            (&object["emulationVersion"], &object["binaryVersion"]),
            (&json!("1.36"), &json!(binary_version()))
        );
        let started = object["startTime"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
        assert!(started.is_some_and(|started| started <= Timestamp::now()), "{object}");
        assert!(object["uptimeSeconds"].as_i64().is_some_and(|seconds| seconds >= 0), "{object}");
    }

    #[test]
    fn flags_are_told_as_an_object_and_as_text() {
        let answer = ask(&pages(), Page::Flagz, "application/json;v=v1beta1;g=config.k8s.io;as=Flagz");
        assert!(!answer.headers().contains_key(WARNING));
        assert_eq!(json_of(&answer)["flags"], json!({"v": "2", "token": "CLASSIFIED", "kubeconfig": ""}));
        let text = ask(&pages(), Page::Flagz, "*/*").into_body();
        let text = std::str::from_utf8(&text).expect("is text");
        assert!(text.starts_with("\nkube-scheduler flagz\nWarning: This endpoint is not meant"), "{text}");
        assert!(text.ends_with("only.\nkubeconfig: \ntoken: CLASSIFIED\nv: 2\n"), "{text}");
    }

    #[test]
    fn the_state_is_text_for_people() {
        let started = "2026-01-02T03:04:05Z".parse().expect("a time");
        let state = State::new(started, 3600 + 62, ["/a".to_owned(), "/b".to_owned()].into());
        let binary = binary_version();
        let expect = format!(
            "\nStarted: Fri Jan  2 03:04:05 UTC 2026\nUp: 1 hr 01 min 02 sec\nGo version: \nBinary version: {binary}\nEmulation version: 1.36\nPaths: /a /b\n"
        );
        assert_eq!(state.text(), expect);
    }

    #[test]
    fn pages_that_are_turned_off_are_not_there() {
        let off = Pages { statusz: false, flags: None, ..pages() };
        assert!(off.served().next().is_none());
        assert_eq!((off.at("/statusz"), off.at("/flagz")), (None, None));
        assert_eq!((pages().at("/statusz"), pages().at("/flagz/")), (Some(Page::Statusz), None));
        let without_flags = Pages { flags: None, ..pages() };
        let answer =
            ask(&without_flags, Page::Statusz, "application/json;v=v1beta1;g=config.k8s.io;as=Statusz");
        assert_eq!(json_of(&answer)["paths"], json!(["/healthz", "/metrics", "/version"]));
    }
}
