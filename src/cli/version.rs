//! `kontiki version`.

use std::sync::LazyLock;

use clap::{Args, ValueEnum};

use crate::discovery::documents;
use crate::version;

#[derive(Args)]
#[command(after_help = "Examples:\n  kontiki version\n  kontiki version -o json")]
pub struct VersionFlags {
    /// How to print it
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Json,
}

/// `kontiki --version` says it too.
pub static LINE: LazyLock<String> = LazyLock::new(|| format!("{} (Kubernetes {})", version::OWN, version::GIT));

pub fn run(flags: VersionFlags) -> anyhow::Result<()> {
    match flags.output {
        None => println!("kontiki {}", *LINE),
        Some(Output::Json) => {
            let version = serde_json::json!({ "kontiki": version::OWN, "kubernetes": documents::version() });
            println!("{}", serde_json::to_string_pretty(&version)?);
        }
    }
    Ok(())
}
