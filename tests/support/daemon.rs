//! The built binary.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::config::ConfigDir;
use super::http::{self, Endpoint, Keys};
use super::journal::{secs, until};
use super::machine::free_port;
use super::namespace::Namespace;
use super::process::Process;
use super::scrape::Scrape;

/// The built `ws-keepalive`, with nothing of this environment that it would take as configuration.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ws-keepalive"));
    for (name, _) in std::env::vars_os() {
        if let Some(name) = name.to_str()
            && (name.starts_with("WS_KEEPALIVE")
                || name.starts_with("OTEL_")
                || name.to_ascii_lowercase().ends_with("_proxy"))
        {
            command.env_remove(name);
        }
    }
    command
        .env_remove("RUNTIME_DIRECTORY")
        .env_remove("NOTIFY_SOCKET");
    command.args(arguments);
    command
}

/// A `ws-keepalive` with a metrics listener: `run`, `client` or `server`.
pub(crate) struct Daemon {
    pub(crate) process: Process,
    pub(crate) dir: ConfigDir,
    pub(crate) metrics: SocketAddr,
    /// The same, or a socket file where the daemon's network is not ours.
    endpoint: Endpoint,
}

impl Daemon {
    /// `run` on `targets`, which is the file but for its `[metrics]` and `[control]` tables. Returns when `/readyz` says so.
    pub(crate) fn run(targets: &str) -> Self {
        Self::run_in(ConfigDir::new(), |dir, text| dir.overwrite(text), targets)
    }

    /// The same, with `more` flags.
    pub(crate) fn run_with(targets: &str, more: &[&str]) -> Self {
        let dir = ConfigDir::new();
        Self::start(dir, |dir, text| dir.overwrite(text), targets, more)
    }

    /// The same, the file laid down by `place`.
    pub(crate) fn run_in(
        dir: ConfigDir,
        place: impl FnOnce(&ConfigDir, &str),
        targets: &str,
    ) -> Self {
        Self::start(dir, place, targets, &[])
    }

    fn start(
        dir: ConfigDir,
        place: impl FnOnce(&ConfigDir, &str),
        targets: &str,
        more: &[&str],
    ) -> Self {
        let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        place(&dir, &full(&dir, &metrics.to_string(), targets));
        let process = Process::spawn("run", &mut run_command(&dir, more));
        let daemon = Self {
            process,
            dir,
            metrics,
            endpoint: metrics.into(),
        };
        daemon.ready();
        daemon
    }

    /// The same, asked with `keys`, which are made for its address.
    pub(crate) fn run_guarded(targets: &str, keys: impl FnOnce(SocketAddr) -> Keys) -> Self {
        let dir = ConfigDir::new();
        let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        dir.overwrite(&full(&dir, &metrics.to_string(), targets));
        let daemon = Self {
            process: Process::spawn("run", &mut run_command(&dir, &[])),
            dir,
            metrics,
            endpoint: keys(metrics).into(),
        };
        daemon.ready();
        daemon
    }

    /// `run` in a network of its own. Its metrics are at a socket file, which is in no network.
    pub(crate) fn run_inside(namespace: &Namespace, targets: &str) -> Self {
        let dir = ConfigDir::new();
        let socket = dir.path().join("metrics.sock");
        let listen = format!("unix:{}", socket.display());
        dir.overwrite(&full(&dir, &listen, targets));
        let daemon = Self {
            process: namespace.spawn("run", &run_command(&dir, &[])),
            dir,
            metrics: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            endpoint: Endpoint::Unix(socket),
        };
        daemon.ready();
        daemon
    }

    /// The same with `variables` in its environment.
    pub(crate) fn run_with_variables(targets: &str, variables: &[(&str, &str)]) -> Self {
        Self::run_logging(targets, variables, "json")
    }

    /// The same with its log in `format`.
    pub(crate) fn run_logging(targets: &str, variables: &[(&str, &str)], format: &str) -> Self {
        let dir = ConfigDir::new();
        let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        dir.overwrite(&full(&dir, &metrics.to_string(), targets));
        let mut command = run_logging_command(&dir, &[], format);
        command.envs(variables.iter().copied());
        let daemon = Self {
            process: Process::spawn("run", &mut command),
            dir,
            metrics,
            endpoint: metrics.into(),
        };
        daemon.ready();
        daemon
    }

    /// `client` or `server`, as `arguments` say, with its metrics on a port of its own.
    pub(crate) fn command(arguments: &[&str]) -> Self {
        let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let listen = metrics.to_string();
        let mut command = program(arguments);
        command.args(["--metrics=true", "--metrics-server", &listen]);
        command.args(["--log-level", "debug", "--log-format", "json"]);
        let process = Process::spawn(arguments[0], &mut command);
        Self {
            process,
            dir: ConfigDir::new(),
            metrics,
            endpoint: metrics.into(),
        }
    }

    /// `server` on `port` of every address; returns when it listens.
    pub(crate) fn server(port: u16, more: &[&str]) -> Self {
        let port = port.to_string();
        let mut arguments = vec!["server", "--listen", "0.0.0.0", "--port", &port];
        arguments.extend(more);
        let server = Self::command(&arguments);
        server.ready();
        server
    }

    /// The whole file for `targets`.
    pub(crate) fn text(&self, targets: &str) -> String {
        full(&self.dir, &self.metrics.to_string(), targets)
    }

    pub(crate) fn ready(&self) {
        until("/readyz answers 200", secs(15.0), || {
            match http::get(self.endpoint.clone(), "/readyz")? {
                (200, _) => Ok(()),
                other => Err(format!(
                    "{other:?}; log: {:?}",
                    self.process.stderr.all().last()
                )),
            }
        });
    }

    pub(crate) fn try_scrape(&self) -> Result<Scrape, String> {
        match http::get(self.endpoint.clone(), "/metrics")? {
            (200, text) => Ok(Scrape::of(text)),
            other => Err(format!("{other:?}")),
        }
    }

    pub(crate) fn scrape(&self) -> Scrape {
        self.try_scrape().unwrap()
    }

    /// Scrapes until `holds`, and returns the scrape that did.
    pub(crate) fn scrape_until(
        &self,
        what: &str,
        within: Duration,
        mut holds: impl FnMut(&Scrape) -> bool,
    ) -> Scrape {
        until(what, within, || {
            let scrape = self.try_scrape()?;
            if holds(&scrape) {
                Ok(scrape)
            } else {
                Err(scrape.text)
            }
        })
    }

    pub(crate) fn established(&self, target: &str, within: Duration) {
        self.scrape_until(&format!("{target} is established"), within, |scrape| {
            scrape.of_target("established", target) == Some(1.0)
        });
    }

    /// The entry of `target` in `/api/v1/targets`.
    pub(crate) fn api(&self, target: &str) -> Result<Value, String> {
        let (status, body) = http::get(self.endpoint.clone(), "/api/v1/targets")?;
        let json: Value =
            serde_json::from_str(&body).map_err(|error| format!("{status}: {error}: {body}"))?;
        let targets = json["targets"].as_array().cloned().unwrap_or_default();
        let found = targets.into_iter().find(|entry| entry["name"] == target);
        found.ok_or_else(|| format!("no {target} in {body}"))
    }

    /// Waits until the last reload is known to have succeeded, or failed.
    pub(crate) fn last_reload(&self, successful: bool, within: Duration) {
        self.scrape_until(
            &format!("last reload successful: {successful}"),
            within,
            |scrape| {
                let value = scrape.value("ws_keepalive_config_last_reload_successful", &[]);
                value == Some(f64::from(u8::from(successful)))
            },
        );
    }
}

fn run_command(dir: &ConfigDir, more: &[&str]) -> Command {
    run_logging_command(dir, more, "json")
}

fn run_logging_command(dir: &ConfigDir, more: &[&str], format: &str) -> Command {
    let file = dir.file();
    let mut command = program(&["run", "--config", file.to_str().unwrap()]);
    command.args(["--log-level", "debug", "--log-format", format]);
    command.args(more);
    command
}

fn full(dir: &ConfigDir, metrics: &str, targets: &str) -> String {
    let control = dir.path().join("control.sock");
    format!(
        "[metrics]\nlisten = \"{metrics}\"\nreload = true\n\n[control]\nsocket = {control:?}\n\n{targets}"
    )
}

/// The whole number that follows `word` in `text`, a few signs between them allowed:
/// `kept 12`, `"kept":12`, `kept=12`.
pub(crate) fn number_after(text: &str, word: &str) -> Option<u64> {
    let after = &text[text.find(word)? + word.len()..];
    let start = after
        .find(|c: char| c.is_ascii_digit())
        .filter(|at| *at <= 4)?;
    let digits = after[start..].split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}
