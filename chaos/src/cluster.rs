//! Replicas as processes, with free ports, a PKI of their own and a balancer in front. Everything is stopped again.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::balancer::Balancer;
use crate::client::{Access, Client};

const START_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(clap::Args, Clone)]
pub struct Args {
    /// How many replicas.
    #[arg(long, default_value_t = 3)]
    pub replicas: usize,
    /// The `kontiki` binary; by default the one beside this program.
    #[arg(long)]
    pub binary: Option<PathBuf>,
    /// Where replicas keep their data and logs; by default a temporary directory that is removed at the end.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Where the balancer listens; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// A further flag for every `kontiki serve`; may be given again.
    #[arg(long = "serve-flag", allow_hyphen_values = true)]
    pub serve_flags: Vec<String>,
}

/// One replica of `kontiki status -o json`; one that doesn't answer has no role.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    pub name: String,
    #[serde(default)]
    pub role: String,
}

#[derive(Deserialize)]
struct Statuses {
    replicas: Vec<Status>,
}

struct Replica {
    name: String,
    address: SocketAddr,
    command: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

/// A running cluster. Dropping it kills the replicas.
pub struct Cluster {
    binary: PathBuf,
    replicas: Vec<Replica>,
    pub kubeconfig: PathBuf,
    /// By the balancer.
    pub access: Access,
    _balancer: Balancer,
    dir: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

/// Ports that nobody uses now. They are all taken at once, so that they differ.
fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let listeners: Result<Vec<_>, _> = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect();
    listeners?.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

impl Cluster {
    pub async fn start(args: &Args) -> anyhow::Result<Cluster> {
        if args.replicas == 0 {
            bail!("--replicas: a cluster has at least one");
        }
        let binary = match &args.binary {
            Some(binary) => binary.clone(),
            None => std::env::current_exe()?.with_file_name("kontiki"),
        };
        if !binary.exists() {
            bail!("{}: no such file; name the kontiki binary with --binary", binary.display());
        }
        let (dir, temporary) = match &args.dir {
            Some(dir) => (dir.clone(), None),
            None => {
                let temporary = tempfile::tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        std::fs::create_dir_all(&dir)?;
        let pki = dir.join("pki");
        let made = Command::new(&binary).args(["pki", "init", "--pki-dir"]).arg(&pki).output()?;
        if !made.status.success() {
            bail!("kontiki pki init: {}", String::from_utf8_lossy(&made.stderr));
        }
        let ports = free_ports(args.replicas * 2)?;
        let (secure, peer) = ports.split_at(args.replicas);
        let names: Vec<String> = (1..=args.replicas).map(|n| format!("n{n}")).collect();
        let members: Vec<String> =
            names.iter().zip(peer).map(|(name, port)| format!("{name}=127.0.0.1:{port}")).collect();
        let mut replicas = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let text = |text: &str| text.to_owned();
            let mut command = vec![
                text("serve"),
                text("--name"),
                name.clone(),
                text("--data-dir"),
                dir.join(name).display().to_string(),
                text("--bind-address"),
                text("127.0.0.1"),
                text("--secure-port"),
                secure[index].to_string(),
                text("--peer-address"),
                format!("127.0.0.1:{}", peer[index]),
                text("--initial-cluster"),
                members.join(","),
                text("--pki-dir"),
                pki.display().to_string(),
            ];
            command.extend(args.serve_flags.iter().cloned());
            replicas.push(Replica {
                name: name.clone(),
                address: (Ipv4Addr::LOCALHOST, secure[index]).into(),
                command,
                log: dir.join(format!("{name}.log")),
                child: None,
            });
        }
        for replica in &mut replicas {
            replica.start(&binary)?;
        }
        let admin = pki.join("admin.kubeconfig");
        let access = Access::read(&admin)?;
        let backends: Vec<SocketAddr> = replicas.iter().map(|replica| replica.address).collect();
        let balancer = Balancer::start(args.listen, &backends, &access).await?;
        let access = access.at(&format!("https://{}", balancer.address));
        let kubeconfig = dir.join("balancer.kubeconfig");
        let text = std::fs::read_to_string(&admin)?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("server:")).context("no server")?;
        std::fs::write(&kubeconfig, text.replace(line.trim(), &access.server))?;
        let cluster = Cluster { binary, replicas, kubeconfig, access, _balancer: balancer, dir, _temporary: temporary };
        for index in 0..cluster.replicas.len() {
            cluster.wait_ready(index).await?;
        }
        Ok(cluster)
    }

    pub fn pids(&self) -> Vec<u32> {
        self.replicas.iter().filter_map(|replica| replica.child.as_ref().map(Child::id)).collect()
    }

    pub fn len(&self) -> usize {
        self.replicas.len()
    }

    /// A client of one replica, past the balancer.
    pub fn replica_client(&self, index: usize) -> Client {
        self.access.at(&format!("https://{}", self.replicas[index].address)).client()
    }

    pub async fn wait_ready(&self, index: usize) -> anyhow::Result<()> {
        let client = self.replica_client(index);
        let replica = &self.replicas[index];
        let began = Instant::now();
        loop {
            let answer = tokio::time::timeout(Duration::from_secs(2), client.get("/readyz")).await;
            if matches!(answer, Ok(Ok(answer)) if answer.status.is_success()) {
                return Ok(());
            }
            if began.elapsed() > START_TIMEOUT {
                let log = std::fs::read_to_string(&replica.log).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(20).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                bail!("{} isn't ready after {START_TIMEOUT:?}; its log ends:\n{}", replica.name, tail.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the replicas say of themselves, asked through the balancer as an operator would.
    pub async fn status(&self) -> anyhow::Result<Vec<Status>> {
        let output = tokio::process::Command::new(&self.binary)
            .args(["status", "-o", "json", "--kubeconfig"])
            .arg(&self.kubeconfig)
            .output()
            .await?;
        if !output.status.success() {
            bail!("kontiki status: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(serde_json::from_slice::<Statuses>(&output.stdout)?.replicas)
    }

    /// The place of the replica that leads, once there is one.
    pub async fn leader(&self) -> anyhow::Result<usize> {
        let began = Instant::now();
        loop {
            if let Ok(statuses) = self.status().await
                && let Some(leader) = statuses.iter().find(|status| status.role.eq_ignore_ascii_case("leader"))
                && let Some(index) = self.replicas.iter().position(|replica| replica.name == leader.name)
            {
                return Ok(index);
            }
            if began.elapsed() > START_TIMEOUT {
                bail!("no replica leads after {START_TIMEOUT:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn name(&self, index: usize) -> &str {
        &self.replicas[index].name
    }

    /// `kill -9`.
    pub fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        if let Some(mut child) = self.replicas[index].child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    pub fn restart(&mut self, index: usize) -> anyhow::Result<()> {
        self.replicas[index].start(&self.binary)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Replica {
    fn start(&mut self, binary: &Path) -> anyhow::Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let child = Command::new(binary)
            .args(&self.command)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| binary.display().to_string())?;
        self.child = Some(child);
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for replica in &mut self.replicas {
            if let Some(mut child) = replica.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let cluster = Cluster::start(&args).await?;
    println!("{} replicas behind {}", cluster.len(), cluster.access.server);
    println!("data and logs: {}", cluster.dir().display());
    println!("process ids: {}", cluster.pids().iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
    println!("export KUBECONFIG={}", cluster.kubeconfig.display());
    tokio::signal::ctrl_c().await?;
    Ok(())
}
