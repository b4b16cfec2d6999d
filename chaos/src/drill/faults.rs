//! What can be done to a cluster. Each fault is a line of the table and one function that does it and undoes it.

use std::time::{Duration, Instant};

use anyhow::bail;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::clients::probe;
use crate::cluster::Cluster;
use crate::rig::Need;

pub struct Fault {
    pub name: &'static str,
    pub about: &'static str,
    pub needs: &'static [Need],
    /// Replicas are told beforehand: no request through the balancer may fail.
    pub planned: bool,
    /// Replicas go for good: clients only talk to the balancer.
    pub removes: bool,
    /// Replicas stop answering with their connections open.
    pub mute: bool,
    pub inflict: Inflict,
}

type Inflict = fn(&mut Stage) -> BoxFuture<'_, anyhow::Result<String>>;

/// Where a fault happens. It answers with what it did, in a few words.
pub struct Stage {
    pub cluster: Cluster,
    pub rng: StdRng,
    /// How long what is broken stays broken.
    pub hold: Duration,
    /// What replicas did under the fault that they must not do.
    pub violations: Vec<String>,
}

const PLAIN: Fault = Fault {
    name: "",
    about: "",
    needs: &[],
    planned: false,
    removes: false,
    mute: false,
    inflict: |stage| kill_leader(stage).boxed(),
};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "kill-leader",
        about: "kill -9 the leader, and start it again when another leads",
        inflict: |stage| kill_leader(stage).boxed(),
        ..PLAIN
    },
    Fault {
        name: "kill-follower",
        about: "kill -9 a follower, and start it again later",
        inflict: |stage| kill_follower(stage).boxed(),
        ..PLAIN
    },
    Fault {
        name: "restart-all",
        about: "kill -9 all replicas at once, and start them again",
        inflict: |stage| restart_all(stage).boxed(),
        ..PLAIN
    },
    Fault {
        name: "pause",
        about: "stop a replica, the leader as often as not, and let it go on (SIGSTOP, SIGCONT)",
        mute: true,
        inflict: |stage| pause(stage).boxed(),
        ..PLAIN
    },
    Fault {
        name: "isolate-leader",
        about: "cut the leader off from the others; clients still reach it",
        needs: &[Need::Network],
        inflict: |stage| isolate_leader(stage).boxed(),
        ..PLAIN
    },
    Fault {
        name: "isolate-follower",
        about: "cut a follower off from the others; clients still reach it",
        needs: &[Need::Network],
        inflict: |stage| isolate_follower(stage).boxed(),
        ..PLAIN
    },
    Fault {
        name: "one-way",
        about: "a replica hears the others and isn't heard, or the other way round",
        needs: &[Need::Network],
        inflict: |stage| one_way(stage).boxed(),
        ..PLAIN
    },
    Fault {
        name: "cut-link",
        about: "cut the leader's way to one follower, while both reach the third",
        needs: &[Need::Network],
        inflict: |stage| cut_link(stage).boxed(),
        ..PLAIN
    },
    Fault {
        name: "slow-disk",
        about: "every sync of a replica takes up to 200 ms longer",
        needs: &[Need::Shim],
        inflict: |stage| slow_disk(stage).boxed(),
        ..PLAIN
    },
    Fault {
        name: "failed-sync",
        about: "every sync of a replica fails; it must stop by itself",
        needs: &[Need::Shim],
        inflict: |stage| failed_sync(stage).boxed(),
        ..PLAIN
    },
    Fault {
        name: "full-disk",
        about: "the disk of one replica or of all is full; with space again they go on without a restart",
        needs: &[Need::SmallDisk],
        inflict: |stage| full_disk(stage).boxed(),
        ..PLAIN
    },
    Fault {
        name: "clock-jump",
        about: "the wall clock of a replica jumps by an hour, and back",
        needs: &[Need::Shim],
        inflict: |stage| clock_jump(stage).boxed(),
        ..PLAIN
    },
    Fault {
        name: "rolling-restart",
        about: "SIGTERM one replica after the other, and start each again",
        planned: true,
        inflict: |stage| rolling_restart(stage).boxed(),
        ..PLAIN
    },
    Fault {
        name: "transfer",
        about: "hand the leadership over, three times (kontiki leader transfer)",
        planned: true,
        inflict: |stage| transfer(stage).boxed(),
        ..PLAIN
    },
    Fault {
        name: "churn",
        about: "let a new replica join and be promoted, then stop an old one and remove it",
        planned: true,
        removes: true,
        inflict: |stage| churn(stage).boxed(),
        ..PLAIN
    },
    Fault {
        name: "replace",
        about: "kill -9 a replica, lose its data, and let a new one take its place",
        removes: true,
        inflict: |stage| replace(stage).boxed(),
        ..PLAIN
    },
];

/// A replica that is cut off has noticed after this.
const NOTICED: Duration = Duration::from_secs(5);

impl Stage {
    fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    fn any(&mut self) -> usize {
        let all = self.cluster.all();
        all[self.rng.random_range(0..all.len())]
    }

    async fn follower(&mut self) -> anyhow::Result<usize> {
        let leader = self.cluster.leader().await?;
        match self.others(leader).choose(&mut self.rng) {
            Some(follower) => Ok(*follower),
            None => bail!("a cluster of one has no follower"),
        }
    }

    /// The leader as often as all others together.
    async fn leader_or_any(&mut self) -> anyhow::Result<(usize, &'static str)> {
        let leader = self.cluster.leader().await?;
        let victim = if self.rng.random_bool(0.5) { leader } else { self.any() };
        Ok((victim, if victim == leader { "the leader" } else { "a follower" }))
    }

    async fn hold(&self) {
        tokio::time::sleep(self.hold).await;
    }

    fn others(&self, index: usize) -> Vec<usize> {
        self.cluster.all().into_iter().filter(|other| *other != index).collect()
    }
}

async fn kill_leader(stage: &mut Stage) -> anyhow::Result<String> {
    let leader = stage.cluster.leader().await?;
    let killed = Instant::now();
    stage.cluster.kill(leader)?;
    let successor = stage.cluster.leader().await?;
    let took = killed.elapsed().as_millis();
    stage.cluster.start_again(leader)?;
    let (leader, successor) = (stage.cluster.name(leader), stage.cluster.name(successor));
    Ok(format!("killed {leader}, {successor} leads (seen after {took} ms)"))
}

async fn kill_follower(stage: &mut Stage) -> anyhow::Result<String> {
    let follower = stage.follower().await?;
    stage.cluster.kill(follower)?;
    stage.hold().await;
    stage.cluster.start_again(follower)?;
    Ok(format!("killed {}", stage.cluster.name(follower)))
}

async fn restart_all(stage: &mut Stage) -> anyhow::Result<String> {
    for index in stage.cluster.all() {
        stage.cluster.kill(index)?;
    }
    for index in stage.cluster.all() {
        stage.cluster.start_again(index)?;
    }
    Ok("killed all".into())
}

async fn pause(stage: &mut Stage) -> anyhow::Result<String> {
    let (victim, role) = stage.leader_or_any().await?;
    stage.cluster.pause(victim, true)?;
    stage.hold().await;
    stage.cluster.pause(victim, false)?;
    Ok(format!("stopped {}, {role}", stage.cluster.name(victim)))
}

/// From one replica to another.
type Way = (usize, usize);

/// All ways between one and the others, first those out of it, then those into it.
fn ways(stage: &Stage, index: usize) -> (Vec<Way>, Vec<Way>) {
    stage.others(index).into_iter().map(|other| ((index, other), (other, index))).unzip()
}

async fn isolate_leader(stage: &mut Stage) -> anyhow::Result<String> {
    let leader = stage.cluster.leader().await?;
    let others = stage.others(leader);
    let ways = [ways(stage, leader).0, ways(stage, leader).1].concat();
    let began = Instant::now();
    stage.cluster.set_ways(&ways, false)?;
    let successor = stage.cluster.leader_among(&others).await?;
    let took = began.elapsed().as_millis();
    isolated(stage, leader, began).await;
    stage.cluster.set_ways(&ways, true)?;
    let (leader, successor) = (stage.cluster.name(leader), stage.cluster.name(successor));
    Ok(format!("cut {leader} off, {successor} leads (seen after {took} ms)"))
}

async fn isolate_follower(stage: &mut Stage) -> anyhow::Result<String> {
    let follower = stage.follower().await?;
    let ways = [ways(stage, follower).0, ways(stage, follower).1].concat();
    let began = Instant::now();
    stage.cluster.set_ways(&ways, false)?;
    isolated(stage, follower, began).await;
    stage.cluster.set_ways(&ways, true)?;
    Ok(format!("cut {} off", stage.cluster.name(follower)))
}

/// A replica without the others must say so: not ready, and no read that it can't prove.
async fn isolated(stage: &mut Stage, index: usize, since: Instant) {
    let client = stage.cluster.replica_client(index);
    while stage.cluster.is_ready(index).await {
        if since.elapsed() > NOTICED {
            stage.violation(format!("{} is cut off and still ready after {NOTICED:?}", stage.cluster.name(index)));
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let code = probe(&client, "1s").await.map(|code| code.as_u16());
    if !matches!(code, Some(503 | 504)) {
        let name = stage.cluster.name(index);
        stage.violation(format!("{name} is cut off and answers a linearizable read with {code:?}"));
    }
    tokio::time::sleep(stage.hold.saturating_sub(since.elapsed())).await;
}

async fn one_way(stage: &mut Stage) -> anyhow::Result<String> {
    let (victim, role) = stage.leader_or_any().await?;
    let (out, into) = ways(stage, victim);
    let (ways, what) = if stage.rng.random_bool(0.5) { (out, "isn't heard") } else { (into, "hears nothing") };
    stage.cluster.set_ways(&ways, false)?;
    stage.hold().await;
    stage.cluster.set_ways(&ways, true)?;
    Ok(format!("{}, {role}, {what}", stage.cluster.name(victim)))
}

async fn cut_link(stage: &mut Stage) -> anyhow::Result<String> {
    let leader = stage.cluster.leader().await?;
    let follower = stage.follower().await?;
    let ways = [(leader, follower), (follower, leader)];
    stage.cluster.set_ways(&ways, false)?;
    stage.hold().await;
    stage.cluster.set_ways(&ways, true)?;
    Ok(format!("cut {}, the leader, from {}", stage.cluster.name(leader), stage.cluster.name(follower)))
}

async fn slow_disk(stage: &mut Stage) -> anyhow::Result<String> {
    let (victim, role) = stage.leader_or_any().await?;
    let delay = Duration::from_millis(stage.rng.random_range(20..=200));
    stage.cluster.faults(victim)?.delay_syncs(delay)?;
    stage.hold().await;
    stage.cluster.faults(victim)?.delay_syncs(Duration::ZERO)?;
    Ok(format!("each sync of {}, {role}, took {} ms more", stage.cluster.name(victim), delay.as_millis()))
}

async fn failed_sync(stage: &mut Stage) -> anyhow::Result<String> {
    let (victim, role) = stage.leader_or_any().await?;
    stage.cluster.faults(victim)?.fail_syncs(true)?;
    let ended = stage.cluster.ends_within(victim, Duration::from_secs(15)).await?;
    stage.cluster.faults(victim)?.fail_syncs(false)?;
    let name = stage.cluster.name(victim).to_owned();
    if !ended {
        stage.violation(format!("{name} goes on after syncs that failed"));
        stage.cluster.kill(victim)?;
    }
    stage.cluster.start_again(victim)?;
    Ok(format!("syncs of {name}, {role}, failed"))
}

async fn full_disk(stage: &mut Stage) -> anyhow::Result<String> {
    let (victim, role) = stage.leader_or_any().await?;
    let victims = if stage.rng.random_bool(0.3) { stage.cluster.all() } else { vec![victim] };
    for victim in &victims {
        stage.cluster.volume(*victim)?.fill()?;
    }
    stage.hold().await;
    for victim in &victims {
        stage.cluster.volume(*victim)?.free()?;
    }
    for victim in &victims {
        if stage.cluster.ends_within(*victim, Duration::ZERO).await? {
            stage.violation(format!("{} ended when its disk was full", stage.cluster.name(*victim)));
            stage.cluster.start_again(*victim)?;
        }
    }
    Ok(match victims.len() {
        1 => format!("the disk of {}, {role}, was full", stage.cluster.name(victim)),
        _ => "all disks were full".into(),
    })
}

async fn clock_jump(stage: &mut Stage) -> anyhow::Result<String> {
    let (victim, role) = stage.leader_or_any().await?;
    let hour = if stage.rng.random_bool(0.5) { 3600 } else { -3600 };
    stage.cluster.faults(victim)?.shift_clock(hour)?;
    stage.hold().await;
    stage.cluster.faults(victim)?.shift_clock(0)?;
    let direction = if hour > 0 { "ahead" } else { "behind" };
    Ok(format!("{}, {role}, was an hour {direction}", stage.cluster.name(victim)))
}

async fn rolling_restart(stage: &mut Stage) -> anyhow::Result<String> {
    for index in stage.cluster.all() {
        stage.cluster.stop(index).await?;
        stage.cluster.start_again(index)?;
        stage.cluster.wait_ready(index).await?;
        // Until the balancer has seen it, too.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Ok("restarted all, one after the other".into())
}

async fn transfer(stage: &mut Stage) -> anyhow::Result<String> {
    let mut leaders = vec![stage.cluster.leader().await?];
    for _ in 0..3 {
        stage.cluster.kontiki(&["leader", "transfer"]).await?;
        leaders.push(stage.cluster.leader().await?);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let names: Vec<&str> = leaders.into_iter().map(|index| stage.cluster.name(index)).collect();
    Ok(format!("led: {}", names.join(", ")))
}

async fn churn(stage: &mut Stage) -> anyhow::Result<String> {
    let (old, role) = stage.leader_or_any().await?;
    let new = stage.cluster.join().await?;
    stage.cluster.stop(old).await?;
    stage.cluster.remove(old).await?;
    Ok(format!("{} joined, {}, {role}, was removed", stage.cluster.name(new), stage.cluster.name(old)))
}

async fn replace(stage: &mut Stage) -> anyhow::Result<String> {
    let (old, role) = stage.leader_or_any().await?;
    stage.cluster.kill(old)?;
    stage.cluster.remove(old).await?;
    let new = stage.cluster.join().await?;
    Ok(format!("{}, {role}, was lost, {} took its place", stage.cluster.name(old), stage.cluster.name(new)))
}
