//! The query string, in the order in which it was sent; a name's first value counts, as in Go.

use std::borrow::Cow;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn read(raw: Option<&str>) -> Query {
        let decode = |s: &str| {
            let spaced: Cow<'_, str> = if s.contains('+') { s.replace('+', " ").into() } else { s.into() };
            percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
        };
        let pairs = raw.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Query(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Empty where it is absent.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A boolean as upstream's conversion of query parameters reads it: there without a value, or anything but a no.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| !(value.eq_ignore_ascii_case("false") || value == "0"))
    }
}
