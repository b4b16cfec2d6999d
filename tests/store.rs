//! The store under a replica as a process: what a restart keeps, backups, damage, and a disk that is full.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod common;
#[allow(dead_code, reason = "the rest is for drills")]
#[path = "../chaos/src/rig/shim.rs"]
mod shim;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kontiki::kubeconfig::Kubeconfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

struct Replica {
    process: Child,
    dir: PathBuf,
    port: u16,
}

impl Replica {
    fn start(dir: &Path) -> Replica {
        Replica::start_with(dir, &[])
    }

    fn start_with(dir: &Path, flags: &[&str]) -> Replica {
        Replica::start_in(dir, flags, Vec::new())
    }

    fn start_in(dir: &Path, flags: &[&str], environment: Vec<(String, String)>) -> Replica {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut process = Command::new(env!("CARGO_BIN_EXE_kontiki"))
            .args(["serve", "--secure-port", &port.to_string(), "--bind-address", "127.0.0.1", "--data-dir"])
            .arg(dir)
            .args(flags)
            .envs(environment)
            .stdout(Stdio::piped())
            .spawn()
            .expect("kontiki");
        let output = BufReader::new(process.stdout.take().expect("its output"));
        assert_eq!(output.lines().take(3).filter(Result::is_ok).count(), 3, "it did not get ready");
        Replica { process, dir: dir.to_owned(), port }
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn api(&self) -> Api {
        Api { kubeconfig: self.dir.join("admin.kubeconfig"), port: self.port }
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.api().ask(method, path, body)
    }

    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Stream {
        self.api().send(method, path, body)
    }

    fn create(&self, name: &str, data: &str) -> (u16, Value) {
        self.api().create(name, data, "")
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What serves at a port of this machine.
#[derive(Clone)]
struct Api {
    kubeconfig: PathBuf,
    port: u16,
}

impl Api {
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let mut stream = self.send(method, path, body);
        let mut answer = Vec::new();
        // The server closes, but not every client is told so in TLS.
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (code, serde_json::from_str(body).unwrap_or(Value::String(body.to_owned())))
    }

    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Stream {
        let kubeconfig = Kubeconfig::read(&self.kubeconfig).unwrap();
        let mut roots = RootCertStore::empty();
        let authority = kubeconfig.certificate_authority.unwrap();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let (certificate, key) = kubeconfig.client.unwrap();
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = builder.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
        let session = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut stream = StreamOwned::new(session, socket);
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// `query` begins with a question mark, if there is one.
    fn create(&self, name: &str, data: &str, query: &str) -> (u16, Value) {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": data}});
        self.ask("POST", &format!("{MAPS}{query}"), Some(&object))
    }
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn kontiki(args: &[&str], dir: &Path) -> Output {
    let kubeconfig = dir.join("admin.kubeconfig");
    Command::new(env!("CARGO_BIN_EXE_kontiki")).args(args).env("KUBECONFIG", kubeconfig).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// What a watch tells.
fn events(stream: Stream) -> impl Iterator<Item = Value> {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    // Between them are the lengths of chunks, which may look like numbers.
    lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok()).filter(Value::is_object)
}

/// The names in a watch's events, up to `count` of them.
fn watched(replica: &Replica, after: u64, count: usize) -> Vec<String> {
    let path = format!("{MAPS}?watch=true&resourceVersion={after}&timeoutSeconds=20");
    let events = events(replica.send("GET", &path, None));
    events.map(|event| event["object"]["metadata"]["name"].as_str().unwrap_or("?").to_owned()).take(count).collect()
}

#[test]
fn watches_and_paged_lists_go_on_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::start(dir.path());
    let first = revision(&replica.create("m0", "").1);
    for n in 1..6 {
        assert_eq!(replica.create(&format!("m{n}"), "").0, 201);
    }
    let (_, page) = replica.ask("GET", &format!("{MAPS}?limit=2"), None);
    let token = page["metadata"]["continue"].as_str().unwrap().to_owned();
    assert_eq!(replica.ask("DELETE", &format!("{MAPS}/m4"), None).0, 200);
    replica.kill();

    let replica = Replica::start(dir.path());
    assert_eq!(watched(&replica, first, 6), ["m1", "m2", "m3", "m4", "m5", "m4"]);
    // The page is of the revision of the first one: what was deleted since is on it.
    let (code, rest) = replica.ask("GET", &format!("{MAPS}?limit=500&continue={token}"), None);
    let names: Vec<_> = rest["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].clone()).collect();
    assert_eq!((code, names.contains(&json!("m4")), names.len() >= 4), (200, true, true), "{rest}");
    let (code, _) =
        replica.ask("GET", &format!("{MAPS}?resourceVersion={first}&resourceVersionMatch=Exact&limit=50"), None);
    assert_eq!(code, 200);
}

#[test]
fn a_backup_begins_a_new_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let file = dir.path().join("backup");
    let replica = Replica::start(&old);
    let before = revision(&replica.create("kept", "data").1);
    let saved = kontiki(&["snapshot", "save", file.to_str().unwrap()], &old);
    assert!(saved.status.success(), "{}", text(&saved.stderr));
    assert!(!dir.path().join("backup.partial").exists());
    let after = revision(&replica.create("later", "").1);
    let status = kontiki(&["snapshot", "status", file.to_str().unwrap(), "-o", "json"], &old);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert!(status["revision"].as_u64().is_some_and(|revision| (before..after).contains(&revision)), "{status}");
    let running = kontiki(&["verify", "--data-dir", old.to_str().unwrap()], &old);
    assert_eq!(running.status.code(), Some(1));
    assert!(text(&running.stderr).contains("stop it first"), "{}", text(&running.stderr));
    replica.kill();
    let verified = kontiki(&["verify", "--data-dir", old.to_str().unwrap()], &old);
    assert!(verified.status.success(), "{}", text(&verified.stderr));
    assert!(text(&verified.stdout).contains("fits together"), "{}", text(&verified.stdout));

    let bytes = std::fs::read(&file).unwrap();
    let restore = ["snapshot", "restore", file.to_str().unwrap(), "--data-dir", new.to_str().unwrap()];
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let cut = kontiki(&restore, &old);
    assert_eq!((cut.status.code(), new.exists()), (Some(1), false));
    assert!(text(&cut.stderr).contains("it is cut short"), "{}", text(&cut.stderr));
    std::fs::write(&file, &bytes).unwrap();
    let restored = kontiki(&restore, &old);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    let replica = Replica::start(&new);
    let (_, kept) = replica.ask("GET", &format!("{MAPS}/kept"), None);
    assert_eq!((revision(&kept), kept["data"]["k"].as_str()), (before, Some("data")));
    assert_eq!(replica.ask("GET", &format!("{MAPS}/later"), None).0, 404);
    assert!(revision(&replica.create("new", "").1) > after);
    let (_, gone) = replica.ask("GET", &format!("{MAPS}?watch=true&resourceVersion={after}"), None);
    assert!(gone.to_string().contains("too old resource version"), "{gone}");
}

#[test]
fn any_of_three_replicas_gives_a_backup_and_each_directory_can_be_verified() {
    let mut cluster = common::Cluster::start(3, &[]);
    let (dir, pki) = (cluster.dir.path().join("cluster"), cluster.dir.path().join("cluster/pki"));
    let admin = std::fs::read_to_string(&cluster.kubeconfig).unwrap();
    let run = |args: &[&str], kubeconfig: &Path| {
        Command::new(env!("CARGO_BIN_EXE_kontiki")).args(args).env("KUBECONFIG", kubeconfig).output().unwrap()
    };
    let status = run(&["status", "-o", "json"], &cluster.kubeconfig);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let mut hashes = Vec::new();
    for replica in status["replicas"].as_array().unwrap() {
        let name = replica["name"].as_str().unwrap();
        let own = cluster.file(name, &admin.replace(&cluster.server, replica["clientURL"].as_str().unwrap()));
        let file = cluster.dir.path().join(format!("{name}.snapshot"));
        let saved = run(&["snapshot", "save", file.to_str().unwrap()], &own);
        assert!(saved.status.success(), "{}", text(&saved.stderr));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "it holds every secret");
        assert!(replica["lag"].is_u64(), "{replica}");
        let shown = run(&["snapshot", "status", file.to_str().unwrap(), "-o", "json"], &own);
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
        hashes.push((shown["revision"].clone(), shown["hash"].clone()));
    }
    assert_eq!(hashes.len(), 3);
    // At one revision they are the same.
    assert!(hashes.iter().all(|one| hashes.iter().all(|other| one.0 != other.0 || one.1 == other.1)), "{hashes:?}");
    cluster.stop();
    for name in ["n1", "n2", "n3"] {
        let verified = run(&["verify", "--data-dir", dir.join(name).to_str().unwrap()], &pki);
        assert!(verified.status.success(), "{}", text(&verified.stderr));
    }
    let missing = run(&["snapshot", "save", dir.join("none/file").to_str().unwrap()], &cluster.kubeconfig);
    assert_eq!(missing.status.code(), Some(1));
    let foreign = run(&["snapshot", "status", cluster.kubeconfig.to_str().unwrap()], &pki);
    assert!(text(&foreign.stderr).contains("it is no snapshot of Kontiki"), "{}", text(&foreign.stderr));
}

/// The values of lines of `/metrics`, all of one moment.
fn metrics<const N: usize>(replica: &Replica, names: [&str; N]) -> [f64; N] {
    let (_, text) = replica.ask("GET", "/metrics", None);
    let text = text.as_str().unwrap_or_default();
    names.map(|name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("there is no {name}"))
    })
}

#[test]
fn what_is_written_to_the_disk_shows_in_the_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::start_with(dir.path(), &["--storage-memory-budget", "8Mi"]);
    let names = ["kontiki_rocksdb_wal_bytes_total{database=\"log\"}", "kontiki_raft_append_bytes_total"];
    let before = metrics(&replica, names);
    for n in 0..40u64 {
        // Hashes: what compresses badly outweighs what else is written meanwhile.
        let text: String =
            (0..1_250u64).map(|at| format!("{:016x}", (n * 1_250 + at).wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        assert_eq!(replica.create(&format!("m{n}"), &text).0, 201);
    }
    let after = metrics(&replica, names);
    let (written, given) = (after[0] - before[0], after[1] - before[1]);
    assert!(written >= given && written < given * 1.3 && given > 0.0, "{written} for {given}");
    assert_eq!(metrics(&replica, ["kontiki_rocksdb_wal_bytes_total{database=\"state\"}"]), [0.0]);
    for database in ["log", "state"] {
        let names =
            ["memtable", "block_cache"].map(|of| format!("kontiki_rocksdb_{of}_bytes{{database=\"{database}\"}}"));
        let bytes: f64 = metrics(&replica, names.each_ref().map(String::as_str)).iter().sum();
        assert!(bytes <= 9.0 * 1024.0 * 1024.0, "{database}: {bytes}");
    }
}

/// Where the page cache keeps a file in large pieces, a sync writes the whole piece that a few bytes were written to.
#[test]
fn a_small_write_puts_little_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::start(dir.path());
    let written = || {
        let io = std::fs::read_to_string(format!("/proc/{}/io", replica.process.id())).unwrap();
        let bytes = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap();
        bytes.parse::<u64>().unwrap()
    };
    assert_eq!(replica.create("m", "x").0, 201);
    let before = written();
    for n in 0..100 {
        assert_eq!(replica.create(&format!("m{n}"), "x").0, 201);
    }
    let each = (written() - before) / 100;
    eprintln!("{each} bytes for each");
    assert!(each < 24 << 10, "{each} bytes for each");
}

#[test]
fn events_go_when_their_time_is_over_also_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::start_with(dir.path(), &["--event-ttl", "3s"]);
    let path = "/api/v1/namespaces/default/events";
    let event = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name}, "reason": "Test", "type": "Normal",
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}})
    };
    let (code, made) = replica.ask("POST", path, Some(&event("e1")));
    assert_eq!(code, 201, "{made}");
    let stream =
        replica.send("GET", &format!("{path}?watch=true&resourceVersion={}&timeoutSeconds=15", revision(&made)), None);
    assert_eq!(events(stream).next().unwrap()["type"], "DELETED");
    assert_eq!(replica.ask("POST", path, Some(&event("e2"))).0, 201);
    replica.kill();
    let replica = Replica::start_with(dir.path(), &["--event-ttl", "1h"]);
    assert!(soon(|| replica.ask("GET", &format!("{path}/e2"), None).0 == 404), "it was to live for 3 s");
}

fn signal(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

fn resident_megabytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

/// One follower that does nothing, then two: the first is nobody's concern, with the second writes wait to a bound.
#[test]
fn a_slow_follower_slows_nobody_and_a_slow_quorum_is_told() {
    let cluster = common::Cluster::start(3, &[]);
    let status = Command::new(env!("CARGO_BIN_EXE_kontiki"))
        .args(["status", "-o", "json"])
        .env("KUBECONFIG", &cluster.kubeconfig)
        .output()
        .unwrap();
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let place = |role: &str| -> Vec<(usize, Api)> {
        let all = status["replicas"].as_array().unwrap().iter().filter(|replica| replica["role"] == role);
        let of = |replica: &Value| {
            let place = replica["name"].as_str().unwrap()[1..].parse::<usize>().unwrap() - 1;
            let port = replica["clientURL"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
            (place, Api { kubeconfig: cluster.kubeconfig.clone(), port })
        };
        all.map(of).collect()
    };
    let (leader, api) = place("Leader").remove(0);
    let followers: Vec<u32> = place("Follower").iter().map(|(place, _)| cluster.pids[*place]).collect();

    signal(followers[0], "-STOP");
    let before = resident_megabytes(cluster.pids[leader]);
    for n in 0..150 {
        let began = Instant::now();
        assert_eq!(api.create(&format!("m{n}"), &"x".repeat(50_000), "").0, 201);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    let grown = resident_megabytes(cluster.pids[leader]).saturating_sub(before);
    assert!(grown < 120, "{grown} MB for 8 MB of objects");

    signal(followers[1], "-STOP");
    let writers = (0..20).map(|n| {
        let api = api.clone();
        std::thread::spawn(move || api.create(&format!("late{n}"), "x", "?timeout=3s"))
    });
    for writer in writers.collect::<Vec<_>>() {
        let (code, told) = writer.join().unwrap();
        let message = told["message"].as_str().unwrap_or_default();
        let timeout = "Timeout: request did not complete within the allotted timeout, and ";
        assert!(code == 504 && told["reason"] == "Timeout" && message.starts_with(timeout), "{told}");
    }
    let (code, told) = api.ask("GET", &format!("{MAPS}/m1?timeout=1s"), None);
    assert_eq!((code, told["reason"].as_str()), (504, Some("Timeout")), "{told}");
    // What has been applied is still to be had by those who say that it will do.
    assert_eq!(api.ask("GET", &format!("{MAPS}/m1?resourceVersion=0"), None).0, 200);

    followers.iter().for_each(|pid| signal(*pid, "-CONT"));
    assert!(soon(|| api.create("again", "x", "?timeout=3s").0 == 201), "writes don't resume");
    for (_, follower) in place("Follower") {
        assert!(soon(|| follower.ask("GET", &format!("{MAPS}/again?resourceVersion=0"), None).0 == 200));
    }
}

/// A replica that is alone waits for its disk on the threads that serve. None of what it serves may wait with it.
#[test]
fn a_disk_that_hangs_stops_writes_only() {
    let dir = tempfile::tempdir().unwrap();
    let shim = shim::Shim::build(dir.path()).unwrap();
    let faults = shim.faults("n1").unwrap();
    let replica = Replica::start_in(&dir.path().join("data"), &[], shim.environment(&faults));
    let first = revision(&replica.create("first", "x").1);
    for round in 0..5 {
        // These find a disk that is quick.
        for n in 0..20 {
            assert_eq!(replica.create(&format!("quick-{round}-{n}"), "x").0, 201);
        }
        faults.delay_syncs(Duration::from_secs(3600)).unwrap();
        let api = replica.api();
        let name = format!("hung-{round}");
        let writer = std::thread::spawn(move || (Instant::now(), api.create(&name, "x", "?timeout=2s")));
        let began = Instant::now();
        let mut reads = 0;
        while began.elapsed() < Duration::from_secs(1) {
            let asked = Instant::now();
            assert_eq!(replica.ask("GET", &format!("{MAPS}/first"), None).0, 200);
            assert!(asked.elapsed() < Duration::from_millis(500), "read {reads} took {:?}", asked.elapsed());
            reads += 1;
        }
        assert_eq!(watched(&replica, first, 20).len(), 20);
        let (since, (code, told)) = writer.join().unwrap();
        assert!(code == 504 && since.elapsed() < Duration::from_secs(4), "{code} after {:?}: {told}", since.elapsed());
        faults.delay_syncs(Duration::ZERO).unwrap();
        assert!(soon(|| replica.create(&format!("after-{round}"), "x").0 == 201), "writes don't resume");
        // Nobody was told that it was not written.
        assert_eq!(replica.ask("GET", &format!("{MAPS}/hung-{round}"), None).0, 200);
    }
}

#[test]
fn a_slow_watcher_slows_nobody_and_misses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::start(dir.path());
    let first = revision(&replica.create("m", "x").1);
    let path = format!("{MAPS}?watch=true&resourceVersion={first}&timeoutSeconds=60");
    let slow: Vec<_> = (0..20).map(|_| replica.send("GET", &path, None)).collect();
    let before = resident_megabytes(replica.process.id());
    for n in 0..150 {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"},
            "data": {"k": "x".repeat(100_000), "n": n.to_string()}});
        let began = Instant::now();
        assert_eq!(replica.ask("PUT", &format!("{MAPS}/m"), Some(&object)).0, 200);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    // The history is kept once and not once for each watcher.
    let grown = resident_megabytes(replica.process.id()).saturating_sub(before);
    assert!(grown < 200, "{grown} MB for 15 MB of history and 20 watchers");
    for stream in slow {
        let seen = events(stream)
            .take(150)
            .map(|event| event["object"]["data"]["n"].as_str().unwrap().parse::<u32>().unwrap());
        assert!(seen.eq(0..150));
    }
}

#[test]
fn damage_on_the_disk_is_named_and_nothing_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::start(dir.path());
    replica.create("m1", &"x".repeat(100_000));
    replica.kill();
    let log = std::fs::read_dir(dir.path().join("log")).unwrap().map(|entry| entry.unwrap().path());
    let log = log.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let log = log.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    // What follows is the room for what is to come.
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[written / 2] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let verified = kontiki(&["verify", "--data-dir", dir.path().to_str().unwrap()], dir.path());
    assert_eq!(verified.status.code(), Some(1));
    assert!(text(&verified.stderr).contains("is damaged"), "{}", text(&verified.stderr));
    let started = kontiki(&["serve", "--secure-port", "1", "--data-dir", dir.path().to_str().unwrap()], dir.path());
    assert!(text(&started.stderr).contains("is damaged"), "{}", text(&started.stderr));
}

/// A file system of its own, while the test runs as root; None elsewhere.
struct Mount(PathBuf);

impl Mount {
    fn new(dir: &Path, megabytes: u32) -> Option<Mount> {
        let path = dir.join("disk");
        std::fs::create_dir(&path).unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "kontiki-test"]).arg(&path).status();
        mounted.is_ok_and(|status| status.success()).then_some(Mount(path))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn soon(mut happens: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        if happens() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::new(dir.path(), 320) else {
        eprintln!("skipped: nothing can be mounted here");
        return;
    };
    let data = mount.0.join("data");
    let replica = Replica::start(&data);
    let first = revision(&replica.create("m0", "x").1);
    // All that is left, at once.
    let ballast = mount.0.join("other-peoples-data");
    let filled = std::fs::File::create(&ballast).and_then(|mut file| {
        loop {
            file.write_all(&[0; 1 << 20])?;
        }
    });
    let filled: Result<(), std::io::Error> = filled;
    assert!(filled.is_err());
    let (mut told, mut tries) = (Value::Null, 0);
    assert!(soon(|| {
        // The first may come before the replica has looked, and is there then.
        tries += 1;
        let (code, status) = replica.create(&format!("refused-{tries}"), "x");
        told = status;
        code == 503
    }));
    let message = told["message"].as_str().unwrap_or_default();
    assert!(message.contains("no space") && told["reason"] == "ServiceUnavailable", "{told}");
    assert_eq!(replica.ask("GET", &format!("{MAPS}/m0"), None).0, 200);
    assert_eq!(replica.ask("GET", "/readyz", None).0, 200);
    let (_, list) = replica.ask("GET", MAPS, None);
    assert!(revision(&list) >= first);
    std::fs::remove_file(&ballast).unwrap();
    assert!(soon(|| replica.create("m2", "x").0 == 201), "writes don't resume");
    assert_eq!(watched(&replica, first, 1).len(), 1);
    replica.kill();
    let replica = Replica::start(&data);
    assert_eq!(replica.ask("GET", &format!("{MAPS}/m2"), None).0, 200);
}
