//! Short drills: something breaks under load, and nothing is lost.

mod common;

use std::process::Command;
use std::sync::Mutex;

/// One at a time: each has three replicas and a load of its own.
static ONE: Mutex<()> = Mutex::new(());

/// A drill that can't be done here exits with this and says why.
const CANNOT: i32 = 2;

fn drill(fault: &str, repeat: &str) {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let output = Command::new(common::program("kontiki-chaos"))
        .args(["drill", fault, "--repeat", repeat, "--hold", "1500", "--clients", "6", "--watchers", "4"])
        .output()
        .expect("kontiki-chaos");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    println!("{text}");
    match output.status.code() {
        Some(CANNOT) => eprintln!("{text}"),
        code => assert_eq!(code, Some(0), "{text}"),
    }
}

#[test]
fn the_leader_is_killed() {
    drill("kill-leader", "3");
}

#[test]
fn replicas_are_killed_and_stopped() {
    for fault in ["kill-follower", "restart-all", "pause"] {
        drill(fault, "1");
    }
}

#[test]
fn what_is_planned_is_not_noticed() {
    for fault in ["rolling-restart", "transfer", "churn"] {
        drill(fault, "1");
    }
}

#[test]
fn a_lost_replica_is_replaced() {
    drill("replace", "1");
}

#[test]
fn the_network_is_cut() {
    for fault in ["isolate-leader", "isolate-follower", "one-way", "cut-link"] {
        drill(fault, "1");
    }
}

#[test]
fn disks_and_clocks_misbehave() {
    for fault in ["slow-disk", "failed-sync", "full-disk", "clock-jump"] {
        drill(fault, "1");
    }
}
