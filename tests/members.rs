//! Replicas as processes that join, lead, leave and come back, under writes that never fail.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

struct Replica {
    name: String,
    dir: PathBuf,
    port: u16,
    peer_port: u16,
    process: Option<Child>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn kontiki() -> Command {
    Command::new(env!("CARGO_BIN_EXE_kontiki"))
}

impl Replica {
    fn new(dir: &Path, name: &str) -> Replica {
        Replica { name: name.into(), dir: dir.join(name), port: free_port(), peer_port: free_port(), process: None }
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = kontiki();
        command.args(["serve", "--name", &self.name, "--bind-address", "127.0.0.1"]);
        command.args(["--secure-port", &self.port.to_string()]);
        command.args(["--peer-address", &format!("127.0.0.1:{}", self.peer_port), "--data-dir"]);
        command.arg(&self.dir).args(more);
        command
    }

    /// Returns once it is ready.
    fn start(&mut self, more: &[&str]) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.with_extension("log")).unwrap();
        let mut process = self.command(more).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let lines: Vec<_> =
            BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok).take(3).collect();
        let ready = lines.first().is_some_and(|line| line.contains("is ready"));
        self.process = Some(process);
        assert!(ready, "{}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.with_extension("log")).unwrap()
    }

    /// Why it doesn't start.
    fn refused(&self, more: &[&str]) -> String {
        let Output { status, stderr, .. } = self.command(more).output().unwrap();
        let text = String::from_utf8_lossy(&stderr).into_owned();
        assert!(!status.success(), "{text}");
        text.lines().last().unwrap_or_default().to_owned()
    }

    fn signal(&mut self, signal: &str) -> Option<i32> {
        let mut process = self.process.take().unwrap();
        assert!(Command::new("kill").args([signal, &process.id().to_string()]).status().unwrap().success());
        process.wait().unwrap().code()
    }

    fn wait(&mut self) -> Option<i32> {
        self.process.take().unwrap().wait().unwrap().code()
    }

    fn admin(&self, args: &[&str]) -> Result<String, String> {
        let output = kontiki().args(args).arg("--kubeconfig").arg(self.dir.join("admin.kubeconfig")).output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Names and roles, the leader's in capitals.
    fn members(&self) -> Vec<String> {
        let text = self.admin(&["member", "list", "-o", "json"]).unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        let members = answer["members"].as_array().unwrap().iter().map(|member| {
            let name = member["name"].as_str().unwrap();
            let name = if member["leader"] == true { name.to_uppercase() } else { name.to_owned() };
            format!("{name} {}", member["role"].as_str().unwrap())
        });
        members.collect()
    }

    fn revision(&self) -> u64 {
        let answer: Value = serde_json::from_str(&self.admin(&["status", "-o", "json"]).unwrap()).unwrap();
        let replicas = answer["replicas"].as_array().unwrap();
        replicas.iter().find(|replica| replica["name"] == self.name.as_str()).unwrap()["revision"].as_u64().unwrap()
    }

    fn wait_for_members(&self, expected: &[&str]) {
        let end = Instant::now() + Duration::from_secs(20);
        while self.members() != expected {
            assert!(Instant::now() < end, "{:?} are not {expected:?}", self.members());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[test]
fn one_replica_goes_on_when_the_others_are_lost() {
    let dir = tempfile::tempdir().unwrap();
    let [mut n1, mut n2, mut n3] = ["n1", "n2", "n3"].map(|name| Replica::new(dir.path(), name));
    n1.start(&[]);
    let token = n1.admin(&["token", "create"]).unwrap();
    let server = format!("https://localhost:{}", n1.port);
    let join = ["--join", &server, "--token", token.lines().next().unwrap()];
    n2.start(&join);
    n3.start(&join);
    n1.wait_for_members(&["N1 Voter", "n2 Voter", "n3 Voter"]);
    let before = n3.revision();

    let recover = |replica: &Replica, more: &[&str]| {
        let Output { status, stdout, stderr } =
            kontiki().args(["recover", "--data-dir"]).arg(&replica.dir).args(more).output().unwrap();
        let text = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
        if status.success() { Ok(text) } else { Err(text) }
    };
    assert!(recover(&n3, &[]).unwrap_err().contains("stop it first"));
    n3.signal("-KILL");
    let refused = recover(&n3, &[]).unwrap_err();
    assert!(refused.contains("2 of the other voters answer") && refused.contains("--abandon-quorum"), "{refused}");
    n2.signal("-KILL");
    // One of three, and n3 itself makes two.
    let refused = recover(&n3, &[]).unwrap_err();
    assert!(refused.contains("1 of the other voters answer"), "{refused}");
    n1.signal("-KILL");
    assert!(recover(&n3, &["--dry-run"]).unwrap().contains("nothing was changed"));
    assert!(recover(&n3, &[]).unwrap().contains("only member of the new cluster"));

    n3.start(&[]);
    n3.wait_for_members(&["N3 Voter"]);
    assert!(n3.revision() >= before + 1_000_000_000);
    // One of the old cluster is not taken back, and does no harm.
    let mut old = n1.command(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    n3.wait_for_members(&["N3 Voter"]);
    let token = n3.admin(&["token", "create"]).unwrap();
    let server = format!("https://localhost:{}", n3.port);
    fs::remove_dir_all(&n2.dir).unwrap();
    n2.start(&["--join", &server, "--token", token.lines().next().unwrap()]);
    n3.wait_for_members(&["n2 Voter", "N3 Voter"]);
    old.kill().unwrap();
    old.wait().unwrap();
}

#[test]
fn replicas_join_lead_leave_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let [mut n1, mut n2, mut n3] = ["n1", "n2", "n3"].map(|name| Replica::new(dir.path(), name));
    n1.start(&[]);
    let token = n1.admin(&["token", "create"]).unwrap();
    assert!(token.contains("--join https://127.0.0.1:"), "{token}");
    let token = token.lines().next().unwrap();
    let (server, other) = (format!("https://localhost:{}", n1.port), format!("00000000{}", &token[8..]));

    // Not known; of another cluster; and what had begun is not taken for a cluster of its own.
    let join = ["--join", &server, "--token", token];
    assert!(n2.refused(&["--join", &server, "--token", &other]).contains("the token is not known"));
    let stranger = format!("{}{}", &token[..42], "0".repeat(64));
    assert!(n2.refused(&["--join", &server, "--token", &stranger]).contains("authority has another key"));
    assert!(n2.refused(&[]).contains("has begun to join"));
    let short = n1.admin(&["token", "create", "--ttl", "1s"]).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    let late = ["--join", &server, "--token", short.lines().next().unwrap()];
    assert!(n2.refused(&late).contains("it has expired"));

    n2.start(&join);
    n1.wait_for_members(&["N1 Voter", "n2 Voter"]);
    n3.start(&[&join[..], &["--learner"]].concat());
    n1.wait_for_members(&["N1 Voter", "n2 Voter", "n3 Learner"]);
    assert!(n3.admin(&["leader", "transfer", "n3"]).unwrap_err().contains("only a voter can lead"));
    n3.admin(&["member", "promote", "n3"]).unwrap();
    n3.admin(&["leader", "transfer", "n3"]).unwrap();
    n1.wait_for_members(&["n1 Voter", "n2 Voter", "N3 Voter"]);

    // It comes back as what it was, with and without the flags.
    assert_eq!(n2.signal("-TERM"), Some(0));
    n2.start(&[]);
    n2.signal("-KILL");
    n2.start(&join);
    assert_eq!(n2.members().len(), 3);

    // Without its data it is another replica, which must not come while its name is taken.
    n2.signal("-KILL");
    fs::remove_dir_all(&n2.dir).unwrap();
    assert!(n2.refused(&join).contains("is a member already"));
    n1.admin(&["member", "remove", "n2"]).unwrap();
    n2.start(&join);
    n1.wait_for_members(&["n1 Voter", "n2 Voter", "N3 Voter"]);

    // Two of three: none of them can go.
    n1.signal("-KILL");
    std::thread::sleep(Duration::from_secs(2));
    let refused = n2.admin(&["member", "remove", "n2"]).unwrap_err();
    assert!(refused.contains("a quorum is 2"), "{refused}");
    n2.admin(&["member", "remove", "n1"]).unwrap();
    assert!(n1.refused(&[]).contains("removed from the cluster"));

    // One that is removed while it serves stops and says so; the leader hands over first.
    n2.admin(&["leader", "transfer", "n2"]).unwrap();
    n3.admin(&["member", "remove", "n2"]).unwrap();
    assert_eq!(n2.wait(), Some(1));
    assert!(n2.log().contains("it was removed from the cluster"), "{}", n2.log());
    assert!(n2.refused(&[]).contains("removed from the cluster"));
    assert!(n3.admin(&["member", "remove", "n3"]).unwrap_err().contains("only voter"));
    assert_eq!(n3.signal("-TERM"), Some(0));
}
