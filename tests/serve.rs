//! One replica as a process: how it starts, whom it lets in, and how it stops.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kontiki::kubeconfig::Kubeconfig;
use kontiki::pki::{ClusterPki, ReplicaPki};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

struct Replica {
    process: Child,
    lines: Vec<String>,
}

impl Replica {
    fn start(dir: &Path, port: u16) -> Replica {
        Replica::start_with(dir, port, &[])
    }

    fn start_with(dir: &Path, port: u16, flags: &[String]) -> Replica {
        let mut replica = Replica::spawn(dir, port, flags);
        let output = BufReader::new(replica.process.stdout.take().expect("its output"));
        replica.lines = output.lines().take(3).map(|line| line.expect("text")).collect();
        replica
    }

    /// Without waiting until it is ready.
    fn spawn(dir: &Path, port: u16, flags: &[String]) -> Replica {
        let process = Command::new(env!("CARGO_BIN_EXE_kontiki"))
            .args(["serve", "--secure-port", &port.to_string(), "--bind-address", "127.0.0.1", "--data-dir"])
            .arg(dir)
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .expect("kontiki");
        Replica { process, lines: Vec::new() }
    }

    /// The exit status after SIGTERM.
    fn stop(mut self) -> Option<i32> {
        self.terminate();
        self.process.wait().expect("an end").code()
    }

    fn terminate(&self) {
        let killed = Command::new("kill").arg(self.process.id().to_string()).status();
        assert!(killed.is_ok_and(|status| status.success()));
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn client_config(authority: &str, client: Option<&(String, String)>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    match client {
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    }
}

fn connect(port: u16, authority: &str, client: Option<&(String, String)>) -> Stream {
    let config = client_config(authority, client);
    let session = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    StreamOwned::new(session, stream)
}

/// The answer, as far as it has come when the server says nothing more for now or closes.
fn ask(stream: &mut Stream, request: &str) -> String {
    send(stream, request, "")
}

fn send(stream: &mut Stream, request: &str, body: &str) -> String {
    let length = body.len();
    let head = format!("{request}\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = vec![0; 64 << 10];
    let read = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

fn code(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

/// Asks on new connections until the answer is the one that is waited for.
fn wait_for(port: u16, authority: &str, client: &(String, String), expected: &str) {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let mut stream = connect(port, authority, Some(client));
        let written = stream.write_all(b"GET /api/v1/namespaces/default HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut answer = [0; 12];
        let read = written.and_then(|()| stream.read_exact(&mut answer));
        let answer = read.map(|()| String::from_utf8_lossy(&answer).into_owned());
        match answer {
            Ok(answer) if answer.ends_with(expected) => return,
            answer => assert!(Instant::now() < end, "{answer:?}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_new_authority_takes_the_place_of_the_old_one_while_it_serves() {
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let replica = Replica::start(dir.path(), port);
    let hang_up = || {
        let told = Command::new("kill").args(["-HUP", &replica.process.id().to_string()]).status();
        assert!(told.is_ok_and(|status| status.success()));
    };
    let admin = || Kubeconfig::read(&dir.path().join("admin.kubeconfig")).unwrap();
    let old = (admin().certificate_authority.unwrap(), admin().client.unwrap());
    let mut open = connect(port, &old.0, Some(&old.1));
    assert_eq!(code(&ask(&mut open, "GET /api/v1/namespaces/default HTTP/1.1")), "200");

    let other = tempfile::tempdir().unwrap();
    let new = ClusterPki::create(other.path()).unwrap().authority.certificate;
    let pki = dir.path().join("pki");
    std::fs::copy(other.path().join("ca.key"), pki.join("ca.key")).unwrap();
    // Half of it changes nothing.
    hang_up();
    wait_for(port, &old.0, &old.1, "200");
    std::fs::write(pki.join("ca.crt"), format!("{new}{}", old.0)).unwrap();
    hang_up();
    // The server shows a certificate of the new one, and both are let in.
    wait_for(port, &new, &old.1, "200");
    let fresh = admin().client.unwrap();
    assert_ne!(fresh, old.1);
    wait_for(port, &new, &fresh, "200");
    std::fs::write(pki.join("ca.crt"), &new).unwrap();
    hang_up();
    wait_for(port, &new, &old.1, "401");
    wait_for(port, &new, &fresh, "200");
    // What was open goes on.
    assert_eq!(code(&ask(&mut open, "GET /api/v1/namespaces/default HTTP/1.1")), "200");
    assert_eq!(replica.stop(), Some(0));
}

/// What kubeadm writes into the manifest of kube-apiserver, and kind, which adds the last line.
const KUBEADM: &str = "--advertise-address=127.0.0.1 --allow-privileged=true --authorization-mode=Node,RBAC \
    --client-ca-file=PKI/ca.crt --enable-admission-plugins=NodeRestriction --enable-bootstrap-token-auth=true \
    --etcd-cafile=PKI/etcd/ca.crt --etcd-certfile=PKI/apiserver-etcd-client.crt \
    --etcd-keyfile=PKI/apiserver-etcd-client.key --etcd-servers=https://127.0.0.1:2379 \
    --kubelet-client-certificate=PKI/apiserver-kubelet-client.crt \
    --kubelet-client-key=PKI/apiserver-kubelet-client.key \
    --kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname \
    --proxy-client-cert-file=PKI/front-proxy-client.crt --proxy-client-key-file=PKI/front-proxy-client.key \
    --requestheader-allowed-names=front-proxy-client --requestheader-client-ca-file=PKI/front-proxy-ca.crt \
    --requestheader-extra-headers-prefix=X-Remote-Extra- --requestheader-group-headers=X-Remote-Group \
    --requestheader-username-headers=X-Remote-User \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file=PKI/sa.pub --service-account-signing-key-file=PKI/sa.key \
    --service-cluster-ip-range=10.96.0.0/12 --tls-cert-file=PKI/apiserver.crt --tls-private-key-file=PKI/apiserver.key \
    --feature-gates= --runtime-config=";

/// What k3s passes besides.
const K3S: &str = "--api-audiences=https://kubernetes.default.svc.cluster.local,k3s --cert-dir=PKI/temporary-certs \
    --enable-aggregator-routing=true --kubelet-certificate-authority=PKI/server-ca.crt --profiling=false \
    --service-node-port-range=30000-32767 --storage-backend=etcd3 --tls-cipher-suites=\
    TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,\
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,\
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305";

#[test]
fn what_kubeadm_and_k3s_pass_can_be_passed_without_etcd() {
    let dir = tempfile::tempdir().unwrap();
    let pki = dir.path().join("pki");
    let cluster = ClusterPki::create(&pki).unwrap();
    ReplicaPki::ensure(&pki, &cluster, "kubeadm", &["localhost".into(), "127.0.0.1".into()]).unwrap();
    let flags: Vec<String> =
        format!("{KUBEADM} {K3S}").split_whitespace().map(|flag| flag.replace("PKI", pki.to_str().unwrap())).collect();

    let whole = Command::new(env!("CARGO_BIN_EXE_kontiki")).arg("serve").args(&flags).output().unwrap();
    let told = String::from_utf8_lossy(&whole.stderr);
    let etcd = "error: Kontiki's replicas are their own store and need no etcd: remove --etcd-cafile, \
                --etcd-certfile, --etcd-keyfile and --etcd-servers\n\nUsage: ";
    assert!(told.starts_with(etcd), "{told}");

    let flags: Vec<String> = flags.into_iter().filter(|flag| !flag.starts_with("--etcd-")).collect();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let data = dir.path().join("data");
    let replica = Replica::start_with(&data, port, &flags);
    let admin = Kubeconfig::read(&data.join("admin.kubeconfig")).unwrap().client.unwrap();
    let mut client = connect(port, &cluster.authority.certificate, Some(&admin));
    assert_eq!(code(&ask(&mut client, "GET /api/v1/namespaces/kube-system HTTP/1.1")), "200");

    let mut machine = connect(port, &cluster.authority.certificate, None);
    let list = "GET /api/v1/nodes HTTP/1.1\r\nAuthorization: Bearer abcdef.0123456789abcdef";
    assert_eq!(code(&ask(&mut machine, list)), "401");
    let secret = r#"{"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "stringData":
        {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"}}"#;
    let create = "POST /api/v1/namespaces/kube-system/secrets HTTP/1.1\r\nContent-Type: application/json";
    assert_eq!(code(&send(&mut client, create, secret)), "201");
    let answer = ask(&mut machine, list);
    assert!(code(&answer) == "403" && answer.contains(r#"User \"system:bootstrap:abcdef\""#), "{answer}");
    assert_eq!(replica.stop(), Some(0));
}

async fn connect_async(
    port: u16,
    config: &ClientConfig,
    protocol: &[u8],
) -> TokioIo<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    let mut config = config.clone();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    TokioIo::new(connector.connect("localhost".try_into().unwrap(), stream).await.unwrap())
}

fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::builder().uri(uri).header("host", "localhost").body(Full::default()).unwrap()
}

/// Clients that ask one question after the other, without a pause, until the server lets them go.
#[test]
fn no_request_is_lost_when_a_replica_stops() {
    const CLIENTS: usize = 48;
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let replica = Replica::start(dir.path(), port);
    let admin = Kubeconfig::read(&dir.path().join("admin.kubeconfig")).unwrap();
    let config = client_config(&admin.certificate_authority.unwrap(), admin.client.as_ref());
    let answered = Arc::new(AtomicUsize::new(0));
    // One thread: what a client sends while it reads that it may send no more is then up to the server alone.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..CLIENTS {
            let stream = connect_async(port, &config, b"h2").await;
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            tokio::spawn(connection);
            let count = answered.clone();
            clients.spawn(async move {
                loop {
                    match sender.try_send_request(get("https://localhost/api/v1/namespaces/default")).await {
                        Ok(response) => drop(response.into_body().collect().await.unwrap()),
                        Err(mut error) => {
                            assert!(error.take_message().is_some(), "HTTP/2, sent: {:?}", error.into_error());
                            return;
                        }
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
            let stream = connect_async(port, &config, b"http/1.1").await;
            let (mut sender, connection) = http1::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            let count = answered.clone();
            clients.spawn(async move {
                loop {
                    let response = sender.send_request(get("/api/v1/namespaces/default")).await.expect("HTTP/1");
                    let last = response.headers().get("connection").is_some_and(|value| value == "close");
                    response.into_body().collect().await.unwrap();
                    if last {
                        return;
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while answered.load(Ordering::Relaxed) < 20 * CLIENTS {
            tokio::task::yield_now().await;
        }
        replica.terminate();
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
    });
    assert_eq!(replica.stop(), Some(0));
}

/// The first of three has no quorum until the second is there, and who asks it meanwhile waits.
#[test]
fn a_request_waits_for_a_replica_that_was_just_started() {
    let dir = tempfile::tempdir().unwrap();
    let pki = ClusterPki::create(&dir.path().join("pki")).unwrap();
    pki.ensure_admin(&pki.admin_kubeconfig(), Some("https://localhost")).unwrap();
    let admin = Kubeconfig::read(&pki.admin_kubeconfig()).unwrap();
    let authority = admin.certificate_authority.unwrap();
    // All at once, so that no two are the same.
    let listeners = [(); 6].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
    drop(listeners);
    let members: Vec<_> = (0..3).map(|n| format!("n{n}=127.0.0.1:{}", ports[n + 3])).collect();
    let spawn = |n: usize| {
        let pki = dir.path().join("pki").display().to_string();
        let flags = [
            format!("--name=n{n}"),
            format!("--peer-address=127.0.0.1:{}", ports[n + 3]),
            format!("--initial-cluster={}", members.join(",")),
            format!("--pki-dir={pki}"),
        ];
        Replica::spawn(&dir.path().join(format!("n{n}")), ports[n], &flags)
    };
    let first = spawn(0);
    let end = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(("127.0.0.1", ports[0])).is_err() {
        assert!(Instant::now() < end, "it does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut client = connect(ports[0], &authority, admin.client.as_ref());
    assert_eq!(code(&ask(&mut client, "GET /readyz HTTP/1.1")), "500");
    let request = b"GET /api/v1/namespaces HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.write_all(request).unwrap();
    let mut asked = Instant::now();
    let counted = || {
        let mut other = connect(ports[0], &authority, admin.client.as_ref());
        other.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut metrics = String::new();
        other.read_to_string(&mut metrics).unwrap();
        metrics.contains("kontiki_requests_waiting_for_start 1\n")
    };
    while !counted() {
        assert!(Instant::now() < end, "it is not counted");
    }
    let second = spawn(1);
    loop {
        let mut answer = vec![0; 64 << 10];
        let read = client.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        if code(&answer) == "200" {
            break;
        }
        // Where the second takes that long.
        assert_eq!(code(&answer), "503", "{answer}");
        assert!(asked.elapsed() > Duration::from_secs(4), "{answer}");
        assert!(Instant::now() < end, "{answer}");
        client.write_all(request).unwrap();
        asked = Instant::now();
    }
    assert_eq!(second.stop(), Some(0));
    assert_eq!(first.stop(), Some(0));
}

#[test]
fn head_is_answered_over_http2_without_a_body() {
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let replica = Replica::start(dir.path(), port);
    let admin = Kubeconfig::read(&dir.path().join("admin.kubeconfig")).unwrap();
    let config = client_config(&admin.certificate_authority.unwrap(), admin.client.as_ref());
    let ask = async {
        let stream = connect_async(port, &config, b"h2").await;
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        // One after another: a stream that breaks takes the connection along.
        for (method, path, code) in [
            (Method::HEAD, "/version", 200),
            (Method::HEAD, "/readyz?verbose", 200),
            (Method::HEAD, "/nothing", 404),
            (Method::HEAD, "/api/v1/namespaces/default", 405),
            (Method::GET, "/version", 200),
        ] {
            let has_body = method == Method::GET;
            let uri = format!("https://localhost{path}");
            let request = Request::builder().method(method).uri(uri).body(Full::<Bytes>::default()).unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status(), code, "{path}");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body.is_empty(), !has_body, "{path}");
        }
    };
    tokio::runtime::Runtime::new().unwrap().block_on(ask);
    assert_eq!(replica.stop(), Some(0));
}

#[test]
fn a_replica_starts_tells_who_may_and_stops_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let replica = Replica::start(dir.path(), port);
    assert!(replica.lines[0].contains("is ready"), "{:?}", replica.lines);
    assert!(replica.lines[1].ends_with("/admin.kubeconfig"), "{:?}", replica.lines);
    for private in ["pki", "log", "state"] {
        let mode = std::fs::metadata(dir.path().join(private)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{private} holds secrets");
    }
    let admin = Kubeconfig::read(&dir.path().join("admin.kubeconfig")).unwrap();
    let authority = admin.certificate_authority.clone().unwrap();

    let mut nobody = connect(port, &authority, None);
    assert_eq!(code(&ask(&mut nobody, "GET /readyz HTTP/1.1")), "200");
    assert_eq!(code(&ask(&mut nobody, "GET /api/v1/pods HTTP/1.1")), "403");
    assert_eq!(code(&ask(&mut nobody, "GET /kontiki/status HTTP/1.1")), "403");
    assert_eq!(code(&ask(&mut nobody, "GET /api/v1/pods HTTP/1.1\r\nAuthorization: Bearer x")), "401");

    // A certificate of somebody else's authority is answered in HTTP.
    let other = tempfile::tempdir().unwrap();
    let pki = ClusterPki::create(other.path()).unwrap();
    pki.ensure_admin(&pki.admin_kubeconfig(), Some("https://localhost")).unwrap();
    let stranger = Kubeconfig::read(&pki.admin_kubeconfig()).unwrap().client.unwrap();
    let mut stranger = connect(port, &authority, Some(&stranger));
    assert_eq!(code(&ask(&mut stranger, "GET /readyz HTTP/1.1")), "401");

    let client = admin.client.unwrap();
    let mut watcher = connect(port, &authority, Some(&client));
    let mut watched = ask(&mut watcher, "GET /api/v1/namespaces?watch=true HTTP/1.1");
    assert_eq!(code(&watched), "200");
    let mut busy = connect(port, &authority, Some(&client));
    assert_eq!(code(&ask(&mut busy, "GET /api/v1/namespaces/kube-system HTTP/1.1")), "200");

    replica.terminate();
    // To the end of a well-formed stream: what is cut off would be an error.
    watcher.read_to_string(&mut watched).unwrap();
    assert!(watched.ends_with("0\r\n\r\n"), "{watched}");
    assert_eq!(replica.stop(), Some(0));

    let replica = Replica::start(dir.path(), port);
    let mut again = connect(port, &authority, Some(&client));
    assert_eq!(code(&ask(&mut again, "GET /api/v1/namespaces/kube-system HTTP/1.1")), "200");
    assert_eq!(replica.stop(), Some(0));
}
