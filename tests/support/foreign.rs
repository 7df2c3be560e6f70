//! Peers others wrote: npm `ws` and PyPI `websockets`, behind one protocol of JSON lines.
//!
//! Events on standard output: `{"event":"listening","port"}`, `{"event":"open","id","path","port"}`
//! where `port` is the client's, `{"event":"ping"|"pong","id","data"}` in hex (a Python peer
//! answers pings without telling), `{"event":"message","id","text"}`, `{"event":"close","id",
//! "code","reason"}` with what came from the other side. Commands on standard input, obeyed on
//! every open connection: `{"command":"ping"|"send","data"}`, `{"command":"close","code",
//! "reason"}`, `{"command":"vanish"}`. End of input ends the peer.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::journal::secs;
use super::machine::tools;
use super::process::Process;

/// A peer in another language.
pub(crate) struct Foreign {
    pub(crate) process: Process,
}

impl Foreign {
    pub(crate) fn node_server() -> (Self, u16) {
        Self::listening(node("server.js", &[]))
    }

    pub(crate) fn python_server() -> (Self, u16) {
        Self::listening(python("server.py", &[]))
    }

    pub(crate) fn node_client(url: &str) -> Self {
        node("client.js", &[url])
    }

    pub(crate) fn python_client(url: &str) -> Self {
        python("client.py", &[url])
    }

    /// Those two by wss://, trusting the certificates of `ca` only.
    pub(crate) fn node_client_trusting(url: &str, ca: &Path) -> Self {
        spawn_with(node_command("client.js", &[url]), "NODE_EXTRA_CA_CERTS", ca)
    }

    pub(crate) fn python_client_trusting(url: &str, ca: &Path) -> Self {
        spawn_with(python_command("client.py", &[url]), "SSL_CERT_FILE", ca)
    }

    /// The client that the makers of a protocol publish: `phoenix` or `signalr`.
    pub(crate) fn official_client(protocol: &str, url: &str) -> Self {
        node("official.js", &[protocol, url])
    }

    fn listening(peer: Self) -> (Self, u16) {
        let listening = peer.event("listening", secs(20.0), |_| true);
        let port = listening["port"]
            .as_u64()
            .and_then(|port| port.try_into().ok());
        (peer, port.unwrap())
    }

    /// Waits for an event called `name` for which `matches`.
    pub(crate) fn event(
        &self,
        name: &str,
        within: Duration,
        mut matches: impl FnMut(&Value) -> bool,
    ) -> Value {
        self.process
            .stdout
            .wait(&format!("the peer says {name}"), within, |line| {
                let event: Value = serde_json::from_str(&line.text).ok()?;
                (event["event"] == name && matches(&event)).then_some(event)
            })
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        let lines = self.process.stdout.all();
        lines
            .iter()
            .filter(|line| line.text_of("event") == name)
            .count()
    }

    pub(crate) fn ping(&mut self, data: &str) {
        self.process
            .tell(&json!({"command": "ping", "data": data}).to_string());
    }

    pub(crate) fn send(&mut self, data: &str) {
        self.process
            .tell(&json!({"command": "send", "data": data}).to_string());
    }

    pub(crate) fn close(&mut self, code: u16, reason: &str) {
        let command = json!({"command": "close", "code": code, "reason": reason});
        self.process.tell(&command.to_string());
    }

    /// Ends the connection without a Close frame.
    pub(crate) fn vanish(&mut self) {
        self.process.tell(&json!({"command": "vanish"}).to_string());
    }
}

pub(super) fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/outer/peers")
        .join(name)
}

fn node(name: &str, arguments: &[&str]) -> Foreign {
    spawn(node_command(name, arguments))
}

pub(super) fn node_command(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("node");
    command.env("NODE_PATH", tools().join("node/node_modules"));
    command.arg(script(name)).args(arguments);
    command
}

fn python(name: &str, arguments: &[&str]) -> Foreign {
    spawn(python_command(name, arguments))
}

pub(super) fn python_command(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(tools().join("venv/bin/python"));
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script(name))
        .args(arguments);
    command
}

fn spawn_with(mut command: Command, variable: &str, path: &Path) -> Foreign {
    command.env(variable, path);
    spawn(command)
}

fn spawn(mut command: Command) -> Foreign {
    let name = command.get_program().to_string_lossy().into_owned();
    Foreign {
        process: Process::spawn(&name, &mut command),
    }
}
