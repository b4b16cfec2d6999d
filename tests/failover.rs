//! The leader is killed under load, and nothing is lost.

mod common;

use std::process::Command;

#[test]
fn the_leader_is_killed() {
    let output = Command::new(common::program("kontiki-chaos"))
        .args(["drill", "kill-leader", "--repeat", "3", "--writers", "4", "--watchers", "3"])
        .output()
        .expect("kontiki-chaos");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}
