//! Where the benchmark keeps its files.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// Built C programs, the generated configuration, the daemon's log. Stays, to be looked at.
pub(crate) fn kept() -> Result<PathBuf> {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("hold");
    std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// Counters shared with running programs: in memory if the machine has a place for that, since a file
/// system that writes a mapped page out makes its writer wait.
pub(crate) fn shared() -> Result<PathBuf> {
    let path = shared_path();
    std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    Ok(path)
}

pub(crate) fn remove_shared() {
    // Absent when no phase began.
    let _ = std::fs::remove_dir_all(shared_path());
}

fn shared_path() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    };
    parent.join(format!("ws-keepalive-hold-{}", std::process::id()))
}
