//! `kontiki member`, `kontiki leader` and `kontiki token`: who is a member, who leads, and how others join.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{duration, table};
use crate::client::{self, Failed};
use crate::object::Fields;
use crate::serve::{LEADER, MEMBERS, TOKENS};

const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kontiki member list\n  \
    # A replica that is gone for good, or is to go: stop it first\n  \
    kontiki member remove n3\n  \
    # A learner that was to stay one\n  \
    kontiki member promote n4")]
pub struct MemberCommand {
    #[command(subcommand)]
    command: Member,
}

#[derive(Subcommand)]
enum Member {
    /// Show the members: voters, and learners, which serve reads and watches but don't vote
    List(Common),
    /// Take a replica out of the cluster; refused where the others would have no quorum
    Remove(Named),
    /// Make a voter of a learner that has caught up
    Promote(Named),
}

#[derive(Args)]
struct Named {
    /// The replica's name
    name: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub struct LeaderCommand {
    #[command(subcommand)]
    command: Leader,
}

#[derive(Subcommand)]
enum Leader {
    /// Hand the leadership to another voter, or to the one that is named, without a pause for clients
    Transfer(Transfer),
}

#[derive(Args)]
struct Transfer {
    /// The replica that is to lead. By default the voter that has most of the log
    name: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub struct TokenCommand {
    #[command(subcommand)]
    command: Token,
}

#[derive(Subcommand)]
enum Token {
    /// Make a token with which replicas join. Whoever has it gets the cluster's keys: treat it like them
    #[command(after_help = "Examples:\n  kontiki token create\n  kontiki token create --ttl 10m")]
    Create(Create),
}

#[derive(Args)]
struct Create {
    /// How long it is good for
    #[arg(long, value_name = "duration", default_value = "24h", value_parser = lifetime, allow_hyphen_values = true)]
    ttl: Duration,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct Common {
    /// The kubeconfig to use. By default $KUBECONFIG, or else ~/.kube/config
    #[arg(long, value_name = "file")]
    kubeconfig: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Json,
}

impl Common {
    /// Asks, and prints the answer: as JSON, or as `show` makes text of it.
    fn run(self, method: Method, path: &str, show: impl FnOnce(&Value) -> String) -> anyhow::Result<()> {
        let kubeconfig = client::kubeconfig(self.kubeconfig)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(async {
            let asked = tokio::time::timeout(TIMEOUT, client::json(&kubeconfig, method, path)).await;
            asked.unwrap_or_else(|_| bail!("no answer in {} seconds", TIMEOUT.as_secs()))
        });
        // What the cluster has said speaks for itself.
        let answer = answer.or_else(|error| match error.is::<Failed>() {
            true => Err(error),
            false => Err(error).with_context(|| format!("asking {}", kubeconfig.server)),
        })?;
        match self.output {
            Some(Output::Json) => println!("{}", serde_json::to_string_pretty(&answer)?),
            None => print!("{}", show(&answer)),
        }
        Ok(())
    }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = duration(text)?;
    if lifetime.as_secs() > 0 { Ok(lifetime) } else { Err("a token lives for a second at least".into()) }
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

pub fn run_member(command: MemberCommand) -> anyhow::Result<()> {
    match command.command {
        Member::List(common) => common.run(Method::GET, MEMBERS, members),
        Member::Remove(Named { name, common }) => {
            let path = format!("{MEMBERS}/{}", escaped(&name));
            common.run(Method::DELETE, &path, |_| format!("member {name} removed\n"))
        }
        Member::Promote(Named { name, common }) => {
            let path = format!("{MEMBERS}/{}/promote", escaped(&name));
            common.run(Method::POST, &path, |_| format!("member {name} promoted\n"))
        }
    }
}

pub fn run_leader(command: LeaderCommand) -> anyhow::Result<()> {
    let Leader::Transfer(Transfer { name, common }) = command.command;
    let path = match &name {
        Some(name) => format!("{LEADER}?name={}", escaped(name)),
        None => LEADER.to_owned(),
    };
    common.run(Method::POST, &path, |answer| match leader(answer) {
        Some(name) => format!("{name} leads\n"),
        None => "the leadership was handed over\n".into(),
    })
}

pub fn run_token(command: TokenCommand) -> anyhow::Result<()> {
    let Token::Create(Create { ttl, common }) = command.command;
    common.run(Method::POST, &format!("{TOKENS}?ttl={}s", ttl.as_secs()), |answer| {
        let (token, server) = (answer.text_at(&["token"]), answer.text_at(&["server"]));
        format!(
            "{token}\n\nGood until {}. On the machine of the new replica:\n\n  \
             kontiki serve --name NAME --data-dir DIR --peer-address HOST:PORT \\\n    \
             --join {server} --token {token}\n",
            answer.text_at(&["expires"])
        )
    })
}

fn leader(answer: &Value) -> Option<&str> {
    let leads = |member: &&Value| member.at(&["leader"]) == Some(&Value::Bool(true));
    answer.list_at(&["members"]).iter().find(leads).map(|member| member.text_at(&["name"]))
}

fn members(answer: &Value) -> String {
    let header = ["NAME", "ID", "PEER ADDRESS", "ROLE", "LEADER"].map(str::to_owned).to_vec();
    let row = |member: &Value| {
        let text =
            |field: &str| Some(member.text_at(&[field])).filter(|text| !text.is_empty()).unwrap_or("-").to_owned();
        let leads = member.at(&["leader"]) == Some(&Value::Bool(true));
        let id = member.at(&["id"]).map(Value::to_string).unwrap_or_default();
        vec![text("name"), id, text("peerAddress"), text("role"), if leads { "yes" } else { "" }.to_owned()]
    };
    let rows: Vec<_> = std::iter::once(header).chain(answer.list_at(&["members"]).iter().map(row)).collect();
    let note = match answer.at(&["confirmed"]) {
        Some(Value::Bool(false)) => "No leader has confirmed this: it is what the replica knows.\n",
        _ => "",
    };
    table(&rows) + note
}
