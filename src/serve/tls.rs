//! TLS of the API's listener.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme, SupportedCipherSuite, version};

use crate::cli::TlsVersion;
use crate::config::ConfigError;
use crate::pki::Pair;

/// The serving certificate, which may be replaced while the server runs.
#[derive(Debug)]
pub struct Certificate(ArcSwap<CertifiedKey>);

impl Certificate {
    pub fn new(key: CertifiedKey) -> Arc<Certificate> {
        Arc::new(Certificate(ArcSwap::from_pointee(key)))
    }

    /// Says whether it is another one.
    pub fn replace(&self, key: CertifiedKey) -> bool {
        let other = self.0.load().cert != key.cert;
        if other {
            self.0.store(Arc::new(key));
        }
        other
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A chain and its key in PEM; the error says what is wrong with them.
pub fn certified_key(pair: &Pair) -> Result<CertifiedKey, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).collect();
    let chain = chain.map_err(|e| format!("the certificate: {e}"))?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(|e| format!("the private key: {e}"))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|e| e.to_string())
}

/// The files of `--tls-cert-file` and `--tls-private-key-file`.
pub fn read_files(certificate: &Path, key: &Path) -> Result<CertifiedKey, ConfigError> {
    let read = |flag, path: &Path| {
        std::fs::read_to_string(path).map_err(|e| ConfigError {
            flag,
            problem: format!("{}: {e}", path.display()),
            fix: "give a file that can be read".into(),
        })
    };
    let pair = Pair { certificate: read("--tls-cert-file", certificate)?, key: read("--tls-private-key-file", key)? };
    certified_key(&pair).map_err(|problem| ConfigError {
        flag: "--tls-cert-file",
        problem,
        fix: "give a certificate in PEM, followed by its issuers, and its own key in --tls-private-key-file".into(),
    })
}

/// With those of TLS 1.2's cipher suites that are named; with all where none is.
fn speaking(suites: &[String]) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| {
        suites.is_empty() || suite.tls13().is_some() || suites.iter().any(|name| is_called(suite, name))
    });
    provider
}

fn is_called(suite: &SupportedCipherSuite, name: &str) -> bool {
    let own = format!("{:?}", suite.suite());
    // Go has two names for those of ChaCha20.
    own == name || own.strip_suffix("_SHA256") == Some(name)
}

/// The suites of a flag, which may be those that kube-apiserver knows.
pub fn cipher_suites(names: Vec<String>) -> Result<Vec<String>, ConfigError> {
    let names: Vec<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
    let strong = aws_lc_rs::default_provider().cipher_suites;
    let known = |name: &String| WEAK.contains(&name.as_str()) || strong.iter().any(|suite| is_called(suite, name));
    match names.iter().find(|name| !known(name)) {
        None => Ok(names),
        Some(name) => Err(ConfigError {
            flag: "--tls-cipher-suites",
            problem: format!("there is no cipher suite {name}"),
            fix: format!(
                "name some of {}",
                strong.iter().map(|s| format!("{:?}", s.suite())).collect::<Vec<_>>().join(", ")
            ),
        }),
    }
}

/// Those that kube-apiserver takes and Kontiki never speaks.
const WEAK: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

pub fn server_config(
    minimum: TlsVersion,
    suites: &[String],
    certificate: Arc<Certificate>,
    clients: Arc<dyn ClientCertVerifier>,
) -> Result<ServerConfig, rustls::Error> {
    let versions: &[&rustls::SupportedProtocolVersion] = match minimum {
        TlsVersion::Tls12 => &[&version::TLS13, &version::TLS12],
        TlsVersion::Tls13 => &[&version::TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(speaking(suites)))
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(Arc::new(AnyClient(clients)))
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Lets clients with any certificate, or none, through the handshake, provided that they have its key. Whether it is
/// good for anything is for authentication to say, which has an answer in HTTP.
#[derive(Debug)]
struct AnyClient(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _own: &CertificateDer<'_>,
        _issuers: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_suites_are_spoken() {
        let all = speaking(&[]).cipher_suites.len();
        let named = |names: &[&str]| speaking(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let some = named(&["TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"]);
        let older = |provider: &CryptoProvider| provider.cipher_suites.iter().filter(|s| s.tls13().is_none()).count();
        assert_eq!(older(&some), 2);
        let weak = named(&["TLS_RSA_WITH_AES_128_CBC_SHA"]);
        assert_eq!((older(&weak), weak.cipher_suites.len()), (0, all - older(&speaking(&[]))));
    }
}
