//! Bootstrap tokens (`--enable-bootstrap-token-auth`): with `id.secret`, which a secret in `kube-system` bears out, a
//! machine asks for its first certificate.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kontiki_storage::View;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::User;
use crate::object::Fields;
use crate::time::Time;

/// In which every bootstrap token is; those that a token names besides begin like this.
const GROUP: &str = "system:bootstrappers";

/// The two parts of what looks like a bootstrap token.
fn split(token: &str) -> Option<(&str, &str)> {
    let is = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    token.split_once('.').filter(|(id, secret)| is(id, 6) && is(secret, 16))
}

/// Whom a bootstrap token is of. None: it is no such token, or no good one; which, a client isn't told.
pub fn verify(view: &View, token: &str) -> Option<Arc<User>> {
    let (id, secret) = split(token)?;
    let record = view.get(&format!("secrets/kube-system/bootstrap-token-{id}"))?;
    let found: Value = serde_json::from_slice(&record.value).ok()?;
    user(&found, id, secret, &Time::now()).map(Arc::new)
}

fn user(found: &Value, id: &str, secret: &str, now: &Time) -> Option<User> {
    let data = |key: &str| -> Option<String> {
        String::from_utf8(BASE64_STANDARD.decode(found.at(&["data", key])?.as_str()?).ok()?).ok()
    };
    let is = |key: &str, expected: &str| data(key).is_some_and(|value| value == expected);
    // Digests, so that the time that it takes says nothing about the secret.
    let same = data("token-secret").is_some_and(|kept| Sha256::digest(kept) == Sha256::digest(secret));
    let expired = match data("expiration") {
        None => found.at(&["data", "expiration"]).is_some(),
        Some(text) if text.is_empty() => false,
        Some(text) => crate::time::parse(&text).map_or(true, |end| end.unix() <= now.unix()),
    };
    let good = found.text_at(&["type"]) == "bootstrap.kubernetes.io/token"
        && found.at(&["metadata", "deletionTimestamp"]).is_none()
        && is("token-id", id)
        && same
        && !expired
        && is("usage-bootstrap-authentication", "true");
    if !good {
        return None;
    }
    let mut groups = vec![GROUP.to_owned()];
    let named = data("auth-extra-groups").unwrap_or_default();
    let mut extra: Vec<&str> = if named.is_empty() { Vec::new() } else { named.split(',').collect() };
    extra.sort_unstable();
    extra.dedup();
    for group in extra {
        if !is_group(group) {
            tracing::warn!(group, "bootstrap token {id} names a group that it can't be in");
            return None;
        }
        groups.push(group.to_owned());
    }
    Some(User { name: format!("system:bootstrap:{id}"), groups, ..User::default() }.authenticated())
}

/// `system:bootstrappers:` and at most 256 letters, digits, colons and dashes, of which the last is a letter or digit.
fn is_group(group: &str) -> bool {
    let rest = group.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix(':')).unwrap_or_default();
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    rest.len() <= 256
        && rest.bytes().all(|byte| alphanumeric(byte) || matches!(byte, b':' | b'-'))
        && rest.bytes().last().is_some_and(alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ask(changes: &[(&str, Option<&str>)]) -> Option<Vec<String>> {
        let mut secret = json!({ "type": "bootstrap.kubernetes.io/token", "data": {} });
        let data = [
            ("token-id", Some("abcdef")),
            ("token-secret", Some("0123456789abcdef")),
            ("usage-bootstrap-authentication", Some("true")),
            ("auth-extra-groups", Some("system:bootstrappers:kubeadm:default-node-token")),
        ];
        for (key, value) in data.iter().chain(changes) {
            match value {
                Some(value) => secret["data"][key] = BASE64_STANDARD.encode(value).into(),
                None => drop(secret["data"].as_object_mut().unwrap().remove(*key)),
            }
        }
        user(&secret, "abcdef", "0123456789abcdef", &Time::now()).map(|user| user.groups)
    }

    #[test]
    fn a_token_is_good_as_its_secret_says() {
        let groups =
            ["system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token", "system:authenticated"];
        assert_eq!(ask(&[]).unwrap(), groups);
        assert_eq!(ask(&[("expiration", Some("2999-01-01T00:00:00Z")), ("auth-extra-groups", None)]).unwrap().len(), 2);
        for wrong in [
            ("token-id", Some("abcdeg")),
            ("token-secret", Some("0123456789abcdeg")),
            ("token-secret", None),
            ("usage-bootstrap-authentication", Some("false")),
            ("usage-bootstrap-authentication", None),
            ("expiration", Some("2020-01-01T00:00:00Z")),
            ("expiration", Some("soon")),
            ("auth-extra-groups", Some("system:masters")),
            ("auth-extra-groups", Some("system:bootstrappers:,x")),
        ] {
            assert_eq!(ask(&[wrong]), None, "{wrong:?}");
        }
        assert_eq!(split("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for token in ["abcdef.0123456789abcde", "Abcdef.0123456789abcdef", "abcdef", "abcdef.0123456789abcdef.x"] {
            assert_eq!(split(token), None, "{token}");
        }
    }
}
