//! `kontiki serve --join`: how a replica becomes a member of a cluster that runs. It learns whom to trust from the token,
//! is added as a learner, gets what all replicas share, catches up and has itself promoted. What has been done is in
//! `join.json` in the data directory until it is over, so that it can be taken up again after a crash at any point.

mod token;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::{Method, StatusCode};
use kontiki_raft::{Invitation, ManageError, Operation};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout_at};

pub use token::Token;

use crate::client::{self, Failed};
use crate::config::{Config, ConfigError, Join};
use crate::pki;
use crate::server::Server;

/// Where the authority is that a token is pinned to; open to everybody.
pub const AUTHORITY: &str = "/kontiki/authority";
/// Where replicas ask to be taken in; whoever has a token needs nothing else.
pub const JOIN: &str = "/kontiki/join";
/// In the certificate of every replica, and of nobody else whom the cluster's authority vouches for.
const SERVER_NAME: &str = "kubernetes.default.svc";

/// How long to look for a replica that takes this one in.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);

/// What a replica says of itself when it asks to be taken in.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    pub name: String,
    pub peer_address: String,
    pub incarnation: u64,
}

/// What it is told.
#[derive(Serialize, Deserialize)]
pub struct Welcome {
    pub invitation: Invitation,
    /// What all replicas share, by file name.
    pub files: BTreeMap<String, String>,
}

/// A joining that isn't over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Joining {
    /// This data directory's, from the first question on: whoever asks again is the same replica.
    incarnation: u64,
    /// To stay a learner.
    learner: bool,
    /// There once the cluster has taken this replica in.
    pub invitation: Option<Invitation>,
}

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("join.json")
}

impl Joining {
    fn read(data_dir: &Path) -> anyhow::Result<Option<Joining>> {
        let path = file(data_dir);
        match std::fs::read(&path) {
            Ok(text) => {
                let read = serde_json::from_slice(&text);
                Ok(Some(read.with_context(|| format!("{} is damaged: empty the data directory", path.display()))?))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        kontiki_storage::create_private_dir(data_dir).with_context(|| data_dir.display().to_string())?;
        Ok(pki::write(&file(data_dir), &serde_json::to_string_pretty(self)?, 0o600)?)
    }

    /// Has this replica promoted, unless it is to stay a learner; then the joining is over.
    pub async fn finish(self, server: Arc<Server>, config: Config) {
        if !self.learner {
            promote(&server, &config.name).await;
        }
        if let Err(error) = std::fs::remove_file(file(&config.data_dir)) {
            tracing::warn!(%error, "the joining can't be marked as over; it will be looked at again");
        }
    }
}

/// When to say again that something has not come about: after 1, 2, 4, … seconds, so that it isn't told with each try.
#[derive(Default)]
struct Reminder(Option<(Instant, Duration)>);

impl Reminder {
    fn is_due(&mut self, now: Instant) -> bool {
        let pause = match self.0 {
            Some((told, pause)) if now < told + pause => return false,
            Some((_, pause)) => 2 * pause,
            None => PAUSE,
        };
        self.0 = Some((now, pause));
        true
    }
}

async fn promote(server: &Server, name: &str) {
    let operation = Operation::Promote { name: name.to_owned() };
    let mut reminder = Reminder::default();
    loop {
        match server.replica.manage(operation.clone(), Instant::now() + PATIENCE).await {
            Ok(()) => return tracing::info!("this replica has caught up and is a voter now"),
            Err(_) if !reminder.is_due(Instant::now()) => {}
            Err(ManageError::Refused(refusal)) => tracing::warn!(%refusal, "this replica is not promoted yet"),
            Err(error) => tracing::warn!(%error, "asking to be promoted"),
        }
        sleep(PAUSE).await;
    }
}

/// Takes this replica into the cluster, as far as it isn't yet. None: it is no joining replica, or no longer.
pub async fn begin(config: &Config) -> anyhow::Result<Option<Joining>> {
    let found = Joining::read(&config.data_dir)?;
    let mut joining = match (found, &config.join) {
        (Some(joining @ Joining { invitation: Some(_), .. }), _) => return Ok(Some(joining)),
        (Some(joining), Some(join)) => Joining { learner: join.learner, ..joining },
        (Some(_), None) => {
            return Err(ConfigError {
                flag: "--join",
                problem: format!("{} has begun to join a cluster", config.data_dir.display()),
                fix: "give --join and --token again, or empty the directory".into(),
            }
            .into());
        }
        (None, Some(_)) if config.data_dir.join("log").exists() => {
            tracing::info!("this replica has joined before: --join is left aside");
            return Ok(None);
        }
        (None, Some(join)) => {
            let joining = Joining { incarnation: rand::random(), learner: join.learner, invitation: None };
            joining.write(&config.data_dir)?;
            joining
        }
        (None, None) => return Ok(None),
    };
    let Some(join) = &config.join else { return Ok(None) };
    let welcome = ask(config, join, joining.incarnation).await?;
    if config.pki_dir.is_none() {
        pki::unpack(&config.data_dir.join("pki"), &welcome.files)?;
    }
    joining.invitation = Some(welcome.invitation);
    joining.write(&config.data_dir)?;
    tracing::info!("the cluster has taken this replica in as a learner");
    Ok(Some(joining))
}

async fn ask(config: &Config, join: &Join, incarnation: u64) -> anyhow::Result<Welcome> {
    let request = Request {
        name: config.name.clone(),
        peer_address: config.cluster.peer_address.clone().unwrap_or_default(),
        incarnation,
    };
    let end = Instant::now() + PATIENCE;
    let mut reminder = Reminder::default();
    loop {
        // An address that nobody has lets a connection wait for minutes.
        let asked = timeout_at(end, ask_once(join, &request)).await;
        match asked.unwrap_or_else(|_| Err(anyhow::anyhow!("there is no answer"))) {
            Ok(welcome) => return Ok(welcome),
            Err(error) => {
                // What a replica says to the request itself, it will say again.
                let final_word = error.downcast_ref::<Failed>().is_some_and(|failed| {
                    failed.code.is_client_error() && failed.code != StatusCode::TOO_MANY_REQUESTS
                });
                if final_word || error.is::<Untrusted>() || Instant::now() + PAUSE >= end {
                    return Err(error).with_context(|| format!("joining through {}", join.url));
                }
                if reminder.is_due(Instant::now()) {
                    tracing::warn!(url = join.url, error = format!("{error:#}"), "joining; trying again");
                }
            }
        }
        sleep(PAUSE).await;
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Untrusted(String);

async fn ask_once(join: &Join, request: &Request) -> anyhow::Result<Welcome> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let name = ServerName::try_from(SERVER_NAME)?;
    // Anybody may answer this; only the authority that the token names is believed.
    let open = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    let response = client::exchange(&join.url, open, name.clone(), Method::GET, AUTHORITY, None, Vec::new()).await?;
    let shown = client::body(response).await?;
    let Some(authority) = join.token.authority(&shown).map_err(Untrusted)? else {
        let text = "the server is not of the cluster that made the token: its authority has another key";
        return Err(Untrusted(text.into()).into());
    };
    let pinned = client::trusting([authority])?.with_no_client_auth();
    let (token, body) = (join.token.to_string(), serde_json::to_vec(request)?);
    let asked = client::exchange(&join.url, pinned, name, Method::POST, JOIN, Some(&token), body).await;
    let response = match asked {
        Err(error) if client::tls_error(&error).is_some() => {
            let text = "the server shows a certificate that the cluster's authority has not signed: join through a \
                        replica that serves without --tls-cert-file";
            return Err(Untrusted(format!("{text} ({})", error.root_cause())).into());
        }
        asked => asked?,
    };
    let body = client::body(response).await?;
    serde_json::from_slice(&body).context("the answer; is it Kontiki?")
}

/// Believes any server that has its certificate's key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _own: &CertificateDer<'_>,
        _issuers: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_at_growing_intervals() {
        let (mut reminder, began) = (Reminder::default(), Instant::now());
        let told = (0..60).filter(|second| reminder.is_due(began + *second * PAUSE));
        assert_eq!(told.collect::<Vec<u32>>(), [0, 1, 3, 7, 15, 31]);
    }
}
