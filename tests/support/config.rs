//! A directory with a configuration file, and the ways in which people change one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A temporary directory that holds the configuration.
pub(crate) struct ConfigDir {
    dir: TempDir,
}

impl ConfigDir {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("ws-keepalive-outer-")
            .tempdir()
            .unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The configuration file.
    pub(crate) fn file(&self) -> PathBuf {
        self.path().join("ws-keepalive.toml")
    }

    /// `echo > file`: truncates it and writes it anew.
    pub(crate) fn overwrite(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
    }

    /// What an editor does: a new file, renamed over the old.
    pub(crate) fn rename_over(&self, text: &str) {
        let new = self.path().join(".ws-keepalive.toml.swp");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    pub(crate) fn remove(&self) {
        fs::remove_file(self.file()).unwrap();
    }

    /// What a Kubernetes ConfigMap does: the file is a symlink through `..data`, itself a symlink to
    /// a directory named after the version, which is swapped by a rename.
    pub(crate) fn swap_configmap(&self, version: u32, text: &str) {
        let directory = format!("..version_{version}");
        fs::create_dir(self.path().join(&directory)).unwrap();
        fs::write(self.path().join(&directory).join("ws-keepalive.toml"), text).unwrap();
        symlink(&directory, self.path().join("..data_tmp")).unwrap();
        fs::rename(self.path().join("..data_tmp"), self.path().join("..data")).unwrap();
        if version == 1 {
            symlink("..data/ws-keepalive.toml", self.file()).unwrap();
        } else {
            let old = self.path().join(format!("..version_{}", version - 1));
            fs::remove_dir_all(old).unwrap();
        }
    }
}
