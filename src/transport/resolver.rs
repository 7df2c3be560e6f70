//! stub
use crate::config::IpFamily;
use std::{io, net::SocketAddr};
pub(crate) async fn resolve(
    host: &str,
    port: u16,
    _family: IpFamily,
) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}
