//! Which addresses are dialed, and from where.

use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use url::Url;

use crate::config::flags::FlagTarget;
use crate::config::judge;

/// Addresses.
#[derive(Debug, Args)]
#[command(next_help_heading = "Addresses")]
pub(super) struct AddressArgs {
    /// Dial these addresses instead of what DNS says; HOST may be *. Repeatable
    #[arg(long, value_name = "HOST:PORT:ADDRESS[,ADDRESS]", value_parser = parse_override)]
    resolve: Vec<Override>,
    /// Dial this unix socket
    #[arg(long, value_name = "PATH", conflicts_with = "resolve")]
    unix_socket: Option<String>,
    /// Dial IPv4 addresses only
    #[arg(long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// Dial IPv6 addresses only
    #[arg(long)]
    ipv6: bool,
    /// Dial from this address or interface
    #[arg(long, visible_alias = "interface", value_name = "ADDRESS|INTERFACE")]
    bind: Option<String>,
    /// TCP keepalive: the silence before the first probe; bare seconds are understood
    #[arg(long, visible_alias = "keepalive-time", value_name = "DURATION",
          value_parser = judge::wait_or_seconds)]
    tcp_keepalive_idle: Option<Duration>,
    /// TCP keepalive: from one probe to the next; bare seconds are understood
    #[arg(long, visible_alias = "keepalive-intvl", value_name = "DURATION",
          value_parser = judge::wait_or_seconds)]
    tcp_keepalive_interval: Option<Duration>,
    /// TCP keepalive: unanswered probes until the connection is given up
    #[arg(long, visible_alias = "keepalive-cnt", value_name = "N", value_parser = judge::count)]
    tcp_keepalive_count: Option<u32>,
    /// TCP_USER_TIMEOUT: how long sent bytes may stay unacknowledged
    #[arg(long, value_name = "DURATION", value_parser = judge::wait)]
    tcp_user_timeout: Option<Duration>,
}

impl AddressArgs {
    /// `url` is the target's: `--resolve` is for one host and port, as curl's.
    pub(super) fn add_to(&self, target: &mut FlagTarget, url: &str) -> Vec<String> {
        let (addresses, warnings) = overridden(&self.resolve, url);
        if !addresses.is_empty() {
            target.set("--resolve", &["resolve"], addresses);
        }
        if let Some(path) = &self.unix_socket {
            // A relative path counts from where we stand.
            // One that cannot be made absolute, the empty one, is judged with the rest.
            let absolute = std::path::absolute(path).map(|path| path.display().to_string());
            let address = vec![format!(
                "unix:{}",
                absolute.unwrap_or_else(|_| path.clone())
            )];
            target.set("--unix-socket", &["resolve"], address);
        }
        if self.ipv4 {
            target.set("--ipv4", &["ip_family"], "v4");
        }
        if self.ipv6 {
            target.set("--ipv6", &["ip_family"], "v6");
        }
        if let Some(bind) = &self.bind {
            target.set("--bind", &["bind"], bind.as_str());
        }
        let durations: [(&'static str, &[&str], Option<Duration>); 3] = [
            (
                "--tcp-keepalive-idle",
                &["tcp_keepalive_idle"],
                self.tcp_keepalive_idle,
            ),
            (
                "--tcp-keepalive-interval",
                &["tcp_keepalive_interval"],
                self.tcp_keepalive_interval,
            ),
            (
                "--tcp-user-timeout",
                &["tcp_user_timeout"],
                self.tcp_user_timeout,
            ),
        ];
        for (flag, path, duration) in durations {
            if let Some(duration) = duration {
                target.set_duration(flag, path, duration);
            }
        }
        if let Some(count) = self.tcp_keepalive_count {
            let path = ["tcp_keepalive_count"];
            target.set("--tcp-keepalive-count", &path, count);
        }
        warnings
    }
}

/// One `--resolve`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Override {
    /// As in a URL: lower case, an IPv6 literal in brackets. `*` is every host.
    host: String,
    port: u16,
    /// An IPv6 literal in brackets.
    addresses: Vec<String>,
}

/// What is dialed instead of what DNS says for `url`, and a warning for each override that is for
/// something else. As in curl, one for the host itself beats one for `*`, and a later one an
/// earlier one.
fn overridden(overrides: &[Override], url: &str) -> (Vec<String>, Vec<String>) {
    let Ok(url) = Url::parse(url) else {
        // What is wrong with the URL is told with everything else.
        return (Vec::new(), Vec::new());
    };
    let (host, port) = (
        url.host_str().unwrap_or_default(),
        url.port_or_known_default(),
    );
    let mut warnings = Vec::new();
    let mut chosen: Option<&Override> = None;
    for each in overrides {
        if (each.host != "*" && each.host != host) || Some(each.port) != port {
            let there = port.map(|port| format!(":{port}")).unwrap_or_default();
            warnings.push(format!(
                "--resolve {}:{}: has no effect, since the url is at {host}{there}",
                each.host, each.port
            ));
            continue;
        }
        if each.host != "*" || chosen.is_none_or(|chosen| chosen.host == "*") {
            chosen = Some(each);
        }
    }
    let addresses = chosen.map(|chosen| chosen.addresses.clone());
    (addresses.unwrap_or_default(), warnings)
}

/// Reads `HOST:PORT:ADDRESS[,ADDRESS]`, curl's way.
fn parse_override(text: &str) -> Result<Override, String> {
    const FORM: &str = "expected HOST:PORT:ADDRESS[,ADDRESS], \
                        such as example.com:443:10.0.0.7,[2001:db8::7]";
    if text.starts_with('-') {
        return Err("there is nothing to take back: leave the entry out".into());
    }
    // curl's + lets an entry time out of a cache that there is none of here.
    let text = text.strip_prefix('+').unwrap_or(text);
    let (host, rest) = match text.strip_prefix('[') {
        Some(literal) => {
            let (inside, rest) = literal.split_once("]:").ok_or(FORM)?;
            (format!("[{inside}]"), rest)
        }
        None => {
            let (host, rest) = text.split_once(':').ok_or(FORM)?;
            (host.to_owned(), rest)
        }
    };
    let host = match host.as_str() {
        "*" => host,
        _ => url::Host::parse(&host)
            .map_err(|_| format!("what stands before the port is no host; {FORM}"))?
            .to_string(),
    };
    let (port, addresses) = rest.split_once(':').ok_or(FORM)?;
    let port: u16 = port
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("`{port}` is no port; {FORM}"))?;
    let addresses = addresses.split(',').map(|address| {
        let address = address.trim();
        bracketed(address).ok_or_else(|| format!("`{address}` is no address; {FORM}"))
    });
    Ok(Override {
        host,
        port,
        addresses: addresses.collect::<Result<_, _>>()?,
    })
}

/// An address as it stands before a port: an IPv6 literal in brackets, with its zone.
fn bracketed(address: &str) -> Option<String> {
    let inside = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let (bare, zone) = match inside.unwrap_or(address).split_once('%') {
        Some((bare, zone)) => (bare, Some(zone)),
        None => (inside.unwrap_or(address), None),
    };
    match (bare.parse().ok()?, zone) {
        (IpAddr::V4(ip), None) if inside.is_none() => Some(ip.to_string()),
        (IpAddr::V6(ip), None) => Some(format!("[{ip}]")),
        (IpAddr::V6(ip), Some(zone)) if !zone.is_empty() => Some(format!("[{ip}%{zone}]")),
        (IpAddr::V4(_) | IpAddr::V6(_), _) => None,
    }
}
