//! A cluster behind a balancer, run by `kontiki-chaos`, and a kubectl that is pointed at it.

#![allow(dead_code, reason = "each test binary uses its own part of this module")]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

pub struct Cluster {
    chaos: Child,
    pub kubeconfig: PathBuf,
    /// The balancer.
    pub server: String,
    /// The replicas' processes: n1, n2 and so on.
    pub pids: Vec<u32>,
    pub dir: tempfile::TempDir,
}

/// A program of this workspace, built beside the server.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let path = test.ancestors().nth(2).expect("PROFILE/deps/TEST").join(name);
    assert!(path.exists(), "{} is missing: build the workspace first (tests/run does)", path.display());
    path
}

impl Cluster {
    pub fn start(replicas: usize, serve_flags: &[&str]) -> Cluster {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new(program("kontiki-chaos"));
        command.args(["cluster", "--replicas", &replicas.to_string(), "--dir"]).arg(dir.path().join("cluster"));
        for flag in serve_flags {
            command.args(["--serve-flag", flag]);
        }
        let mut chaos = command.stdout(Stdio::piped()).spawn().expect("kontiki-chaos");
        let mut lines = BufReader::new(chaos.stdout.take().expect("its output")).lines();
        let (mut server, mut pids) = (String::new(), Vec::new());
        let kubeconfig = loop {
            let line = lines.next().expect("the cluster did not start").expect("text");
            if let Some((_, address)) = line.split_once(" behind ") {
                server = address.to_owned();
            }
            if let Some(ids) = line.strip_prefix("process ids: ") {
                pids = ids.split(' ').filter_map(|id| id.parse().ok()).collect();
            }
            if let Some(path) = line.strip_prefix("export KUBECONFIG=") {
                break PathBuf::from(path);
            }
        };
        Cluster { chaos, kubeconfig, server, pids, dir }
    }

    /// Writes a file for a test to use.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".into()));
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", self.dir.path()).stdin(Stdio::null());
        command
    }

    /// What kubectl prints; the test fails when kubectl does.
    pub fn kubectl(&self, args: &[&str]) -> String {
        let output = self.kubectl_command().args(args).output().expect("kubectl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "kubectl {}: {}{text}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }
}

impl Cluster {
    /// Ends the replicas; their data stays where it is, under `dir`.
    pub fn stop(&mut self) {
        // So that it stops its replicas.
        let _ = Command::new("kill").args(["-INT", &self.chaos.id().to_string()]).status();
        let _ = self.chaos.wait();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}
