//! Authentication: client certificates, bearer tokens, or else nobody in particular.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use kontiki_storage::Store;
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::service_accounts::ServiceAccounts;
use super::{ANONYMOUS, UNAUTHENTICATED, User, bootstrap_tokens, tokens};
use crate::config::{Authentication, ConfigError};
use crate::metrics::METRICS;
use crate::status::{ApiError, Result};

/// What is known of a connection.
pub struct Peer {
    pub address: SocketAddr,
    /// The client's certificate: whom it names, or that it names nobody.
    certificate: Option<Certificate>,
}

enum Certificate {
    /// Good until then (Unix seconds).
    Good(Arc<User>, i64),
    Bad,
}

pub struct Authenticator {
    anonymous: Option<Arc<User>>,
    /// `--client-ca-file`.
    client_ca_file: Option<PathBuf>,
    trust: ArcSwap<Trust>,
    tokens: tokens::Tokens,
    /// `--enable-bootstrap-token-auth`.
    bootstrap_tokens: bool,
    pub service_accounts: ServiceAccounts,
    /// Tokens of service accounts and bootstrap tokens that were good a moment ago.
    good: Mutex<HashMap<String, (Arc<User>, Instant)>>,
}

/// Whose client certificates are let in.
struct Trust {
    /// The cluster's own authority, PEM.
    authority: String,
    /// The authorities of `--client-ca-file`, PEM.
    others: Option<String>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Trust {
    fn read(authority: &str, file: Option<&Path>) -> std::result::Result<Trust, ConfigError> {
        let mut roots = RootCertStore::empty();
        for der in CertificateDer::pem_slice_iter(authority.as_bytes()).flatten() {
            roots.add_parsable_certificates([der]);
        }
        let others = file.map(|path| add_authorities(&mut roots, path)).transpose()?;
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().map_err(|e| ConfigError {
            flag: "--client-ca-file",
            problem: e.to_string(),
            fix: "give a file with at least one certificate of an authority".into(),
        })?;
        Ok(Trust { authority: authority.into(), others, verifier })
    }
}

/// How long a verified token is not looked at again, as upstream has it.
const GOOD_FOR: Duration = Duration::from_secs(10);
const GOOD: usize = 4096;

impl Authenticator {
    /// `authority` is the cluster's own, PEM; its client certificates are always let in.
    pub fn new(
        config: &Authentication,
        authority: &str,
        service_account_key: &str,
    ) -> std::result::Result<Authenticator, ConfigError> {
        let client_ca_file = config.client_ca_file.clone();
        let trust = ArcSwap::from_pointee(Trust::read(authority, client_ca_file.as_deref())?);
        let anonymous = User { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..User::default() };
        Ok(Authenticator {
            anonymous: config.anonymous.then(|| Arc::new(anonymous)),
            client_ca_file,
            trust,
            tokens: config.token_file.as_deref().map(tokens::read).transpose()?.unwrap_or_default(),
            bootstrap_tokens: config.bootstrap_tokens,
            service_accounts: ServiceAccounts::new(&config.service_accounts, service_account_key)?,
            good: Mutex::default(),
        })
    }

    /// Checks the certificate of a new connection once for all its requests.
    pub fn peer(&self, address: SocketAddr, chain: Option<&[CertificateDer<'_>]>) -> Peer {
        let certificate = chain.and_then(<[_]>::split_first).and_then(|(own, issuers)| {
            match self.trust.load().verifier.verify_client_cert(own, issuers, UnixTime::now()) {
                Ok(_) => named_by(own),
                Err(error) => {
                    tracing::debug!(%address, %error, "client certificate");
                    Some(Certificate::Bad)
                }
            }
        });
        Peer { address, certificate }
    }

    /// What the verification of handshake signatures and the choice of certificates to ask for go by.
    pub fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.trust.load().verifier.clone()
    }

    /// The authorities of `--client-ca-file`, PEM, which API servers behind this one are told to trust too.
    pub fn client_authorities(&self) -> Option<String> {
        self.trust.load().others.clone()
    }

    /// Trusts what the files say now, for new connections. Says whether that is something else.
    pub fn renew(&self, authority: &str) -> std::result::Result<bool, ConfigError> {
        let trust = Trust::read(authority, self.client_ca_file.as_deref())?;
        let current = self.trust.load();
        let changed = (&trust.authority, &trust.others) != (&current.authority, &current.others);
        if changed {
            self.trust.store(Arc::new(trust));
        }
        Ok(changed)
    }

    pub fn authenticate(&self, peer: &Peer, headers: &HeaderMap, store: &Store) -> Result<Arc<User>> {
        if let Some(Certificate::Good(user, until)) = &peer.certificate {
            let left = *until - UnixTime::now().as_secs() as i64;
            if left > 0 {
                METRICS.certificates.observe(left as f64);
                return Ok(user.clone());
            }
        }
        if let Some(token) = bearer_token(headers) {
            return self.bearer(token, store);
        }
        match (&self.anonymous, &peer.certificate) {
            // Whoever shows something that is not good doesn't get in without it.
            (Some(user), None) => Ok(user.clone()),
            _ => Err(ApiError::unauthorized()),
        }
    }

    fn bearer(&self, token: &str, store: &Store) -> Result<Arc<User>> {
        let now = Instant::now();
        if let Some((user, until)) = self.good.lock().get(token)
            && *until > now
        {
            return Ok(user.clone());
        }
        let audiences = &self.service_accounts.audiences;
        let (user, _) = self.token(token, store, audiences).map_err(|error| {
            tracing::debug!(error, "bearer token");
            ApiError::unauthorized()
        })?;
        if !self.tokens.contains_key(token) {
            let mut good = self.good.lock();
            if good.len() >= GOOD {
                good.retain(|_, (_, until)| *until > now);
            }
            if good.len() < GOOD {
                good.insert(token.to_owned(), (user.clone(), now + GOOD_FOR));
            }
        }
        Ok(user)
    }

    /// Whom a token is of, and which of the audiences it is for. The error says what is wrong with it.
    pub fn token(
        &self,
        token: &str,
        store: &Store,
        audiences: &[String],
    ) -> std::result::Result<(Arc<User>, Vec<String>), String> {
        let view = store.view();
        let bootstraps = || bootstrap_tokens::verify(&view, token);
        if let Some(user) = self.tokens.get(token).cloned().or_else(|| self.bootstrap_tokens.then(bootstraps)?) {
            // These are for whoever asks this server.
            let ours = |audience: &&String| self.service_accounts.audiences.contains(audience);
            let meant: Vec<String> = audiences.iter().filter(ours).cloned().collect();
            return if meant.is_empty() { Err(INVALID.into()) } else { Ok((user, meant)) };
        }
        match self.service_accounts.verify(&view, token, audiences) {
            Some(verified) => verified.map(|(user, meant)| (Arc::new(user), meant)),
            None => Err(INVALID.into()),
        }
    }
}

const INVALID: &str = "invalid bearer token";

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let mut words = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split(' ');
    words.next().filter(|scheme| scheme.eq_ignore_ascii_case("bearer"))?;
    words.next().filter(|token| !token.is_empty())
}

fn add_authorities(roots: &mut RootCertStore, path: &Path) -> std::result::Result<String, ConfigError> {
    let error = |problem: String, fix: &str| ConfigError {
        flag: "--client-ca-file",
        problem: format!("{}: {problem}", path.display()),
        fix: fix.into(),
    };
    let text = std::fs::read_to_string(path).map_err(|e| error(e.to_string(), "give a file that can be read"))?;
    let before = roots.len();
    for der in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let der = der.map_err(|e| error(e.to_string(), "give certificates in PEM"))?;
        roots.add(der).map_err(|e| error(e.to_string(), "give certificates of authorities"))?;
    }
    if roots.len() == before {
        return Err(error("holds no certificate".into(), "give certificates in PEM"));
    }
    Ok(text)
}

/// The user that a certificate names, if it does: the common name, in the groups that are its organizations.
fn named_by(certificate: &CertificateDer<'_>) -> Option<Certificate> {
    // RFC 4519 has no attribute for it; Kubernetes uses one of its own.
    const UID: &str = "1.3.6.1.4.1.57683.2";
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    if name.is_empty() {
        return None;
    }
    let uid = subject.iter_attributes().find(|attribute| attribute.attr_type().to_id_string() == UID);
    let fingerprint: String = Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect();
    let credential = vec![format!("X509SHA256={fingerprint}")];
    let user = User {
        name,
        uid: uid.and_then(|uid| uid.as_str().ok()).unwrap_or_default().to_owned(),
        groups: subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned).collect(),
        extra: [("authentication.kubernetes.io/credential-id".to_owned(), credential)].into(),
    };
    Some(Certificate::Good(Arc::new(user.authenticated()), parsed.validity().not_after.timestamp()))
}
