//! Image references, as far as the API server reads them: which tag an image is pulled by.

/// The longest name of an image, with its registry.
const MAX_NAME: usize = 255;

/// What a container's `imagePullPolicy` is when it says nothing: images that move are pulled anew.
pub fn pull_policy(image: &str) -> &'static str {
    if tag(image) == Some("latest") { "Always" } else { "IfNotPresent" }
}

/// The tag of a reference (`latest` where it has neither tag nor digest); none where it is malformed or has only a digest.
fn tag(image: &str) -> Option<&str> {
    if image.len() == 64 && image.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f')) {
        return None;
    }
    let (domain, rest) = match image.split_once('/') {
        Some((domain, rest)) if names_a_registry(domain) => (domain, rest),
        _ => ("docker.io", image),
    };
    let (rest, digest) = match rest.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (rest, None),
    };
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    // A bare name stands under `library/`.
    let library = if domain == "docker.io" && !path.contains('/') { "library/".len() } else { 0 };
    let well_formed = is_domain(domain)
        && path.split('/').all(is_component)
        && domain.len() + 1 + library + path.len() <= MAX_NAME
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest);
    match (well_formed, tag, digest) {
        (false, ..) => None,
        (true, None, None) => Some("latest"),
        (true, tag, _) => tag,
    }
}

fn names_a_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inner, port)) => {
            let address = !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
            match port.strip_prefix(':') {
                Some(port) => return address && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()),
                None => return address && port.is_empty(),
            }
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(label) && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Lower-case letters and digits, separated by one `.` or `_`, two `_`, or any number of dashes.
fn is_component(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut rest = text.as_bytes();
    loop {
        let word = rest.iter().take_while(|b| plain(**b)).count();
        if word == 0 {
            return false;
        }
        rest = &rest[word..];
        if rest.is_empty() {
            return true;
        }
        let separator = rest.iter().take_while(|b| !plain(**b)).count();
        let (between, after) = rest.split_at(separator);
        if !matches!(between, b"." | b"_" | b"__") && !between.iter().all(|b| *b == b'-') {
            return false;
        }
        rest = after;
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    bytes.len() <= 128
        && bytes.first().is_some_and(|b| word(*b))
        && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else { return false };
    let word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic()) && word.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(word) && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_images_that_move_are_pulled_always() {
        for image in ["nginx", "nginx:latest", "registry.example:5000/a/b", "localhost/x", "a__b/c-d.e", "[::1]:5000/a"]
        {
            assert_eq!(pull_policy(image), "Always", "{image}");
        }
        let digest = format!("x@sha256:{}", "0".repeat(64));
        for image in ["nginx:1.2", "", "Nginx", "a b", "x:", "a//b", "a___b", &digest, &"a".repeat(64)] {
            assert_eq!(pull_policy(image), "IfNotPresent", "{image}");
        }
    }
}
