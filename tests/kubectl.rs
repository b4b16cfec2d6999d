//! kubectl against one replica and against three: what people type all day. The steps are in `kubectl/*.steps`:
//!
//!     $ a command that succeeds, ! one that fails, ~ one that is repeated until it prints what it should
//!       a text that it prints
//!     - a text that it doesn't print
//!
//! Arguments are quoted as in a shell, and EDITOR='…' may stand before them.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::Cluster;

const STEPS: &[(&str, &str)] = &[
    ("everyday", include_str!("kubectl/everyday.steps")),
    ("nodes", include_str!("kubectl/nodes.steps")),
    ("deleting", include_str!("kubectl/deleting.steps")),
];

/// How long something may take that happens by itself.
const SOON: Duration = Duration::from_secs(20);

struct Step<'a> {
    line: usize,
    how: &'a str,
    command: &'a str,
    printed: Vec<&'a str>,
    not_printed: Vec<&'a str>,
}

fn steps(text: &str) -> Vec<Step<'_>> {
    let mut steps: Vec<Step> = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let line = index + 1;
        match (text.split_at_checked(2), steps.last_mut()) {
            (None | Some(("# ", _)), _) => {}
            (Some((how @ ("$ " | "! " | "~ "), command)), _) => {
                steps.push(Step { line, how, command, printed: Vec::new(), not_printed: Vec::new() });
            }
            (Some(("  ", printed)), Some(step)) => step.printed.push(printed),
            (Some(("- ", not_printed)), Some(step)) => step.not_printed.push(not_printed),
            _ => panic!("line {line} is no step: {text}"),
        }
    }
    steps
}

/// The words of a command line, unquoted.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in command.chars() {
        match quote {
            Some(q) if c == q => quote = None,
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c == ' ' => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn kubectl(cluster: &Cluster, words: &[String]) -> Command {
    let (editor, arguments) = match words.split_first() {
        Some((first, rest)) if first.starts_with("EDITOR=") => (&first["EDITOR=".len()..], rest),
        _ => ("false", words),
    };
    let mut command = cluster.kubectl_command();
    command.args(arguments).env("EDITOR", editor);
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubectl"));
    command
}

/// Takes a step, and says what is wrong with what it did.
fn take(cluster: &Cluster, step: &Step) -> Result<(), String> {
    let output = kubectl(cluster, &words(step.command)).output().expect("kubectl");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let failed = !output.status.success();
    let missing = step.printed.iter().find(|printed| !text.contains(**printed));
    let unwanted = step.not_printed.iter().find(|printed| text.contains(**printed));
    let fault = match (failed, missing, unwanted) {
        _ if failed != (step.how == "! ") => output.status.to_string(),
        (_, Some(missing), _) => format!("lacks {missing:?}"),
        (_, _, Some(unwanted)) => format!("has {unwanted:?}"),
        _ => return Ok(()),
    };
    Err(format!("kubectl {}: {fault}\n{text}", step.command))
}

fn everyday(cluster: &Cluster) {
    let mut faults = Vec::new();
    for (name, text) in STEPS {
        for step in steps(text) {
            let begun = Instant::now();
            let fault = loop {
                match take(cluster, &step) {
                    Err(_) if step.how == "~ " && begun.elapsed() < SOON => {}
                    ended => break ended.err(),
                }
            };
            faults.extend(fault.map(|fault| format!("{name}.steps, line {}: {fault}", step.line)));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    watched(cluster);
}

/// `get -w` prints what happens after it started, through whichever replica.
fn watched(cluster: &Cluster) {
    let words = words("get configmaps -n default -l watched -w --output-watch-events --no-headers");
    let mut watch = kubectl(cluster, &words).stdout(Stdio::piped()).spawn().expect("kubectl");
    let mut lines = BufReader::new(watch.stdout.take().expect("its output")).lines();
    for (command, event) in [
        ("create configmap watched -n default", None),
        ("label configmap watched -n default watched=yes", Some("ADDED")),
        ("annotate configmap watched -n default note=x", Some("MODIFIED")),
        ("label configmap watched -n default watched-", Some("DELETED")),
        ("delete configmap watched -n default", None),
    ] {
        cluster.kubectl(&self::words(command).iter().map(String::as_str).collect::<Vec<_>>());
        if let Some(event) = event {
            let line = lines.next().expect("the watch ended").expect("text");
            assert!(line.starts_with(event) && line.contains("watched"), "{command}: {line}");
        }
    }
    let _ = watch.kill();
    let _ = watch.wait();
}

#[test]
fn one_replica() {
    everyday(&Cluster::start(1, &[]));
}

#[test]
fn three_replicas() {
    everyday(&Cluster::start(3, &[]));
}
