//! What a connection is: who we say we are, where the peer is, and by which way it is reached.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use figment::value::{Dict, Value};

use super::{Judgement, Resolver, share};
use crate::config::chain::{Chain, Level, Picked, pick};
use crate::config::heartbeat::Kind;
use crate::config::layer::Step;
use crate::config::leaf::{AuthChoice, Pem, ProxySetting, Sourced, Use, WsUrl};
use crate::config::raw;
use crate::config::read::Field;
use crate::config::server_tls::placed;
use crate::config::{
    AddressOptions, Auth, Bind, ConnectionOptions, IpFamily, Keepalive, ProxyChoice, ProxyServer,
    ResolveTo, SecretSource, TlsOptions,
};

/// A table of a target that holds TLS settings.
type TlsTable = for<'r> fn(&'r raw::Target) -> &'r Field<raw::Tls>;

/// The headers of a chain by their name, and what gives them.
type Headers<'a> = BTreeMap<Box<str>, (&'a Level<'a>, &'a (http::HeaderName, Sourced))>;

impl Resolver<'_, '_> {
    pub(super) fn connection(&mut self, chain: &Chain<'_>, url: &WsUrl) -> ConnectionOptions {
        let headers = collected(chain);
        let auth = self.auth(chain, url, &headers);
        let cookies = self.cookies(chain, &headers);
        let address = self.address(chain, url);
        let proxy = self.proxy(chain, url, &address);
        let tls = self.tls(chain, "tls", |target| &target.tls);
        let proxy_tls = self.proxy_tls(chain, &tls);
        let heartbeat = self.heartbeat(chain, url);
        let (subprotocols, require_subprotocol) = match url.place.streams {
            true => {
                self.silent(chain);
                (Vec::new(), false)
            }
            false => self.subprotocols(chain, heartbeat.kind()),
        };
        let text = |picked: Option<&crate::config::leaf::HeaderText>| picked.map(|t| t.0.clone());
        ConnectionOptions {
            headers: self.headers(&headers),
            host_header: text(pick!(chain, host_header).get()),
            user_agent: text(pick!(chain, user_agent).get()),
            origin: text(pick!(chain, origin).get()),
            cookies,
            auth,
            subprotocols,
            require_subprotocol,
            max_redirects: pick!(chain, max_redirects).get().map_or(0, |most| most.0),
            address,
            tls,
            proxy,
            proxy_tls,
            heartbeat,
        }
    }

    /// What is offered, and whether one of it must be chosen.
    fn subprotocols(&mut self, chain: &Chain<'_>, kind: Kind) -> (Vec<Box<str>>, bool) {
        let offered = pick!(chain, subprotocols);
        let mut offered = offered.get().map_or_else(Vec::new, |s| s.0.clone());
        if offered.is_empty() {
            offered.extend(kind.subprotocols().iter().map(|name| Box::from(*name)));
        }
        let required = match pick!(chain, require_subprotocol) {
            Picked::Set(level, true) if offered.is_empty() => {
                let message = "needs `subprotocols`: there is none to choose";
                self.mistake_at(level, &["require_subprotocol".into()], message);
                true
            }
            picked => picked.get().copied().unwrap_or(false),
        };
        (offered, required)
    }

    /// Reports what an event stream cannot send. `[defaults]` speak of other targets, too.
    fn silent(&mut self, chain: &Chain<'_>) {
        const SENDS_NOTHING: &str = "an event stream (http, https) sends nothing; remove this, or \
                                     write ws:// or wss:// in the url";
        const CHOOSES_NOTHING: &str = "subprotocols are a WebSocket's, and the url is an event \
                                       stream; remove this, or write ws:// or wss:// there";
        if let Picked::Set(level, messages) = pick!(chain, on_open)
            && !messages.is_empty()
            && !chain.is_default(level)
        {
            self.mistake_at(level, &["on_open".into()], SENDS_NOTHING);
        }
        if let Picked::Set(level, offered) = pick!(chain, subprotocols)
            && !offered.0.is_empty()
            && !chain.is_default(level)
        {
            self.mistake_at(level, &["subprotocols".into()], CHOOSES_NOTHING);
        }
        if let Picked::Set(level, true) = pick!(chain, require_subprotocol)
            && !chain.is_default(level)
        {
            self.mistake_at(level, &["require_subprotocol".into()], CHOOSES_NOTHING);
        }
    }

    fn headers(&mut self, headers: &Headers<'_>) -> Vec<(http::HeaderName, SecretSource)> {
        let headers = headers.values().map(|(level, (name, sourced))| {
            let key = written(level, name);
            let source = self.source(level, &["headers".into(), key], sourced, Use::Header);
            (name.clone(), source)
        });
        headers.collect()
    }

    fn cookies(
        &mut self,
        chain: &Chain<'_>,
        headers: &Headers<'_>,
    ) -> Vec<(Box<str>, SecretSource)> {
        let mut cookies = BTreeMap::new();
        for level in chain.levels().rev() {
            for (name, sourced) in level.raw.cookies.get().iter().flat_map(|table| &table.0) {
                cookies.insert(name, (level, sourced));
            }
        }
        if let Some((level, (name, _))) = headers.get("cookie").filter(|_| !cookies.is_empty()) {
            let key = ["headers".into(), written(level, name)];
            let message = "stands beside `cookies`, of which that header is made; keep one";
            self.mistake_at(level, &key, message);
        }
        let cookies = cookies.into_iter().map(|(name, (level, sourced))| {
            let key = ["cookies".into(), Step::from(&**name)];
            (name.clone(), self.source(level, &key, sourced, Use::Cookie))
        });
        cookies.collect()
    }

    fn auth(&mut self, chain: &Chain<'_>, url: &WsUrl, headers: &Headers<'_>) -> Option<Auth> {
        let Picked::Set(level, choice) = pick!(chain, auth) else {
            return None;
        };
        let key = ["auth".into()];
        if let Some((other, (name, _))) = headers.get("authorization") {
            let place = self.place(other, &["headers".into(), written(other, name)]);
            let message = format!("makes the header that `headers` has, too ({place}); keep one");
            self.mistake_at(level, &key, &message);
        }
        if url.place.credentials.is_some()
            && let Picked::Set(other, _) = pick!(chain, url)
        {
            let place = self.place(other, &["url".into()]);
            let message =
                format!("makes the header that the url's userinfo makes, too ({place}); keep one");
            self.mistake_at(level, &key, &message);
        }
        let [auth] = key;
        Some(match choice {
            AuthChoice::Basic(username, password) => {
                let key = [auth, "password".into()];
                Auth::Basic {
                    username: username.clone(),
                    password: self.source(level, &key, password, Use::Password),
                }
            }
            AuthChoice::Bearer(token) => {
                let key = [auth, "bearer".into()];
                Auth::Bearer(self.source(level, &key, token, Use::Token))
            }
        })
    }

    fn address(&mut self, chain: &Chain<'_>, url: &WsUrl) -> AddressOptions {
        let family = pick!(chain, ip_family).get().copied().unwrap_or_default();
        let bind = match pick!(chain, bind) {
            Picked::Set(level, bind) => {
                if let Bind::Address(ip) = bind.0
                    && let Some(family) = other_family(family, ip)
                {
                    let message = format!("{ip} is not of ip_family {family}; change one of them");
                    self.mistake_at(level, &["bind".into()], &message);
                }
                Some(bind.0.clone())
            }
            Picked::Bad | Picked::Absent => None,
        };
        let mut resolve = Vec::new();
        if let Picked::Set(level, destinations) = pick!(chain, resolve) {
            resolve.clone_from(&destinations.0);
            if url.place.unix.is_some() && !resolve.is_empty() {
                let message =
                    "says where a name is, but the url is a unix socket; write resolve = []";
                self.mistake_at(level, &["resolve".into()], message);
            }
            for (index, destination) in resolve.iter().enumerate() {
                let ResolveTo::Ip { ip, .. } = destination else {
                    continue;
                };
                let wrong = match (other_family(family, *ip), &bind) {
                    (Some(family), _) => format!("{ip} is not of ip_family {family}"),
                    (None, Some(Bind::Address(from))) if from.is_ipv4() != ip.is_ipv4() => {
                        format!("{ip} cannot be reached from {from}, the address of `bind`")
                    }
                    (None, _) => continue,
                };
                let key = ["resolve".into(), Step::Index(index)];
                self.mistake_at(level, &key, &format!("{wrong}; change one of them"));
            }
        }
        let direct = !matches!(
            pick!(chain, proxy),
            Picked::Set(_, ProxySetting::Environment | ProxySetting::Via(..))
        );
        if direct
            && resolve.is_empty()
            && let Picked::Set(level, _) = pick!(chain, ip_family)
            && let Ok(ip) = url.place.host.parse()
            && let Some(family) = other_family(family, ip)
        {
            let message = format!("{family} has no part in {ip} of the url; change one of them");
            self.mistake_at(level, &["ip_family".into()], &message);
        }
        let keepalive = Keepalive {
            idle: pick!(chain, tcp_keepalive_idle).get().map(|t| t.0),
            interval: pick!(chain, tcp_keepalive_interval).get().map(|t| t.0),
            count: pick!(chain, tcp_keepalive_count).get().map(|n| n.0),
        };
        AddressOptions {
            family,
            resolve,
            bind,
            keepalive: (keepalive != Keepalive::default()).then_some(keepalive),
            user_timeout: pick!(chain, tcp_user_timeout).get().map(|t| t.0),
        }
    }

    fn proxy(&mut self, chain: &Chain<'_>, url: &WsUrl, address: &AddressOptions) -> ProxyChoice {
        let Picked::Set(level, setting) = pick!(chain, proxy) else {
            return ProxyChoice::Direct;
        };
        let is_unix = |to: &ResolveTo| matches!(to, ResolveTo::Unix(_));
        let unix = url.place.unix.is_some() || address.resolve.iter().any(is_unix);
        match setting {
            ProxySetting::None => ProxyChoice::Direct,
            // The variables speak of hosts.
            ProxySetting::Environment if unix => ProxyChoice::Direct,
            ProxySetting::Environment => ProxyChoice::Environment,
            ProxySetting::Via(place, credentials) => {
                let key: Step = "proxy".into();
                if unix {
                    let message = "does not lead to a unix socket; write proxy = \"none\"";
                    self.mistake_at(level, std::slice::from_ref(&key), message);
                }
                let credentials = credentials.as_ref().map(|(username, password)| {
                    let key = [key, "password".into()];
                    let password = self.source(level, &key, password, Use::Password);
                    (username.clone(), password)
                });
                let proxy = ProxyServer {
                    kind: place.kind,
                    host: place.host.clone(),
                    port: place.port,
                    credentials,
                };
                ProxyChoice::Via(share(&mut self.shared.proxies, proxy))
            }
        }
    }

    /// Those of the `proxy_tls` table if there is one, else what it inherits from `tls`.
    fn proxy_tls(&mut self, chain: &Chain<'_>, tls: &Arc<TlsOptions>) -> Arc<TlsOptions> {
        let mut levels = chain.levels();
        if levels.any(|level| !matches!(level.raw.proxy_tls, Field::Absent)) {
            return self.tls(chain, "proxy_tls", |target| &target.proxy_tls);
        }
        let inherited = TlsOptions {
            cert: None,
            key: None,
            server_name: None,
            insecure_skip_verify: false,
            ..(**tls).clone()
        };
        if let Some((there, _)) = self.shared.tls.get_key_value(&inherited) {
            return there.clone();
        }
        // Not judged: what it has was judged as part of `tls`.
        let inherited = Arc::new(inherited);
        self.shared.tls.insert(inherited.clone(), None);
        inherited
    }

    fn tls(&mut self, chain: &Chain<'_>, name: &'static str, table: TlsTable) -> Arc<TlsOptions> {
        /// What a chain has for a key of that table.
        macro_rules! of {
            ($key:ident) => {
                chain.pick(|target| table(target).get().map(|table| &table.$key))
            };
        }
        let usual = TlsOptions::default();
        let flag = |picked: Picked<'_, bool>, usual| picked.get().copied().unwrap_or(usual);
        let (ca, cert, key) = (of!(ca), of!(cert), of!(key));
        let (ca_only, min, max) = (of!(ca_only), of!(min_version), of!(max_version));
        let mut wrong: Vec<(&Level<'_>, &'static str, &str)> = Vec::new();
        match (&cert, &key) {
            (Picked::Set(level, _), Picked::Absent) => {
                wrong.push((level, "cert", "needs its private `key`; add it"));
            }
            (Picked::Absent, Picked::Set(level, _)) => {
                wrong.push((level, "key", "needs the `cert` it belongs to; add it"));
            }
            (Picked::Set(..) | Picked::Bad, _) | (Picked::Absent, Picked::Bad | Picked::Absent) => {
            }
        }
        if let (Picked::Set(level, true), Picked::Absent) = (&ca_only, &ca) {
            wrong.push((level, "ca_only", "needs a `ca`: else nothing is trusted"));
        }
        let (min_version, max_version) = (
            min.get().copied().unwrap_or(usual.min_version),
            max.get().copied().unwrap_or(usual.max_version),
        );
        if min_version > max_version {
            let words = "min_version (1.3) must not be above max_version (1.2)";
            match (&min, &max) {
                (Picked::Bad, _) | (_, Picked::Bad) | (Picked::Absent, Picked::Absent) => {}
                (Picked::Set(level, _), _) => wrong.push((level, "min_version", words)),
                (Picked::Absent, Picked::Set(level, _)) => {
                    wrong.push((level, "max_version", words));
                }
            }
        }
        for (level, key, message) in wrong {
            self.mistake_at(level, &[name.into(), key.into()], message);
        }

        let source = |picked: &Picked<'_, Pem>| picked.get().map(|pem| self.placed(&pem.0));
        let options = TlsOptions {
            ca: source(&ca),
            ca_only: flag(ca_only, usual.ca_only),
            cert: source(&cert),
            key: source(&key),
            server_name: of!(server_name).get().map(|name| name.0.clone()),
            min_version,
            max_version,
            insecure_skip_verify: flag(of!(insecure_skip_verify), usual.insecure_skip_verify),
            session_tickets: flag(of!(session_tickets), usual.session_tickets),
        };
        let (options, wrong) = self.judged(options);
        for (wrong_key, message) in wrong {
            // One that nobody gave is missing, which was reported where it is missed.
            let giver = match wrong_key {
                "ca" => &ca,
                "cert" => &cert,
                _ => &key,
            };
            if let Picked::Set(level, _) = giver {
                self.mistake_at(level, &[name.into(), wrong_key.into()], &message);
            }
        }
        options
    }

    /// One for all targets with the same settings, judged once per load, and what is wrong with it.
    pub(super) fn judged(&mut self, options: TlsOptions) -> (Arc<TlsOptions>, Judgement) {
        if let Some((options, Some(wrong))) = self.shared.tls.get_key_value(&options) {
            return (options.clone(), wrong.clone());
        }
        let there = self.shared.tls.get_key_value(&options);
        let options = there.map_or_else(|| Arc::new(options), |(options, _)| options.clone());
        // What cannot be read is told of every file; what is in them is judged together.
        let files = [
            ("ca", &options.ca),
            ("cert", &options.cert),
            ("key", &options.key),
        ];
        let mut wrong = Judgement::new();
        for (key, source) in files {
            if let Some(Err(message)) = source.as_ref().map(|s| s.bytes(self.variable)) {
                wrong.push((key, message));
            }
        }
        // What is there can be read; whether it is any good is the next question.
        if wrong.is_empty()
            && let Err(bad) = options.read(self.variable)
        {
            wrong.push(bad);
        }
        self.shared.tls.insert(options.clone(), Some(wrong.clone()));
        (options, wrong)
    }

    /// A source with its path in place, judged.
    pub(super) fn source(
        &mut self,
        level: &Level<'_>,
        key: &[Step],
        sourced: &Sourced,
        purpose: Use,
    ) -> SecretSource {
        let source = self.placed(sourced);
        if let Some(wrong) = self.check_secret(&source, purpose) {
            self.mistake_at(level, key, &wrong);
        }
        source
    }

    /// A relative path in a file means the same whoever reads it, wherever they stand.
    pub(super) fn placed(&self, sourced: &Sourced) -> SecretSource {
        placed(sourced, self.layers)
    }

    /// What is wrong with a secret that is kept elsewhere. Each is read once per load and purpose.
    fn check_secret(&mut self, source: &SecretSource, purpose: Use) -> Option<String> {
        if matches!(source, SecretSource::Literal(_)) {
            return None; // judged as it was read
        }
        let known = self.checked.get(&(source.clone(), purpose)).cloned();
        known.unwrap_or_else(|| {
            let wrong = match source.line(self.variable) {
                Ok(value) => {
                    let judged = purpose.judge(&value).err();
                    judged.map(|wrong| format!("{} {wrong}", source.reference()))
                }
                Err(wrong) => Some(wrong),
            };
            self.checked
                .insert((source.clone(), purpose), wrong.clone());
            wrong
        })
    }
}

/// The headers that hold, the strongest level's of each name.
fn collected<'a>(chain: &Chain<'a>) -> Headers<'a> {
    let mut headers = BTreeMap::new();
    for level in chain.levels().rev() {
        for (key, header) in level.raw.headers.get().iter().flat_map(|table| &table.0) {
            headers.insert(key.clone(), (level, header));
        }
    }
    headers
}

/// A header's name as the user wrote it: case does not count.
pub(super) fn written(level: &Level<'_>, name: &http::HeaderName) -> Step {
    let table = level.dict.get("headers").and_then(Value::as_dict);
    let mut keys = table.into_iter().flat_map(Dict::keys);
    let written = keys.find(|key| key.eq_ignore_ascii_case(name.as_str()));
    written.map_or(name.as_str(), String::as_str).into()
}

/// The family, if `ip` is not of it.
fn other_family(family: IpFamily, ip: IpAddr) -> Option<&'static str> {
    match family {
        IpFamily::V4 if ip.is_ipv6() => Some("v4"),
        IpFamily::V6 if ip.is_ipv4() => Some("v6"),
        IpFamily::Any | IpFamily::V4 | IpFamily::V6 => None,
    }
}
