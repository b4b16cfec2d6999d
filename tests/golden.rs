//! The recorded transcripts of a kube-apiserver, replayed. The floors are what has been reached: they only rise.

mod common;

use std::path::Path;
use std::process::Command;

use common::Cluster;
use serde_json::Value;

/// Scenarios that pass, by category.
const FLOORS: &[(&str, u64)] = &[
    ("admission", 19),
    ("apply", 61),
    ("auth", 26),
    ("defaults", 129),
    ("discovery", 32),
    ("list", 49),
    ("patch", 47),
    ("services", 16),
    ("subresources", 26),
    ("validation", 194),
    ("watch", 29),
    ("write-options", 26),
];

#[test]
fn transcripts_are_answered_as_recorded() {
    let replay = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/golden/replay.py");
    if !replay.exists() {
        eprintln!("SKIPPED: {} is not here, so nothing was replayed", replay.display());
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let tokens = dir.path().join("tokens.csv");
    std::fs::write(&tokens, "admin-token,admin,admin-uid,system:masters\nuser-token,bob,bob-uid,devs\n")
        .expect("tokens");
    let flag = format!("--token-auth-file={}", tokens.display());
    let cluster = Cluster::start(1, &[&flag]);
    let results = dir.path().join("results.json");
    let mut below: Vec<&(&str, u64)> = FLOORS.iter().collect();
    // Managers are listed by the second in which they wrote: where one ends within a scenario, another order is right.
    for last in [false, true] {
        let mut command = Command::new("python3");
        command.arg(&replay).args(["--server", &cluster.server, "--admin-token", "admin-token"]);
        command.args(["--user-token", "user-token", "-q", "--retry-cap", "5", "--json"]).arg(&results);
        for (category, _) in &below {
            command.args(["--category", category]);
        }
        let output = command.output().expect("python3");
        let text = std::fs::read(&results).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        let found: Value = serde_json::from_slice(&text).expect("results");
        below.retain(|(category, floor)| {
            let passed = found["categories"][category]["passed"].as_u64().unwrap_or(0);
            println!("{category}: {passed} scenarios pass, {floor} did before");
            passed < *floor
        });
        if below.is_empty() {
            return;
        }
        let told = String::from_utf8_lossy(&output.stdout);
        let failed: Vec<&str> = told.lines().filter(|line| line.starts_with("FAIL")).collect();
        println!("{failed:#?}");
        assert!(!last, "fewer scenarios pass than did before: {below:?}");
    }
}
