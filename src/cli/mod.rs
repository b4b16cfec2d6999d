//! The command line: `kontiki serve`, `pki init`, `status`, `member`, `leader`, `token`, `snapshot`, `verify`, `recover`,
//! `version`.

mod foreign;
mod gates;
mod member;
mod pki;
mod recover;
mod serve;
mod snapshot;
mod status;
mod verify;
mod version;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use serve::{AuthorizationMode, ServeFlags, TlsVersion};

use crate::config::{is_address, is_name};
use crate::time::parse_duration;

/// A Kubernetes API server whose replicas are their own consensus store.
#[derive(Parser)]
#[command(
    name = "kontiki",
    version = version::LINE.as_str(),
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Examples:\n  \
    # One replica, on an empty or an existing directory\n  \
    kontiki serve --data-dir ./data --secure-port 6443\n  \
    export KUBECONFIG=./data/admin.kubeconfig\n\n  \
    # The first of three replicas\n  \
    kontiki pki init --pki-dir ./pki\n  \
    kontiki serve --name n1 --data-dir ./n1 --secure-port 6443 --pki-dir ./pki \\\n      \
    --peer-address 127.0.0.1:7001 \\\n      \
    --initial-cluster n1=127.0.0.1:7001,n2=127.0.0.1:7002,n3=127.0.0.1:7003\n\n  \
    # How the replicas are\n  \
    kontiki status\n\n\
    Use \"kontiki help <command>\" for more information about a command."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a replica of the control plane
    Serve(Box<ServeFlags>),
    /// Make the certificates and keys that several replicas share
    Pki(pki::PkiCommand),
    /// Show every replica: role, term, applied index and revision, lag, size
    Status(status::StatusFlags),
    /// Show, remove and promote the replicas that the cluster has
    Member(member::MemberCommand),
    /// Choose who leads
    Leader(member::LeaderCommand),
    /// Let further replicas join
    Token(member::TokenCommand),
    /// Save what a cluster holds, or begin a new cluster with it
    Snapshot(snapshot::SnapshotCommand),
    /// Read all that a stopped replica has on its disk and say what is wrong with it
    Verify(verify::VerifyFlags),
    /// Go on with one replica when a quorum is lost for good
    Recover(recover::RecoverFlags),
    /// Print the version
    Version(version::VersionFlags),
}

/// Does what the command line says. What goes wrong is told on stderr.
pub fn run() -> ExitCode {
    let parsed = foreign::set_aside(std::env::args_os().collect()).and_then(|(arguments, ignored)| {
        let matches = Cli::command().try_get_matches_from(arguments)?;
        Ok((Cli::from_arg_matches(&matches)?, ignored))
    });
    let (cli, ignored) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help that was asked for is no failure; clap knows.
            let code = error.exit_code();
            let _ = error.print();
            return ExitCode::from(u8::try_from(code).unwrap_or(1));
        }
    };
    let result = match cli.command {
        Command::Serve(flags) => serve::run(*flags, &ignored),
        Command::Pki(command) => pki::run(command),
        Command::Status(flags) => status::run(flags),
        Command::Member(command) => member::run_member(command),
        Command::Leader(command) => member::run_leader(command),
        Command::Token(command) => member::run_token(command),
        Command::Snapshot(command) => snapshot::run(command),
        Command::Verify(flags) => verify::run(flags),
        Command::Recover(flags) => recover::run(flags),
        Command::Version(flags) => version::run(flags),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, each once: some of them quote theirs.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        _ if told.ends_with(&cause) => told,
        _ => format!("{told}: {cause}"),
    })
}

/// A flag's value that is a duration.
fn duration(text: &str) -> Result<Duration, String> {
    let nanos = parse_duration(text).map_err(|_| "a duration is written like 90s, 5m or 1h30m".to_owned())?;
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| "a duration can't be negative".to_owned())
}

fn replica_name(text: &str) -> Result<String, String> {
    let wrong = "a name has at most 63 lower case letters, digits and dashes, as in n1";
    if is_name(text) { Ok(text.to_owned()) } else { Err(wrong.into()) }
}

fn peer_address(text: &str) -> Result<String, String> {
    if is_address(text) { Ok(text.to_owned()) } else { Err("an address is written as host:port".into()) }
}

/// Rows in columns, as kubectl prints them.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        format!("{}\n", cells.join("   ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds() {
        Cli::command().debug_assert();
    }
}
