//! How long each step may take, and how much may come in at once.

use std::time::Duration;

use clap::Args;

use crate::config::flags::FlagTarget;
use crate::config::judge;

/// Limits.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// Limit of the whole dial; bare seconds as curl's are understood
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = judge::wait_or_seconds)]
    connect_timeout: Duration,
    /// Limit of resolving the name
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = judge::wait)]
    dns_timeout: Duration,
    /// Limit of connecting TCP
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = judge::wait)]
    tcp_timeout: Duration,
    /// Limit of opening the proxy's tunnel [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = judge::wait)]
    proxy_timeout: Option<Duration>,
    /// Limit of the TLS handshake [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = judge::wait)]
    tls_timeout: Option<Duration>,
    /// Limit of the HTTP upgrade
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = judge::wait)]
    upgrade_timeout: Duration,
    /// Limit of one write
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = judge::wait)]
    write_timeout: Duration,
    /// How long the peer's Close reply is waited for
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = judge::wait)]
    close_timeout: Duration,
    /// Larger messages end the connection with Close 1009 [default: 16MiB]
    #[arg(long, value_name = "SIZE", value_parser = judge::size)]
    max_message_size: Option<usize>,
}

impl LimitArgs {
    pub(super) fn add_to(&self, target: &mut FlagTarget) {
        let durations = [
            (
                "--connect-timeout",
                "connect_timeout",
                Some(self.connect_timeout),
            ),
            ("--dns-timeout", "dns_timeout", Some(self.dns_timeout)),
            ("--tcp-timeout", "tcp_timeout", Some(self.tcp_timeout)),
            ("--proxy-timeout", "proxy_timeout", self.proxy_timeout),
            ("--tls-timeout", "tls_timeout", self.tls_timeout),
            (
                "--upgrade-timeout",
                "upgrade_timeout",
                Some(self.upgrade_timeout),
            ),
            ("--write-timeout", "write_timeout", Some(self.write_timeout)),
            ("--close-timeout", "close_timeout", Some(self.close_timeout)),
        ];
        for (flag, key, duration) in durations {
            if let Some(duration) = duration {
                target.set_duration(flag, &[key], duration);
            }
        }
        if let Some(size) = self.max_message_size {
            target.set("--max-message-size", &["max_message_size"], size);
        }
    }
}
