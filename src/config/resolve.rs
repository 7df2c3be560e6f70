//! From the merged layers to the [`Config`]: inheritance, defaults, and the checks that take more
//! than one key.

mod connection;
mod heartbeat;
mod metrics;
mod otlp;
mod warnings;

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use figment::value::{Dict, Value};

use self::warnings::Warnings;
pub(super) use self::warnings::useless;
use super::chain::{Chain, Level, Picked, pick};
use super::duration::format_duration;
use super::heartbeat::Kind;
use super::layer::{KeyPath, Step};
use super::layers::Layers;
use super::leaf::{Use, WsUrl};
use super::mistake::Mistake;
use super::raw;
use super::read::{Field, Read, Reader};
use super::server_tls::{beside_file, server_tls};
use super::{
    Config, ConnectionOptions, DialLimits, Log, Policy, ProxyChoice, ProxyServer, SecretSource,
    Server, Target, Timeouts, TlsOptions,
};
use crate::dialect::sse;
use crate::proto::backoff::BackoffPolicy;
use crate::proto::heartbeat::{HeartbeatPolicy, PingMode, Wishes};
use crate::stats::{Buckets, Identity};

/// Looks up an environment variable.
pub(super) type Variable<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Resolves `layers`. The result counts only if nothing was added to `mistakes`.
pub(super) fn resolve(
    layers: &Layers<'_>,
    variable: Variable<'_>,
    mistakes: &mut Vec<Mistake>,
    warnings: &mut Vec<String>,
) -> Config {
    let section = |name| layers.merged().get(name);
    let server = section("server")
        .map(|value| server(&read_section(Some(value)), layers, variable, mistakes));
    let metrics = read_section(section("metrics"));
    let metrics = metrics::metrics(&metrics, layers, variable, mistakes, warnings);
    let mut resolver = Resolver {
        layers,
        variable,
        mistakes,
        seen: HashSet::new(),
        names: HashMap::new(),
        checked: HashMap::new(),
        fanned_out: HashSet::new(),
        shared: Shared::default(),
        warnings: Warnings::default(),
    };
    let otlp = resolver.otlp(warnings);
    let targets = resolver.targets(warnings);
    Config {
        log: log(&read_section(section("log"))),
        metrics,
        control: control(&read_section(section("control")), layers, variable),
        server,
        dial: dial(&read_section(section("dial"))),
        otlp: otlp.map(Arc::new),
        targets,
    }
}

fn read_section<T: Read + Default>(value: Option<&Value>) -> T {
    value
        .and_then(|value| T::read(value, &mut Reader::silent()))
        .unwrap_or_default()
}

fn log(raw: &raw::Log) -> Log {
    Log {
        level: raw.level.get().copied().unwrap_or_default(),
        format: raw.format.get().copied().unwrap_or_default(),
    }
}

fn control(raw: &raw::Control, layers: &Layers<'_>, variable: Variable<'_>) -> Option<PathBuf> {
    if let Field::Set(path, tag) = &raw.socket {
        return Some(beside_file(path, *tag, layers));
    }
    // systemd separates several RuntimeDirectory= by colons.
    let directories = variable("RUNTIME_DIRECTORY")?;
    let first = std::env::split_paths(&directories).next()?;
    (!first.as_os_str().is_empty()).then(|| first.join("control.sock"))
}

fn server(
    raw: &raw::Server,
    layers: &Layers<'_>,
    variable: Variable<'_>,
    mistakes: &mut Vec<Mistake>,
) -> Server {
    let ping_interval = raw
        .ping_interval
        .get()
        .map_or(Duration::from_secs(5), |i| i.0);
    let or = |field: &Field<super::leaf::Positive>, default| field.get().map_or(default, |d| d.0);
    Server {
        name: raw.name.get().map_or("server".into(), |n| n.0.clone()),
        listen: raw
            .listen
            .get()
            .map_or(([0, 0, 0, 0], 9000).into(), |l| l.0),
        ping_interval,
        pong_timeout: or(&raw.pong_timeout, ping_interval * 2),
        max_connections: raw.max_connections.get().map_or(10_000, |c| c.0 as usize),
        max_message_size: raw.max_message_size.get().map_or(16 << 20, |s| s.0),
        handshake_timeout: or(&raw.handshake_timeout, Duration::from_secs(10)),
        close_timeout: or(&raw.close_timeout, Duration::from_secs(10)),
        tls: server_tls(&raw.tls, layers, variable, mistakes),
        faults: raw.faults.get().map(|f| f.0.clone()).unwrap_or_default(),
    }
}

fn dial(raw: &raw::Dial) -> DialLimits {
    DialLimits {
        concurrency: raw.concurrency.get().map_or(64, |c| c.0 as usize),
        per_second: raw.per_second.get().map_or(2_000, |c| c.0),
    }
}

type Labels = Arc<[(Box<str>, Box<str>)]>;

/// What is wrong with TLS settings, by key.
type Judgement = Vec<(&'static str, String)>;

/// Equal parts of targets, held once.
#[derive(Default)]
struct Shared {
    connections: HashSet<Arc<ConnectionOptions>>,
    policies: HashSet<Arc<Policy>>,
    labels: HashSet<Labels>,
    proxies: HashSet<Arc<ProxyServer>>,
    /// With what is wrong with each, by key; `None` of one that was not judged.
    tls: HashMap<Arc<TlsOptions>, Option<Judgement>>,
    default_buckets: Buckets,
}

fn share<T: Eq + std::hash::Hash>(all: &mut HashSet<Arc<T>>, value: T) -> Arc<T> {
    if let Some(there) = all.get(&value) {
        return there.clone();
    }
    let value = Arc::new(value);
    all.insert(value.clone());
    value
}

struct Resolver<'a, 't> {
    layers: &'a Layers<'t>,
    variable: Variable<'a>,
    mistakes: &'a mut Vec<Mistake>,
    /// What was said: a mistake in `[defaults]` shows with every target.
    seen: HashSet<(String, String)>,
    /// Where each name was first given.
    names: HashMap<Arc<str>, Given>,
    /// Names of targets with a connection per address.
    fanned_out: HashSet<Arc<str>>,
    /// References to secrets, and what is wrong with them.
    checked: HashMap<(SecretSource, Use), Option<String>>,
    shared: Shared,
    warnings: Warnings,
}

/// Where a name was given.
struct Given {
    place: String,
    /// The key path, as a mistake shows it.
    key: String,
}

impl Resolver<'_, '_> {
    fn targets(mut self, warnings: &mut Vec<String>) -> Vec<Arc<Target>> {
        let layers = self.layers;
        let empty = Dict::new();
        let defaults = layers.merged().get("defaults").and_then(Value::as_dict);
        let defaults = Level::new(defaults.unwrap_or(&empty), vec!["defaults".into()], None);
        let forced_dict = layers.forced().dict();
        let forced = Level::new(&forced_dict, Vec::new(), Some(layers.forced()));
        let mut targets = Vec::with_capacity(layers.target_count());
        for (path, dict) in layers.targets() {
            let own = Level::new(dict, path, None);
            let Some(name) = self.name(&own) else {
                continue; // reported
            };
            let single = layers.singles_of(&name, self.mistakes);
            let single_dict = single.dict();
            let single = (!single.is_empty()).then(|| {
                Level::new(
                    &single_dict,
                    vec![Step::Key(name.to_string())],
                    Some(&single),
                )
            });
            let chain = Chain {
                levels: [single.as_ref(), Some(&forced), Some(&own), Some(&defaults)],
            };
            targets.extend(self.target(name, &chain));
        }
        layers.unmatched_singles(self.names.keys().map(|name| &**name), self.mistakes);
        self.names_apart();
        warnings.extend(self.warnings.lines());
        targets
    }

    /// The target's name, unique; otherwise a mistake.
    fn name(&mut self, own: &Level<'_>) -> Option<Arc<str>> {
        let (name, key) = match (&own.raw.name, &own.raw.url) {
            (Field::Bad, _) | (Field::Absent, Field::Bad) => return None,
            (Field::Set(name, _), _) => (&name.0, "name"),
            (Field::Absent, Field::Set(url, _)) => (&url.name, "url"),
            (Field::Absent, Field::Absent) => {
                self.mistake_at(own, &[], "has no `url`; add one: url = \"ws://HOST/PATH\"");
                return None;
            }
        };
        let given = Given {
            place: self.place(own, &[key.into()]),
            key: KeyPath(&[own.base.as_slice(), &[key.into()]].concat()).to_string(),
        };
        if let Some(Given { place: first, .. }) = self.names.get(&**name) {
            let message = if key == "name" {
                format!("`{name}` is already the name of the target at {first}; choose another")
            } else {
                format!(
                    "gives the target the name `{name}`, which the one at {first} has; \
                     add a `name` to tell them apart"
                )
            };
            self.mistake_at(own, &[key.into()], &message);
            return None;
        }
        let name: Arc<str> = Arc::from(&**name);
        self.names.insert(name.clone(), given);
        Some(name)
    }

    /// Reports names that the connections of a target with `fan_out` have: `NAME[0]`, `NAME[1]`, ..
    fn names_apart(&mut self) {
        for (name, given) in &self.names {
            let index = name.strip_suffix(']').and_then(|n| n.rsplit_once('['));
            let Some((base, index)) = index else {
                continue;
            };
            let is_index = !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit());
            if is_index && let Some(base) = self.fanned_out.get(base) {
                self.mistakes.push(Mistake {
                    place: given.place.clone(),
                    key: given.key.clone(),
                    message: format!(
                        "`{name}` is what a connection of the target `{base}` is called, which has \
                         fan_out; choose another name"
                    ),
                });
            }
        }
    }

    fn target(&mut self, name: Arc<str>, chain: &Chain<'_>) -> Option<Arc<Target>> {
        let url = match pick!(chain, url) {
            Picked::Set(_, url) => url,
            Picked::Bad => return None,
            Picked::Absent => {
                let own = chain.levels[2]?;
                self.mistake_at(own, &[], "has no `url`; add one: url = \"ws://HOST/PATH\"");
                return None;
            }
        };
        let connection = self.connection(chain, url);
        let kind = connection.heartbeat.kind();
        let mut policy = self.policy(chain, kind);
        policy.fan_out = self.fan_out(chain, url, &connection);
        if policy.fan_out.is_some() {
            self.fanned_out.insert(name.clone());
        }
        self.warn(&name, chain, url, &connection, &policy);
        let completed = kind
            .address()
            .map(|(path, parameters)| url.completed(path, parameters));
        let url = completed.as_ref().unwrap_or(url);
        Some(Arc::new(Target {
            identity: Arc::new(Identity {
                name,
                url: url.shown.clone(),
                protocol: kind.protocol(),
                server_beats: kind.peer_beats(),
                watches_staleness: policy.staleness.is_some(),
                labels: self.labels(chain),
                fan_out: None,
            }),
            url: url.url.clone(),
            connection: share(&mut self.shared.connections, connection),
            policy: share(&mut self.shared.policies, policy),
        }))
    }

    fn labels(&mut self, chain: &Chain<'_>) -> Arc<[(Box<str>, Box<str>)]> {
        let mut merged = std::collections::BTreeMap::new();
        for labels in chain
            .levels()
            .rev()
            .filter_map(|level| level.raw.labels.get())
        {
            merged.extend(labels.0.iter());
        }
        let pairs = merged
            .into_iter()
            .map(|(name, value)| (name.clone(), value.clone()));
        let pairs: Vec<(Box<str>, Box<str>)> = pairs.collect();
        if let Some(there) = self.shared.labels.get(pairs.as_slice()) {
            return there.clone();
        }
        let pairs: Arc<[_]> = pairs.into();
        self.shared.labels.insert(pairs.clone());
        pairs
    }

    fn policy(&mut self, chain: &Chain<'_>, kind: Kind) -> Policy {
        let usual = HeartbeatPolicy::default();
        /// What of [`OWN_TIMES`] is set for `kind`.
        macro_rules! time {
            ($key:ident) => {
                pick!(chain.for_key(stringify!($key), kind), $key)
            };
        }
        let set = Wishes {
            interval: time!(ping_interval).get().map(|i| i.0),
            pong_timeout: time!(pong_timeout).get().map(|d| d.0),
            max_retries: time!(max_retry_limit).get().map(|r| r.0),
            max_silence: self.max_silence(chain, time!(max_silence), kind),
        };
        let interval = set.interval.unwrap_or(usual.interval);
        let heartbeat = HeartbeatPolicy {
            interval,
            pong_timeout: set.pong_timeout.unwrap_or(interval * 2),
            max_retries: set.max_retries.unwrap_or(usual.max_retries),
            mode: match kind {
                Kind::None => PingMode::Never,
                _ => PingMode::Always,
            },
        };
        let wishes = match kind {
            // Those of RFC 6455 are the policy's.
            Kind::Ping | Kind::None => Wishes::default(),
            kind if kind.we_beat() => set,
            _ => Wishes {
                max_silence: set.max_silence,
                ..Wishes::default()
            },
        };
        let usual = Timeouts::default();
        let timeouts = Timeouts {
            connect: pick!(chain, connect_timeout)
                .get()
                .map_or(usual.connect, |d| d.0),
            dns: pick!(chain, dns_timeout).get().map_or(usual.dns, |d| d.0),
            tcp: pick!(chain, tcp_timeout).get().map_or(usual.tcp, |d| d.0),
            proxy: pick!(chain, proxy_timeout)
                .get()
                .map_or(usual.proxy, |d| d.0),
            tls: pick!(chain, tls_timeout).get().map_or(usual.tls, |d| d.0),
            upgrade: pick!(chain, upgrade_timeout)
                .get()
                .map_or(usual.upgrade, |d| d.0),
            hello: pick!(chain, hello_timeout)
                .get()
                .map_or(usual.hello, |d| d.0),
            write: pick!(chain, write_timeout)
                .get()
                .map_or(usual.write, |d| d.0),
            close: pick!(chain, close_timeout)
                .get()
                .map_or(usual.close, |d| d.0),
        };
        let size =
            |picked: Picked<'_, super::leaf::Size>, usual| picked.get().map_or(usual, |s| s.0);
        let buckets = pick!(chain, rtt_buckets).get();
        let on_open = match kind {
            Kind::Sse => None,
            _ => pick!(chain, on_open).get().cloned(),
        };
        Policy {
            heartbeat,
            wishes,
            staleness: pick!(chain, staleness).get().map(|d| d.0),
            reconnect: self.reconnect(chain),
            timeouts,
            max_message_size: size(pick!(chain, max_message_size), 16 << 20),
            max_line: size(pick!(chain, max_line), sse::MAX_LINE),
            max_event: size(pick!(chain, max_event), sse::MAX_EVENT),
            on_open: on_open.unwrap_or_default(),
            rtt_buckets: buckets.map_or_else(
                || self.shared.default_buckets.clone(),
                |bounds| Buckets::new(bounds.0.as_slice()),
            ),
            path_idle_timeout: pick!(chain, path_idle_timeout).get().map(|d| d.0),
            fan_out: None,
            traceparent: pick!(chain, traceparent).get().copied().unwrap_or(false),
        }
    }

    /// How often a name is looked up again, of a target with a connection per address.
    fn fan_out(
        &mut self,
        chain: &Chain<'_>,
        url: &WsUrl,
        connection: &ConnectionOptions,
    ) -> Option<Duration> {
        let (level, on) = match pick!(chain, fan_out) {
            Picked::Set(level, on) => (level, *on),
            Picked::Bad | Picked::Absent => return None,
        };
        if !on {
            return None;
        }
        let wrong = if url.place.unix.is_some() {
            "does not go with a unix socket, which has one address; write fan_out = false"
        } else if connection.proxy != ProxyChoice::Direct {
            "does not go with a proxy, which chooses the address itself; write proxy = \"none\" \
             or fan_out = false"
        } else {
            let interval = pick!(chain, fan_out_interval);
            let interval = interval.get().map(|interval| interval.0);
            return Some(interval.unwrap_or(Duration::from_secs(30)));
        };
        self.mistake_at(level, &["fan_out".into()], wrong);
        None
    }

    fn reconnect(&mut self, chain: &Chain<'_>) -> BackoffPolicy {
        let usual = BackoffPolicy::default();
        let (initial, max) = (pick!(chain, reconnect.initial), pick!(chain, reconnect.max));
        let policy = BackoffPolicy {
            initial: initial.get().map_or(usual.initial, |d| d.0),
            max: max.get().map_or(usual.max, |d| d.0),
            factor: pick!(chain, reconnect.factor)
                .get()
                .map_or(usual.factor, |f| f.0),
            jitter: pick!(chain, reconnect.jitter)
                .get()
                .map_or(usual.jitter, |j| j.0),
            reset_after: pick!(chain, reconnect.reset_after)
                .get()
                .map_or(usual.reset_after, |d| d.0),
        };
        if policy.initial > policy.max {
            let message = format!(
                "initial ({}) must not be longer than max ({})",
                format_duration(policy.initial),
                format_duration(policy.max)
            );
            match (initial, max) {
                (Picked::Bad, _) | (_, Picked::Bad) => {}
                (Picked::Set(level, _), _) => {
                    self.mistake_at(level, &["reconnect".into(), "initial".into()], &message);
                }
                (Picked::Absent, Picked::Set(level, _)) => {
                    self.mistake_at(level, &["reconnect".into(), "max".into()], &message);
                }
                (Picked::Absent, Picked::Absent) => {}
            }
        }
        policy
    }

    fn place(&self, level: &Level<'_>, key: &[Step]) -> String {
        self.layers.place(level, key)
    }

    /// Reports a mistake at `key` of `level`, once.
    fn mistake_at(&mut self, level: &Level<'_>, key: &[Step], message: &str) {
        let place = self.place(level, key);
        let path = [level.base.as_slice(), key].concat();
        if self.seen.insert((place.clone(), message.to_owned())) {
            self.mistakes.push(Mistake {
                place,
                key: KeyPath(&path).to_string(),
                message: message.to_owned(),
            });
        }
    }
}
