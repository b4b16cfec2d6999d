//! The forms that names, labels, ports, addresses and ranges must have, with upstream's words for what is wrong.
//!
//! Checks of a text give the messages; checks of a field add the errors. None of them is a regular expression at run
//! time: these run for every label of every write.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde_json::Value;

use crate::field::{Errors, Path, Shown, go_quote};

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";

/// A check of a text: what is wrong with it, or nothing.
pub type Check = fn(&str) -> Vec<String>;

/// One `Invalid` error for each message.
pub fn invalid_each(errors: &mut Errors, path: &Path<'_>, value: impl Shown + Copy, messages: Vec<String>) {
    for message in messages {
        errors.invalid(path, value, message);
    }
}

fn regex_message(what: &str, regex: &str, examples: &[&str]) -> String {
    let mut text = format!("{what} (e.g. ");
    for (i, example) in examples.iter().enumerate() {
        if i > 0 {
            text.push_str(" or ");
        }
        text.push_str(&format!("'{example}', "));
    }
    text.push_str(&format!("regex used for validation is '{regex}')"));
    text
}

fn too_long(text: &str, max: usize) -> Vec<String> {
    if text.len() > max { vec![format!("must be no more than {max} characters")] } else { Vec::new() }
}

fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// Letters and digits at both ends, and `inner` beside them between.
fn framed(text: &str, edge: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => edge(*first) && edge(*last) && bytes.iter().all(|b| edge(*b) || inner(*b)),
        _ => false,
    }
}

fn is_label(text: &str) -> bool {
    framed(text, lower_alnum, |b| b == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// RFC 1123 subdomain.
pub fn dns_subdomain(text: &str) -> Vec<String> {
    let mut messages = too_long(text, 253);
    if !is_subdomain(text) {
        messages.push(regex_message(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character",
            SUBDOMAIN,
            &["example.com"],
        ));
    }
    messages
}

/// The same with underscores, as in the names of DNS records.
pub fn dns_subdomain_with_underscore(text: &str) -> Vec<String> {
    let label = |label: &str| {
        let rest = label.strip_prefix('_').unwrap_or(label);
        framed(rest, lower_alnum, |b| matches!(b, b'-' | b'_'))
    };
    let mut messages = too_long(text, 253);
    if !text.split('.').all(label) {
        messages.push(regex_message(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and \
             must start and end with an alphanumeric character",
            "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    messages
}

/// RFC 1123 label.
pub fn dns_label(text: &str) -> Vec<String> {
    let mut messages = too_long(text, 63);
    if !is_label(text) {
        messages.push(if is_subdomain(text) {
            "must not contain dots".to_owned()
        } else {
            regex_message(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                 and end with an alphanumeric character",
                LABEL,
                &["my-name", "123-abc"],
            )
        });
    }
    messages
}

/// RFC 1035 label.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut messages = too_long(text, 63);
    if !is_label(text) || text.as_bytes()[0].is_ascii_digit() {
        messages.push(regex_message(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    messages
}

/// The reason of a condition.
pub fn condition_reason(text: &str) -> Vec<String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    let fits = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(|b| word(*b))
        && bytes.iter().all(|b| word(*b) || matches!(b, b',' | b':'));
    if fits {
        return Vec::new();
    }
    vec![regex_message(
        "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric \
         characters or '_,:', and must end with an alphanumeric character or '_'",
        "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?",
        &["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"],
    )]
}

/// A name as C has them.
pub fn c_identifier(text: &str) -> Vec<String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if text.bytes().all(word) && text.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic()) {
        return Vec::new();
    }
    vec![regex_message(
        "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric \
         characters or '_'",
        "[A-Za-z_][A-Za-z0-9_]*",
        &["my_name", "MY_NAME", "MyName"],
    )]
}

pub fn wildcard_dns_subdomain(text: &str) -> Vec<String> {
    let mut messages = too_long(text, 253);
    if !text.strip_prefix("*.").is_some_and(is_subdomain) {
        messages.push(regex_message(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist \
             of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            "\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
            &["*.example.com"],
        ));
    }
    messages
}

fn is_label_key_name(text: &str) -> bool {
    framed(text, |b| b.is_ascii_alphanumeric(), |b| matches!(b, b'-' | b'_' | b'.'))
}

/// A label key: a name, optionally after a DNS prefix and a slash.
pub fn qualified_name(text: &str) -> Vec<String> {
    let what = |prefix: &str| {
        let rule = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                    alphanumeric character";
        let regex = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
        regex_message(&format!("{prefix} {rule}"), regex, &["MyName", "my.name", "123-abc"])
    };
    let mut messages = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            let key = what("a valid label key");
            return vec![format!("{key} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')")];
        }
        Some(("", name)) => {
            messages.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            messages.extend(dns_subdomain(prefix).into_iter().map(|message| format!("prefix part {message}")));
            name
        }
    };
    if name.is_empty() {
        messages.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        messages.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_label_key_name(name) {
        messages.push(what("name part"));
    }
    messages
}

pub fn label_value(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > 63 {
        messages.push("must be no more than 63 bytes".to_owned());
    }
    if !text.is_empty() && !is_label_key_name(text) {
        messages.push(regex_message(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    messages
}

pub fn percent(text: &str) -> Vec<String> {
    let fits = text.strip_suffix('%').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    if fits {
        return Vec::new();
    }
    let what = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![regex_message(what, "[0-9]+%", &["1%", "93%"])]
}

/// What may stand as one segment of a path.
pub fn path_segment(text: &str) -> Vec<String> {
    if matches!(text, "." | "..") {
        return vec![format!("may not be '{text}'")];
    }
    path_segment_prefix(text)
}

/// The same for the beginning of a segment.
pub fn path_segment_prefix(text: &str) -> Vec<String> {
    let found = ["/", "%"].into_iter().filter(|part| text.contains(part));
    found.map(|part| format!("may not contain '{part}'")).collect()
}

fn directory_messages(text: &str) -> Option<String> {
    match text {
        "." | ".." => Some(format!("must not be '{text}'")),
        _ if text.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

pub fn config_map_key(text: &str) -> Vec<String> {
    let mut messages = too_long(text, 253);
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if text.is_empty() || !text.bytes().all(fits) {
        messages.push(regex_message(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    messages.extend(directory_messages(text));
    messages
}

/// The name of a port (IANA service name).
pub fn port_name(text: &str) -> Vec<String> {
    let mut messages = too_long(text, 15);
    let mut require = |holds: bool, message: &str| {
        if !holds {
            messages.push(message.to_owned());
        }
    };
    require(
        !text.is_empty() && text.bytes().all(|b| lower_alnum(b) || b == b'-'),
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    );
    require(text.bytes().any(|b| b.is_ascii_lowercase()), "must contain at least one letter (a-z)");
    require(!text.contains("--"), "must not contain consecutive hyphens");
    require(!text.starts_with('-') && !text.ends_with('-'), "must not begin or end with a hyphen");
    messages
}

pub fn port_number(errors: &mut Errors, path: &Path<'_>, number: i64) {
    if !(1..=65535).contains(&number) {
        errors.invalid(path, number, "must be between 1 and 65535, inclusive");
    }
}

/// The beginning of a generated name as its checks see it: a dash at the end is fine there.
pub fn masked(prefix: &str) -> String {
    match prefix.strip_suffix('-').and_then(|rest| rest.char_indices().next_back().map(|(at, _)| &rest[..at])) {
        Some(rest) => format!("{rest}a"),
        None => prefix.to_owned(),
    }
}

/// `<domain>/<path>`, as in an ingress controller's name.
pub fn domain_prefixed_path(errors: &mut Errors, path: &Path<'_>, text: &str) {
    let Some((host, rest)) = text.split_once('/').filter(|(host, rest)| !host.is_empty() && !rest.is_empty()) else {
        return errors.invalid(path, text, "must be a domain-prefixed path (such as \"acme.io/foo\")");
    };
    invalid_each(errors, path, host, dns_subdomain(host));
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
    if !rest.bytes().all(fits) {
        let regex = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+";
        errors.invalid(path, rest, format!("Invalid path (regex used for validation is '{regex}')"));
    }
}

/// A domain name of at least two labels.
pub fn fully_qualified_domain_name(errors: &mut Errors, path: &Path<'_>, text: &str) {
    if text.is_empty() {
        return errors.required(path, "");
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let messages = dns_subdomain(name);
    if !messages.is_empty() {
        return errors.invalid(path, name, messages.join(","));
    }
    if !name.contains('.') {
        return errors.invalid(path, name, "should be a domain with at least two segments separated by dots");
    }
    if let Some(label) = name.split('.').find(|label| label.len() > 63) {
        errors.invalid(path, label, dns_label(label).join(","));
    }
}

/// An address, also in the forms that only older versions accepted (leading zeros).
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() != 4 || parts.iter().any(|part| part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    let mut octets = [0u8; 4];
    for (octet, part) in octets.iter_mut().zip(parts) {
        let digits = part.trim_start_matches('0');
        *octet = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    }
    Some(IpAddr::V4(Ipv4Addr::from(octets)))
}

fn mapped(ip: &IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped(),
        IpAddr::V4(_) => None,
    }
}

fn strict_ip(errors: &mut Errors, path: &Path<'_>, text: &str) -> Option<IpAddr> {
    let Some(ip) = parse_ip(text) else {
        errors.invalid(path, text, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        return None;
    };
    if text.parse::<IpAddr>().is_err() {
        errors.invalid(path, text, "must not have leading 0s");
        return None;
    }
    if mapped(&ip).is_some() {
        errors.invalid(path, text, "must not be an IPv4-mapped IPv6 address");
        return None;
    }
    Some(ip)
}

/// A valid address, in whatever spelling.
pub fn ip(errors: &mut Errors, path: &Path<'_>, text: &str) {
    strict_ip(errors, path, text);
}

/// A valid address in its one canonical spelling.
pub fn canonical_ip(errors: &mut Errors, path: &Path<'_>, text: &str) {
    if let Some(ip) = strict_ip(errors, path, text)
        && ip.to_string() != text
    {
        errors.invalid(path, text, format!("must be in canonical form ({})", go_quote(&ip.to_string())));
    }
}

pub fn parse_cidr(text: &str) -> Option<IpNet> {
    let (ip, length) = text.split_once('/')?;
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    IpNet::new(parse_ip(ip)?, length.parse().ok()?).ok()
}

fn strict_cidr(errors: &mut Errors, path: &Path<'_>, text: &str) -> Option<IpNet> {
    let Some(net) = parse_cidr(text) else {
        errors.invalid(path, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
        return None;
    };
    let zeros = text.rsplit_once('/').is_some_and(|(_, length)| length.len() > 1 && length.starts_with('0'));
    let wrong = if zeros || text.parse::<IpNet>().is_err() {
        "must not have leading 0s in IP or prefix length"
    } else if mapped(&net.addr()).is_some() {
        "must not have an IPv4-mapped IPv6 address"
    } else if net.addr() != net.network() {
        "must not have bits set beyond the prefix length"
    } else {
        return Some(net);
    };
    errors.invalid(path, text, wrong);
    None
}

/// A valid range, in whatever spelling.
pub fn cidr(errors: &mut Errors, path: &Path<'_>, text: &str) {
    strict_cidr(errors, path, text);
}

/// A valid range in its one canonical spelling.
pub fn canonical_cidr(errors: &mut Errors, path: &Path<'_>, text: &str) {
    if let Some(net) = strict_cidr(errors, path, text)
        && net.to_string() != text
    {
        errors.invalid(path, text, format!("must be in canonical form ({})", go_quote(&net.to_string())));
    }
}

/// A valid address or range in a spelling that is not the usual one.
pub fn spelling_warning(path: &str, text: &str) -> Option<String> {
    let (what, canonical) = match parse_cidr(text) {
        Some(net) => ("CIDR value", net.to_string()),
        None => ("address", parse_ip(text)?.to_string()),
    };
    let differs = text.contains(':') && text != canonical;
    let (text, canonical) = (go_quote(text), go_quote(&canonical));
    differs.then(|| format!("{path}: IPv6 {what} {text} should be in RFC 5952 canonical format ({canonical})"))
}

pub fn spelling_warnings(path: &str, items: &[Value]) -> Vec<String> {
    let items = items.iter().enumerate();
    items.filter_map(|(i, item)| spelling_warning(&format!("{path}[{i}]"), item.as_str()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(check: fn(&mut Errors, &Path<'_>, &str), text: &str) -> Vec<String> {
        let mut errors = Errors::default();
        check(&mut errors, &Path::new("f"), text);
        errors.0.into_iter().map(|e| e.detail).collect()
    }

    #[test]
    fn addresses_are_strict() {
        assert!(said(ip, "10.0.0.1").is_empty());
        assert!(said(ip, "2001:0db8::1").is_empty());
        assert_eq!(said(canonical_ip, "2001:0db8::1"), ["must be in canonical form (\"2001:db8::1\")"]);
        assert_eq!(said(ip, "10.0.0.01"), ["must not have leading 0s"]);
        assert_eq!(said(ip, "::ffff:10.0.0.5"), ["must not be an IPv4-mapped IPv6 address"]);
        assert_eq!(said(ip, "10.0.0"), ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]);
    }

    #[test]
    fn ranges_are_strict() {
        assert!(said(cidr, "10.0.0.0/8").is_empty());
        assert_eq!(said(cidr, "10.0.0.1/8"), ["must not have bits set beyond the prefix length"]);
        assert_eq!(said(cidr, "10.0.0.0/08"), ["must not have leading 0s in IP or prefix length"]);
        assert_eq!(said(cidr, "10.0.0.0/33").len(), 1);
        assert_eq!(said(canonical_cidr, "FD00::/8"), ["must be in canonical form (\"fd00::/8\")"]);
    }

    #[test]
    fn odd_spellings_are_warned_of() {
        assert_eq!(
            spelling_warning("f", "FD00::1").as_deref(),
            Some("f: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")")
        );
        assert!(spelling_warning("f", "fd00:0::/16").is_some_and(|w| w.contains("IPv6 CIDR value")));
        assert_eq!(spelling_warning("f", "10.0.0.1"), None);
    }

    #[test]
    fn names_have_upstreams_messages() {
        assert_eq!(dns_label("a.b"), ["must not contain dots"]);
        assert!(dns1035_label("1a")[0].starts_with("a DNS-1035 label"));
        assert_eq!(qualified_name("").len(), 2);
        assert!(qualified_name("Bad_/x")[0].starts_with("prefix part a lowercase RFC 1123"));
        assert_eq!(config_map_key("..a"), ["must not start with '..'"]);
        assert_eq!(port_name("-").len(), 2);
        assert_eq!(path_segment("a/b%"), ["may not contain '/'", "may not contain '%'"]);
    }

    proptest! {
        #[test]
        fn hand_written_checks_are_the_regular_expressions(text in "[a-zA-Z0-9._/-]{0,12}") {
            let matches = |regex: &str| regex::Regex::new(&format!("^{regex}$")).unwrap().is_match(&text);
            prop_assert_eq!(dns_subdomain(&text).is_empty(), matches(SUBDOMAIN));
            prop_assert_eq!(dns_label(&text).is_empty(), matches(LABEL));
            prop_assert_eq!(dns1035_label(&text).is_empty(), matches("[a-z]([-a-z0-9]*[a-z0-9])?"));
            prop_assert_eq!(label_value(&text).is_empty(), matches("(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"));
        }
    }
}
