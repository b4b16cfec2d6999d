//! A small disk for a replica's data, which can be filled to the last byte.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Twice what a replica keeps free, and a few logs and tables beside that.
const BYTES: u64 = 256 << 20;

pub struct Volume {
    path: PathBuf,
}

impl Volume {
    pub fn mount(path: &Path) -> anyhow::Result<Volume> {
        let options = std::ffi::CString::new(format!("size={BYTES},mode=0700"))?;
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), options.as_c_str())
            .with_context(|| format!("mounting a small disk at {}", path.display()))?;
        Ok(Volume { path: path.to_owned() })
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }

    pub fn fill(&self) -> anyhow::Result<()> {
        let file = std::fs::File::create(self.filler())?;
        // The replica writes meanwhile: what was free is not, when it is asked for.
        loop {
            let free = statvfs(&self.path)?;
            match fallocate(&file, FallocateFlags::empty(), 0, (free.f_bavail * free.f_frsize).max(1)) {
                Err(Errno::NOSPC) if free.f_bavail > 0 => {}
                Ok(()) | Err(Errno::NOSPC) => return Ok(()),
                Err(error) => return Err(error).with_context(|| format!("filling {}", self.path.display())),
            }
        }
    }

    pub fn free(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.filler())?)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}
