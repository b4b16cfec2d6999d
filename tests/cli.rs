//! What the program says to an operator who has made a mistake: which flag it is, and what to do.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use kontiki::pki::ClusterPki;

fn kontiki(dir: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kontiki"));
    command.args(line.split(' ')).current_dir(dir).env("HOME", dir).env_remove("KUBECONFIG");
    command
}

/// What it says when it fails.
fn fails(dir: &Path, line: &str) -> String {
    let output = kontiki(dir, line).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{line}");
    let said = said.lines().filter(|line| !line.contains(" WARN ") && !line.contains(" INFO "));
    said.collect::<Vec<_>>().join("\n")
}

struct Running(Child);

impl Running {
    fn start(dir: &Path, line: &str) -> Running {
        let mut process = kontiki(dir, line).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        assert_eq!(output.lines().take(3).count(), 3, "it doesn't start");
        Running(process)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn it_says_which_version_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let said = ["--version", "version"].map(|line| kontiki(dir.path(), line).output().unwrap().stdout);
    assert!(said[0].starts_with(b"kontiki 0.") && said[0] == said[1], "{said:?}");
}

#[test]
fn a_mistake_is_named_once_with_its_flag() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let free = free_port();
    fs::write(dir.join("file"), "x").unwrap();
    for (line, expected) in [
        ("serve --data-dir file/data", "error: --data-dir: file/data can't be made or written: Not a directory"),
        (
            &format!("serve --data-dir a --secure-port {free} --peer-address {taken}"),
            &format!("error: --peer-address: something else listens on {taken}; stop it, or choose another port"),
        ),
        (
            &format!("serve --data-dir a --bind-address 127.0.0.1 --secure-port {}", taken.port()),
            &format!("error: --secure-port: something else listens on {taken}; stop it, or choose another port"),
        ),
        (
            "status --kubeconfig nowhere",
            "error: --kubeconfig: nowhere: No such file or directory (os error 2); give the cluster's",
        ),
        (
            "member list",
            "error: --kubeconfig: KUBECONFIG is not set, and there is no ~/.kube/config; give the cluster's",
        ),
        ("token create --ttl abc", "error: invalid value 'abc' for '--ttl <duration>': a duration is written like 90s"),
        (
            "token create --ttl 0s",
            "error: invalid value '0s' for '--ttl <duration>': a token lives for a second at least",
        ),
        ("token create --ttl -5s", "error: invalid value '-5s' for '--ttl <duration>': a duration can't be negative"),
        ("pki init --pki-dir p --server x", "error: invalid value 'x' for '--server <url>': a server is written like"),
        ("pki init --pki-dir file/p", "error: --pki-dir: file/p: Not a directory"),
        ("snapshot restore file --data-dir b --name N1", "error: invalid value 'N1' for '--name <string>': a name has"),
        (
            "snapshot restore file --data-dir b --peer-address x",
            "error: invalid value 'x' for '--peer-address <host:port>'",
        ),
        ("recover --data-dir b --peer-address x", "error: invalid value 'x' for '--peer-address <host:port>'"),
        ("verify --data-dir nowhere", "error: --data-dir: nowhere: this is no data directory of a replica"),
        ("recover --data-dir nowhere", "error: --data-dir: nowhere: this is no data directory of a replica"),
        ("snapshot status nowhere", "error: nowhere: it can't be read: No such file or directory (os error 2)"),
        ("snapshot status file", "error: file: it is no snapshot of Kontiki"),
        (
            "snapshot restore nowhere --data-dir b",
            "error: nowhere: it can't be read: No such file or directory (os error 2)",
        ),
    ] {
        let said = fails(dir, line);
        assert!(said.starts_with(expected), "{line}: {said}");
        // No cause stands there twice.
        for cause in ["os error", "no snapshot"] {
            assert!(said.matches(cause).count() <= 1, "{line}: {said}");
        }
    }
    assert!(!dir.join("b").exists());
}

#[test]
fn a_data_directory_is_left_alone_while_a_replica_runs_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let port = free_port();
    let serve = format!("serve --data-dir data --bind-address 127.0.0.1 --secure-port {port} --name n1");
    let running = Running::start(dir, &serve);
    // Files are replaced, never written over.
    let inode = |name: &str| fs::metadata(dir.join("data").join(name)).unwrap().ino();
    let files = || ["admin.kubeconfig", "pki/peer.crt", "pki/apiserver.crt", "pki/ca.crt"].map(inode);
    let before = files();
    let other = format!("serve --data-dir data --bind-address 127.0.0.1 --secure-port {} --name n2", free_port());
    assert_eq!(fails(dir, &other), "error: --data-dir: a replica runs on data; stop it first");
    for line in ["verify --data-dir data", "recover --data-dir data"] {
        let expected = "error: --data-dir: data: a replica runs on this data directory: stop it first";
        assert_eq!(fails(dir, line), expected);
    }
    assert_eq!(files(), before);

    // A kubeconfig of another cluster.
    let foreign = ClusterPki::create(&dir.join("foreign")).unwrap();
    foreign.ensure_admin(&dir.join("wrong"), Some(&format!("https://127.0.0.1:{port}"))).unwrap();
    for line in ["status --kubeconfig wrong", "snapshot save file --kubeconfig wrong"] {
        let said = fails(dir, line);
        assert!(
            said.contains("certificate-authority does not vouch for; take the kubeconfig of this cluster"),
            "{said}"
        );
        assert_eq!(said.matches("invalid peer certificate").count(), 1, "{said}");
    }

    drop(running);
    let said = fails(dir, &other);
    assert!(said.ends_with("this is the data directory of replica n1: start it with --name n1"), "{said}");
    // The lock went with the process.
    drop(Running::start(dir, &serve));
}
