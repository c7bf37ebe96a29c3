//! Answers to HEAD over HTTP/2: what GET would be told, without the content (RFC 9110, section 9.3.2). Over HTTP/1.1
//! hyper leaves the content out by itself; over HTTP/2 it sends what it is given, which clients take for a broken answer.

use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, Version};
use http_body::Body;

/// What becomes of the content of a request's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// It is for hyper to send or not.
    Stays,
    Goes,
}

impl Content {
    pub fn of_answer_to<B>(request: &Request<B>) -> Content {
        match (request.method(), request.version()) {
            (&Method::HEAD, Version::HTTP_2) => Content::Goes,
            _ => Content::Stays,
        }
    }

    /// The answer as it is to be sent. Where its content goes, the length of it stays if it is known.
    pub fn fit<B: Body>(self, mut response: Response<B>, empty: impl FnOnce() -> B) -> Response<B> {
        if self == Content::Stays {
            return response;
        }
        if let Some(length) = response.body().size_hint().exact().filter(|length| *length > 0) {
            response.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
        }
        response.map(|_| empty())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;

    use super::*;

    fn length_without(content: &'static str, said: Option<&str>) -> Option<String> {
        let mut response = Response::builder();
        if let Some(said) = said {
            response = response.header(CONTENT_LENGTH, said);
        }
        let response = response.body(Full::new(Bytes::from_static(content.as_bytes()))).expect("an answer");
        let response = Content::Goes.fit(response, Full::default);
        assert!(response.body().is_end_stream());
        let length = response.headers().get(CONTENT_LENGTH)?;
        Some(length.to_str().expect("a number").to_owned())
    }

    #[test]
    fn the_length_stays_when_the_content_goes() {
        assert_eq!(length_without("ok", None).as_deref(), Some("2"));
        assert_eq!(length_without("", None), None);
        assert_eq!(
            length_without("", Some("7")).as_deref(),
            Some("7"),
            "of an answer that was fetched by HEAD"
        );
    }

    #[test]
    fn content_goes_from_answers_to_head_over_http2_alone() {
        let content = |method: Method, version| {
            let request = Request::builder().method(method).version(version).body(());
            Content::of_answer_to(&request.expect("a request"))
        };
        assert_eq!(content(Method::HEAD, Version::HTTP_2), Content::Goes);
        assert_eq!(content(Method::HEAD, Version::HTTP_11), Content::Stays);
        assert_eq!(content(Method::GET, Version::HTTP_2), Content::Stays);
    }
}
