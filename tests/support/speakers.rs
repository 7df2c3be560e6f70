//! Servers that speak the named protocols, each in one process of its own, on loopback. They are
//! the real ones - ActionCable under puma, Socket.IO, graphql-ws, mosquitto, RabbitMQ - but for
//! Phoenix and SignalR, which are written from their published protocols.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::foreign::{node_command, python_command, script};
use super::journal::{secs, until};
use super::machine::free_port;
use super::process::{Process, Signal};
use super::proxies::{binary, write};

/// What all of them take for a good user's, where they ask: mosquitto's `user`, the token of
/// Socket.IO's `/admin` and of GraphQL.
pub(crate) const PASSWORD: &str = "sesame";

/// A running server of a named protocol.
pub(crate) struct Speaker {
    /// The one that holds the connections: stopping it stops them all.
    pub(crate) process: Process,
    pub(crate) port: u16,
    /// Mosquitto's port where [`PASSWORD`] is asked for.
    guarded: Option<u16>,
    /// Ended after the process.
    _beside: Option<Process>,
    _dir: Option<TempDir>,
}

impl Speaker {
    /// ActionCable at `/cable`, under puma: `tests/outer/peers/cable.ru`.
    pub(crate) fn actioncable() -> Self {
        let mut command = binary("puma", "usr/bin/puma");
        // No configuration file of the directory's, one process, few threads.
        command.args(["-C", "-", "-w", "0", "-t", "1:4", "-e", "production"]);
        command.args(["-b", "tcp://127.0.0.1:0"]);
        command.arg(script("cable.ru"));
        let process = Process::spawn("puma", &mut command);
        let port = process.stdout.wait("puma listens", secs(60.0), |line| {
            let (_, port) = line.text.split_once("Listening on http://127.0.0.1:")?;
            port.parse().ok()
        });
        Self::alone(process, port)
    }

    /// Socket.IO at `/socket.io/`: `tests/outer/peers/socketio.js`.
    pub(crate) fn socket_io(ping_interval: Duration, ping_timeout: Duration) -> Self {
        let times = [ping_interval, ping_timeout].map(|time| time.as_millis().to_string());
        let [interval, timeout] = &times;
        Self::telling(
            "socket.io",
            node_command("socketio.js", &[interval, timeout]),
        )
    }

    /// graphql-ws at `/graphql`: `tests/outer/peers/graphql.js`.
    pub(crate) fn graphql() -> Self {
        Self::telling("graphql-ws", node_command("graphql.js", &[]))
    }

    /// Phoenix Channels at `/socket/websocket`: `tests/outer/peers/phoenix.py`. A client silent for
    /// `timeout` is closed.
    pub(crate) fn phoenix(timeout: Duration) -> Self {
        let timeout = timeout.as_secs_f64().to_string();
        Self::telling("phoenix", python_command("phoenix.py", &[&timeout]))
    }

    /// A SignalR hub at `/hub`: `tests/outer/peers/signalr.py`.
    pub(crate) fn signalr(keep_alive: Duration, client_timeout: Duration) -> Self {
        let times = [keep_alive, client_timeout].map(|time| time.as_secs_f64().to_string());
        let [keep_alive, timeout] = &times;
        Self::telling(
            "signalr",
            python_command("signalr.py", &[keep_alive, timeout]),
        )
    }

    /// mosquitto: one port where anybody is let in, another that wants `user` and [`PASSWORD`].
    pub(crate) fn mosquitto() -> Self {
        let dir = scratch();
        let (port, guarded) = (free_port(), free_port());
        let users = dir.path().join("users");
        let mut command = binary("mosquitto", "usr/bin/mosquitto_passwd");
        command
            .args(["-c", "-b"])
            .arg(&users)
            .args(["user", PASSWORD]);
        let mut made = Process::spawn("mosquitto_passwd", &mut command);
        assert!(made.wait(secs(20.0)).success());
        let config = dir.path().join("mosquitto.conf");
        // It wants a listener of its plain protocol beside those of WebSocket: a socket file does.
        write(
            &config,
            &format!(
                "user root\npersistence false\nlog_dest stderr\nlog_type all\n\
                 per_listener_settings true\n\
                 listener 0 {dir}/plain.sock\nallow_anonymous true\n\
                 listener {port} 127.0.0.1\nprotocol websockets\nallow_anonymous true\n\
                 listener {guarded} 127.0.0.1\nprotocol websockets\nallow_anonymous false\n\
                 password_file {users}\n",
                dir = dir.path().display(),
                users = users.display(),
            ),
        );
        let mut command = binary("mosquitto", "usr/sbin/mosquitto");
        command.arg("-c").arg(config);
        let mut process = Process::spawn("mosquitto", &mut command);
        for port in [port, guarded] {
            accepts(&mut process, port, secs(20.0));
        }
        Self {
            guarded: Some(guarded),
            _dir: Some(dir),
            ..Self::alone(process, port)
        }
    }

    /// RabbitMQ's web-stomp at `/ws`: a node of its own name, directories, ports and epmd, which
    /// ends with it. Takes some seconds to start.
    pub(crate) fn rabbitmq() -> Self {
        let dir = scratch();
        let (port, epmd_port, node_port) = (free_port(), free_port(), free_port());
        let path = |name: &str| dir.path().join(name);
        write(
            &path("rabbitmq.conf"),
            &format!(
                "listeners.tcp = none\nstomp.listeners.tcp = none\n\
                 web_stomp.tcp.ip = 127.0.0.1\nweb_stomp.tcp.port = {port}\n"
            ),
        );
        write(&path("plugins"), "[rabbitmq_web_stomp].\n");
        let mut command = binary("epmd", "usr/bin/epmd");
        command.args(["-port", &epmd_port.to_string(), "-address", "127.0.0.1"]);
        let mut epmd = Process::spawn("epmd", &mut command);
        accepts(&mut epmd, epmd_port, secs(20.0));
        // Not the one in the PATH, which changes to another user.
        let mut command = binary("rabbitmq", "usr/lib/rabbitmq/bin/rabbitmq-server");
        // Without a shell to read, it becomes the node itself instead of the node's parent.
        command.arg("-noinput").env("RABBITMQ_ALLOW_INPUT", "1");
        command
            .env("HOME", dir.path())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", epmd_port.to_string())
            .env("RABBITMQ_NODENAME", format!("outer{port}@localhost"))
            .env("RABBITMQ_DIST_PORT", node_port.to_string())
            .env("RABBITMQ_CONF_ENV_FILE", path("none"))
            .env("RABBITMQ_CONFIG_FILE", path("rabbitmq"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins"))
            .env("RABBITMQ_MNESIA_BASE", path("mnesia"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_PID_FILE", path("pid"))
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1}",
            );
        let mut process = Process::spawn("rabbitmq", &mut command);
        accepts(&mut process, port, secs(120.0));
        Self {
            _beside: Some(epmd),
            _dir: Some(dir),
            ..Self::alone(process, port)
        }
    }

    /// A server that says `{"event":"listening","port"}`.
    fn telling(name: &str, mut command: Command) -> Self {
        let process = Process::spawn(name, &mut command);
        let port = process.stdout.wait("it listens", secs(30.0), |line| {
            let port = line.field("port").and_then(Value::as_u64)?;
            (line.text_of("event") == "listening").then_some(port)
        });
        Self::alone(process, port.try_into().unwrap())
    }

    fn alone(process: Process, port: u16) -> Self {
        Self {
            process,
            port,
            guarded: None,
            _beside: None,
            _dir: None,
        }
    }

    /// `ws://` to `path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("ws://127.0.0.1:{}{path}", self.port)
    }

    /// The same, where mosquitto wants a password.
    pub(crate) fn guarded_url(&self, path: &str) -> String {
        format!("ws://127.0.0.1:{}{path}", self.guarded.unwrap())
    }

    /// Shuts it down as an operator would, and returns when it is gone.
    pub(crate) fn leave(&mut self) {
        self.process.signal(Signal::TERM);
        self.process.wait(secs(60.0));
    }
}

fn scratch() -> TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("ws-keepalive-speaker-").tempdir().unwrap()
}

fn accepts(process: &mut Process, port: u16, within: Duration) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    until(&format!("somebody accepts on {address}"), within, || {
        assert!(process.is_running(), "it ended at once: {:?}", {
            process.stderr.texts()
        });
        TcpStream::connect_timeout(&address, Duration::from_secs(1))
            .map_err(|error| error.to_string())
    });
}
