//! The evidence of a connection in words: by which way it went, what TLS agreed on, who answered,
//! what the kernel knew. What the peer wrote is escaped here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::words::{escape, from_fn};
use crate::proto::event::{End, Facts, TlsFacts};

/// The facts of a connection as fields of its lines; what is not known is left out.
pub(crate) struct Fields<'a> {
    pub(crate) proxy: Option<&'a str>,
    pub(crate) tls_version: Option<&'static str>,
    pub(crate) tls_cipher: Option<&'static str>,
    pub(crate) certificate_not_after: Option<String>,
    pub(crate) subprotocol: Option<Cow<'a, str>>,
    pub(crate) server: Option<String>,
    pub(crate) via: Option<String>,
    /// All that were kept, as `name: value`, one after the other with `; ` between.
    pub(crate) headers: Option<String>,
}

impl<'a> Fields<'a> {
    pub(crate) fn of(facts: Option<&'a Facts>) -> Self {
        let tls = facts.and_then(|facts| facts.tls);
        Self {
            proxy: facts.and_then(|facts| facts.proxy.as_deref()),
            tls_version: tls.map(|tls| tls.version),
            tls_cipher: tls.map(|tls| tls.cipher),
            certificate_not_after: tls.and_then(|tls| tls.not_after).map(certificate_time),
            subprotocol: facts.and_then(|facts| facts.subprotocol.as_deref().map(escape)),
            server: facts.and_then(|facts| header(facts, "server")),
            via: facts.and_then(|facts| header(facts, "via")),
            headers: facts.and_then(all_headers),
        }
    }
}

/// The values of header `name` as one, as HTTP joins them (RFC 9110 section 5.3).
fn header(facts: &Facts, name: &str) -> Option<String> {
    headers(facts).remove(name)
}

/// The headers, by name.
pub(super) fn headers(facts: &Facts) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::<String, String>::new();
    for (name, value) in &facts.headers {
        let value = escape(value);
        headers
            .entry(name.to_string())
            .and_modify(|values| {
                values.push_str(", ");
                values.push_str(&value);
            })
            .or_insert_with(|| value.to_string());
    }
    headers
}

fn all_headers(facts: &Facts) -> Option<String> {
    let lines = headers(facts).into_iter();
    let lines: Vec<String> = lines
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// `, TLSv1.3 TLS13_AES_256_GCM_SHA384, subprotocol v2.chat`.
pub(super) fn agreed(facts: Option<&Facts>) -> impl fmt::Display {
    from_fn(move |f| {
        let Some(facts) = facts else { return Ok(()) };
        if let Some(TlsFacts {
            version, cipher, ..
        }) = facts.tls
        {
            write!(f, ", {version} {cipher}")?;
        }
        match &facts.subprotocol {
            Some(subprotocol) => write!(f, ", subprotocol {}", escape(subprotocol)),
            None => Ok(()),
        }
    })
}

/// `via 10.0.0.7:443 by proxy http://proxy.example.com:3128`, after `lead` if there is anything to
/// tell. Through a proxy the address is the proxy's.
pub(super) fn way(
    lead: &'static str,
    peer: Option<SocketAddr>,
    facts: Option<&Facts>,
) -> impl fmt::Display {
    from_fn(move |f| {
        let proxy = facts.and_then(|facts| facts.proxy.as_deref().map(escape));
        match (peer, proxy) {
            (Some(peer), Some(proxy)) => write!(f, "{lead}via {peer} by proxy {proxy}"),
            (Some(peer), None) => write!(f, "{lead}via {peer}"),
            (None, Some(proxy)) => write!(f, "{lead}by proxy {proxy}"),
            (None, None) => Ok(()),
        }
    })
}

/// ` (Server: nginx, Via: 1.1 google)`: who answered the upgrade, in its own words. The address
/// alone does not tell a balancer from what stands behind it.
pub(super) fn who(facts: Option<&Facts>) -> impl fmt::Display {
    from_fn(move |f| {
        let Some(facts) = facts else { return Ok(()) };
        match (header(facts, "server"), header(facts, "via")) {
            (Some(server), Some(via)) => write!(f, " (Server: {server}, Via: {via})"),
            (Some(server), None) => write!(f, " (Server: {server})"),
            (None, Some(via)) => write!(f, " (Via: {via})"),
            (None, None) => Ok(()),
        }
    })
}

/// `; 3 segments unacknowledged, 5 retransmitted`, where TCP had trouble. A peer that sent a Close
/// was reached and heard: what was sent twice in the life of its connection explains nothing.
pub(super) fn trouble(end: &End) -> impl fmt::Display {
    let info = end.tcp_info.filter(|_| end.received.is_none());
    let (unacked, retransmits) = info.map_or((0, 0), |info| (info.unacked, info.retransmits));
    let segments = |n| if n == 1 { "segment" } else { "segments" };
    from_fn(move |f| match (unacked, retransmits) {
        (0, 0) => Ok(()),
        (0, n) => write!(f, "; {n} {} retransmitted", segments(n)),
        (n, 0) => write!(f, "; {n} {} unacknowledged", segments(n)),
        (n, m) => {
            let segments = segments(n);
            write!(f, "; {n} {segments} unacknowledged, {m} retransmitted")
        }
    })
}

/// A time of a certificate, whole seconds, as RFC 3339. The peer wrote it: what the format cannot
/// hold, before 1970 or after 9999, is shown as the nearest it can.
pub(crate) fn certificate_time(at: SystemTime) -> String {
    /// 9999-12-31T23:59:59Z.
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default().min(LAST);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_s_time_is_shown_whatever_the_peer_wrote() {
        let secs = Duration::from_secs;
        for (at, shown) in [
            (UNIX_EPOCH + secs(1_800_000_000), "2027-01-15T08:00:00Z"),
            (UNIX_EPOCH - secs(86_400), "1970-01-01T00:00:00Z"),
            (UNIX_EPOCH + secs(300_000_000_000), "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(certificate_time(at), shown);
        }
    }

    #[test]
    fn a_header_that_came_twice_is_one_and_what_the_peer_wrote_is_escaped() {
        let facts = Facts {
            headers: [("via", "1.1 a"), ("server", "x\u{1b}[2J"), ("via", "1.1 b")]
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
            ..Facts::default()
        };
        let fields = Fields::of(Some(&facts));
        assert_eq!(fields.via.as_deref(), Some("1.1 a, 1.1 b"));
        let all = "server: x\\u{1b}[2J; via: 1.1 a, 1.1 b";
        assert_eq!(fields.headers.as_deref(), Some(all));
        let who = who(Some(&facts)).to_string();
        assert_eq!(who, " (Server: x\\u{1b}[2J, Via: 1.1 a, 1.1 b)");
    }
}
