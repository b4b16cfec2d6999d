//! `kontiki-chaos`: clusters to break, load to put on them, and drills that say what was lost.
#![forbid(unsafe_code)]

mod balancer;
mod client;
mod cluster;
mod drill;
mod history;
mod load;
mod measure;
mod process;
mod rig;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Start clusters, put load on API servers, and rehearse failovers.
#[derive(Parser)]
#[command(name = "kontiki-chaos", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start replicas and a load balancer in front of them, and run until interrupted.
    Cluster(cluster::Args),
    /// Put load on an API server and say what an operation takes. Works against any kube-apiserver.
    Load(load::Args),
    /// Fill a cluster and say how long a replica takes to come back with it, what memory it takes, and what it means to
    /// the leader that another replica gets a snapshot of it.
    Measure(measure::Args),
    /// Rehearse a failure under load and say what was lost. Exits with 1 on any violation, with 2 where it can't be done.
    Drill(drill::Args),
    /// Judge the histories in a file that a drill kept.
    Check { file: PathBuf },
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Cluster(args) => cluster::run(args).await.map(|()| ExitCode::SUCCESS),
            Command::Load(args) => load::run(args).await.map(|()| ExitCode::SUCCESS),
            Command::Measure(args) => measure::run(args).await.map(|()| ExitCode::SUCCESS),
            Command::Drill(args) => drill::run(args).await,
            Command::Check { file } => drill::check(&file),
        }
    })
}
