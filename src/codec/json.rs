//! JSON text, piece by piece, with the errors of Go's `encoding/json`.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::{Map, Number, Value};

/// Objects and lists deeper than this are refused, so that reading can't exhaust the stack.
pub const MAX_DEPTH: usize = 500;

/// Why a text is no JSON, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Syntax(pub String);

pub type Result<T> = std::result::Result<T, Syntax>;

/// Reads any JSON. The last of repeated keys counts.
pub fn decode_untyped(bytes: &[u8]) -> Result<Value> {
    let text = text_of(bytes);
    let mut parser = Parser::new(&text);
    let value = parser.untyped(0)?;
    parser.end()?;
    Ok(value)
}

/// The same, with `duplicate field "…"` for each key that an object has twice.
pub fn decode_untyped_strict(bytes: &[u8]) -> Result<(Value, Vec<String>)> {
    let text = text_of(bytes);
    let mut parser = Parser::new(&text);
    let value = parser.untyped(0)?;
    parser.end()?;
    let mut findings = Vec::new();
    if parser.repeated {
        Parser::new(&text).duplicates(&mut String::new(), &mut findings)?;
    }
    Ok((value, findings))
}

/// What Go calls the JSON that a value would be.
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// As Go does, bytes that are no UTF-8 are read as U+FFFD.
pub(super) fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

pub(super) struct Parser<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    /// An object had a key twice.
    repeated: bool,
}

/// One step of an object or a list.
pub(super) enum Step<T> {
    Item(T),
    End,
}

impl<'t> Parser<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Parser { text, bytes: text.as_bytes(), at: 0, repeated: false }
    }

    /// The next byte that is no white space; 0 at the end.
    pub(super) fn peek(&mut self) -> u8 {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.bytes.get(self.at) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    fn unexpected<T>(&self, context: &str) -> Result<T> {
        // Go reads bytes, but this text is UTF-8: its bytes are what Go would have seen.
        let Some(&byte) = self.bytes.get(self.at) else {
            return Err(Syntax("unexpected end of JSON input".into()));
        };
        let shown = match byte {
            b'\'' => "\\'".to_owned(),
            b'"' => "\"".to_owned(),
            b'\\' => "\\\\".to_owned(),
            b'\n' => "\\n".to_owned(),
            b'\r' => "\\r".to_owned(),
            b'\t' => "\\t".to_owned(),
            7 => "\\a".to_owned(),
            8 => "\\b".to_owned(),
            11 => "\\v".to_owned(),
            12 => "\\f".to_owned(),
            32..=126 => char::from(byte).to_string(),
            0..=31 | 127 => format!("\\x{byte:02x}"),
            128..=160 | 173 => format!("\\u{byte:04x}"),
            _ => char::from(byte).to_string(),
        };
        Err(Syntax(format!("invalid character '{shown}' {context}")))
    }

    /// Nothing but white space may follow.
    pub(super) fn end(&mut self) -> Result<()> {
        self.peek();
        if self.at == self.bytes.len() { Ok(()) } else { self.unexpected("after top-level value") }
    }

    pub(super) fn deeper(&self, depth: usize) -> Result<usize> {
        if depth < MAX_DEPTH { Ok(depth + 1) } else { Err(Syntax("exceeded max depth".into())) }
    }

    /// After `{` or a value: the next key, with its colon consumed.
    pub(super) fn key(&mut self, first: bool) -> Result<Step<Cow<'t, str>>> {
        if first {
            self.at += 1;
            if self.peek() == b'}' {
                self.at += 1;
                return Ok(Step::End);
            }
        } else {
            match self.peek() {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Ok(Step::End);
                }
                _ => return self.unexpected("after object key:value pair"),
            }
            self.peek();
        }
        if self.bytes.get(self.at) != Some(&b'"') {
            return self.unexpected("looking for beginning of object key string");
        }
        let key = self.string()?;
        if self.peek() != b':' {
            return self.unexpected("after object key");
        }
        self.at += 1;
        Ok(Step::Item(key))
    }

    /// After `[` or a value: whether another element follows.
    pub(super) fn element(&mut self, first: bool) -> Result<Step<()>> {
        if first {
            self.at += 1;
            if self.peek() == b']' {
                self.at += 1;
                return Ok(Step::End);
            }
            return Ok(Step::Item(()));
        }
        match self.peek() {
            b',' => {
                self.at += 1;
                Ok(Step::Item(()))
            }
            b']' => {
                self.at += 1;
                Ok(Step::End)
            }
            _ => self.unexpected("after array element"),
        }
    }

    /// A string; the opening quote is next.
    pub(super) fn string(&mut self) -> Result<Cow<'t, str>> {
        self.at += 1;
        let start = self.at;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    let plain = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(Cow::Borrowed(plain));
                }
                Some(b'\\') => return self.escaped(start).map(Cow::Owned),
                Some(0..=31) | None => return self.unexpected("in string literal"),
                Some(_) => self.at += 1,
            }
        }
    }

    /// The rest of a string that has an escape at the present place.
    fn escaped(&mut self, start: usize) -> Result<String> {
        let mut out = self.text[start..self.at].to_owned();
        loop {
            let plain = self.at;
            while let Some(32..=33 | 35..=91 | 93..) = self.bytes.get(self.at) {
                self.at += 1;
            }
            out.push_str(&self.text[plain..self.at]);
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => self.at += 1,
                _ => return self.unexpected("in string literal"),
            }
            let c = match self.bytes.get(self.at) {
                Some(b'b') => '\u{8}',
                Some(b'f') => '\u{c}',
                Some(b'n') => '\n',
                Some(b'r') => '\r',
                Some(b't') => '\t',
                Some(&plain @ (b'"' | b'\\' | b'/')) => char::from(plain),
                Some(b'u') => {
                    self.at += 1;
                    out.push(self.unicode()?);
                    continue;
                }
                _ => return self.unexpected("in string escape code"),
            };
            out.push(c);
            self.at += 1;
        }
    }

    fn hex(&mut self) -> Result<u32> {
        let mut code = 0;
        for _ in 0..4 {
            let Some(digit) = self.bytes.get(self.at).and_then(|b| char::from(*b).to_digit(16)) else {
                return self.unexpected("in \\u hexadecimal character escape");
            };
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }

    /// The character after `\u`; half of a surrogate pair alone is U+FFFD.
    fn unicode(&mut self) -> Result<char> {
        let code = self.hex()?;
        if (0xd800..0xdc00).contains(&code) && self.bytes[self.at..].starts_with(b"\\u") {
            let back = self.at;
            self.at += 2;
            let low = self.hex()?;
            if (0xdc00..0xe000).contains(&low) {
                let pair = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                return Ok(char::from_u32(pair).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = back;
        }
        Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn digits(&mut self, context: &str) -> Result<()> {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == start { self.unexpected(context) } else { Ok(()) }
    }

    /// A number as it is written; a digit or a minus sign is next.
    pub(super) fn number(&mut self) -> Result<&'t str> {
        let start = self.at;
        if self.bytes.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        if self.bytes.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits("in numeric literal")?;
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(&self.text[start..self.at])
    }

    /// `true`, `false` or `null`, whose first letter is next.
    pub(super) fn literal(&mut self, word: &'static str) -> Result<()> {
        for expected in word.bytes() {
            if self.bytes.get(self.at) != Some(&expected) {
                return self.unexpected(&format!("in literal {word} (expecting '{}')", char::from(expected)));
            }
            self.at += 1;
        }
        Ok(())
    }

    pub(super) fn no_value<T>(&self) -> Result<T> {
        self.unexpected("looking for beginning of value")
    }

    /// Steps over a value of any kind; what it is written as.
    pub(super) fn skip(&mut self, depth: usize) -> Result<&'t str> {
        let first = self.peek();
        let start = self.at;
        match first {
            b'{' => {
                let depth = self.deeper(depth)?;
                let mut first = true;
                while let Step::Item(_) = self.key(first)? {
                    self.skip(depth)?;
                    first = false;
                }
            }
            b'[' => {
                let depth = self.deeper(depth)?;
                let mut first = true;
                while let Step::Item(()) = self.element(first)? {
                    self.skip(depth)?;
                    first = false;
                }
            }
            b'"' => drop(self.string()?),
            b'-' | b'0'..=b'9' => drop(self.number()?),
            b't' => self.literal("true")?,
            b'f' => self.literal("false")?,
            b'n' => self.literal("null")?,
            _ => return self.no_value(),
        }
        Ok(&self.text[start..self.at])
    }

    /// A value of any kind.
    pub(super) fn untyped(&mut self, depth: usize) -> Result<Value> {
        Ok(match self.peek() {
            b'{' => {
                let depth = self.deeper(depth)?;
                let mut map = Map::new();
                let mut first = true;
                while let Step::Item(key) = self.key(first)? {
                    let value = self.untyped(depth)?;
                    self.repeated |= map.insert(key.into_owned(), value).is_some();
                    first = false;
                }
                Value::Object(map)
            }
            b'[' => {
                let depth = self.deeper(depth)?;
                let mut list = Vec::new();
                while let Step::Item(()) = self.element(list.is_empty())? {
                    list.push(self.untyped(depth)?);
                }
                Value::Array(list)
            }
            b'"' => Value::String(self.string()?.into_owned()),
            b'-' | b'0'..=b'9' => {
                let number = self.number()?;
                match number_of(number) {
                    Some(number) => Value::Number(number),
                    None => {
                        return Err(Syntax(format!(
                            "json: cannot unmarshal number {number} into Go value of type float64"
                        )));
                    }
                }
            }
            b't' => {
                self.literal("true")?;
                Value::Bool(true)
            }
            b'f' => {
                self.literal("false")?;
                Value::Bool(false)
            }
            b'n' => {
                self.literal("null")?;
                Value::Null
            }
            _ => return self.no_value(),
        })
    }
}

impl Parser<'_> {
    /// Steps over a value (which is JSON and not too deep) at `path`, and reports the keys that its objects have twice.
    fn duplicates(&mut self, path: &mut String, findings: &mut Vec<String>) -> Result<()> {
        let end = path.len();
        match self.peek() {
            b'{' => {
                let mut seen = HashSet::new();
                let mut first = true;
                while let Step::Item(key) = self.key(first)? {
                    first = false;
                    if end > 0 {
                        path.push('.');
                    }
                    path.push_str(&key);
                    if !seen.insert(key) {
                        let finding = format!("duplicate field \"{path}\"");
                        if !findings.contains(&finding) {
                            findings.push(finding);
                        }
                    }
                    self.duplicates(path, findings)?;
                    path.truncate(end);
                }
            }
            b'[' => {
                let mut index = 0;
                while let Step::Item(()) = self.element(index == 0)? {
                    path.push_str(&format!("[{index}]"));
                    self.duplicates(path, findings)?;
                    path.truncate(end);
                    index += 1;
                }
            }
            _ => drop(self.skip(0)?),
        }
        Ok(())
    }
}

/// A number, as an integer where it is one; none beyond a float64.
pub(super) fn number_of(text: &str) -> Option<Number> {
    if let Ok(whole) = text.parse::<i64>() {
        return Some(whole.into());
    }
    let float = text.parse::<f64>().ok().filter(|float| float.is_finite())?;
    // A float64 without a fraction is printed without one.
    if float.fract() == 0.0 && float.abs() < 1e15 { Some((float as i64).into()) } else { Number::from_f64(float) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn errors_are_gos() {
        for (text, error) in [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("{bad", "invalid character 'b' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 2}", "invalid character '2' after object key:value pair"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("[1 2]", "invalid character '2' after array element"),
            ("not json", "invalid character 'o' in literal null (expecting 'u')"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            ("\"\\u12g4\"", "invalid character 'g' in \\u hexadecimal character escape"),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1ex", "invalid character 'x' in exponent of numeric literal"),
            ("\"a\"\"", "invalid character '\"' after top-level value"),
            ("'a'", "invalid character '\\'' looking for beginning of value"),
        ] {
            assert_eq!(decode_untyped(text.as_bytes()), Err(Syntax(error.to_owned())), "{text}");
        }
        assert_eq!(decode_untyped("[".repeat(100_000).as_bytes()), Err(Syntax("exceeded max depth".into())));
    }

    #[test]
    fn keys_that_are_there_twice_are_told() {
        let text = br#"{"a": 1, "b": [{"c": 1, "d": {}, "c": 2, "c": 3}], "a": {"e": 1}}"#;
        let (value, findings) = decode_untyped_strict(text).expect("JSON");
        assert_eq!(value, serde_json::json!({"a": {"e": 1}, "b": [{"c": 3, "d": {}}]}));
        assert_eq!(findings, ["duplicate field \"b[0].c\"", "duplicate field \"a\""]);
    }

    proptest! {
        #[test]
        fn texts_are_read_as_serde_reads_them(text in "[\\[\\]{}\":,0-9a-fnrtu.e\\\\ -]{0,24}") {
            let ours = decode_untyped(text.as_bytes());
            // serde_json refuses lone surrogates, which Go replaces.
            if let Ok(theirs) = serde_json::from_str::<Value>(&text) {
                let whole = |value: Value| decode_untyped(value.to_string().as_bytes());
                prop_assert_eq!(ours, whole(theirs));
            } else if !text.contains("\\u") {
                prop_assert!(ours.is_err());
            }
        }
    }
}
