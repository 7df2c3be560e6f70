//! The proxies of examples/proxies, run as the files say: of what people copy, a test replaces the
//! port numbers, and the times it names. Nothing else.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::{Pid, kill_process};
use tempfile::TempDir;

use super::http;
use super::journal::{secs, until};
use super::machine::{children_of, free_port};
use super::pki::{Pair, Pki};
use super::process::{Process, Signal, output_of};
use super::proxies::{binary, write};

/// What stands in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Nginx,
    Haproxy,
    Caddy,
}

/// A proxy of the examples before two backends. Dropping it ends it, its workers included.
pub(crate) struct Front {
    pub(crate) kind: Kind,
    pub(crate) ports: FrontPorts,
    dir: TempDir,
    process: Option<Process>,
}

/// Where it listens, and where its backends do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrontPorts {
    pub(crate) plain: u16,
    pub(crate) tls: u16,
    /// stub_status, HAProxy's statistics, Caddy's administration.
    pub(crate) status: u16,
    pub(crate) backends: [u16; 2],
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Nginx, Self::Haproxy, Self::Caddy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Caddy => "caddy",
        }
    }

    /// As people write it.
    pub(crate) fn shown(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Caddy => "Caddy",
        }
    }

    /// The ports of the files.
    pub(crate) fn written(self) -> FrontPorts {
        let (plain, tls, status) = match self {
            Self::Nginx => (10080, 10443, 10081),
            Self::Haproxy => (11080, 11443, 11081),
            Self::Caddy => (12080, 12443, 2019),
        };
        FrontPorts {
            plain,
            tls,
            status,
            backends: [9001, 9002],
        }
    }

    /// The files as they stand, the certificate they ask for beside them.
    pub(crate) fn lay(self, pair: &Pair) -> TempDir {
        let dir = tempfile::Builder::new()
            .prefix("ws-keepalive-front-")
            .tempdir()
            .unwrap();
        // nginx's workers are somebody else where the tests run as root.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        for file in files(&examples().join(self.name())) {
            let name = file.file_name().unwrap();
            write(&dir.path().join(name), &fs::read_to_string(&file).unwrap());
        }
        let tls = dir.path().join("tls");
        fs::create_dir(&tls).unwrap();
        let [cert, key] = [&pair.cert, &pair.key].map(|file| fs::read_to_string(file).unwrap());
        match self {
            Self::Haproxy => write(&tls.join("edge.pem"), &(cert + &key)),
            Self::Nginx | Self::Caddy => {
                write(&tls.join("edge.pem"), &cert);
                write(&tls.join("edge.key"), &key);
            }
        }
        dir
    }

    /// What its own check says of the files in `dir`.
    pub(crate) fn check(self, dir: &Path) -> Output {
        let mut command = self.command(dir);
        match self {
            Self::Nginx => command.arg("-t"),
            Self::Haproxy => command.arg("-c"),
            Self::Caddy => command.args(["validate", "--config", "Caddyfile"]),
        };
        output_of(&mut command)
    }

    fn command(self, dir: &Path) -> Command {
        match self {
            Self::Nginx => {
                let mut command = binary("nginx", "usr/sbin/nginx");
                // -e: before the configuration is read, the package's log would be opened.
                command.args(["-e", "stderr", "-c", "nginx.conf", "-p"]);
                command.arg(dir);
                command
            }
            Self::Haproxy => {
                let mut command = binary("haproxy", "usr/sbin/haproxy");
                command.args(["-f", "haproxy.cfg"]).current_dir(dir);
                command
            }
            Self::Caddy => {
                let mut command = binary("caddy", "usr/bin/caddy");
                // It keeps state in its user's home.
                for variable in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
                    command.env(variable, dir);
                }
                command.current_dir(dir);
                command
            }
        }
    }
}

impl Front {
    /// Before `backends`, with `times` of the files replaced.
    pub(crate) fn start(
        kind: Kind,
        backends: [u16; 2],
        pair: &Pair,
        times: &[(&str, &str)],
    ) -> Self {
        let ports = FrontPorts {
            plain: free_port(),
            tls: free_port(),
            status: free_port(),
            backends,
        };
        let dir = kind.lay(pair);
        let mut texts: Vec<(PathBuf, String)> = files(dir.path())
            .into_iter()
            .map(|file| (file.clone(), fs::read_to_string(file).unwrap()))
            .collect();
        for (from, to) in times {
            let has = texts.iter().any(|(_, text)| text.contains(from));
            assert!(has, "no {from:?} in the files of {}", kind.name());
            for (_, text) in &mut texts {
                *text = text.replace(from, to);
            }
        }
        for (file, text) in texts {
            write(&file, &with_ports(&text, &[(kind, ports)]));
        }
        let mut front = Self {
            kind,
            ports,
            dir,
            process: None,
        };
        front.begin();
        front
    }

    /// Starts it, again if need be; returns when it accepts.
    pub(crate) fn begin(&mut self) {
        let name = self.kind.name();
        let mut command = self.kind.command(self.dir.path());
        match self.kind {
            Kind::Nginx => command.args(["-g", "daemon off;"]),
            Kind::Haproxy => command.args(["-W", "-db"]),
            Kind::Caddy => command.arg("run"),
        };
        let mut process = Process::spawn(name, &mut command);
        for port in [self.ports.plain, self.ports.tls, self.ports.status] {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            until(&format!("{name} accepts on {address}"), secs(20.0), || {
                assert!(process.is_running(), "{name} ended at once: {:?}", {
                    process.stderr.texts()
                });
                TcpStream::connect_timeout(&address, Duration::from_secs(1))
                    .map_err(|error| error.to_string())
            });
        }
        self.process = Some(process);
    }

    /// As its unit's ExecReload does it.
    pub(crate) fn reload(&self) {
        match self.kind {
            Kind::Nginx => self.running().signal(Signal::HUP),
            Kind::Haproxy => self.running().signal(Signal::USR2),
            Kind::Caddy => {
                let mut command = self.kind.command(self.dir.path());
                command.args(["reload", "--force", "--config", "Caddyfile"]);
                let reloaded = output_of(&mut command);
                assert!(reloaded.status.success(), "{reloaded:?}");
            }
        }
    }

    /// Asks it to end when its connections have.
    pub(crate) fn drain(&self) {
        match self.kind {
            Kind::Nginx => self.running().signal(Signal::QUIT),
            Kind::Haproxy => self.running().signal(Signal::USR1),
            Kind::Caddy => panic!("Caddy has one way to end"),
        }
    }

    pub(crate) fn stop(&self) {
        self.running().signal(Signal::TERM);
    }

    /// SIGKILL to the processes that hold the connections.
    pub(crate) fn kill(&self) {
        let process = self.running();
        match self.kind {
            Kind::Nginx | Kind::Haproxy => {
                for worker in children_of(process.pid()) {
                    let worker = Pid::from_raw(worker.cast_signed()).unwrap();
                    // One may have ended by itself since it was looked for.
                    let _ = kill_process(worker, Signal::KILL);
                }
            }
            Kind::Caddy => process.signal(Signal::KILL),
        }
    }

    /// After it was asked to end, or killed: waits for that and starts it again. nginx's master
    /// starts workers anew by itself.
    pub(crate) fn again(&mut self, killed: bool) {
        if killed && self.kind == Kind::Nginx {
            return;
        }
        self.process.take().unwrap().wait(secs(20.0));
        self.begin();
    }

    /// What it says about itself at `path`.
    pub(crate) fn status(&self, path: &str) -> Result<String, String> {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.status));
        match http::get(at, path)? {
            (200, body) => Ok(body),
            other => Err(format!("{path}: {other:?}")),
        }
    }

    /// What it has written about its connections: nginx into a file, the others where they log.
    pub(crate) fn log(&self) -> String {
        match self.kind {
            Kind::Nginx => {
                fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default()
            }
            Kind::Haproxy => self.running().stdout.texts().join("\n"),
            Kind::Caddy => self.running().stderr.texts().join("\n"),
        }
    }

    fn running(&self) -> &Process {
        self.process.as_ref().unwrap()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        // nginx's workers outlive a master that is killed. Caddy would wait for its streams.
        if self.kind != Kind::Caddy && process.is_running() {
            process.signal(Signal::TERM);
            if !std::thread::panicking() {
                process.wait(secs(20.0));
            } else {
                // Long enough for what is done at once.
                let _ = until_gone(&mut process);
            }
        }
    }
}

fn until_gone(process: &mut Process) -> Result<(), ()> {
    let deadline = std::time::Instant::now() + secs(5.0);
    while process.is_running() {
        if std::time::Instant::now() >= deadline {
            return Err(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The configuration that watches all three, with the ports of `fronts` and the authority beside it
/// in `dir`.
pub(crate) fn watching(dir: &Path, pki: &Pki, fronts: &[&Front]) -> String {
    let text = fs::read_to_string(examples().join("ws-keepalive.toml")).unwrap();
    fs::create_dir(dir.join("tls")).unwrap();
    fs::copy(pki.ca(), dir.join("tls/ca.pem")).unwrap();
    let ports: Vec<_> = fronts.iter().map(|f| (f.kind, f.ports)).collect();
    with_ports(&text, &ports)
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/proxies")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.is_file()).collect()
}

/// `text` with every number that is a port of the files replaced, all at once: a port that was put
/// in is not looked at again.
fn with_ports(text: &str, fronts: &[(Kind, FrontPorts)]) -> String {
    let mut ports = Vec::new();
    for (kind, to) in fronts {
        let from = kind.written();
        ports.extend([(from.plain, to.plain), (from.tls, to.tls)]);
        ports.push((from.status, to.status));
        ports.extend(from.backends.into_iter().zip(to.backends));
    }
    let mut new = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c: char| !c.is_ascii_digit());
        let (digits, after) = from.split_at(end.unwrap_or(from.len()));
        new.push_str(before);
        let number: Option<u16> = digits.parse().ok();
        match ports.iter().find(|(port, _)| Some(*port) == number) {
            Some((_, to)) => new.push_str(&to.to_string()),
            None => new.push_str(digits),
        }
        rest = after;
    }
    new + rest
}
