//! Label and field selectors: `app in (a, b), !legacy, tier != x` and `spec.nodeName=n1,status.phase!=Failed`.
//!
//! The grammar and the words of its errors are those of apimachinery's `labels.Parse` and `fields.ParseSelector`.

use std::fmt;

use crate::field::go_quote;
use crate::kinds::names;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    Exists,
    DoesNotExist,
    In(Vec<String>),
    NotIn(Vec<String>),
    GreaterThan(i64),
    LessThan(i64),
}

/// All requirements must hold; none selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector(pub Vec<(String, Operator)>);

impl LabelSelector {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn parse(text: &str) -> Result<LabelSelector, String> {
        Parser { tokens: tokens(text), at: 0 }.selector()
    }

    pub fn matches<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        self.0.iter().all(|(key, operator)| {
            let value = label(key);
            let number = || value.and_then(|value| value.parse::<i64>().ok());
            match operator {
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
                Operator::In(values) => value.is_some_and(|value| values.iter().any(|v| v == value)),
                Operator::NotIn(values) => value.is_none_or(|value| !values.iter().any(|v| v == value)),
                Operator::GreaterThan(than) => number().is_some_and(|number| number > *than),
                Operator::LessThan(than) => number().is_some_and(|number| number < *than),
            }
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `( ) , ! = == != < >`
    Sign(&'static str),
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(word) => f.write_str(word),
            Token::Sign(sign) => f.write_str(sign),
            Token::End => Ok(()),
        }
    }
}

const SIGNS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", "<", ">"];

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        if rest.is_empty() {
            tokens.push(Token::End);
            return tokens;
        }
        if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            tokens.push(Token::Sign(sign));
            rest = &rest[sign.len()..];
            continue;
        }
        let end = rest.find([' ', '\t', '\r', '\n', '=', '!', '(', ')', ',', '<', '>']).unwrap_or(rest.len());
        tokens.push(Token::Word(rest[..end].to_owned()));
        rest = &rest[end..];
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn selector(mut self) -> Result<LabelSelector, String> {
        let mut selector = LabelSelector::default();
        loop {
            match self.peek() {
                Token::Word(_) | Token::Sign("!") => {
                    let requirement = self.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?;
                    selector.0.push(requirement);
                    match self.next() {
                        Token::End => break,
                        Token::Sign(",") => {
                            if !matches!(self.peek(), Token::Word(_) | Token::Sign("!")) {
                                return Err(format!("found '{}', expected: identifier after ','", self.peek()));
                            }
                        }
                        token => return Err(format!("found '{token}', expected: ',' or 'end of string'")),
                    }
                }
                Token::End => break,
                token => return Err(format!("found '{token}', expected: !, identifier, or 'end of string'")),
            }
        }
        // As upstream's, which sorts them; errors of later requirements don't depend on it.
        selector.0.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(selector)
    }

    fn requirement(&mut self) -> Result<(String, Operator), String> {
        let negated = *self.peek() == Token::Sign("!");
        if negated {
            self.at += 1;
        }
        let key = match self.next() {
            Token::Word(word) => word,
            token => return Err(format!("found '{token}', expected: identifier")),
        };
        let messages = names::qualified_name(&key);
        if !messages.is_empty() {
            return Err(format!("<nil>: Invalid value: {}: {}", go_quote(&key), messages.join("; ")));
        }
        if negated {
            return Ok((key, Operator::DoesNotExist));
        }
        let operator = match self.peek().clone() {
            Token::End | Token::Sign(",") => return Ok((key, Operator::Exists)),
            Token::Sign(sign @ ("=" | "==" | "!=" | "<" | ">")) => {
                self.at += 1;
                sign
            }
            Token::Word(word) if word == "in" => {
                self.at += 1;
                "in"
            }
            Token::Word(word) if word == "notin" => {
                self.at += 1;
                "notin"
            }
            token => return Err(format!("found '{token}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        let values = match operator {
            "in" | "notin" => self.values()?,
            _ => vec![self.exact_value()?],
        };
        for (index, value) in values.iter().enumerate() {
            if matches!(operator, "<" | ">") {
                continue;
            }
            let messages = names::label_value(value);
            if !messages.is_empty() {
                let value = go_quote(value);
                return Err(format!("values[{index}][{key}]: Invalid value: {value}: {}", messages.join("; ")));
            }
        }
        let number = |values: &[String]| {
            let text = values.first().map(String::as_str).unwrap_or_default();
            text.parse::<i64>().map_err(|_| {
                let text = go_quote(text);
                format!("values[0]: Invalid value: {text}: for 'Gt', 'Lt' operators, the value must be an integer")
            })
        };
        let operator = match operator {
            "in" | "=" | "==" => Operator::In(values),
            "<" => Operator::LessThan(number(&values)?),
            ">" => Operator::GreaterThan(number(&values)?),
            _ => Operator::NotIn(values),
        };
        Ok((key, operator))
    }

    /// An absent value is the empty one.
    fn exact_value(&mut self) -> Result<String, String> {
        match self.peek().clone() {
            Token::End | Token::Sign(",") => Ok(String::new()),
            Token::Word(word) => {
                self.at += 1;
                Ok(word)
            }
            token => Err(format!("found '{token}', expected: identifier")),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.next() {
            Token::Sign("(") => {}
            token => return Err(format!("found '{token}' expected: '('")),
        }
        let mut values = Vec::new();
        loop {
            match self.next() {
                Token::Word(word) => {
                    values.push(word);
                    match self.next() {
                        Token::Sign(",") => {
                            if *self.peek() == Token::Sign(")") {
                                values.push(String::new());
                            }
                        }
                        Token::Sign(")") => break,
                        token => return Err(format!("found '{token}', expected: ',' or ')'")),
                    }
                }
                Token::Sign(",") => values.push(String::new()),
                Token::Sign(")") => {
                    if values.is_empty() {
                        values.push(String::new());
                    }
                    break;
                }
                token => return Err(format!("found '{token}', expected: ',', or identifier")),
            }
        }
        values.sort();
        values.dedup();
        Ok(values)
    }
}

/// `field=value` or `field!=value`, all of which must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector(pub Vec<FieldRequirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRequirement {
    pub field: String,
    pub value: String,
    pub equal: bool,
}

impl FieldSelector {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn parse(text: &str) -> Result<FieldSelector, String> {
        let mut selector = FieldSelector::default();
        for term in split_terms(text) {
            if term.is_empty() {
                continue;
            }
            let Some((field, equal, value)) = split_term(term) else {
                return Err(format!("invalid selector: '{text}'; can't understand '{term}'"));
            };
            selector.0.push(FieldRequirement { field: field.to_owned(), value: unescape(value)?, equal });
        }
        Ok(selector)
    }

    /// The value that `field` must have, where the selector says so.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|r| r.equal && r.field == field).map(|r| r.value.as_str())
    }
}

/// Commas part terms unless a backslash precedes them.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (at, _) in term.char_indices() {
        let rest = &term[at..];
        for (sign, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = rest.strip_prefix(sign) {
                return Some((&term[..at], equal, value));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return Err(format!("invalid field selector: invalid escape sequence: \\{c}")),
                None => return Err("invalid field selector: invalid escape sequence: \\".into()),
            },
            ',' | '=' => {
                return Err(format!("invalid field selector: unescaped character in field selector value: {c}"));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let selector = LabelSelector::parse(selector).expect(selector);
        selector.matches(|key| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v))
    }

    #[test]
    fn labels_are_selected() {
        let labels = [("app", "a"), ("tier", "3")];
        for (selector, expected) in [
            ("", true),
            ("app=a", true),
            ("app==a,tier", true),
            ("app!=a", false),
            ("other!=a", true),
            ("!app", false),
            ("!other", true),
            ("app in (a, b)", true),
            ("app notin (a,b)", false),
            ("other notin (a)", true),
            ("tier>2", true),
            ("tier<3", false),
            ("app=", false),
        ] {
            assert_eq!(matches(selector, &labels), expected, "{selector}");
        }
    }

    #[test]
    fn mistakes_are_told_as_upstream_does() {
        for (selector, expected) in [
            ("app===a", "unable to parse requirement: found '=', expected: identifier"),
            ("=a", "found '=', expected: !, identifier, or 'end of string'"),
            ("app=a,", "found '', expected: identifier after ','"),
            ("app nope (a)", "unable to parse requirement: found 'nope', expected: in, notin, =, ==, !=, gt, lt"),
            ("app in a", "unable to parse requirement: found 'a' expected: '('"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ] {
            assert_eq!(LabelSelector::parse(selector), Err(expected.to_owned()), "{selector}");
        }
    }

    #[test]
    fn fields_are_selected() {
        let selector = FieldSelector::parse(r"spec.nodeName=n1,status.phase!=Failed,x==a\,b").expect("well-formed");
        let found: Vec<_> = selector.0.iter().map(|r| (&*r.field, r.equal, &*r.value)).collect();
        assert_eq!(found, [("spec.nodeName", true, "n1"), ("status.phase", false, "Failed"), ("x", true, "a,b")]);
        assert!(FieldSelector::parse("nothing").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = LabelSelector::parse(&text);
            let _ = FieldSelector::parse(&text);
        }
    }
}
