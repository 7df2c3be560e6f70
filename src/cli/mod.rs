//! The command line: one small file per command. Not part of the library's interface.

mod check;
mod client;
mod connection;
mod manual;
mod ping;
mod reload;
mod run;
mod server;
mod status;
mod values;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand};

use crate::config::load::{DEFAULT_FILE, Overrides};
use crate::config::{LogFormat, LogLevel};
use crate::os;

/// Asked to stop, or done.
pub(crate) const DONE: u8 = 0;
/// Connection lost, no answer, a listener that cannot bind.
pub(crate) const FAILED: u8 = 1;
/// Wrong usage or a bad configuration: said before anything is opened.
pub(crate) const USAGE: u8 = 2;

/// Holds long-lived WebSocket and event-stream connections, keeps them alive with heartbeats, and
/// says with evidence when one breaks, who broke it, and for how long it was gone.
#[derive(Debug, Parser)]
#[command(
    name = "ws-keepalive",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
Durations have units: 500ms, 1.5s, 1m30s. Boolean flags take --metrics, --metrics=false, -m=false.
Configuration: built-in default < file < environment (WS_KEEPALIVE__METRICS__LISTEN) < flag.
Exit status: 0 asked to stop, or done; 1 connection lost, no answer, or a listener that cannot
bind; 2 wrong usage or bad configuration; 128 + signal after a second SIGINT or SIGTERM.

Examples:
  ws-keepalive run --config config/demo.toml
  ws-keepalive client -H localhost -p 9000 -i 10s
  ws-keepalive ping -c 5 ws://localhost:9000/ws
  ws-keepalive check /etc/ws-keepalive.toml
  ws-keepalive status"
)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Globals {
    /// How much is logged [default: info]
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Logging")]
    pub(crate) log_level: Option<LogLevel>,
    /// How log lines look; auto is text on a terminal, fields in systemd's journal, else JSON [default: auto]
    #[arg(long, global = true, value_name = "FORMAT", help_heading = "Logging")]
    pub(crate) log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Hold every target of a configuration file: the daemon
    Run(run::RunArgs),
    Client(Box<client::ClientArgs>),
    Server(Box<server::ServerArgs>),
    Ping(Box<ping::PingArgs>),
    /// Judge a configuration file; show the effective one
    #[command(after_help = "\
Exit status: 0 if it is good, 2 if not; every mistake is shown with its place and its remedy.

Examples:
  ws-keepalive check
  ws-keepalive check config/demo.toml --print
  ws-keepalive check --schema")]
    Check(check::CheckArgs),
    /// Show the targets of the running daemon
    Status(status::StatusArgs),
    /// Have the running daemon read its configuration again, and wait for the outcome
    Reload(reload::ReloadArgs),
    /// Write man pages and completions, for who makes packages
    #[command(hide = true)]
    Manual(manual::ManualArgs),
}

/// Parses the command line, runs the command, gives the exit status. Usage errors end the process
/// with 2, `--help` and `--version` with 0.
pub fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| with_tip(error).exit());
    let globals = cli.globals;
    let level = globals.log_level.unwrap_or_default();
    let format = globals.log_format.unwrap_or_default();
    let status = match cli.command {
        Command::Run(args) => run::run(args, globals),
        Command::Client(args) => client::run(&args, level, format),
        Command::Server(args) => server::run(&args, level, format),
        Command::Ping(args) => ping::run(&args, level, format),
        Command::Check(args) => check::run(&args, globals.overrides()),
        Command::Status(args) => status::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Manual(args) => manual::run(&args),
    };
    ExitCode::from(status)
}

/// Says how a boolean flag takes its value to who wrote `-m false`.
fn with_tip(mut error: clap::Error) -> clap::Error {
    let value = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(value)) if value == "true" || value == "false" => value.clone(),
        _ => return error,
    };
    if error.kind() == ErrorKind::UnknownArgument {
        let tip = format!("a boolean flag takes its value after `=`, as in `-m={value}`");
        let tip = ContextValue::StyledStrs(vec![tip.into()]);
        error.insert(ContextKind::Suggested, tip);
    }
    error
}

impl Globals {
    /// What they say to a configuration.
    pub(crate) fn overrides(self) -> Overrides {
        Overrides {
            log_level: self.log_level,
            log_format: self.log_format,
            ..Overrides::default()
        }
    }
}

/// Says on stderr, one line each, what went wrong.
fn complain(words: &str) {
    for line in words.lines() {
        eprintln!("ws-keepalive: {line}");
    }
}

/// The same for a command that has a name of its own.
fn complain_of(command: &str, words: &str) {
    for line in words.lines() {
        eprintln!("ws-keepalive {command}: {line}");
    }
}

/// Where the running daemon listens.
#[derive(Debug, Args)]
struct SocketArgs {
    /// The daemon's control socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The daemon's configuration file, to find the socket in it
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,
}

impl SocketArgs {
    /// `--socket`, else `control.socket` of the environment and of the configuration file, else
    /// the default. The file may be bad: that is just when somebody asks for a reload.
    fn path(&self) -> Result<PathBuf, String> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let file = self.config.as_deref().unwrap_or(DEFAULT_FILE.as_ref());
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if self.config.is_some() => {
                let (file, why) = (file.display(), os::words(&error));
                return Err(format!("{file}: cannot be read: {why}"));
            }
            // The default file need not be there, nor be readable for everybody.
            Err(_) => String::new(),
        };
        let from_environment = std::env::var_os("WS_KEEPALIVE__CONTROL__SOCKET");
        let from_environment = from_environment.map(PathBuf::from);
        let path = from_environment.or_else(|| socket_in(&text, file));
        Ok(path.unwrap_or_else(crate::control::default_path))
    }
}

/// `control.socket` of a configuration file; a relative one is beside it.
fn socket_in(text: &str, file: &Path) -> Option<PathBuf> {
    let (table, _mistakes) = toml::de::DeTable::parse_recoverable(text);
    let socket = table.get_ref().get("control")?.get_ref().get("socket")?;
    let socket = socket.get_ref().as_str()?;
    Some(file.parent().unwrap_or(Path::new("")).join(socket))
}

/// Asks the daemon, or says why there is no answer.
fn ask(
    socket: &SocketArgs,
    command: crate::control::Command,
) -> Result<crate::control::Answer, u8> {
    let path = socket.path().map_err(|wrong| {
        complain(&wrong);
        USAGE
    })?;
    crate::control::ask(&path, command).map_err(|error| {
        complain(&error.to_string());
        if let crate::control::AskError::Nobody { .. } = error {
            complain(
                "is the daemon running? It listens where control.socket of its configuration \
                 says, or on $RUNTIME_DIRECTORY/control.sock; name it with --socket PATH or \
                 --config FILE",
            );
        }
        FAILED
    })
}

#[cfg(test)]
mod tests;
