//! `kontiki pki`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};

use crate::config::is_server;
use crate::pki::ClusterPki;

#[derive(Args)]
pub struct PkiCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the cluster's authorities, its service account key and an administrator's kubeconfig
    ///
    /// What is already there stays, so that it can be run again; an administrator's certificate that expires soon is
    /// renewed. Each replica needs a copy of the directory: `kontiki serve --pki-dir`.
    #[command(after_help = "Examples:\n  \
        kontiki pki init --pki-dir ./pki\n  \
        # Clients reach the replicas through a load balancer\n  \
        kontiki pki init --pki-dir ./pki --server https://api.example.com:6443")]
    Init(InitFlags),
}

#[derive(Args)]
struct InitFlags {
    /// The directory to put it in
    #[arg(long, value_name = "dir")]
    pki_dir: PathBuf,
    /// Where the kubeconfig finds the API: one of the replicas, or the load balancer in front of them.
    /// At first https://127.0.0.1:6443
    #[arg(long, value_name = "url", value_parser = server)]
    server: Option<String>,
}

const DEFAULT_SERVER: &str = "https://127.0.0.1:6443";

fn server(text: &str) -> Result<String, String> {
    if is_server(text) { Ok(text.to_owned()) } else { Err("a server is written like https://host:port".into()) }
}

pub fn run(command: PkiCommand) -> anyhow::Result<()> {
    let Command::Init(flags) = command.command;
    let pki = ClusterPki::create(&flags.pki_dir).context("--pki-dir")?;
    let admin = pki.admin_kubeconfig();
    let server = flags.server.as_deref().or((!admin.exists()).then_some(DEFAULT_SERVER));
    pki.ensure_admin(&admin, server)?;
    println!("The cluster's certificates and keys are in {}", flags.pki_dir.display());
    println!("Start each replica with: kontiki serve --pki-dir {} …", flags.pki_dir.display());
    println!("Then: export KUBECONFIG={}", admin.display());
    Ok(())
}
