//! Mutual TLS between replicas. A peer is whoever shows a certificate that the cluster's CA has signed for a member: its
//! organization is [`MEMBER_ORGANIZATION`], its common name is [`member_common_name`], and it is valid for the DNS name
//! [`MEMBER_DNS_NAME`] as a server and as a client. No other certificate of that CA will do.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::StartError;

pub const MEMBER_ORGANIZATION: &str = "kontiki:members";
/// Members move between addresses, so their certificates name none; who a member is, its common name says.
pub const MEMBER_DNS_NAME: &str = "member.kontiki";
const COMMON_NAME_PREFIX: &str = "kontiki:member:";
const PROTOCOL: &[u8] = b"h2";

/// What a replica shows its peers, and what it knows them by.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerTls {
    /// This member's certificate and those that lead to the CA; PEM, or the DER of the one.
    pub chain: Vec<u8>,
    /// PEM or DER.
    pub key: Vec<u8>,
    /// The cluster's CA, or several of them while one takes the place of another; PEM, or the DER of the one.
    pub ca: Vec<u8>,
}

impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("certificates of a member")
    }
}

/// The common name of a member's certificate.
pub fn member_common_name(name: &str) -> String {
    format!("{COMMON_NAME_PREFIX}{name}")
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate is not a member's: {0}")]
pub struct NotMember(String);

/// The member that a certificate is for. That the CA has signed it is another question, which TLS has asked.
pub fn member_name(certificate: &CertificateDer) -> Result<String, NotMember> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| NotMember(error.to_string()))?;
    let subject = parsed.subject();
    if !subject.iter_organization().any(|organization| organization.as_str() == Ok(MEMBER_ORGANIZATION)) {
        return Err(NotMember(format!("its organization is not {MEMBER_ORGANIZATION}")));
    }
    let mut names = subject.iter_common_name().filter_map(|name| name.as_str().ok());
    match (names.next().and_then(|name| name.strip_prefix(COMMON_NAME_PREFIX)), names.next()) {
        (Some(name), None) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(NotMember(format!("its common name is not {COMMON_NAME_PREFIX} and a name"))),
    }
}

/// Both ends of connections to peers.
#[derive(Clone)]
pub(super) struct Ends {
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
}

impl Ends {
    /// `name` is whose certificate it should be.
    pub(super) fn new(tls: &PeerTls, name: &str) -> Result<Ends, StartError> {
        let wrong = |what: &str, error: &dyn fmt::Display| StartError::Tls(format!("{what}: {error}"));
        let chain = certificates(&tls.chain).map_err(|error| wrong("the member's certificate", &error))?;
        let leaf = chain.first().ok_or_else(|| StartError::Tls("there is no certificate for the member".into()))?;
        let member = member_name(leaf).map_err(|error| wrong("the member's certificate", &error))?;
        if member != name {
            return Err(StartError::Tls(format!("the member's certificate is for {member}, and this is {name}")));
        }
        let key = private_key(&tls.key).map_err(|error| wrong("the member's key", &error))?;
        let mut roots = RootCertStore::empty();
        for ca in certificates(&tls.ca).map_err(|error| wrong("the cluster's CA", &error))? {
            roots.add(ca).map_err(|error| wrong("the cluster's CA", &error))?;
        }
        let roots = Arc::new(roots);
        let provider: Arc<CryptoProvider> = aws_lc_rs::default_provider().into();
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| wrong("the cluster's CA", &error))?;
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| wrong("TLS", &error))?
            .with_webpki_verifier(verifier)
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(|error| wrong("the member's certificate", &error))?;
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|error| wrong("the cluster's CA", &error))?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| wrong("TLS", &error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| wrong("the member's certificate", &error))?;
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Ends { client: Arc::new(client), server: Arc::new(server) })
    }
}

pub(super) fn server_name() -> Result<ServerName<'static>, rustls_pki_types::InvalidDnsNameError> {
    ServerName::try_from(MEMBER_DNS_NAME)
}

fn is_pem(bytes: &[u8]) -> bool {
    bytes.windows(11).any(|window| window == b"-----BEGIN ")
}

fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, rustls_pki_types::pem::Error> {
    if is_pem(bytes) {
        CertificateDer::pem_slice_iter(bytes).collect()
    } else {
        Ok(vec![CertificateDer::from(bytes.to_vec())])
    }
}

fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    if is_pem(bytes) {
        PrivateKeyDer::from_pem_slice(bytes).map_err(|error| error.to_string())
    } else {
        PrivateKeyDer::try_from(bytes.to_vec()).map_err(str::to_owned)
    }
}
