//! A place of its own for the built binary: a network with nothing but what the test laid into it,
//! and name resolution by files the test wrote. Needs root, and says so.

use std::fs;
use std::process::Command;

use rustix::process::geteuid;
use tempfile::TempDir;

use super::journal::secs;
use super::process::Process;

/// What names mean in the namespace.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Names<'a> {
    /// Lines of /etc/hosts, beside that of localhost.
    pub(crate) hosts: &'a str,
    /// Whether other names are asked for at a resolver that never answers; needs [`DEAD_ADDRESS`].
    pub(crate) hanging_resolver: bool,
}

/// Setup: packets to 10.9.0.1 are sent, and nobody is there.
pub(crate) const DEAD_ADDRESS: &str = "ip link add hole0 type veth peer name hole1\n\
     ip addr add 10.9.0.2/24 dev hole0\n\
     ip link set hole0 up\nip link set hole1 up\n\
     ip neigh add 10.9.0.1 lladdr 02:00:00:00:00:01 dev hole0\n";

/// A network and a mount namespace, kept alive by a process that holds them.
pub(crate) struct Namespace {
    holder: Process,
    /// What is mounted over the machine's own.
    _files: TempDir,
}

impl Namespace {
    /// `setup` is a shell script run inside, as root, after `lo` is up.
    pub(crate) fn new(names: &Names<'_>, setup: &str) -> Self {
        assert!(
            geteuid().is_root(),
            "namespaces need root: run the tests as root (make outer)"
        );
        let dir = tempfile::Builder::new()
            .prefix("ws-keepalive-namespace-")
            .tempdir()
            .unwrap();
        let place = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let hosts = place("hosts", &format!("127.0.0.1 localhost\n{}\n", names.hosts));
        // 10.9.0.1 is the dead address: nobody answers, and no query leaves, for the namespace has
        // no way out.
        let resolver = "nameserver 10.9.0.1\noptions timeout:30 attempts:1\n";
        let resolver = place("resolv.conf", resolver);
        let order = if names.hanging_resolver {
            "files dns"
        } else {
            "files"
        };
        let order = place("nsswitch.conf", &format!("hosts: {order}\n"));
        let script = format!(
            "set -e\n\
             mount --bind {hosts} /etc/hosts\n\
             mount --bind {resolver} /etc/resolv.conf\n\
             mount --bind {order} /etc/nsswitch.conf\n\
             ip link set lo up\n\
             {setup}\n\
             echo ready\n\
             exec cat\n"
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "--propagation", "private", "sh", "-c"]);
        command.arg(script);
        let holder = Process::spawn("namespace", &mut command);
        holder
            .stdout
            .wait("the namespace is ready", secs(30.0), |line| {
                (line.text == "ready").then_some(())
            });
        Self {
            holder,
            _files: dir,
        }
    }

    /// `command`, to be run inside.
    pub(crate) fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        // The holder's process is the shell, which became `cat`: unshare execs, it does not fork.
        inside
            .args(["--mount", "--net", "--target"])
            .arg(self.holder.pid().to_string())
            .arg("--")
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    pub(crate) fn spawn(&self, name: &str, command: &Command) -> Process {
        Process::spawn(name, &mut self.inside(command))
    }

    /// What it prints, once it has ended well.
    pub(crate) fn output(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(program);
        command.args(arguments);
        let mut process = self.spawn(program, &command);
        let status = process.wait(secs(15.0));
        match status.success() {
            true => Ok(process.stdout.texts().join("\n")),
            false => Err(format!("{status}: {}", process.stderr.texts().join("\n"))),
        }
    }
}
