//! The flags that say how a peer is reached, and what is sent when the connection is made: every
//! connection option of the configuration file, one connection at a time (`fan_out` is for the
//! daemon). Long names only, curl's where curl has one: a command's letters are its own.

mod address;
mod limits;
mod proxy;
mod request;
mod tls;

use std::sync::Arc;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::config::flags::{FlagTarget, in_words};
use crate::config::load::load_flags;
use crate::config::{Target, WsUrl};

/// The connection flags of `client` and `ping`.
#[derive(Debug, Args)]
pub(super) struct ConnectionArgs {
    #[command(flatten)]
    request: request::RequestArgs,
    #[command(flatten)]
    tls: tls::TlsArgs,
    #[command(flatten)]
    proxy: proxy::ProxyArgs,
    #[command(flatten)]
    address: address::AddressArgs,
    #[command(flatten)]
    limits: limits::LimitArgs,
}

impl ConnectionArgs {
    /// Gives `target`, which is at `url`, the keys these flags stand for. What is hardly meant is
    /// returned, one line each. An error names the flag, never a secret.
    pub(super) fn add_to(&self, target: &mut FlagTarget, url: &str) -> Result<Vec<String>, String> {
        self.request.add_to(target)?;
        self.tls.add_to(target);
        self.proxy.add_to(target)?;
        let warnings = self.address.add_to(target, url);
        self.limits.add_to(target);
        Ok(warnings)
    }
}

/// curl's letters, for a command that leaves them free: the argument, its letter.
const CURL_LETTERS: [(&str, char); 11] = [
    ("headers", 'H'),
    ("insecure", 'k'),
    ("cert", 'E'),
    ("proxy", 'x'),
    ("proxy_user", 'U'),
    ("ipv4", '4'),
    ("ipv6", '6'),
    ("user_agent", 'A'),
    ("cookies", 'b'),
    ("user", 'u'),
    ("location", 'L'),
];

/// Flags about what is sent, and about messages and the Close: the argument, its flag. An event
/// stream has none of it. Some have defaults, so that their values do not tell whether they were
/// given.
const OF_WEBSOCKETS: [(&str, &str); 3] = [
    ("write_timeout", "--write-timeout"),
    ("close_timeout", "--close-timeout"),
    ("max_message_size", "--max-message-size"),
];

/// The same flags, with curl's letters beside the names.
#[derive(Debug)]
pub(super) struct WithCurlLetters {
    pub(super) args: ConnectionArgs,
    /// A flag that was given and means nothing to an event stream.
    pub(super) of_websockets: Option<&'static str>,
}

fn with_letters(command: Command) -> Command {
    CURL_LETTERS
        .iter()
        .fold(command, |command, (argument, letter)| {
            command.mut_arg(argument, |argument| argument.short(*letter))
        })
}

impl Args for WithCurlLetters {
    fn augment_args(command: Command) -> Command {
        with_letters(ConnectionArgs::augment_args(command))
    }

    fn augment_args_for_update(command: Command) -> Command {
        with_letters(ConnectionArgs::augment_args_for_update(command))
    }
}

impl FromArgMatches for WithCurlLetters {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |argument| matches.value_source(argument) == Some(ValueSource::CommandLine);
        let flag = OF_WEBSOCKETS.iter().find(|(argument, _)| given(argument));
        Ok(Self {
            args: ConnectionArgs::from_arg_matches(matches)?,
            of_websockets: flag.map(|(_, flag)| *flag),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The one target that flags describe, and what is hardly meant about it.
pub(super) fn load_one(target: FlagTarget) -> Result<(Arc<Target>, Vec<String>), String> {
    let loaded = load_flags(target).map_err(|report| in_words(&report))?;
    let target = loaded.config.targets.into_iter().next();
    let target = target.ok_or("the flags describe no target")?;
    Ok((target, loaded.warnings))
}

/// The host of `url`, to name a target by; `otherwise` if it cannot be read: what is wrong with it
/// is told with everything else.
pub(super) fn host_of(url: &str, otherwise: &str) -> String {
    WsUrl::parse(url).map_or_else(|_| otherwise.to_owned(), |url| url.host.into())
}

/// The password of `USER:PASSWORD`, or where it is kept.
enum Password<'a> {
    Text(&'a str),
    File(&'a str),
}

/// The parts of a `USER:PASSWORD` that `flag` gave, or of a `USER` whose password is in a file.
/// The error shows nothing of it.
fn credentials<'a>(
    (flag, pair): (&str, &'a str),
    (file_flag, file): (&str, Option<&'a str>),
) -> Result<(&'a str, Password<'a>), String> {
    match (pair.split_once(':'), file) {
        (Some(_), Some(_)) => Err(format!(
            "{flag}: has a password already; leave out it or {file_flag}"
        )),
        (Some((user, password)), None) => Ok((user, Password::Text(password))),
        (None, Some(file)) => Ok((pair, Password::File(file))),
        (None, None) => Err(format!(
            "{flag}: write it as USER:PASSWORD, or name the file the password is in by {file_flag}"
        )),
    }
}

/// Sets user and password below `table`.
fn set_credentials(
    target: &mut FlagTarget,
    table: &str,
    (flag, pair): (&'static str, &str),
    (file_flag, file): (&'static str, Option<&str>),
) -> Result<(), String> {
    let (user, password) = credentials((flag, pair), (file_flag, file))?;
    target.set(flag, &[table, "username"], user);
    match password {
        Password::Text(text) => target.set(flag, &[table, "password"], text),
        Password::File(path) => target.set(file_flag, &[table, "password", "file"], path),
    }
    Ok(())
}

/// Words about a connection as people write flags: its keys by the names of theirs.
pub(super) fn in_flags(words: &str) -> String {
    /// Longer ones first: some hold others.
    const NAMES: [(&str, &str); 31] = [
        ("set tls.cert and tls.key", "set --cert and --key"),
        ("proxy_tls.insecure_skip_verify", "--proxy-insecure"),
        ("proxy_tls.cert", "--proxy-cert"),
        ("proxy_tls.key", "--proxy-key"),
        ("proxy_tls.server_name", "--proxy-tls-server-name"),
        ("proxy_tls.min_version", "--proxy-tls-min-version"),
        ("proxy_tls.max_version", "--proxy-tls-max-version"),
        ("proxy_tls.ca", "--proxy-cacert"),
        ("tls.insecure_skip_verify", "--insecure"),
        ("tls.server_name", "--tls-server-name"),
        ("tls.min_version", "--tls-min-version"),
        ("tls.max_version", "--tls-max-version"),
        ("tls.ca_only", "--ca-only"),
        ("tls.cert", "--cert"),
        ("tls.key", "--key"),
        ("tls.ca", "--cacert"),
        ("set max_redirects", "follow it by --location"),
        ("(max_redirects)", "(--max-redirects)"),
        ("require_subprotocol", "--require-subprotocol"),
        ("give them in `proxy`", "give them by --proxy-user"),
        (
            "user and password in `proxy`",
            "user and password of --proxy-user",
        ),
        ("connect_timeout", "--connect-timeout"),
        ("upgrade_timeout", "--upgrade-timeout"),
        ("proxy_timeout", "--proxy-timeout"),
        ("hello_timeout", "--hello-timeout"),
        ("max_silence", "--max-silence"),
        ("max_line", "--max-line"),
        ("max_event", "--max-event"),
        ("dns_timeout", "--dns-timeout"),
        ("tcp_timeout", "--tcp-timeout"),
        ("tls_timeout", "--tls-timeout"),
    ];
    let mut words = words.to_owned();
    for (key, flag) in NAMES {
        words = words.replace(key, flag);
    }
    words
}

#[cfg(test)]
mod tests;
