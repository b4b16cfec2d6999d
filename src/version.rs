//! Which version this is, and which of Kubernetes it serves.

use serde_json::{Value, json};

/// Of Kontiki.
pub const OWN: &str = env!("CARGO_PKG_VERSION");
pub const MAJOR: &str = "1";
pub const MINOR: &str = "36";
/// Of the Kubernetes that is served, as clients compare it; what follows `+` says who serves it.
pub const GIT: &str = concat!("v1.36.2+kontiki.", env!("CARGO_PKG_VERSION"));

/// `version.Info`, what `/version` answers.
pub fn info() -> Value {
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": "35",
        "gitVersion": GIT,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": concat!("linux/", "amd64"),
    })
}
