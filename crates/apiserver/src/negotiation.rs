//! Which form a response takes: the encoding, and whether the object itself, its metadata or a table is wanted.
//! Follows `NegotiateOutputMediaType`.

use apimachinery::Status;
pub use apimachinery::codec::Format;
pub use client::accept::{Alternative, accept, alternatives};
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE};

/// The encodings that the server speaks, besides those that it always does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Formats {
    /// Upstream's feature `CBORServingAndStorage`, which is off by default.
    pub cbor: bool,
}

impl Formats {
    /// For messages.
    pub fn supported(self) -> String {
        self.with_cbor("application/json, application/yaml, application/vnd.kubernetes.protobuf")
    }

    /// What custom resources can be had in.
    pub fn supported_untyped(self) -> String {
        self.with_cbor("application/json, application/yaml")
    }

    fn with_cbor(self, always: &str) -> String {
        if self.cbor { format!("{always}, application/cbor") } else { always.to_owned() }
    }

    fn named(self, media_type: &str) -> Option<Format> {
        Format::from_media_type(media_type).filter(|format| *format != Format::Cbor || self.cbor)
    }
}

fn accepted_format(media_type: &str, formats: Formats) -> Option<Format> {
    match media_type {
        "*/*" | "application/*" => Some(Format::Json),
        other => formats.named(other),
    }
}

/// The format of a request's body; without a Content-Type it is JSON.
pub fn format_of_request(headers: &HeaderMap, formats: Formats) -> Result<Format, Status> {
    let text = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if text.trim().is_empty() {
        return Ok(Format::Json);
    }
    formats.named(text).ok_or_else(|| Status::unsupported_media_type(&formats.supported()))
}

/// What of an object is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Shape {
    #[default]
    Object,
    /// `PartialObjectMetadata` or its list.
    Metadata,
    Table,
}

/// The form of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub format: Format,
    pub shape: Shape,
    pub pretty: bool,
    /// Version of `meta.k8s.io` asked for is `v1beta1`, which differs from `v1` in nothing but its name.
    pub beta: bool,
}

impl Default for Target {
    fn default() -> Self {
        Target { format: Format::Json, shape: Shape::Object, pretty: false, beta: false }
    }
}

impl Target {
    /// The first of the client's alternatives, best quality first, that the server speaks.
    pub fn negotiate(headers: &HeaderMap, formats: Formats) -> Result<Target, Status> {
        Target::first_of(headers, formats, |_| true).ok_or_else(|| match knows_any(headers, formats) {
            true => Status::not_acceptable(&formats.supported()),
            false => Status::no_representation(&formats.supported()),
        })
    }

    /// As [`Target::negotiate`], for what has no protobuf form unless it is transformed.
    pub fn negotiate_untyped(headers: &HeaderMap, formats: Formats) -> Result<Target, Status> {
        let has_form = |target: &Target| target.format != Format::Protobuf || target.shape != Shape::Object;
        Target::first_of(headers, formats, has_form)
            .ok_or_else(|| Status::not_acceptable(&formats.supported_untyped()))
    }

    /// As [`Target::negotiate`], for what no table shows.
    pub fn negotiate_untabled(headers: &HeaderMap, formats: Formats) -> Result<Target, Status> {
        Target::first_of(headers, formats, |target| target.shape != Shape::Table)
            .ok_or_else(|| Status::not_acceptable(&formats.supported()))
    }

    fn first_of(headers: &HeaderMap, formats: Formats, fits: impl Fn(&Target) -> bool) -> Option<Target> {
        let Some(accept) = accept(headers) else { return Some(Target::default()) };
        for alternative in alternatives(accept) {
            let Some(format) = accepted_format(alternative.essence, formats) else { continue };
            let has_form =
                |target: &Target| target.format != Format::Protobuf || target.shape != Shape::Table;
            if let Some(target) = target(&alternative, format).filter(has_form).filter(&fits) {
                return Some(target);
            }
        }
        None
    }

    pub fn meta_version(self) -> &'static str {
        if self.beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }
    }

    /// The same encoding, but of the object itself: for errors and the answers to deletions.
    pub fn plain(self) -> Target {
        Target { shape: Shape::Object, beta: false, ..self }
    }
}

/// Whether a route would be found for the header at all, whatever else its alternatives ask for.
fn knows_any(headers: &HeaderMap, formats: Formats) -> bool {
    accept(headers).is_some_and(|accept| {
        alternatives(accept).iter().any(|a| accepted_format(a.essence, formats).is_some())
    })
}

/// None when the transformation asked for is not known.
fn target(alternative: &Alternative<'_>, format: Format) -> Option<Target> {
    let (shape, beta) = match alternative.parameter("as") {
        None => (Shape::Object, false),
        Some(kind) => {
            if alternative.parameter("g") != Some("meta.k8s.io") {
                return None;
            }
            let beta = match alternative.parameter("v") {
                Some("v1") => false,
                Some("v1beta1") => true,
                _ => return None,
            };
            match kind {
                "Table" => (Shape::Table, beta),
                "PartialObjectMetadata" | "PartialObjectMetadataList" => (Shape::Metadata, beta),
                _ => return None,
            }
        }
    };
    Some(Target { format, shape, pretty: alternative.parameter("pretty").is_some_and(|v| v != "0"), beta })
}

/// Whether the client takes gzip.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let text = headers.get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(',').any(|coding| coding.trim().split(';').next() == Some("gzip"))
}

/// A media type without its parameters.
pub fn media_type(text: &str) -> &str {
    text.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;

    use super::*;

    fn check(accept: &'static str, expect: Option<(Format, Shape)>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header"));
        let found = Target::negotiate(&headers, Formats::default()).ok().map(|t| (t.format, t.shape));
        assert_eq!(found, expect, "{accept}");
    }

    #[test]
    fn the_best_alternative_known_is_chosen() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        check(kubectl, Some((Format::Json, Shape::Table)));
        check("*/*", Some((Format::Json, Shape::Object)));
        check(
            "application/json;as=Unknown;v=v1;g=meta.k8s.io, application/yaml",
            Some((Format::Yaml, Shape::Object)),
        );
        check(
            "application/vnd.kubernetes.protobuf;stream=watch,application/json",
            Some((Format::Protobuf, Shape::Object)),
        );
        check("application/json;q=0.1,application/yaml;q=0.9", Some((Format::Yaml, Shape::Object)));
        check(
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            Some((Format::Protobuf, Shape::Metadata)),
        );
        check("text/html", None);
        check(
            "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json",
            Some((Format::Json, Shape::Object)),
        );
    }

    #[test]
    fn cbor_is_spoken_where_it_is_turned_on() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, "application/cbor".parse().expect("a header"));
        headers.insert(CONTENT_TYPE, "application/cbor".parse().expect("a header"));
        let (on, off) = (Formats { cbor: true }, Formats::default());
        assert_eq!(Target::negotiate(&headers, on).expect("is spoken").format, Format::Cbor);
        assert_eq!(Target::negotiate(&headers, off).expect_err("is not").code, 406);
        assert_eq!(format_of_request(&headers, on).expect("is read"), Format::Cbor);
        let refusal = format_of_request(&headers, off).expect_err("is not");
        assert!(refusal.message.ends_with("application/vnd.kubernetes.protobuf"), "{}", refusal.message);
    }

    #[test]
    fn a_body_in_an_unknown_format_is_refused() {
        let mut headers = HeaderMap::new();
        let format_of_request = |headers: &HeaderMap| super::format_of_request(headers, Formats::default());
        assert_eq!(format_of_request(&headers).expect("defaults"), Format::Json);
        headers.insert(CONTENT_TYPE, "application/json; charset=utf-8".parse().expect("a header"));
        assert_eq!(format_of_request(&headers).expect("is known"), Format::Json);
        headers.insert(CONTENT_TYPE, "text/plain".parse().expect("a header"));
        assert_eq!(format_of_request(&headers).expect_err("is refused").code, 415);
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_understood_or_not(text in "[a-z*/;=.,+ 0-9-]{0,80}|(application/json;as=[A-Z][a-z]*;q=[0-9.]*,?){0,40}") {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, text.parse().expect("a header"));
            drop(Target::negotiate(&headers, Formats::default()));
            proptest::prop_assert!(alternatives(&text).len() <= client::accept::ALTERNATIVES_MAX);
        }
    }
}
