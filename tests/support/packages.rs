//! The deb and the rpm, made once for all tests of a run, of the binary that is tested: the same
//! files, scriptlets and units as `make packages` makes of the release.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::machine::tools;
use super::process::Process;

/// A version, and one that comes after it; they differ in their number alone.
pub(crate) struct Packages {
    pub(crate) deb: PathBuf,
    pub(crate) rpm: PathBuf,
    pub(crate) next_deb: PathBuf,
    pub(crate) next_rpm: PathBuf,
}

/// What the next version is called.
pub(crate) const NEXT: &str = "99.0.0";

/// Made when they are first asked for.
pub(crate) fn packages() -> &'static Packages {
    static MADE: OnceLock<Packages> = OnceLock::new();
    MADE.get_or_init(|| {
        let (deb, rpm) = make("now", env!("CARGO_PKG_VERSION"));
        let (next_deb, next_rpm) = make("next", NEXT);
        Packages {
            deb,
            rpm,
            next_deb,
            next_rpm,
        }
    })
}

/// `scripts/make-packages` with the tested binary; `variables` change what it does.
pub(crate) fn make_packages(out: &Path, variables: &[(&str, &str)]) -> Process {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(repository.join("scripts/make-packages"));
    command
        .arg("dev")
        .env("TOOLS", tools())
        .env("BINARY", env!("CARGO_BIN_EXE_ws-keepalive"))
        .env("OUT", out)
        .envs(variables.iter().copied());
    Process::spawn("make-packages", &mut command)
}

fn make(name: &str, version: &str) -> (PathBuf, PathBuf) {
    // Kept, for whoever wants to look into what a test complains of.
    let out = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("packages")
        .join(name);
    let _ = fs::remove_dir_all(&out);
    fs::create_dir_all(&out).unwrap();
    let mut process = make_packages(&out, &[("VERSION", version)]);
    let status = process.wait(super::journal::secs(300.0));
    let said = process.stderr.texts();
    assert!(status.success(), "{status}: {said:#?}");
    let made = |extension: &str| {
        let entries = fs::read_dir(&out).unwrap().flatten();
        let mut found = entries.map(|entry| entry.path());
        let found = found.find(|path| path.extension().is_some_and(|it| it == extension));
        found.unwrap_or_else(|| panic!("no {extension} in {}", out.display()))
    };
    (made("deb"), made("rpm"))
}
