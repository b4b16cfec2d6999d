//! Tokens with which replicas join. One says whom to trust and proves that its holder was let in: the hash of the cluster
//! authority's key, as kubeadm's discovery hash, and a secret of which the cluster keeps only a hash, until it expires.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

use kontiki_storage::{Condition, Key, Record, Transaction, Write};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::time::Time;

/// The table of the server's own in which tokens are kept.
const TABLE: &str = "_tokens";

#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Names the token where it is kept.
    id: String,
    secret: String,
    /// Of the cluster authority's public key.
    authority: String,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token {}", self.id)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.id, self.secret, self.authority)
    }
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Token, String> {
        let mut parts = text.trim().split('.').map(str::to_owned);
        let hex = |part: &String, digits: usize| {
            part.len() == digits && part.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
        };
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(id), Some(secret), Some(authority), None)
                if hex(&id, 8) && hex(&secret, 32) && hex(&authority, 64) =>
            {
                Ok(Token { id, secret, authority })
            }
            _ => Err("this is no token; `kontiki token create` prints one".into()),
        }
    }
}

impl Token {
    /// `authority`: PEM, the one that signs first.
    pub fn new(authority: &str) -> Result<Token, String> {
        let (id, secret): ([u8; 4], [u8; 16]) = rand::random();
        Ok(Token { id: hex(&id), secret: hex(&secret), authority: key_hash(&signer(authority)?)? })
    }

    /// The authority that the token was made under, if it is among these certificates (PEM). The others of them say
    /// nothing: whoever sends them may have put them there.
    pub fn authority(&self, certificates: &[u8]) -> Result<Option<CertificateDer<'static>>, String> {
        for der in CertificateDer::pem_slice_iter(certificates) {
            let der = der.map_err(|e| format!("the authority: {e}"))?;
            if key_hash(&der)? == self.authority {
                return Ok(Some(der));
            }
        }
        Ok(None)
    }

    /// Keeps the token for so long; the leader removes it then.
    pub fn keep(&self, lifetime: Duration) -> (Transaction, Time) {
        let expires = Time::from_unix(Time::now().unix().saturating_add_unsigned(lifetime.as_secs()));
        let key = self.key();
        let write = Write::Put {
            key: key.clone(),
            value: self.hash().into_bytes().into(),
            revision_at: None,
            expires_at: u64::try_from(expires.unix()).ok(),
        };
        (Transaction { conditions: vec![Condition::Absent(key)], writes: vec![write] }, expires)
    }

    pub fn key(&self) -> Key {
        format!("{TABLE}/{}", self.id).into()
    }

    /// Whether what is kept under the token's id is this token, in time.
    pub fn is(&self, record: &Record) -> bool {
        let now = u64::try_from(Time::now().unix()).unwrap_or(0);
        record.value == self.hash().as_bytes() && record.expires_at.is_some_and(|at| now < at)
    }

    /// The secret is random and long: nobody finds it from a plain hash.
    fn hash(&self) -> String {
        hex(&Sha256::digest(format!("kontiki token {}", self.secret)))
    }
}

fn signer(authority: &str) -> Result<CertificateDer<'static>, String> {
    CertificateDer::from_pem_slice(authority.as_bytes()).map_err(|e| format!("the authority: {e}"))
}

fn key_hash(certificate: &CertificateDer<'_>) -> Result<String, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| format!("the authority: {e}"))?;
    Ok(hex(&Sha256::digest(parsed.public_key().raw)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::ClusterPki;

    #[test]
    fn a_token_survives_its_text_and_trusts_one_authority() {
        let dir = tempfile::tempdir().unwrap();
        let authority = |name: &str| ClusterPki::create(&dir.path().join(name)).unwrap().authority.certificate;
        let (own, other) = (authority("a"), authority("b"));
        let token = Token::new(&own).unwrap();
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert_eq!(token.authority(other.as_bytes()), Ok(None));
        // Only that one of a bundle, wherever it stands.
        let trusted = token.authority(format!("{other}{own}").as_bytes());
        assert_eq!(trusted, Ok(Some(signer(&own).unwrap())));
        for text in ["", "a.b.c", &format!("{token}.x"), &token.to_string().to_uppercase()] {
            assert!(text.parse::<Token>().is_err(), "{text}");
        }
        assert!(!format!("{token:?}").contains(&token.secret));
        let (Transaction { writes, .. }, _) = token.keep(Duration::from_secs(60));
        assert!(!format!("{writes:?}").contains(&token.secret));
    }
}
