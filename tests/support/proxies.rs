//! Real proxies, each with the smallest configuration that does its one job: unprivileged, on
//! loopback, on a port the test chose, its files in a directory of its own, ended by its own id.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::geteuid;
use tempfile::TempDir;

use super::journal::{secs, until};
use super::machine::{free_port, tools};
use super::pki::Pair;
use super::process::{Process, Signal};

/// Whom squid becomes where the tests run as root, which it refuses to stay: `nobody`.
const NOBODY: u32 = 65_534;

/// A running proxy. It can be ended and started again on its port.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    /// Where nginx, HAProxy and Caddy take plain HTTP.
    plain: u16,
    dir: TempDir,
    start: fn(&Path) -> Command,
    process: Option<Process>,
}

/// Who may use squid, and what for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Squid<'a> {
    Open,
    /// Basic authentication.
    Password {
        user: &'a str,
        password: &'a str,
    },
    /// No CONNECT at all: 403.
    Refusing,
}

impl Proxy {
    pub(crate) fn squid(whom: Squid<'_>) -> Self {
        Self::start(squid, |dir, port, _| {
            let (access, auth) = match whom {
                Squid::Open => ("http_access allow all", String::new()),
                Squid::Refusing => ("http_access deny all", String::new()),
                Squid::Password { user, password } => {
                    let (users, helper) = (dir.join("users"), dir.join("auth.sh"));
                    // The helper's protocol: a line with user and password, escaped as in a URL; OK
                    // or ERR.
                    let password = password.replace(' ', "%20");
                    write(&users, &format!("{user} {password}\n"));
                    write(
                        &helper,
                        &format!(
                            "#!/bin/sh\nwhile read -r line; do\n  \
                             if grep -qxF -- \"$line\" {users:?}; then echo OK; else echo ERR; fi\ndone\n"
                        ),
                    );
                    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
                    let auth = format!(
                        "auth_param basic program {helper}\nauth_param basic children 1\n\
                         auth_param basic realm outer\nacl known proxy_auth REQUIRED\n",
                        helper = helper.display()
                    );
                    ("http_access allow known\nhttp_access deny all", auth)
                }
            };
            write(
                &dir.join("squid.conf"),
                &format!(
                    "http_port 127.0.0.1:{port}\nvisible_hostname outer\n{auth}{access}\n\
                     cache deny all\ncache_mem 0 MB\nmemory_pools off\nshutdown_lifetime 0 seconds\n\
                     pid_filename none\naccess_log stdio:{dir}/access.log\n\
                     cache_log {dir}/cache.log\ncoredump_dir {dir}\npinger_enable off\n\
                     dns_nameservers 127.0.0.1\nmax_filedescriptors 256\n",
                    dir = dir.display()
                ),
            );
        })
    }

    pub(crate) fn microsocks(login: Option<(&str, &str)>) -> Self {
        Self::start(microsocks, |dir, port, _| {
            let login = login.map_or_else(String::new, |(user, password)| {
                format!("-u\n{user}\n-P\n{password}\n")
            });
            write(
                &dir.join("flags"),
                &format!("-i\n127.0.0.1\n-p\n{port}\n{login}"),
            );
        })
    }

    /// Terminates TLS before `backend`.
    pub(crate) fn nginx(backend: u16, pair: &Pair) -> Self {
        let upgrading = "proxy_http_version 1.1;\nproxy_set_header Upgrade $http_upgrade;\n\
                         proxy_set_header Connection upgrade;\n";
        Self::nginx_with(backend, pair, upgrading)
    }

    /// The same before a server of event streams: with buffers as nginx has them unless it is told
    /// otherwise, or without.
    pub(crate) fn nginx_for_streams(backend: u16, pair: &Pair, buffers: bool) -> Self {
        let directives = match buffers {
            // What nginx asks in HTTP/1.0 has no chunks, and waits until a buffer is full.
            true => "proxy_http_version 1.0;\nproxy_buffer_size 4k;\nproxy_buffers 8 4k;\n",
            false => {
                "proxy_http_version 1.1;\nproxy_set_header Connection \"\";\n\
                 proxy_buffering off;\n"
            }
        };
        Self::nginx_with(backend, pair, directives)
    }

    fn nginx_with(backend: u16, pair: &Pair, directives: &str) -> Self {
        Self::start(nginx, |dir, port, plain| {
            write(
                &dir.join("nginx.conf"),
                &format!(
                    "daemon off;\nmaster_process off;\npid {dir}/pid;\nerror_log stderr;\n\
                     events {{ worker_connections 64; }}\n\
                     http {{\naccess_log off;\nclient_body_temp_path {dir}/body;\n\
                     proxy_temp_path {dir}/proxy;\nfastcgi_temp_path {dir}/fastcgi;\n\
                     uwsgi_temp_path {dir}/uwsgi;\nscgi_temp_path {dir}/scgi;\n\
                     server {{\nlisten 127.0.0.1:{plain};\nlisten 127.0.0.1:{port} ssl;\n\
                     ssl_certificate {cert};\nssl_certificate_key {key};\nssl_buffer_size 4k;\n\
                     location / {{\nproxy_pass http://127.0.0.1:{backend};\n\
                     {directives}}} }} }}\n",
                    dir = dir.display(),
                    cert = pair.cert.display(),
                    key = pair.key.display()
                ),
            );
        })
    }

    /// The same by HAProxy.
    pub(crate) fn haproxy(backend: u16, pair: &Pair) -> Self {
        Self::start(haproxy, |dir, port, plain| {
            let both = [&pair.cert, &pair.key].map(|file| fs::read_to_string(file).unwrap());
            write(&dir.join("both.pem"), &both.concat());
            write(
                &dir.join("haproxy.cfg"),
                &format!(
                    "global\n  maxconn 64\n\
                     defaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  \
                     timeout server 30s\n  timeout tunnel 1h\n\
                     frontend outer\n  bind 127.0.0.1:{plain}\n  bind 127.0.0.1:{port} ssl crt {dir}/both.pem alpn http/1.1\n  \
                     default_backend server\n\
                     backend server\n  server one 127.0.0.1:{backend}\n",
                    dir = dir.display()
                ),
            );
        })
    }

    /// The same by Caddy.
    pub(crate) fn caddy(backend: u16, pair: &Pair) -> Self {
        Self::start(caddy, |dir, port, plain| {
            write(
                &dir.join("Caddyfile"),
                &format!(
                    "{{\n  admin off\n  auto_https off\n}}\n\
                     https://localhost:{port} {{\n  bind 127.0.0.1\n  tls {cert} {key}\n  \
                     reverse_proxy 127.0.0.1:{backend}\n}}\n\
                     http://localhost:{plain} {{\n  bind 127.0.0.1\n  \
                     reverse_proxy 127.0.0.1:{backend}\n}}\n",
                    cert = pair.cert.display(),
                    key = pair.key.display()
                ),
            );
        })
    }

    fn start(start: fn(&Path) -> Command, configure: impl FnOnce(&Path, u16, u16)) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("ws-keepalive-proxy-")
            .tempdir()
            .unwrap();
        let (port, plain) = (free_port(), free_port());
        // squid writes its logs here as somebody else.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        configure(dir.path(), port, plain);
        let mut proxy = Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            plain,
            dir,
            start,
            process: None,
        };
        proxy.begin();
        proxy
    }

    /// Starts it, again if need be; returns when it accepts.
    pub(crate) fn begin(&mut self) {
        let mut command = (self.start)(self.dir.path());
        let name = command.get_program().to_string_lossy().into_owned();
        let mut process = Process::spawn(&name, &mut command);
        let address = self.address;
        until(&format!("{name} accepts on {address}"), secs(20.0), || {
            assert!(process.is_running(), "{name} ended at once: {:?}", {
                process.stderr.texts()
            });
            TcpStream::connect_timeout(&address, Duration::from_secs(1))
                .map_err(|error| error.to_string())
        });
        self.process = Some(process);
    }

    /// Ends it as an operator would; connections through it end with it.
    pub(crate) fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM);
            process.wait(secs(20.0));
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The port of nginx, HAProxy and Caddy for plain HTTP.
    pub(crate) fn plain_port(&self) -> u16 {
        self.plain
    }

    /// What squid wrote of its requests.
    pub(crate) fn access_log(&self) -> String {
        fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default()
    }
}

/// What `scripts/install-peers` unpacked, or else installed.
pub(super) fn binary(name: &str, below: &str) -> Command {
    let unpacked = tools().join(name).join(below);
    if unpacked.exists() {
        return Command::new(unpacked);
    }
    let installed = PathBuf::from("/").join(below);
    assert!(
        installed.exists(),
        "no {name}: neither {} nor {}; run scripts/install-peers",
        unpacked.display(),
        installed.display()
    );
    Command::new(installed)
}

fn squid(dir: &Path) -> Command {
    let mut command = binary("squid", "usr/sbin/squid");
    command.arg("-N").arg("-f").arg(dir.join("squid.conf"));
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn microsocks(dir: &Path) -> Command {
    let flags = fs::read_to_string(dir.join("flags")).unwrap();
    let mut command = binary("microsocks", "usr/bin/microsocks");
    command.args(flags.lines());
    command
}

fn nginx(dir: &Path) -> Command {
    let mut command = binary("nginx", "usr/sbin/nginx");
    // -e: before the configuration is read, the package's log would be opened.
    command.args(["-e", "stderr", "-p"]).arg(dir);
    command.arg("-c").arg(dir.join("nginx.conf"));
    command
}

fn haproxy(dir: &Path) -> Command {
    let mut command = binary("haproxy", "usr/sbin/haproxy");
    command.args(["-db", "-f"]).arg(dir.join("haproxy.cfg"));
    command
}

fn caddy(dir: &Path) -> Command {
    let mut command = binary("caddy", "usr/bin/caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]);
    command.arg(dir.join("Caddyfile"));
    // It keeps state in its user's home.
    for variable in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
        command.env(variable, dir);
    }
    command
}

pub(super) fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}
