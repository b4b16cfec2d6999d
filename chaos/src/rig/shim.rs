//! A small library that is preloaded into replicas: it shifts the wall clock that they read, and makes their syncs slow or
//! fail. The monotonic clock stays true, as it does when a machine's clock is set.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

const SOURCE: &str = include_str!("shim.c");

pub fn can_build() -> bool {
    let version = Command::new("cc").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

pub struct Shim {
    library: PathBuf,
    dir: PathBuf,
}

impl Shim {
    pub fn build(dir: &Path) -> anyhow::Result<Shim> {
        let dir = std::path::absolute(dir)?;
        let (source, library) = (dir.join("shim.c"), dir.join("shim.so"));
        std::fs::write(&source, SOURCE)?;
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-Wall", "-o"])
            .args([&library, &source])
            .output()
            .context("cc")?;
        if !built.status.success() {
            bail!("cc: {}", String::from_utf8_lossy(&built.stderr));
        }
        Ok(Shim { library, dir })
    }

    pub fn faults(&self, name: &str) -> anyhow::Result<Faults> {
        let path = self.dir.join(format!("{name}.faults"));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        file.set_len(8 * 3)?;
        Ok(Faults { path, file })
    }

    pub fn environment(&self, faults: &Faults) -> Vec<(String, String)> {
        let text = |path: &Path| path.display().to_string();
        vec![("LD_PRELOAD".into(), text(&self.library)), ("KONTIKI_CHAOS_FAULTS".into(), text(&faults.path))]
    }
}

/// Of one replica, also across its restarts. The library has the file mapped, so that what is set counts at once.
pub struct Faults {
    path: PathBuf,
    file: File,
}

impl Faults {
    fn set(&self, field: u64, value: i64) -> anyhow::Result<()> {
        Ok(self.file.write_all_at(&value.to_ne_bytes(), field * 8)?)
    }

    /// How far the replica's wall clock is ahead.
    pub fn shift_clock(&self, seconds: i64) -> anyhow::Result<()> {
        self.set(0, seconds * 1_000_000_000)
    }

    /// What every sync takes in addition.
    pub fn delay_syncs(&self, delay: Duration) -> anyhow::Result<()> {
        self.set(1, i64::try_from(delay.as_micros())?)
    }

    /// Whether every sync fails with an input/output error.
    pub fn fail_syncs(&self, fail: bool) -> anyhow::Result<()> {
        self.set(2, fail.into())
    }
}
