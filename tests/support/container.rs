//! A Debian that was booted for one test: systemd as its first process, a network of its own with
//! nothing but loopback, a file system of its own above a root that all share.
//!
//! `scripts/install-packagers` makes the roots. Needs root, and says so.
//!
//! ```ignore
//! let debian = Container::boot(Suite::Bookworm);
//! debian.install_deb(&packages().deb);                    // as `apt-get install ./x.deb` does it
//! debian.write("/etc/ws-keepalive.toml", "[metrics]\n..");
//! debian.shell("systemctl reload ws-keepalive");          // panics if it fails
//! let ran = debian.run("systemctl start ws-keepalive");   // may fail: look at ran.code
//! debian.until("it is active", secs(10.0), "systemctl is-active ws-keepalive", |ran| ran.code == 0);
//! let scrape = debian.shell("curl -s http://127.0.0.1:8080/metrics");
//! ```
//!
//! Commands are lines for `sh`, run as root inside, with an environment that is empty but for
//! PATH, and with a deadline. Ports clash with nobody's. Limits: MemoryMax= is not enforced
//! inside, and LimitNOFILE= ends where the machine's own limit does.
//!
//! The end of the guard, of the test or of the whole test program ends everything inside: all of
//! it is in one PID namespace, whose first process lives as long as its standard input.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use tempfile::TempDir;

use super::journal::{secs, until};
use super::machine::tools;
use super::process::{Process, Signal, exit_code, try_output_of};

/// Which Debian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suite {
    /// Debian 12, systemd 252.
    Bookworm,
    /// Debian 13, systemd 257.
    Trixie,
}

impl Suite {
    pub(crate) const ALL: [Self; 2] = [Self::Bookworm, Self::Trixie];

    fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    /// 128 + n if signal n ended it.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A booted Debian. Dropping it ends everything inside, and removes what was written.
pub(crate) struct Container {
    name: String,
    /// `unshare`, which takes everything inside with it. Its output is the console.
    holder: Process,
    /// The machine's name for the first process inside.
    leader: u32,
    /// What was written inside, and where it is mounted together with the shared root.
    _files: TempDir,
}

/// How long a command may take that names no limit of its own.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where systemd keeps account of processes, in all of the ways a machine may have it.
const CGROUPS: [&str; 3] = [
    "/sys/fs/cgroup",
    "/sys/fs/cgroup/unified",
    "/sys/fs/cgroup/systemd",
];

/// Mounts, joins a control group of its own (two systemds in one would end each other's
/// services), boots, and lives as long as its standard input.
const BOOT: &str = r#"
set -e
lower=$1 files=$2 name=$3
mkdir "$files/upper" "$files/work" "$files/root"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$files/upper,workdir=$files/work" "$files/root"
mount -t proc proc /proc
for at in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
  [ -e "$at/cgroup.procs" ] || continue
  mkdir "$at/$name"
  echo $$ >"$at/$name/cgroup.procs"
done
systemd-nspawn --boot --quiet --directory="$files/root" --machine="$name" --register=no --keep-unit \
  --private-network --kill-signal=SIGRTMIN+3 </dev/null &
exec cat >/dev/null
"#;

impl Container {
    /// Returns when systemd has started everything that it starts at boot.
    pub(crate) fn boot(suite: Suite) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(
            geteuid().is_root(),
            "containers need root: run the tests as root (make outer)"
        );
        let root = tools().join("roots").join(suite.name());
        assert!(
            root.join("usr/lib/systemd/systemd").exists(),
            "no root in {}: run scripts/install-packagers, or `make outer`, which does",
            root.display()
        );
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ws-keepalive-{}-{number}", std::process::id());
        let files = tempfile::Builder::new()
            .prefix("ws-keepalive-container-")
            .tempdir()
            .unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        command.args(["--pid", "--fork", "--kill-child"]);
        command.args(["sh", "-c", BOOT, "boot"]);
        command.arg(root).arg(files.path()).arg(&name);
        let holder = Process::spawn("container", &mut command);
        let leader = until("the first process is there", secs(60.0), || {
            first_process(holder.pid()).ok_or_else(|| format!("{:?}", holder.stderr.all()))
        });
        let container = Self {
            name,
            holder,
            leader,
            _files: files,
        };
        let state = "systemctl is-system-running";
        container.until("it has booted", secs(180.0), state, |ran| {
            ran.stdout == "running" || ran.stdout == "degraded"
        });
        container
    }

    /// Runs a line of shell inside, as root.
    pub(crate) fn run(&self, line: &str) -> Ran {
        self.run_within(PATIENCE, line)
    }

    /// The same, ended after `within`.
    pub(crate) fn run_within(&self, within: Duration, line: &str) -> Ran {
        let mut command = Command::new("nsenter");
        let leader = self.leader.to_string();
        command.args(["--target", &leader, "--mount", "--uts", "--ipc", "--net"]);
        command.args(["--pid", "--cgroup", "--root"]);
        command.args([
            "/usr/bin/env",
            "--chdir=/root",
            "-i",
            "LC_ALL=C.UTF-8",
            "HOME=/root",
        ]);
        command.args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "sh", "-c", line]);
        let mut process = Process::spawn(line, &mut command);
        process.feed("");
        let status = process.wait(within);
        Ran {
            code: exit_code(status),
            stdout: process.stdout.texts().join("\n"),
            stderr: process.stderr.texts().join("\n"),
        }
    }

    /// Runs a line of shell that must succeed; what it printed.
    pub(crate) fn shell(&self, line: &str) -> String {
        let ran = self.run(line);
        assert_eq!(ran.code, 0, "{line}: {ran:#?}");
        ran.stdout
    }

    /// Runs `line` again and again until `holds`, and returns the run for which it did.
    pub(crate) fn until(
        &self,
        what: &str,
        within: Duration,
        line: &str,
        mut holds: impl FnMut(&Ran) -> bool,
    ) -> Ran {
        until(what, within, || {
            let ran = self.run(line);
            if holds(&ran) {
                Ok(ran)
            } else {
                Err(format!("{ran:#?}"))
            }
        })
    }

    /// The path, as this machine knows it, of an absolute path inside. A symbolic link in it that
    /// is absolute leads out again.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.leader));
        root.join(inside.trim_start_matches('/'))
    }

    /// Writes a file, as `echo > file` does it.
    pub(crate) fn write(&self, inside: &str, text: &str) {
        fs::write(self.path(inside), text).unwrap_or_else(|error| panic!("{inside}: {error}"));
    }

    pub(crate) fn read(&self, inside: &str) -> String {
        let text = fs::read_to_string(self.path(inside));
        text.unwrap_or_else(|error| panic!("{inside}: {error}"))
    }

    /// Copies a file of this machine into /root inside; its path there.
    pub(crate) fn bring(&self, file: &Path) -> String {
        let name = file.file_name().unwrap().to_str().unwrap();
        let inside = format!("/root/{name}");
        fs::copy(file, self.path(&inside)).unwrap_or_else(|error| panic!("{file:?}: {error}"));
        inside
    }

    /// `apt-get install ./FILE`, what is edited being kept: installs or upgrades; what it said.
    pub(crate) fn install_deb(&self, deb: &Path) -> String {
        let inside = self.bring(deb);
        // Nobody is there to be asked, and nothing can be fetched: what it depends on is in the root.
        self.shell(&format!(
            "DEBIAN_FRONTEND=noninteractive apt-get -q -y --allow-downgrades \
             -o Dpkg::Options::=--force-confold install {inside} 2>&1"
        ))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() && self.is_alive() {
            // The most telling thing there is, and it goes with the container.
            let unit = "journalctl --no-pager --lines=40 --unit='ws-keepalive*'";
            let mut command = Command::new("nsenter");
            let leader = self.leader.to_string();
            command.args(["--target", &leader, "--mount", "--pid", "--root"]);
            command.args(["timeout", "10", "sh", "-c", unit]);
            if let Ok(output) = try_output_of(&mut command) {
                eprintln!("{}", String::from_utf8_lossy(&output.stdout));
            }
        }
        // Its first process gets the kernel's SIGKILL with it, and everything inside with that.
        self.holder.signal(Signal::KILL);
        // The last of it takes a moment to end, and a control group with a process in it stays.
        let deadline = Instant::now() + secs(10.0);
        let groups = CGROUPS.map(|at| Path::new(at).join(&self.name));
        while Instant::now() < deadline {
            groups.iter().for_each(|group| remove_groups(group));
            if !self.is_alive() && !groups.iter().any(|group| group.exists()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Container {
    fn is_alive(&self) -> bool {
        // A process that ended and was not yet waited for has no root any more.
        fs::read_link(format!("/proc/{}/root", self.leader)).is_ok()
    }
}

/// Removes an empty control group and those in it; there is none where the machine has none.
fn remove_groups(group: &Path) {
    let Ok(entries) = fs::read_dir(group) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}

/// systemd below nspawn below the shell below `unshare`.
fn first_process(unshare: u32) -> Option<u32> {
    let shell = child_of(unshare, None)?;
    let nspawn = child_of(shell, Some("systemd-nspawn"))?;
    child_of(nspawn, Some("systemd"))
}

/// A child of `parent`, of that name if one is given.
fn child_of(parent: u32, name: Option<&str>) -> Option<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            return false;
        };
        // PID (NAME) STATE PARENT; the name is cut after 15 signs.
        let Some((before, after)) = stat.rsplit_once(") ") else {
            return false;
        };
        let of = after.split(' ').nth(1).and_then(|of| of.parse().ok());
        let called = before.split_once('(').map(|(_, called)| called);
        of == Some(parent) && name.is_none_or(|name| called == Some(&name[..name.len().min(15)]))
    })
}
