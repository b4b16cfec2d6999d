//! Replicas as processes, with free ports, a PKI of their own and a balancer in front. Everything is stopped again.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rand::Rng;
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::Value;

use crate::balancer::Balancer;
use crate::client::{Access, Client};
use crate::process;
use crate::rig::{Faults, Need, Place, Rig, Volume};

const START_TIMEOUT: Duration = Duration::from_secs(60);
/// A replica that takes longer to say how it is counts as one that doesn't say.
const PROBE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);

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

/// One replica of what `kontiki status -o json` prints; one that doesn't answer has no role.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    pub name: String,
    pub role: String,
    pub term: u64,
    pub revision: u64,
    pub state_hash: String,
    pub diverged: bool,
}

#[derive(Deserialize)]
struct Statuses {
    replicas: Vec<Status>,
}

/// Where it is asked for.
const STATUS: &str = "/kontiki/status";

struct Replica {
    name: String,
    address: SocketAddr,
    place: Place,
    command: Vec<String>,
    log: PathBuf,
    client: Client,
    child: Option<Child>,
    /// Stopped for a while, and can't answer.
    paused: bool,
    /// No member any more.
    gone: bool,
}

/// A running cluster. Dropping it kills the replicas.
pub struct Cluster {
    binary: PathBuf,
    serve_flags: Vec<String>,
    replicas: Vec<Replica>,
    pub kubeconfig: PathBuf,
    /// By the balancer.
    pub access: Access,
    balancer: Balancer,
    // After the replicas that live in it.
    rig: Rig,
    dir: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

/// Ports that nobody uses now. They are all taken at once, so that they differ; and they are below those that outgoing
/// connections get, else one of these might have the port of a replica that is down.
pub fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let random = std::iter::repeat_with(|| rand::rng().random_range(10_000..32_000u16)).take(10_000);
    let listeners = random.filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
    let listeners: Vec<_> = listeners.take(count).collect();
    if listeners.len() < count {
        bail!("there are no free ports");
    }
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

impl Cluster {
    pub async fn start(args: &Args, needs: &BTreeSet<Need>) -> anyhow::Result<Cluster> {
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
        let admin = pki.join("admin.kubeconfig");
        let access = Access::read(&admin)?;
        let mut rig = Rig::new(needs, &dir)?;
        let names: Vec<String> = (1..=args.replicas).map(|n| format!("n{n}")).collect();
        let mut places = Vec::new();
        for (index, name) in names.iter().enumerate() {
            places.push(rig.place(index, name, &dir.join(name)).await?);
        }
        let members: Vec<String> =
            names.iter().zip(&places).map(|(name, place)| format!("{name}={}", place.peer)).collect();
        let balancer = Balancer::start(args.listen, &access).await?;
        let access = access.at(&format!("https://{}", balancer.address));
        let kubeconfig = dir.join("balancer.kubeconfig");
        let text = std::fs::read_to_string(&admin)?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("server:")).context("no server")?;
        std::fs::write(&kubeconfig, text.replace(line.trim(), &access.server))?;
        let mut cluster = Cluster {
            binary,
            serve_flags: args.serve_flags.clone(),
            replicas: Vec::new(),
            kubeconfig,
            access,
            balancer,
            rig,
            dir,
            _temporary: temporary,
        };
        let how = ["--initial-cluster".into(), members.join(","), "--pki-dir".into(), pki.display().to_string()];
        for (name, place) in names.into_iter().zip(places) {
            cluster.begin(name, place, &how)?;
        }
        for index in cluster.all() {
            cluster.wait_ready(index).await?;
        }
        Ok(cluster)
    }

    /// Starts a replica, which belongs to the cluster as these flags say, and lets the balancer know of it.
    fn begin(&mut self, name: String, place: Place, how: &[String]) -> anyhow::Result<usize> {
        let mut command: Vec<String> = [
            "serve",
            "--name",
            &name,
            "--data-dir",
            &self.dir.join(&name).display().to_string(),
            "--bind-address",
            &place.ip.to_string(),
            "--secure-port",
            &place.secure_port.to_string(),
            "--peer-address",
            &place.peer.to_string(),
        ]
        .map(str::to_owned)
        .into();
        if let Some(listen) = place.peer_listen {
            command.extend(["--peer-bind-address".to_owned(), listen.to_string()]);
        }
        command.extend(how.iter().chain(&self.serve_flags).cloned());
        let address = SocketAddr::new(place.ip, place.secure_port);
        self.replicas.push(Replica {
            address,
            client: self.access.at(&format!("https://{address}")).client(),
            log: self.dir.join(format!("{name}.log")),
            name,
            place,
            command,
            child: None,
            paused: false,
            gone: false,
        });
        let index = self.replicas.len() - 1;
        self.start_again(index)?;
        self.balancer.add(address);
        Ok(index)
    }

    /// Lets a new replica join, and waits until it is a voter.
    pub async fn join(&mut self) -> anyhow::Result<usize> {
        let token: Value = serde_json::from_str(&self.kontiki(&["token", "create", "-o", "json"]).await?)?;
        let token = token["token"].as_str().context("kontiki token create prints no token")?;
        let index = self.replicas.len();
        let name = format!("n{}", index + 1);
        let place = self.rig.place(index, &name, &self.dir.join(&name)).await?;
        // Not the balancer, which a replica in a namespace of its own doesn't reach.
        let through = self.replicas.iter().find(|replica| replica.child.is_some()).context("no replica runs")?;
        let how = ["--join".into(), format!("https://{}", through.address), "--token".into(), token.to_owned()];
        self.begin(name, place, &how)?;
        self.wait_ready(index).await?;
        let began = Instant::now();
        loop {
            let members: Value = serde_json::from_str(&self.kontiki(&["member", "list", "-o", "json"]).await?)?;
            let all = members["members"].as_array().map(Vec::as_slice).unwrap_or_default();
            if all.iter().any(|member| member["name"] == self.name(index) && member["role"] == "Voter") {
                return Ok(index);
            }
            if began.elapsed() > START_TIMEOUT {
                bail!("{} isn't promoted after {START_TIMEOUT:?}; {}", self.name(index), self.log_tail(index));
            }
            tokio::time::sleep(POLL * 5).await;
        }
    }

    /// Takes a replica that has stopped out of the cluster, with its data.
    pub async fn remove(&mut self, index: usize) -> anyhow::Result<()> {
        self.balancer.remove(self.replicas[index].address);
        self.kontiki(&["member", "remove", self.name(index)]).await?;
        let replica = &mut self.replicas[index];
        replica.gone = true;
        replica.place.volume = None;
        std::fs::remove_dir_all(self.dir.join(&replica.name))?;
        Ok(())
    }

    /// What a `kontiki` command prints that an operator gives through the balancer.
    pub async fn kontiki(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = tokio::process::Command::new(&self.binary)
            .args(args)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .output()
            .await?;
        if !output.status.success() {
            bail!("kontiki {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    pub fn pids(&self) -> Vec<u32> {
        self.replicas.iter().filter_map(|replica| replica.child.as_ref().map(Child::id)).collect()
    }

    /// Of one replica, while it runs.
    pub fn pid(&self, index: usize) -> Option<u32> {
        self.replicas[index].child.as_ref().map(Child::id)
    }

    /// The places of all members.
    pub fn all(&self) -> Vec<usize> {
        (0..self.replicas.len()).filter(|index| !self.replicas[*index].gone).collect()
    }

    pub fn name(&self, index: usize) -> &str {
        &self.replicas[index].name
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn network(&self) -> &'static str {
        self.rig.describe()
    }

    /// A client of one replica, past the balancer, with connections of its own.
    pub fn replica_client(&self, index: usize) -> Client {
        self.access.at(&format!("https://{}", self.replicas[index].address)).client()
    }

    pub async fn is_ready(&self, index: usize) -> bool {
        let answer = tokio::time::timeout(PROBE, self.replicas[index].client.get("/readyz")).await;
        matches!(answer, Ok(Ok(answer)) if answer.status.is_success())
    }

    pub async fn wait_ready(&self, index: usize) -> anyhow::Result<()> {
        let began = Instant::now();
        while !self.is_ready(index).await {
            if began.elapsed() > START_TIMEOUT {
                bail!("{} isn't ready after {START_TIMEOUT:?}; {}", self.name(index), self.log_tail(index));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn log_tail(&self, index: usize) -> String {
        let log = std::fs::read_to_string(&self.replicas[index].log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("its log ends:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
    }

    /// What a replica says of itself.
    pub async fn own_status(&self, index: usize) -> anyhow::Result<Status> {
        let answer = tokio::time::timeout(PROBE, self.replicas[index].client.get(STATUS)).await??.ok()?;
        let statuses = serde_json::from_slice::<Statuses>(&answer.body)?.replicas;
        let own = statuses.into_iter().find(|status| status.name == self.name(index));
        own.with_context(|| format!("{} doesn't know itself", self.name(index)))
    }

    /// The place of the replica that leads, once there is one: one that leads in the latest term that anyone knows of.
    pub async fn leader(&self) -> anyhow::Result<usize> {
        self.leader_among(&self.all()).await
    }

    /// The same, as these know it.
    pub async fn leader_among(&self, among: &[usize]) -> anyhow::Result<usize> {
        let began = Instant::now();
        loop {
            let asked = among
                .iter()
                .copied()
                .filter(|index| self.is_up(*index))
                .map(|index| async move { Some((index, self.own_status(index).await.ok()?)) });
            let statuses: Vec<(usize, Status)> =
                futures_util::future::join_all(asked).await.into_iter().flatten().collect();
            let latest = statuses.iter().map(|(_, status)| status.term).max().unwrap_or(0);
            let leads = |status: &Status| status.term == latest && status.role == "Leader";
            if let Some((index, _)) = statuses.iter().find(|(_, status)| leads(status)) {
                return Ok(*index);
            }
            if began.elapsed() > START_TIMEOUT {
                bail!("no replica leads after {START_TIMEOUT:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn is_up(&self, index: usize) -> bool {
        self.replicas[index].child.is_some() && !self.replicas[index].paused
    }

    /// `kill -9`.
    pub fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        if let Some(mut child) = self.replicas[index].child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks the replica to stop, and waits until it has.
    pub async fn stop(&mut self, index: usize) -> anyhow::Result<()> {
        let Some(mut child) = self.replicas[index].child.take() else { return Ok(()) };
        process::signal(child.id(), Signal::TERM)?;
        let status = tokio::task::spawn_blocking(move || child.wait()).await??;
        if !status.success() {
            bail!("{} stopped with {status}; {}", self.name(index), self.log_tail(index));
        }
        Ok(())
    }

    /// Waits until the replica has ended by itself. False: it hasn't.
    pub async fn ends_within(&mut self, index: usize, time: Duration) -> anyhow::Result<bool> {
        let began = Instant::now();
        while let Some(child) = &mut self.replicas[index].child {
            if child.try_wait()?.is_some() {
                self.replicas[index].child = None;
            } else if began.elapsed() > time {
                return Ok(false);
            } else {
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(true)
    }

    pub fn pause(&mut self, index: usize, pause: bool) -> anyhow::Result<()> {
        let replica = &mut self.replicas[index];
        if let Some(child) = &replica.child {
            process::signal(child.id(), if pause { Signal::STOP } else { Signal::CONT })?;
            replica.paused = pause;
        }
        Ok(())
    }

    pub fn start_again(&mut self, index: usize) -> anyhow::Result<()> {
        let replica = &mut self.replicas[index];
        let pid = replica.start(&self.binary)?;
        self.rig.started(index, pid);
        Ok(())
    }

    /// Cuts or heals these ways between replicas.
    pub fn set_ways(&self, ways: &[(usize, usize)], open: bool) -> anyhow::Result<()> {
        ways.iter().try_for_each(|(from, to)| if open { self.rig.heal(*from, *to) } else { self.rig.cut(*from, *to) })
    }

    pub fn faults(&self, index: usize) -> anyhow::Result<&Faults> {
        self.replicas[index].place.faults.as_ref().context("the replicas run without the shim")
    }

    pub fn volume(&self, index: usize) -> anyhow::Result<&Volume> {
        self.replicas[index].place.volume.as_ref().context("the replicas have no disks of their own")
    }
}

impl Replica {
    fn start(&mut self, binary: &Path) -> anyhow::Result<u32> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        // What enters a namespace becomes what it is told to run, so that the process id is the replica's.
        let mut words = self.place.enter.iter().map(OsStr::new).chain([binary.as_os_str()]);
        let child = Command::new(words.next().unwrap_or(binary.as_os_str()))
            .args(words)
            .args(&self.command)
            .envs(self.place.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| binary.display().to_string())?;
        let pid = child.id();
        self.child = Some(child);
        self.paused = false;
        Ok(pid)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let cluster = Cluster::start(&args, &BTreeSet::new()).await?;
    println!("{} replicas behind {}", cluster.all().len(), cluster.access.server);
    println!("data and logs: {}", cluster.dir().display());
    println!("process ids: {}", cluster.pids().iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
    println!("export KUBECONFIG={}", cluster.kubeconfig.display());
    tokio::signal::ctrl_c().await?;
    Ok(())
}
