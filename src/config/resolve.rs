//! From the merged layers to the [`Config`]: inheritance, defaults, and the checks that take more
//! than one key.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use figment::value::{Dict, Value};

use super::chain::{Chain, Level, Picked, pick};
use super::duration::format_duration;
use super::layer::{KeyPath, Step};
use super::layers::Layers;
use super::mistake::Mistake;
use super::raw;
use super::read::{Field, Read, Reader};
use super::server_tls::{beside_file, server_tls};
use super::{
    Config, ConnectionOptions, DialLimits, HeartbeatKind, Listen, Log, Metrics, Policy,
    SecretSource, Server, Target, Timeouts,
};
use crate::proto::backoff::BackoffPolicy;
use crate::proto::heartbeat::{HeartbeatPolicy, PingMode};
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
    let server =
        section("server").map(|value| server(&read_section(Some(value)), layers, mistakes));
    let targets = Resolver {
        layers,
        variable,
        mistakes,
        seen: HashSet::new(),
        names: HashMap::new(),
        checked: HashMap::new(),
        shared: Shared::default(),
        too_slow: Vec::new(),
    }
    .targets(warnings);
    Config {
        log: log(&read_section(section("log"))),
        metrics: metrics(&read_section(section("metrics"))),
        control: control(&read_section(section("control")), layers, variable),
        server,
        dial: dial(&read_section(section("dial"))),
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

fn metrics(raw: &raw::Metrics) -> Metrics {
    let default = || vec![Listen::Tcp(([0, 0, 0, 0], 8080).into())];
    Metrics {
        enabled: raw.enabled.get().copied().unwrap_or(true),
        listen: raw.listen.get().map_or_else(default, |l| l.0.clone()),
        reload: raw.reload.get().copied().unwrap_or(false),
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

fn server(raw: &raw::Server, layers: &Layers<'_>, mistakes: &mut Vec<Mistake>) -> Server {
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
        tls: server_tls(&raw.tls, layers, mistakes),
    }
}

fn dial(raw: &raw::Dial) -> DialLimits {
    DialLimits {
        concurrency: raw.concurrency.get().map_or(64, |c| c.0 as usize),
        per_second: raw.per_second.get().map_or(2_000, |c| c.0),
    }
}

type Labels = Arc<[(Box<str>, Box<str>)]>;

/// Equal parts of targets, held once.
#[derive(Default)]
struct Shared {
    connections: HashSet<Arc<ConnectionOptions>>,
    policies: HashSet<Arc<Policy>>,
    labels: HashSet<Labels>,
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
    names: HashMap<Arc<str>, String>,
    /// References to secrets, and what is wrong with them.
    checked: HashMap<SecretSource, Option<String>>,
    shared: Shared,
    /// Targets whose pings are too rare for the path: interval, idle timeout, first name, count.
    too_slow: Vec<(Duration, Duration, Arc<str>, usize)>,
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
        for (interval, idle, name, count) in &self.too_slow {
            let others = match count {
                1 => String::new(),
                n => format!(" and {} more", n - 1),
            };
            warnings.push(format!(
                "target {name}{others}: a ping_interval of {} is not below half of the \
                 path_idle_timeout of {}: one lost ping and the path may cut the connection; \
                 ping more often than every {}",
                format_duration(*interval),
                format_duration(*idle),
                format_duration(*idle / 2),
            ));
        }
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
        let place = self.place(own, &[key.into()]);
        if let Some(first) = self.names.get(&**name) {
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
        self.names.insert(name.clone(), place);
        Some(name)
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
        let connection = self.connection(chain);
        let policy = self.policy(chain, connection.heartbeat);
        if let Some(idle) = policy.path_idle_timeout
            && policy.heartbeat.interval >= idle / 2
            && policy.heartbeat.mode != PingMode::Never
        {
            let interval = policy.heartbeat.interval;
            match self
                .too_slow
                .iter_mut()
                .find(|slow| (slow.0, slow.1) == (interval, idle))
            {
                Some(slow) => slow.3 += 1,
                None => self.too_slow.push((interval, idle, name.clone(), 1)),
            }
        }
        Some(Arc::new(Target {
            identity: Arc::new(Identity {
                name,
                url: url.shown.clone(),
                protocol: "websocket",
                labels: self.labels(chain),
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

    fn connection(&mut self, chain: &Chain<'_>) -> ConnectionOptions {
        let mut headers = std::collections::BTreeMap::new();
        for level in chain.levels().rev() {
            for (key, header) in level.raw.headers.get().iter().flat_map(|table| &table.0) {
                headers.insert(key.clone(), (level, header));
            }
        }
        let headers = headers.into_values().map(|(level, (name, source))| {
            if let Some(wrong) = self.check_secret(source) {
                // As the user wrote the name: case does not count.
                let table = level.dict.get("headers").and_then(Value::as_dict);
                let mut written = table.into_iter().flat_map(Dict::keys);
                let written = written.find(|key| key.eq_ignore_ascii_case(name.as_str()));
                let key = written.map_or(name.as_str(), String::as_str);
                self.mistake_at(level, &["headers".into(), key.into()], &wrong);
            }
            (name.clone(), source.clone())
        });
        let headers = headers.collect();
        ConnectionOptions {
            headers,
            subprotocols: pick!(chain, subprotocols)
                .get()
                .map_or_else(Vec::new, |names| names.0.clone()),
            heartbeat: pick!(chain, heartbeat.kind)
                .get()
                .map_or(HeartbeatKind::default(), |name| name.0),
            ..ConnectionOptions::default()
        }
    }

    /// What is wrong with a secret that is kept elsewhere. Each is read once per load.
    fn check_secret(&mut self, source: &SecretSource) -> Option<String> {
        if matches!(source, SecretSource::Literal(_)) {
            return None;
        }
        let variable = self.variable;
        let known = self.checked.get(source).cloned();
        known.unwrap_or_else(|| {
            let wrong = source.value(variable).err();
            self.checked.insert(source.clone(), wrong.clone());
            wrong
        })
    }

    fn policy(&mut self, chain: &Chain<'_>, kind: HeartbeatKind) -> Policy {
        let usual = HeartbeatPolicy::default();
        let interval = pick!(chain, ping_interval)
            .get()
            .map_or(usual.interval, |i| i.0);
        let heartbeat = HeartbeatPolicy {
            interval,
            pong_timeout: pick!(chain, pong_timeout)
                .get()
                .map_or(interval * 2, |d| d.0),
            max_retries: pick!(chain, max_retry_limit)
                .get()
                .map_or(usual.max_retries, |r| r.0),
            mode: match kind {
                HeartbeatKind::Ping => PingMode::Always,
                HeartbeatKind::None => PingMode::Never,
            },
        };
        let usual = Timeouts::default();
        let timeouts = Timeouts {
            connect: pick!(chain, connect_timeout)
                .get()
                .map_or(usual.connect, |d| d.0),
            dns: pick!(chain, dns_timeout).get().map_or(usual.dns, |d| d.0),
            tcp: pick!(chain, tcp_timeout).get().map_or(usual.tcp, |d| d.0),
            proxy: usual.proxy,
            tls: usual.tls,
            upgrade: pick!(chain, upgrade_timeout)
                .get()
                .map_or(usual.upgrade, |d| d.0),
            write: pick!(chain, write_timeout)
                .get()
                .map_or(usual.write, |d| d.0),
            close: pick!(chain, close_timeout)
                .get()
                .map_or(usual.close, |d| d.0),
        };
        let size = pick!(chain, max_message_size).get();
        let buckets = pick!(chain, rtt_buckets).get();
        Policy {
            heartbeat,
            reconnect: self.reconnect(chain),
            timeouts,
            max_message_size: size.map_or(16 << 20, |size| size.0),
            on_open: pick!(chain, on_open).get().cloned().unwrap_or_default(),
            rtt_buckets: buckets.map_or_else(
                || self.shared.default_buckets.clone(),
                |bounds| Buckets::new(bounds.0.as_slice()),
            ),
            path_idle_timeout: pick!(chain, path_idle_timeout).get().map(|d| d.0),
            fan_out: None,
        }
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
