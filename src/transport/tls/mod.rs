//! TLS for the client: rustls over aws-lc-rs, with a verdict for everything that can go wrong.

mod chain;
mod context;
mod stream;
mod verdict;
mod verifier;
mod watch;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ProtocolVersion};

pub(crate) use chain::CertificateSummary;
pub(crate) use context::expect_targets;
pub(crate) use stream::TlsStream;
pub(crate) use verdict::{is_alert, of_error};
pub(crate) use watch::TlsWatch;

use super::io::Io;
use crate::config::TlsOptions;
use crate::config::tls::CRYPTO;
use crate::proto::event::TlsFacts;
use stream::{Broken, Told};
use verdict::Handshake;
use watch::Watch;

/// A handshake that succeeded.
pub(crate) struct Secured {
    pub(crate) io: Io,
    pub(crate) facts: TlsFacts,
    /// As the peer presented it, its own certificate first.
    pub(crate) chain: Box<[CertificateSummary]>,
    /// To be asked if what comes next fails: the peer may refuse us only then.
    pub(crate) watch: TlsWatch,
}

/// A handshake that failed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TlsFailure {
    /// What failed and what to do; one line, no secrets.
    pub(crate) message: String,
    /// When the first certificate of the presented chain ends.
    pub(crate) not_after: Option<SystemTime>,
    /// As far as it was presented.
    pub(crate) chain: Box<[CertificateSummary]>,
}

impl TlsFailure {
    /// Without any of `secrets`: a peer that was sent them before may have put them into a
    /// certificate.
    pub(crate) fn concealed(mut self, secrets: &[String]) -> Self {
        for one in &mut self.chain {
            one.conceal(secrets, |text, masked| {
                self.message = self.message.replace(text, masked);
            });
        }
        self
    }

    fn plain(message: String) -> Self {
        Self {
            message,
            not_after: None,
            chain: Box::default(),
        }
    }
}

/// What a handshake needs beside the stream: made of files, which takes time that is not the
/// peer's.
#[derive(Clone)]
pub(crate) struct Prepared {
    config: Arc<ClientConfig>,
    options: Arc<TlsOptions>,
}

impl Prepared {
    /// The same, offering another protocol than a WebSocket's.
    pub(super) fn speaking(mut self, alpn: &[u8]) -> Self {
        if self.config.alpn_protocols != [alpn] {
            let mut config = ClientConfig::clone(&self.config);
            config.alpn_protocols = vec![alpn.to_vec()];
            self.config = Arc::new(config);
        }
        self
    }
}

/// Gathers this thread's first random bytes, which takes tens of milliseconds: in the middle of a
/// handshake they would look like the peer's. Whether there are any.
pub(crate) fn gather_randomness() -> bool {
    thread_local! {
        static SEEDED: bool = CRYPTO.secure_random.fill(&mut [0; 1]).is_ok();
    }
    SEEDED.with(|seeded| *seeded)
}

/// Reads the files of `options`, if they are not as they last were. Has no deadline of its own.
pub(crate) async fn prepare(options: &Arc<TlsOptions>) -> Result<Prepared, String> {
    let config = context::of(options).await;
    if !gather_randomness() {
        return Err("this machine has no random numbers to give".to_owned());
    }
    Ok(Prepared {
        config: config.map_err(|error| error.to_string())?,
        options: options.clone(),
    })
}

/// Shakes hands over `io` with `host`: a name or an address, in brackets or not, without a zone.
/// Has no deadline of its own.
pub(crate) async fn connect(
    io: Io,
    host: &str,
    prepared: &Prepared,
) -> Result<Secured, TlsFailure> {
    let Prepared { config, options } = prepared;
    let asked_for = options.server_name.as_deref().unwrap_or(host);
    let name = server_name(asked_for).ok_or_else(|| {
        let asked_for = chain::escaped(asked_for);
        TlsFailure::plain(format!(
            "{asked_for} is neither a DNS name nor an address, so no certificate can be for it: \
             set tls.server_name"
        ))
    })?;
    let shown = name.to_str().into_owned();
    let name_sent = matches!(name, ServerName::DnsName(_));
    let mut told = Told::default();
    let made = TlsStream::new(io, config.clone(), name).map_err(Broken::Tls);
    let shaken = match made {
        Ok(mut stream) => poll_fn(|cx| stream.poll_handshake(cx, &mut told))
            .await
            .map(|()| stream),
        Err(error) => Err(error),
    };
    let mut stream = shaken.map_err(|broken| {
        let chain = chain::summaries(&told.observed.refused);
        let handshake = Handshake {
            name: &shown,
            name_sent,
            options,
            chain: &chain,
            asked: told.observed.asked,
            opening: &told.opening,
            received: told.received,
        };
        TlsFailure {
            message: handshake.verdict(&broken),
            not_after: chain::earliest_end(&chain),
            chain,
        }
    })?;
    let chain = chain::summaries(stream.peer_certificates());
    let facts = TlsFacts {
        version: match stream.version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            // No other is offered.
            Some(_) | None => "unknown",
        },
        cipher: stream
            .cipher()
            .and_then(|suite| suite.as_str())
            .unwrap_or("unknown"),
        not_after: chain::earliest_end(&chain),
    };
    let watch = Arc::new(Watch::new(told.observed.asked));
    stream.watch(watch.clone());
    Ok(Secured {
        io: Io::tls(stream),
        facts,
        chain,
        watch: TlsWatch(watch),
    })
}

/// What the certificate must be for. Only a name is sent (SNI), never an address.
fn server_name(host: &str) -> Option<ServerName<'static>> {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Some(ServerName::IpAddress(ip.into()));
    }
    ServerName::try_from(host).ok().map(|name| name.to_owned())
}
