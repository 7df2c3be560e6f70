//! The proxy on the way.

use clap::Args;

use super::set_credentials;
use crate::cli::values::parse_secret;
use crate::config::Secret;
use crate::config::flags::FlagTarget;

/// The proxy on the way.
#[derive(Debug, Args)]
#[command(next_help_heading = "Proxy")]
pub(super) struct ProxyArgs {
    /// http://, https://, socks5:// or socks5h:// URL of a proxy, `env` or `none`; its credentials
    /// are never shown
    #[arg(long, value_name = "URL", value_parser = parse_secret)]
    proxy: Option<Secret<String>>,
    /// Credentials for the proxy; never shown
    #[arg(long, value_name = "USER[:PASSWORD]", value_parser = parse_secret, requires = "proxy")]
    proxy_user: Option<Secret<String>>,
    /// The password of --proxy-user is read from this file at each dial
    #[arg(long, value_name = "PATH", requires = "proxy_user")]
    proxy_password_file: Option<String>,
    /// Certificates to trust for an HTTPS proxy beside the system's, in PEM
    #[arg(long, value_name = "FILE")]
    proxy_cacert: Option<String>,
    /// Our certificate for an HTTPS proxy, in PEM
    #[arg(long, value_name = "FILE")]
    proxy_cert: Option<String>,
    /// The private key of --proxy-cert, in PEM
    #[arg(long, value_name = "FILE")]
    proxy_key: Option<String>,
    /// Verify neither certificate nor name of an HTTPS proxy
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    proxy_insecure: Option<bool>,
    /// Trust --proxy-cacert alone for an HTTPS proxy
    #[arg(long, requires = "proxy_cacert")]
    proxy_ca_only: bool,
    /// The name an HTTPS proxy's certificate must have, and that is sent to it, instead of its host
    #[arg(long, value_name = "NAME")]
    proxy_tls_server_name: Option<String>,
    /// The lowest version of TLS spoken to an HTTPS proxy [default: 1.2]
    #[arg(long, value_name = "VERSION", value_parser = ["1.2", "1.3"])]
    proxy_tls_min_version: Option<String>,
    /// The highest version of TLS spoken to an HTTPS proxy [default: 1.3]
    #[arg(long, value_name = "VERSION", value_parser = ["1.2", "1.3"])]
    proxy_tls_max_version: Option<String>,
    /// Do not resume TLS sessions with an HTTPS proxy
    #[arg(long)]
    proxy_no_sessionid: bool,
}

impl ProxyArgs {
    pub(super) fn add_to(&self, target: &mut FlagTarget) -> Result<(), String> {
        if let Some(proxy) = &self.proxy {
            let url = with_scheme(proxy.expose());
            match &self.proxy_user {
                None => target.set("--proxy", &["proxy"], url),
                Some(pair) => {
                    target.set("--proxy", &["proxy", "url"], url);
                    let user = ("--proxy-user", pair.expose().as_str());
                    let file = self.proxy_password_file.as_deref();
                    let file = ("--proxy-password-file", file);
                    set_credentials(target, "proxy", user, file)?;
                }
            }
        }
        let (min, max) = (&self.proxy_tls_min_version, &self.proxy_tls_max_version);
        let texts = [
            ("--proxy-cacert", "ca", &self.proxy_cacert),
            ("--proxy-cert", "cert", &self.proxy_cert),
            ("--proxy-key", "key", &self.proxy_key),
            (
                "--proxy-tls-server-name",
                "server_name",
                &self.proxy_tls_server_name,
            ),
            ("--proxy-tls-min-version", "min_version", min),
            ("--proxy-tls-max-version", "max_version", max),
        ];
        for (flag, key, text) in texts {
            if let Some(text) = text {
                target.set(flag, &["proxy_tls", key], text.as_str());
            }
        }
        if self.proxy_ca_only {
            target.set("--proxy-ca-only", &["proxy_tls", "ca_only"], true);
        }
        if self.proxy_no_sessionid {
            target.set(
                "--proxy-no-sessionid",
                &["proxy_tls", "session_tickets"],
                false,
            );
        }
        if let Some(insecure) = self.proxy_insecure {
            let key = ["proxy_tls", "insecure_skip_verify"];
            target.set("--proxy-insecure", &key, insecure);
        }
        Ok(())
    }
}

/// As curl has it: a proxy without a scheme is an HTTP proxy.
fn with_scheme(proxy: &str) -> String {
    match proxy {
        "" | "env" | "none" => proxy.to_owned(),
        _ if proxy.contains("://") => proxy.to_owned(),
        _ => format!("http://{proxy}"),
    }
}
