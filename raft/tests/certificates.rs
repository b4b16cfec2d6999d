//! Certificates and authorities of peers change while the replicas run.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use common::{Ca, Cluster, put, soon};
use http_body_util::Empty;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kontiki_raft::{Limits, MEMBER_DNS_NAME, PeerTls, StartError};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The certificate that one authority signed, trusting these.
fn shown(by: &Ca, name: &str, trusted: &[&Ca]) -> PeerTls {
    let ca = trusted.iter().flat_map(|ca| ca.member(name).ca).collect();
    PeerTls { ca, ..by.member(name) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_authority_takes_the_place_of_the_old_one() {
    let mut cluster = Cluster::start(Limits::default()).await;
    let new = Ca::new();
    let old = std::mem::replace(&mut cluster.ca, Ca::new());
    // First all trust both, then all show the new one's certificates, then nobody trusts the old one.
    let steps: [(&Ca, &[&Ca]); 3] = [(&old, &[&old, &new]), (&new, &[&old, &new]), (&new, &[&new])];
    for (step, (by, trusted)) in steps.into_iter().enumerate() {
        for node in 0..3 {
            let name = cluster.nodes[node].config.name.clone();
            let tls = shown(by, &name, trusted);
            assert!(cluster.nodes[node].replica().renew_tls(&tls).unwrap());
            assert!(!cluster.nodes[node].replica().renew_tls(&tls).unwrap());
            cluster.nodes[node].config.tls = Some(tls);
        }
        // One is restarted with what it should have, so that all connections to it are new.
        let (leader, follower) = (cluster.leader().await, cluster.follower().await);
        cluster.nodes[follower].stop().await;
        cluster.nodes[follower].start().await;
        let key = format!("a/{step}");
        cluster.nodes[follower].replica().propose(put(&key, "x"), soon()).await.unwrap();
        cluster.nodes[leader].replica().propose(put(&key, "y"), soon()).await.unwrap();
        cluster.agree().await;
    }
    // One that still shows the old authority's is not spoken with any more.
    let follower = cluster.follower().await;
    let name = cluster.nodes[follower].config.name.clone();
    cluster.nodes[follower].stop().await;
    cluster.nodes[follower].config.tls = Some(shown(&old, &name, &[&old, &new]));
    cluster.nodes[follower].start().await;
    let replica = cluster.nodes[follower].replica();
    let soon = tokio::time::Instant::now() + std::time::Duration::from_secs(2);
    assert!(replica.read_barrier(soon).await.is_err());
    // And nobody takes another one's certificate for its own.
    let wrong = replica.renew_tls(&new.member("n9"));
    assert!(matches!(wrong, Err(StartError::Tls(_))), "{wrong:?}");
}

/// What a replica answers to a vote that is asked for with this certificate, or none.
async fn ask_for_vote(address: SocketAddr, tls: &PeerTls, shows: bool) -> Result<StatusCode, String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&tls.ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let builder = builder.unwrap().with_root_certificates(roots);
    let mut config = if shows {
        let chain = vec![CertificateDer::from_pem_slice(&tls.chain).unwrap()];
        builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&tls.key).unwrap()).unwrap()
    } else {
        builder.with_no_client_auth()
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = TcpStream::connect(address).await.unwrap();
    let name = MEMBER_DNS_NAME.try_into().unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await.map_err(|e| e.to_string())?;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    let request = Request::post("/vote").body(Empty::<bytes::Bytes>::new()).unwrap();
    sender.send_request(request).await.map(|response| response.status()).map_err(|e| e.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_members_speak_with_members() {
    let cluster = Cluster::start(Limits::default()).await;
    let (ca, address) = (&cluster.ca, cluster.nodes[0].config.peer_listen.unwrap());
    // A member is heard, but says who it is first.
    assert_eq!(ask_for_vote(address, &ca.member("n2"), true).await, Ok(StatusCode::FORBIDDEN));
    assert!(ask_for_vote(address, &ca.member("n2"), false).await.is_err());
    for stranger in [ca.sign("system:masters", "kontiki:member:n2"), ca.sign("kontiki:members", "n2")] {
        assert!(ask_for_vote(address, &stranger, true).await.is_err());
    }
    let other = PeerTls { ca: ca.member("n2").ca, ..Ca::new().member("n2") };
    assert!(ask_for_vote(address, &other, true).await.is_err());
}
