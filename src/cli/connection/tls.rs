//! TLS with the peer.

use clap::Args;

use crate::config::flags::FlagTarget;

/// TLS with the peer.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(super) struct TlsArgs {
    /// Certificates to trust beside the system's, in PEM
    #[arg(long, value_name = "FILE")]
    cacert: Option<String>,
    /// Trust nothing but --cacert
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", requires = "cacert")]
    ca_only: Option<bool>,
    /// Our certificate and its chain, in PEM
    #[arg(long, value_name = "FILE")]
    cert: Option<String>,
    /// The private key of --cert, in PEM
    #[arg(long, value_name = "FILE")]
    key: Option<String>,
    /// The name to ask for (SNI) and to verify, instead of the URL's host
    #[arg(long, value_name = "NAME")]
    tls_server_name: Option<String>,
    /// The lowest version of TLS that is spoken [default: 1.2]
    #[arg(long, value_name = "VERSION", value_parser = ["1.2", "1.3"])]
    tls_min_version: Option<String>,
    /// The highest version of TLS that is spoken [default: 1.3]
    #[arg(long, visible_alias = "tls-max", value_name = "VERSION", value_parser = ["1.2", "1.3"])]
    tls_max_version: Option<String>,
    /// TLS 1.2 or higher
    #[arg(long = "tlsv1.2", conflicts_with_all = ["tls_min_version", "tls_1_3"])]
    tls_1_2: bool,
    /// TLS 1.3 or higher
    #[arg(long = "tlsv1.3", conflicts_with = "tls_min_version")]
    tls_1_3: bool,
    /// Verify neither certificate nor name: whoever is on the way can read and change everything
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    insecure: Option<bool>,
    /// Do not resume TLS sessions
    #[arg(long)]
    no_sessionid: bool,
}

impl TlsArgs {
    pub(super) fn add_to(&self, target: &mut FlagTarget) {
        let texts = [
            ("--cacert", "ca", &self.cacert),
            ("--cert", "cert", &self.cert),
            ("--key", "key", &self.key),
            ("--tls-server-name", "server_name", &self.tls_server_name),
            ("--tls-min-version", "min_version", &self.tls_min_version),
            ("--tls-max-version", "max_version", &self.tls_max_version),
        ];
        for (flag, key, text) in texts {
            if let Some(text) = text {
                target.set(flag, &["tls", key], text.as_str());
            }
        }
        if self.tls_1_2 {
            target.set("--tlsv1.2", &["tls", "min_version"], "1.2");
        }
        if self.tls_1_3 {
            target.set("--tlsv1.3", &["tls", "min_version"], "1.3");
        }
        if let Some(only) = self.ca_only {
            target.set("--ca-only", &["tls", "ca_only"], only);
        }
        if let Some(insecure) = self.insecure {
            target.set("--insecure", &["tls", "insecure_skip_verify"], insecure);
        }
        if self.no_sessionid {
            target.set("--no-sessionid", &["tls", "session_tickets"], false);
        }
    }
}
