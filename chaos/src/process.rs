//! What the system knows of a process: CPU time and memory.

use std::time::Duration;

use anyhow::Context;

/// Of one process or the sum of several.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub cpu: Duration,
    pub resident_bytes: u64,
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
    }
    Ok(total)
}
