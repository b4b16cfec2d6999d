//! `kontiki verify`: reads all that a data directory holds and says what is wrong with it.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use kontiki_raft::{Verified, verify};

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    # While no replica runs on it\n  \
    kontiki verify --data-dir ./data")]
pub struct VerifyFlags {
    /// The data directory of a replica that is stopped
    #[arg(long, value_name = "dir")]
    data_dir: PathBuf,
}

pub fn run(flags: VerifyFlags) -> anyhow::Result<()> {
    let verified = verify(&flags.data_dir).context("--data-dir")?;
    print!("{}", lines(&verified));
    for defect in &verified.defects {
        eprintln!("defect: {defect}");
    }
    match verified.defects.len() + verified.more {
        0 => Ok(()),
        1 => bail!("{} is damaged", flags.data_dir.display()),
        count => {
            bail!("{} is damaged: {count} defects, {} of them named", flags.data_dir.display(), verified.defects.len())
        }
    }
}

fn lines(verified: &Verified) -> String {
    let mut text = String::new();
    if let Some((name, cluster, id)) = &verified.identity {
        text += &format!("replica   {name}, id {id}, of cluster {cluster:016x}\n");
    }
    text += &match verified.log {
        Some((first, last)) => {
            format!("log       {} entries, {first} to {last}, term {}\n", verified.entries, verified.term)
        }
        None => format!("log       no entries, term {}\n", verified.term),
    };
    if let Some(state) = &verified.state {
        let applied = state.position.map_or(0, |position| position.index);
        text += &format!(
            "state     {} objects at revision {}, applied index {applied}, hash {:016x}\n\
             history   {} events since revision {}\n",
            state.records, state.revision, state.hash, state.events, state.compacted
        );
    }
    if verified.state_is_ahead {
        text += "the state is ahead of the log, as a crash can leave it: the next start brings them together\n";
    }
    if verified.is_sound() {
        text += "everything reads, and fits together\n";
    }
    text
}
