//! A byte stream to a place, for who speaks something of their own over it.

use std::sync::Arc;

use super::dial::with_zone;
use super::io::Io;
use super::resolver;
use super::tcp;
use super::tls::{self, Prepared};
use crate::config::{AddressOptions, Place, TlsOptions};
use crate::os;

/// Connects to `place`, and shakes hands with it as `tls` says if it wants TLS, offering `alpn`.
/// The error says what failed and what to do, and shows no secret. Has no deadline of its own.
pub(crate) async fn open(
    place: &Place,
    tls: &Arc<TlsOptions>,
    alpn: &'static [u8],
) -> Result<Io, String> {
    let prepared = match place.secure {
        true => Some(tls::prepare(tls).await?.speaking(alpn)),
        false => None,
    };
    let options = AddressOptions::default();
    let (host, port) = (place.host.as_str(), place.port);
    let addresses = match host.parse::<std::net::IpAddr>() {
        Ok(ip) => vec![with_zone(ip, place.zone.as_deref(), port)?],
        Err(_) => {
            let found = resolver::resolve(host, port, options.family).await;
            found.map_err(|error| format!("cannot resolve {host}: {}", os::words(&error)))?
        }
    };
    let connected = tcp::connect(&addresses, &options).await;
    let io = Io::tcp(connected.map_err(|failed| format!("cannot connect to {failed}"))?);
    match prepared {
        Some(prepared) => secured(io, host, &prepared).await,
        None => Ok(io),
    }
}

async fn secured(io: Io, host: &str, prepared: &Prepared) -> Result<Io, String> {
    let secured = tls::connect(io, host, prepared).await;
    secured
        .map(|secured| secured.io)
        .map_err(|failure| failure.message)
}
