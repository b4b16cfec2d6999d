//! What the system knows of a process, and signals to it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

/// Of one process or the sum of several.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub cpu: Duration,
    pub resident_bytes: u64,
    /// What it has caused to be written to disks, in pages as the kernel counts them; 0 on file systems in memory.
    pub written_bytes: u64,
}

/// `USER_HZ`, which Linux fixes for everything that it shows to programs.
const TICKS_PER_SECOND: u64 = 100;

pub fn usage(pids: &[u32]) -> anyhow::Result<Usage> {
    let mut total = Usage::default();
    for pid in pids {
        // Of all threads, and finer than the ticks of `stat` where the kernel keeps it.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        total.cpu += Duration::from_millis((ticks(11) + ticks(12)) * 1000 / TICKS_PER_SECOND);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|text| text.split_whitespace().next()).and_then(|text| text.parse::<u64>().ok());
        total.resident_bytes += kib.unwrap_or(0) * 1024;
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).with_context(|| format!("process {pid}"))?;
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        total.written_bytes += written.and_then(|bytes| bytes.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(total)
}

pub fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process id")?;
    Ok(kill_process(pid, signal)?)
}

/// Whether the process has the TCP connection (over IPv4) from one address to the other.
pub fn holds_connection(pid: u32, from: SocketAddr, to: SocketAddr) -> bool {
    let (Some(from), Some(to)) = (as_proc_has_it(from), as_proc_has_it(to)) else { return false };
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let inode = table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(1) == Some(&from.as_str()) && fields.get(2) == Some(&to.as_str()))
            .then(|| fields.get(9).copied())?
    });
    let Some(inode) = inode else { return false };
    let socket = format!("socket:[{inode}]");
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|link| link.as_os_str() == socket.as_str())
}

fn as_proc_has_it(address: SocketAddr) -> Option<String> {
    let IpAddr::V4(ip) = address.ip() else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port()))
}
