//! What is allowed but hardly meant.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use figment::value::{Dict, Value};

use super::Resolver;
use crate::config::chain::{Chain, Level, OWN_TIMES, hears_defaults};
use crate::config::duration::format_duration;
use crate::config::heartbeat::Kind;
use crate::config::leaf::WsUrl;
use crate::config::{ConnectionOptions, Heartbeat, Policy, ProxyChoice, ProxyKind};
use crate::dialect::stomp;
use crate::proto::heartbeat::PingMode;

/// ASP.NET Core's default ClientTimeoutInterval.
const SIGNALR_PATIENCE: Duration = Duration::from_secs(30);

/// Any of them makes `proxy = "env"` mean something; curl reads the same.
const PROXY_VARIABLES: [&str; 6] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Each said once, of the first target it concerns.
#[derive(Default)]
pub(super) struct Warnings {
    /// Beats that are too rare for the path.
    too_slow: Vec<(TooSlow, Concerned)>,
    /// Keys of targets' own that do nothing for their kind.
    useless: Vec<((&'static str, Kind), Concerned)>,
    /// Of each of [`OWN_TIMES`]: the targets whose protocol does not hear the defaults, and whether
    /// any target does.
    unheard: [(Concerned, bool); OWN_TIMES.len()],
    /// `max_silence`, the time between the server's beats, and whose beats they are.
    too_strict: Vec<((Duration, Duration, Kind), Concerned)>,
    /// Intervals after which a SignalR server has given us up.
    too_rare: Vec<(Duration, Concerned)>,
    /// Who has logged in where as whom, over MQTT.
    clients: HashMap<(Box<str>, Box<str>), Arc<str>>,
    same_client: Vec<SameClient>,
    /// Answers that any beat may have.
    any_answer: Concerned,
    unverified: Concerned,
    unverified_proxy: Concerned,
    useless_tls: Concerned,
    useless_tls_of_stream: Concerned,
    no_variable: Concerned,
}

/// Two targets that are one client to their broker.
struct SameClient {
    name: Arc<str>,
    first: Arc<str>,
    id: Box<str>,
}

#[derive(PartialEq)]
struct TooSlow {
    interval: Duration,
    /// The kind whose own interval it is, if the target sets none.
    of: Option<Kind>,
    idle: Duration,
}

/// Keys that mean something to some kinds of heartbeat only, and why one means nothing to `kind`.
pub(in crate::config) fn useless(key: &str, kind: Kind) -> Option<String> {
    let name = kind.as_str();
    let streams = kind == Kind::Sse;
    match key {
        "ping_interval" | "pong_timeout" | "max_retry_limit" if !kind.we_beat() => {
            Some(format!("the heartbeat `{name}` sends no beats of ours"))
        }
        "pong_timeout" | "max_retry_limit" => {
            (!kind.is_answered()).then(|| format!("the beats of `{name}` are answered by nobody"))
        }
        "max_silence" => (!kind.peer_beats())
            .then(|| format!("the heartbeat `{name}` has no beats that the server begins")),
        "hello_timeout" => {
            (!kind.has_hello()).then(|| format!("the heartbeat `{name}` has no hello"))
        }
        "max_line" | "max_event" => {
            (!streams).then(|| "it is for event streams; messages have max_message_size".into())
        }
        "max_message_size" => {
            streams.then(|| "an event stream has max_line and max_event instead".into())
        }
        "on_open" | "subprotocols" | "require_subprotocol" => {
            streams.then(|| "an event stream sends nothing, and chooses nothing".into())
        }
        _ => None,
    }
}

/// The keys that are warned about; what else means nothing is a mistake.
const MAY_BE_USELESS: [&str; 7] = [
    "ping_interval",
    "pong_timeout",
    "max_retry_limit",
    "hello_timeout",
    "max_line",
    "max_event",
    "max_message_size",
];

/// The first target that a warning concerns, and how many.
#[derive(Default)]
struct Concerned {
    first: Option<Arc<str>>,
    count: usize,
}

impl Concerned {
    fn add(&mut self, name: &Arc<str>) {
        self.first.get_or_insert_with(|| name.clone());
        self.count += 1;
    }

    /// `target edge-tokyo and 3 more: ..`, if there is any.
    fn say(&self, what: &str) -> Option<String> {
        let first = self.first.as_ref()?;
        let others = match self.count {
            0 | 1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        Some(format!("target {first}{others}: {what}"))
    }
}

impl Warnings {
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let too_slow = self.too_slow.iter().map(|(slow, concerned)| {
            let interval = format_duration(slow.interval);
            let idle = format_duration(slow.idle);
            let half = format_duration(slow.idle / 2);
            concerned.say(&match slow.of {
                None => format!(
                    "a ping_interval of {interval} is not below half of the path_idle_timeout of \
                     {idle}: one lost ping and the path may cut the connection; ping more often \
                     than every {half}"
                ),
                Some(kind) => format!(
                    "the heartbeat `{}` beats every {interval}, which is not below half of the \
                     path_idle_timeout of {idle}: one lost beat and the path may cut the \
                     connection; give the target a ping_interval below {half}",
                    kind.as_str()
                ),
            })
        });
        let useless = self.useless.iter().map(|((key, kind), concerned)| {
            let why = useless(key, *kind)?;
            concerned.say(&format!("{key} has no effect: {why}"))
        });
        let unheard = OWN_TIMES.iter().zip(&self.unheard);
        let unheard = unheard.map(|(key, (concerned, heard))| match heard {
            true => None,
            false => concerned.say(&format!(
                "{key} of [defaults] has no effect: a protocol has its own, unless the target \
                 sets another; write it in [[target]]"
            )),
        });
        let too_strict = self.too_strict.iter();
        let too_strict = too_strict.map(|((silence, beat, kind), concerned)| {
            let (silence, twice) = (format_duration(*silence), format_duration(*beat * 2));
            let (beat, kind) = (format_duration(*beat), kind.as_str());
            concerned.say(&format!(
                "a max_silence of {silence} is not longer than from one beat of `{kind}` to the \
                 next ({beat}): a healthy connection is given up; write {twice} or more"
            ))
        });
        let too_rare = self.too_rare.iter().map(|(interval, concerned)| {
            let interval = format_duration(*interval);
            let limit = format_duration(SIGNALR_PATIENCE);
            concerned.say(&format!(
                "a ping_interval of {interval} is not below the {limit} after which a SignalR \
                 server ends a silent connection (ClientTimeoutInterval); write 15s"
            ))
        });
        let same_client = self.same_client.iter().map(|same| {
            let SameClient { name, first, id } = same;
            let id = id.escape_debug();
            Some(format!(
                "target {name}: is the client `{id}` of the same broker as target {first}: it ends \
                 the connection of one when the other logs in; give each a client_id of its own"
            ))
        });
        let others = [
            self.any_answer.say(
                "answers cannot be told apart, a late one passes for that of the next beat; put \
                 ${seq} into send and expect",
            ),
            self.unverified.say(
                "tls.insecure_skip_verify takes any certificate: anybody on the way can read \
                 and change what is sent; trust the peer's own by tls.ca",
            ),
            self.unverified_proxy.say(
                "proxy_tls.insecure_skip_verify takes any certificate of the proxy: anybody on \
                 the way can read its credentials; trust its own by proxy_tls.ca",
            ),
            self.useless_tls
                .say("has `tls`, which does nothing for ws://; is wss:// meant?"),
            self.useless_tls_of_stream
                .say("has `tls`, which does nothing for http://; is https:// meant?"),
            self.no_variable.say(
                "proxy = \"env\", but none of HTTPS_PROXY, HTTP_PROXY and ALL_PROXY is set: no \
                 proxy is used",
            ),
        ];
        let of_kinds = too_strict.chain(too_rare).chain(same_client);
        let lines = too_slow.chain(useless).chain(unheard).chain(of_kinds);
        let lines = lines.chain(others);
        let lines: Vec<String> = lines.flatten().collect();
        lines.into_iter()
    }
}

/// Those that have this in common.
fn concerned<T: PartialEq>(all: &mut Vec<(T, Concerned)>, what: T) -> &mut Concerned {
    let index = all.iter().position(|(there, _)| *there == what);
    let index = index.unwrap_or_else(|| {
        all.push((what, Concerned::default()));
        all.len() - 1
    });
    &mut all[index].1
}

/// From one beat of ours to the next, if there are any, and whose choice that is, if not the
/// user's.
fn interval(connection: &ConnectionOptions, policy: &Policy) -> Option<(Duration, Option<Kind>)> {
    let kind = connection.heartbeat.kind();
    if !kind.we_beat() {
        return None;
    }
    let Some(timing) = connection.heartbeat.timing(&policy.wishes) else {
        return Some((policy.heartbeat.interval, None));
    };
    let own = timing.heartbeat;
    let whose = policy.wishes.interval.is_none().then_some(kind);
    (own.mode != PingMode::Never).then_some((own.interval, whose))
}

/// From one beat of the server's to the next, where its protocol says so; of STOMP what we ask for.
fn beat_of_server(kind: Kind, policy: &Policy) -> Option<Duration> {
    match kind {
        Kind::ActionCable => Some(Duration::from_secs(3)),
        // The default KeepAliveInterval of ASP.NET Core.
        Kind::SignalR => Some(Duration::from_secs(15)),
        Kind::Stomp => Some(policy.wishes.interval.unwrap_or(stomp::INTERVAL)),
        Kind::Ping
        | Kind::Message
        | Kind::Expect
        | Kind::None
        | Kind::Sse
        // Its server says it when it is there.
        | Kind::EngineIo
        | Kind::GraphqlTransportWs
        | Kind::Phoenix
        | Kind::Mqtt
        | Kind::JsonRpc => None,
    }
}

impl Warnings {
    /// What is hardly meant about the heartbeat of the target `name` at `url`.
    fn of_heartbeat(
        &mut self,
        name: &Arc<str>,
        url: &WsUrl,
        heartbeat: &Heartbeat,
        policy: &Policy,
    ) {
        let kind = heartbeat.kind();
        if let Some(silence) = policy.wishes.max_silence
            && let Some(beat) = beat_of_server(kind, policy)
            && silence <= beat
        {
            concerned(&mut self.too_strict, (silence, beat, kind)).add(name);
        }
        if kind == Kind::SignalR
            && let Some(interval) = policy.wishes.interval
            && interval >= SIGNALR_PATIENCE
        {
            concerned(&mut self.too_rare, interval).add(name);
        }
        if let Heartbeat::Message { expect, .. } = heartbeat
            && !expect.changes()
        {
            self.any_answer.add(name);
        }
        if let Heartbeat::Mqtt {
            client_id: Some(id),
            ..
        } = heartbeat
        {
            let first = self.clients.entry((url.shown.clone(), id.clone()));
            match first {
                Entry::Vacant(entry) => {
                    entry.insert(name.clone());
                }
                Entry::Occupied(entry) => self.same_client.push(SameClient {
                    name: name.clone(),
                    first: entry.get().clone(),
                    id: id.clone(),
                }),
            }
        }
    }
}

impl Resolver<'_, '_> {
    pub(super) fn warn(
        &mut self,
        name: &Arc<str>,
        chain: &Chain<'_>,
        url: &WsUrl,
        connection: &ConnectionOptions,
        policy: &Policy,
    ) {
        let kind = connection.heartbeat.kind();
        if let Some(idle) = policy.path_idle_timeout
            && let Some((interval, of)) = interval(connection, policy)
            && interval >= idle / 2
        {
            let slow = TooSlow { interval, of, idle };
            concerned(&mut self.warnings.too_slow, slow).add(name);
        }
        self.warnings
            .of_heartbeat(name, url, &connection.heartbeat, policy);
        let [single, forced, own, defaults] = chain.levels;
        for (key, (unheard, heard)) in OWN_TIMES.iter().zip(&mut self.warnings.unheard) {
            let has = |level: &Level<'_>| level.dict.contains_key(*key);
            let mut said = [single, forced, own].into_iter().flatten();
            if !defaults.is_some_and(has) || said.any(has) || useless(key, kind).is_some() {
                continue;
            }
            match hears_defaults(key, kind) {
                true => *heard = true,
                false => unheard.add(name),
            }
        }
        for key in MAY_BE_USELESS {
            let mut said = [single, own].into_iter().flatten();
            if said.any(|level| level.dict.contains_key(key)) && useless(key, kind).is_some() {
                concerned(&mut self.warnings.useless, (key, kind)).add(name);
            }
        }
        // A redirect may lead from ws to wss.
        let may_be_secure = url.place.secure || connection.max_redirects > 0;
        if may_be_secure && connection.tls.insecure_skip_verify {
            self.warnings.unverified.add(name);
        }
        let tls_proxy = match &connection.proxy {
            ProxyChoice::Via(proxy) => proxy.kind == ProxyKind::Https,
            ProxyChoice::Environment => true,
            ProxyChoice::Direct => false,
        };
        if tls_proxy && connection.proxy_tls.insecure_skip_verify {
            self.warnings.unverified_proxy.add(name);
        }
        // `[defaults]` speaks of other targets, too; and a proxy may inherit from `tls`.
        let has_tls = [single, forced, own].into_iter().flatten().any(|level| {
            let table = level.dict.get("tls").and_then(Value::as_dict);
            table.is_some_and(|table: &Dict| !table.is_empty())
        });
        if has_tls && !may_be_secure && !tls_proxy {
            match url.place.streams {
                true => self.warnings.useless_tls_of_stream.add(name),
                false => self.warnings.useless_tls.add(name),
            }
        }
        if connection.proxy == ProxyChoice::Environment {
            let set = |variable: &str| (self.variable)(variable).is_some_and(|v| !v.is_empty());
            if !PROXY_VARIABLES.iter().any(|variable| set(variable)) {
                self.warnings.no_variable.add(name);
            }
        }
    }
}
