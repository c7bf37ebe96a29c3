//! What a client takes, by the Accept header of its request (follows goautoneg's `ParseAccept`).

use http::HeaderMap;
use http::header::ACCEPT;

/// More alternatives than this in one Accept header are not looked at.
pub const ALTERNATIVES_MAX: usize = 32;

/// One media range of an Accept header.
#[derive(Debug)]
pub struct Alternative<'a> {
    pub essence: &'a str,
    parameters: &'a str,
    quality: u32,
}

impl<'a> Alternative<'a> {
    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        parameters(self.parameters).find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Whether its range contains a media type.
    pub fn contains(&self, media_type: &str) -> bool {
        let of_any_subtype = |range: &str| media_type.starts_with(range);
        self.essence == "*/*"
            || self.essence == media_type
            || self.essence.strip_suffix('*').filter(|range| range.ends_with('/')).is_some_and(of_any_subtype)
    }
}

/// The Accept header's alternatives, best quality first, in the client's order within one quality.
pub fn alternatives(accept: &str) -> Vec<Alternative<'_>> {
    let mut list: Vec<Alternative> =
        accept.split(',').take(ALTERNATIVES_MAX).map(parse_alternative).collect();
    list.sort_by_key(|a| std::cmp::Reverse(a.quality));
    list
}

pub fn accept(headers: &HeaderMap) -> Option<&str> {
    headers.get(ACCEPT).and_then(|v| v.to_str().ok()).filter(|v| !v.trim().is_empty())
}

fn parse_alternative(text: &str) -> Alternative<'_> {
    let (essence, rest) = text.split_once(';').unwrap_or((text, ""));
    let quality = parameters(rest)
        .find(|(key, _)| *key == "q")
        .and_then(|(_, value)| value.parse::<f32>().ok())
        .map_or(1000, |q| (q.clamp(0.0, 1.0) * 1000.0) as u32);
    Alternative { essence: essence.trim(), parameters: rest, quality }
}

fn parameters(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(';').filter_map(|pair| pair.trim().split_once('='))
}
