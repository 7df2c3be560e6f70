//! What a URL says: the one module that takes one apart, be it a target's `url`, one that is
//! shown, or where a redirect points.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use url::Url;

/// The longest path of a unix socket, unix(7), its final NUL left out.
const LONGEST_SOCKET_PATH: usize = 107;

const NEEDS_SCHEME: &str =
    "needs a scheme: ws://HOST/PATH, or http://HOST/PATH for an event stream";
const FRAGMENT: &str = "must not have a fragment (RFC 6455 section 3); write # as %23";

/// Where a URL points. Displays as its URL without userinfo and query.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Whether TLS is spoken there.
    pub(crate) secure: bool,
    /// Whether events are streamed from there (http, https), and not WebSocket spoken.
    pub(crate) streams: bool,
    /// A name or an address, an IPv6 literal without brackets and zone. Of a unix socket `localhost`.
    pub(crate) host: String,
    /// The interface of a link-local address, by name or number.
    pub(crate) zone: Option<String>,
    pub(crate) port: u16,
    /// For the Host header: IPv6 literals in brackets, no zone, the port only where it is not the
    /// scheme's own.
    pub(crate) authority: String,
    /// Path and query.
    pub(crate) path: String,
    /// User and password, decoded; an absent password is empty.
    pub(crate) credentials: Option<(String, String)>,
    /// The socket, if it is a unix socket.
    pub(crate) unix: Option<PathBuf>,
}

impl Place {
    /// Takes a target's URL apart. The error shows nothing of it but its scheme.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Self::of(&Split::parse(text)?)
    }

    /// Where a redirect from here to `location`, absolute or relative, leads. For a WebSocket http
    /// and https mean ws and wss; an event stream stays one. Userinfo stays only on the same scheme, host, zone and port, and is never taken from
    /// `location`, which the peer wrote. The error shows nothing of it but its scheme.
    ///
    /// Whether to go there is the caller's to judge: from `secure` to not, for one.
    pub(crate) fn join(&self, location: &str) -> Result<Self, String> {
        let (text, zone) = without_zone(location)?;
        let base = format!("{}://{}{}", self.scheme(), self.authority, self.path);
        let base = Url::parse(&base).map_err(|error| format!("starts from no URL: {error}"))?;
        let mut url = base
            .join(&text)
            .map_err(|error| format!("is no URL: {error}"))?;
        let leads_on = match url.scheme() {
            "http" | "https" => true,
            "ws" | "wss" => !self.streams,
            _ => false,
        };
        if !leads_on {
            let shown = shown_scheme(location, url.scheme());
            return Err(match (shown, self.streams) {
                (Some(scheme), false) => {
                    format!("has the scheme `{scheme}`, which is none of ws, wss, http and https")
                }
                (Some(scheme), true) => {
                    format!("has the scheme `{scheme}`, which is none of http and https")
                }
                (None, false) => "is no address of ws, wss, http or https".to_owned(),
                (None, true) => "is no address of http or https".to_owned(),
            });
        }
        url.set_fragment(None);
        // Cannot fail: those schemes have hosts. If it did, the userinfo would be replaced below.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        let unix = None;
        let mut place = Self::of(&Split { url, zone, unix })?;
        place.streams = self.streams;
        if place.host == self.host && place.zone.is_none() {
            place.zone.clone_from(&self.zone);
        }
        let origin = |place: &Self| {
            let (host, zone) = (place.host.clone(), place.zone.clone());
            (place.secure, host, zone, place.port)
        };
        place.credentials = None;
        if origin(&place) == origin(self) {
            place.credentials.clone_from(&self.credentials);
            place.unix.clone_from(&self.unix);
        }
        Ok(place)
    }

    pub(super) fn of(split: &Split) -> Result<Self, String> {
        let url = &split.url;
        let host = url.host_str().ok_or("is no URL: empty host")?;
        let authority = match url.port() {
            Some(0) => return Err("must not have port 0".into()),
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let has_userinfo = !url.username().is_empty() || url.password().is_some();
        let decode = |text: &str| {
            let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
            let decoded = decoded.map_err(|_| "has userinfo that is not UTF-8; use `auth`");
            decoded.map(Cow::into_owned)
        };
        Ok(Self {
            secure: matches!(url.scheme(), "wss" | "https"),
            streams: matches!(url.scheme(), "http" | "https"),
            host: host.trim_matches(['[', ']']).to_owned(),
            zone: split.zone.clone(),
            port: url.port_or_known_default().ok_or("has no port")?,
            authority,
            path: path_and_query(url),
            credentials: match has_userinfo {
                true => Some((
                    decode(url.username())?,
                    decode(url.password().unwrap_or_default())?,
                )),
                false => None,
            },
            unix: split.unix.clone(),
        })
    }

    fn scheme(&self) -> &'static str {
        match (self.streams, self.secure) {
            (false, false) => "ws",
            (false, true) => "wss",
            (true, false) => "http",
            (true, true) => "https",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.split('?').next().unwrap_or_default();
        if let Some(socket) = &self.unix {
            let path = if path == "/" { "" } else { path };
            let colon = if path.is_empty() { "" } else { ":" };
            return write!(f, "unix:{}{colon}{path}", socket.display());
        }
        let authority = with_zone(&self.authority, self.zone.as_deref());
        write!(f, "{}://{authority}{path}", self.scheme())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({self})")
    }
}

/// A URL in the parts that the `url` crate has no words for, and the rest.
#[derive(Clone)]
pub(super) struct Split {
    /// Without zone; of a unix socket `ws://localhost` with the path of the request.
    pub(super) url: Url,
    zone: Option<String>,
    unix: Option<PathBuf>,
}

impl Split {
    /// Judges a target's URL. The error shows nothing of it but its scheme.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let scheme = text.get(..5);
        if scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("unix:")) {
            return Self::parse_unix(&text[5..]);
        }
        let (bare, zone) = without_zone(text)?;
        let url = match Url::parse(&bare) {
            Ok(url) => url,
            Err(url::ParseError::RelativeUrlWithoutBase) => return Err(NEEDS_SCHEME.into()),
            Err(error) => return Err(format!("is no URL: {error}")),
        };
        let scheme = url.scheme();
        if !matches!(scheme, "ws" | "wss" | "http" | "https") {
            return Err(match shown_scheme(text, scheme) {
                Some(scheme) => format!(
                    "has the scheme `{scheme}`; use ws:// or wss://, for an event stream http:// \
                     or https://"
                ),
                None => NEEDS_SCHEME.into(),
            });
        }
        if url.fragment().is_some() {
            return Err(match scheme {
                "ws" | "wss" => FRAGMENT,
                _ => "must not have a fragment, which no request carries; write # as %23",
            }
            .into());
        }
        if url.port() == Some(0) {
            return Err("must not have port 0".into());
        }
        let unix = None;
        Ok(Self { url, zone, unix })
    }

    /// Judges what stands after `unix:`, which is `/socket` or `/socket:/request/path?query`.
    fn parse_unix(rest: &str) -> Result<Self, String> {
        const WANTED: &str = "unix:/run/app.sock or unix:/run/app.sock:/request/path";
        let rest = match rest.strip_prefix("//") {
            Some(path) if path.starts_with('/') => path,
            Some(_) => return Err(format!("needs an absolute path: {WANTED}")),
            None => rest,
        };
        if rest.contains('#') {
            return Err(FRAGMENT.into());
        }
        let (socket, request) = match rest.split_once(":/") {
            Some((socket, request)) => (socket, request),
            None => (rest, ""),
        };
        if !socket.starts_with('/') {
            return Err(format!("needs an absolute path: {WANTED}"));
        }
        if socket.contains('?') {
            return Err(
                "has a query, but no path it belongs to: unix:/run/app.sock:/?query".into(),
            );
        }
        if socket.contains(char::is_control) {
            return Err("must not contain control characters".into());
        }
        if socket.len() > LONGEST_SOCKET_PATH {
            return Err(format!(
                "names a socket by more than {LONGEST_SOCKET_PATH} bytes, the most that unix(7) takes"
            ));
        }
        let url = Url::parse(&format!("ws://localhost/{request}"));
        Ok(Self {
            url: url.map_err(|error| format!("is no URL: {error}"))?,
            zone: None,
            unix: Some(socket.into()),
        })
    }

    /// The whole URL, userinfo and query included; [`Split::parse`] reads it back.
    pub(super) fn whole(&self) -> String {
        let Some(socket) = &self.unix else {
            return with_zone(self.url.as_str(), self.zone.as_deref());
        };
        match path_and_query(&self.url).as_str() {
            "/" => format!("unix:{}", socket.display()),
            path => format!("unix:{}:{path}", socket.display()),
        }
    }

    /// The same with what a protocol's client asks for: the path that is usual if there is none,
    /// and these parameters, those the query has apart.
    pub(super) fn complete(&mut self, path: &str, parameters: &[(&str, &str)]) {
        if self.url.path() == "/" {
            self.url.set_path(path);
        }
        let names: Vec<String> = self
            .url
            .query_pairs()
            .map(|(name, _)| name.into())
            .collect();
        let mut query = self.url.query().unwrap_or_default().to_owned();
        for (name, value) in parameters {
            if !names.iter().any(|there| there == name) {
                let and = if query.is_empty() { "" } else { "&" };
                query.push_str(&format!("{and}{name}={value}"));
            }
        }
        if !query.is_empty() {
            self.url.set_query(Some(&query));
        }
    }

    /// Host and path: a name for people.
    pub(super) fn name(&self) -> String {
        if self.unix.is_some() {
            let mut shown = self.clone();
            shown.url.set_query(None);
            return shown.whole();
        }
        let path = self.url.path();
        let path = if path == "/" { "" } else { path };
        let host = self.url.host_str().unwrap_or_default();
        match (&self.zone, host.strip_suffix(']')) {
            (Some(zone), Some(open)) => format!("{open}%{zone}]{path}"),
            _ => format!("{host}{path}"),
        }
    }
}

fn path_and_query(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

/// The scheme of `text`, if it is one and may be shown: what looks like the scheme of
/// `user:password@host` is the user.
fn shown_scheme<'s>(text: &str, scheme: &'s str) -> Option<&'s str> {
    let rest = text.get(scheme.len()..);
    rest.is_some_and(|rest| rest.starts_with("://"))
        .then_some(scheme)
}

/// `text` without the zone of an IPv6 literal (RFC 6874: `[fe80::1%25eth0]`), and the zone. A bare
/// `%eth0`, as ping(8) shows it, counts, too.
fn without_zone(text: &str) -> Result<(Cow<'_, str>, Option<String>), String> {
    let none = Ok((Cow::Borrowed(text), None));
    let Some((scheme, rest)) = text.split_once("://") else {
        return none;
    };
    let in_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    if !scheme.trim_start().chars().all(in_scheme) {
        return none; // in a relative reference's query
    }
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let host = rest[..end].rfind('@').map_or(0, |at| at + 1);
    let Some((literal, _)) = rest[host..end].split_once(']') else {
        return none;
    };
    let Some((address, zone)) = literal.split_once('%') else {
        return none;
    };
    let zone = zone.strip_prefix("25").unwrap_or(zone);
    if !is_zone(zone) {
        return Err("has no zone that is an interface's name: [fe80::1%25eth0]".into());
    }
    let (before, after) = (&rest[..host], &rest[host + literal.len()..]);
    let bare = format!("{scheme}://{before}{address}{after}");
    Ok((Cow::Owned(bare), Some(zone.to_owned())))
}

/// Puts the zone back: the first bracket is the host's, for in userinfo they are escaped.
fn with_zone(text: &str, zone: Option<&str>) -> String {
    match zone {
        Some(zone) => text.replacen(']', &format!("%25{zone}]"), 1),
        None => text.to_owned(),
    }
}

/// Whether `text` can be the zone of an address: an interface's name, or its number.
pub(super) fn is_zone(text: &str) -> bool {
    // What RFC 6874 lets stand in a URL unescaped; IFNAMSIZ is 16 with the NUL.
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    (1..=15).contains(&text.len()) && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place::parse(text).unwrap()
    }

    fn wrong(text: &str) -> String {
        Place::parse(text).unwrap_err()
    }

    #[test]
    fn a_url_is_taken_apart() {
        let it = place("wss://joe:pa%20ss@Example.com/a/b?c=d");
        assert!(it.secure && it.unix.is_none() && it.zone.is_none());
        assert_eq!((&*it.host, it.port), ("example.com", 443));
        assert_eq!(it.authority, "example.com");
        assert_eq!(it.path, "/a/b?c=d");
        assert_eq!(it.credentials, Some(("joe".into(), "pa ss".into())));
        assert_eq!(it.to_string(), "wss://example.com/a/b");
        assert_eq!(format!("{it:?}"), "Place(wss://example.com/a/b)");

        let it = place("ws://example.com:443");
        assert_eq!((it.secure, it.port, &*it.path), (false, 443, "/"));
        assert_eq!(it.authority, "example.com:443");
        assert_eq!(it.credentials, None);
        // The scheme's own port is not said.
        assert_eq!(place("wss://example.com:443").authority, "example.com");
        let only_user = place("ws://joe@example.com").credentials;
        assert_eq!(only_user, Some(("joe".into(), String::new())));
        assert!(wrong("ws://%ff@example.com").contains("not UTF-8"));
    }

    #[test]
    fn an_ipv6_literal_may_have_a_zone_in_both_spellings() {
        for text in [
            "ws://u:p@[fe80::1%25eth0]:9000/ws?x",
            "ws://u:p@[fe80::1%eth0]:9000/ws?x",
        ] {
            let it = place(text);
            assert_eq!((&*it.host, it.zone.as_deref()), ("fe80::1", Some("eth0")));
            assert_eq!((&*it.authority, it.port), ("[fe80::1]:9000", 9000));
            assert_eq!(it.to_string(), "ws://[fe80::1%25eth0]:9000/ws");
            let split = Split::parse(text).unwrap();
            assert_eq!(split.whole(), "ws://u:p@[fe80::1%25eth0]:9000/ws?x");
            assert_eq!(split.name(), "[fe80::1%eth0]/ws");
            assert_eq!(place(&split.whole()), it);
        }
        let numbered = place("ws://[fe80::1%2]/");
        assert_eq!(numbered.zone.as_deref(), Some("2"));
        assert_eq!(place("ws://[::1]/%25eth0").zone, None);
        for text in ["ws://[fe80::1%25]/", "ws://[fe80::1%]/", "ws://[::1%a b]/"] {
            assert!(wrong(text).contains("interface's name"), "{text}");
        }
    }

    #[test]
    fn a_unix_socket_may_have_a_request_path() {
        let it = place("unix:/run/app.sock");
        assert_eq!(it.unix.as_deref(), Some("/run/app.sock".as_ref()));
        assert_eq!((&*it.host, &*it.authority), ("localhost", "localhost"));
        assert_eq!((&*it.path, it.secure), ("/", false));
        assert_eq!(it.to_string(), "unix:/run/app.sock");

        let text = "unix:/run/a:b.sock:/request/path?token=hunter2";
        let it = place(text);
        assert_eq!(it.unix.as_deref(), Some("/run/a:b.sock".as_ref()));
        assert_eq!(it.path, "/request/path?token=hunter2");
        assert_eq!(it.to_string(), "unix:/run/a:b.sock:/request/path");
        let split = Split::parse(text).unwrap();
        assert_eq!(split.whole(), text);
        assert_eq!(split.name(), "unix:/run/a:b.sock:/request/path");
        assert_eq!(place("UNIX:///run/x").unix, Some("/run/x".into()));

        assert!(wrong("unix:").contains("absolute path"));
        assert!(wrong("unix:app.sock").contains("absolute path"));
        assert!(wrong("unix://run/app.sock").contains("absolute path"));
        assert!(wrong("unix:/run/app.sock?token=hunter2").contains("no path it belongs to"));
        assert!(wrong("unix:/run/app.sock#x").contains("fragment"));
        let long = format!("unix:/{}", "x".repeat(107));
        assert!(wrong(&long).contains("more than 107 bytes"));
    }

    #[test]
    fn a_user_before_the_colon_is_not_taken_for_a_scheme_and_shown() {
        let error = wrong("hidden:s3cret@example.com/ws");
        assert_eq!(error, NEEDS_SCHEME);
        let error = wrong("gopher://example.com");
        assert_eq!(
            error,
            "has the scheme `gopher`; use ws:// or wss://, for an event stream http:// or https://"
        );
        let error = place("ws://a").join("hidden:s3cret@b").unwrap_err();
        assert_eq!(error, "is no address of ws, wss, http or https");
    }

    #[test]
    fn a_redirect_leads_on_from_here() {
        let from = place("ws://joe:secret@example.com:9000/a/b?x=1");
        let to = |location: &str| from.join(location).unwrap();
        let beside = to("c?y=http://[fe80::1%25eth0]/");
        assert_eq!(beside.path, "/a/c?y=http://[fe80::1%25eth0]/");
        assert_eq!(beside.credentials, from.credentials);
        assert_eq!(to("/c#top").path, "/c");
        assert_eq!(
            to("http://example.com:9000/c").credentials,
            from.credentials
        );

        // Credentials stay where they were meant for.
        let secure = to("https://example.com/c");
        assert!(secure.secure && secure.port == 443);
        assert_eq!(secure.to_string(), "wss://example.com/c");
        for elsewhere in [
            "https://example.com:9000/c",
            "http://example.com/c",
            "ws://example.org:9000/c",
            "//user:other@example.org:9000/c",
        ] {
            assert_eq!(to(elsewhere).credentials, None, "{elsewhere}");
        }
        assert_eq!(to("//example.org/c").to_string(), "ws://example.org/c");

        let link_local = place("ws://[fe80::1%25eth0]/a");
        let zone = |location: &str| link_local.join(location).unwrap().zone;
        assert_eq!(zone("/b").as_deref(), Some("eth0"));
        assert_eq!(zone("ws://[fe80::1%25eth1]/b").as_deref(), Some("eth1"));
        assert_eq!(zone("ws://[fe80::2]/b"), None);
    }

    #[test]
    fn an_event_stream_is_at_an_http_url_and_redirects_keep_it_one() {
        let from = place("http://joe:secret@[::1]:8080/events?x=1");
        assert!(from.streams && !from.secure && from.unix.is_none());
        assert_eq!((&*from.host, from.port), ("::1", 8080));
        assert_eq!(from.to_string(), "http://[::1]:8080/events");
        let secure = place("https://example.com");
        assert!(secure.streams && secure.secure);
        assert_eq!((secure.port, &*secure.authority), (443, "example.com"));
        assert!(wrong("https://example.com/#x").contains("fragment"));

        let on = from.join("https://example.com/events").unwrap();
        assert!(on.streams && on.secure && on.credentials.is_none());
        assert_eq!(on.to_string(), "https://example.com/events");
        assert_eq!(from.join("/b").unwrap().credentials, from.credentials);
        let error = from.join("wss://joe:hunter2@example.com").unwrap_err();
        assert_eq!(
            error,
            "has the scheme `wss`, which is none of http and https"
        );
        // And a WebSocket stays a WebSocket.
        assert!(!place("ws://a").join("http://b").unwrap().streams);
    }

    #[test]
    fn a_url_is_completed_by_what_it_lacks() {
        let complete = |text: &str| {
            let mut split = Split::parse(text).unwrap();
            split.complete("/socket.io/", &[("EIO", "4"), ("transport", "websocket")]);
            split.whole()
        };
        for (text, whole) in [
            ("ws://a", "ws://a/socket.io/?EIO=4&transport=websocket"),
            ("ws://a/x?k=v", "ws://a/x?k=v&EIO=4&transport=websocket"),
            (
                "ws://a/?EIO=3",
                "ws://a/socket.io/?EIO=3&transport=websocket",
            ),
            ("ws://a/x?&", "ws://a/x?&&EIO=4&transport=websocket"),
            (
                "unix:/run/x",
                "unix:/run/x:/socket.io/?EIO=4&transport=websocket",
            ),
            (
                "wss://joe:x@[fe80::1%eth0]/",
                "wss://joe:x@[fe80::1%25eth0]/socket.io/?EIO=4&transport=websocket",
            ),
        ] {
            assert_eq!(complete(text), whole);
        }
    }

    #[test]
    fn a_redirect_of_a_unix_socket_stays_on_it_unless_it_names_another_host() {
        let from = place("unix:/run/app.sock:/a");
        let stays = from.join("/b").unwrap();
        assert_eq!(stays.to_string(), "unix:/run/app.sock:/b");
        assert_eq!(from.join("http://localhost/b").unwrap(), stays);
        let leaves = from.join("http://example.com/b").unwrap();
        assert_eq!(leaves.to_string(), "ws://example.com/b");
        // A peer must not point us at sockets of this machine.
        for location in ["unix:/run/other.sock", "unix:///run/other.sock"] {
            assert!(from.join(location).is_err(), "{location}");
        }
    }

    #[test]
    fn what_a_redirect_gets_wrong_is_said_without_showing_it() {
        let from = place("wss://example.com/a");
        let error = from.join("ftp://joe:hunter2@example.com/?hunter2");
        assert_eq!(
            error.unwrap_err(),
            "has the scheme `ftp`, which is none of ws, wss, http and https"
        );
        let error = from.join("https://joe:hunter2@/?hunter2").unwrap_err();
        assert_eq!(error, "is no URL: empty host");
        assert!(from.join("https://a:0/").unwrap_err().contains("port 0"));
    }
}
