//! What is allowed but hardly meant.

use std::sync::Arc;
use std::time::Duration;

use figment::value::{Dict, Value};

use super::Resolver;
use crate::config::chain::Chain;
use crate::config::duration::format_duration;
use crate::config::leaf::WsUrl;
use crate::config::{ConnectionOptions, Policy, ProxyChoice, ProxyKind};
use crate::proto::heartbeat::PingMode;

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
    /// Pings that are too rare for the path: interval and idle timeout.
    too_slow: Vec<((Duration, Duration), Concerned)>,
    unverified: Concerned,
    unverified_proxy: Concerned,
    useless_tls: Concerned,
    no_variable: Concerned,
}

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
        let too_slow = self.too_slow.iter().map(|((interval, idle), concerned)| {
            concerned.say(&format!(
                "a ping_interval of {} is not below half of the path_idle_timeout of {}: one \
                 lost ping and the path may cut the connection; ping more often than every {}",
                format_duration(*interval),
                format_duration(*idle),
                format_duration(*idle / 2),
            ))
        });
        let others = [
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
            self.no_variable.say(
                "proxy = \"env\", but none of HTTPS_PROXY, HTTP_PROXY and ALL_PROXY is set: no \
                 proxy is used",
            ),
        ];
        let lines: Vec<String> = too_slow.chain(others).flatten().collect();
        lines.into_iter()
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
        let (interval, idle) = (policy.heartbeat.interval, policy.path_idle_timeout);
        if let Some(idle) = idle
            && interval >= idle / 2
            && policy.heartbeat.mode != PingMode::Never
        {
            let all = &mut self.warnings.too_slow;
            let same = all.iter_mut().find(|slow| slow.0 == (interval, idle));
            match same {
                Some((_, concerned)) => concerned.add(name),
                None => {
                    let mut concerned = Concerned::default();
                    concerned.add(name);
                    all.push(((interval, idle), concerned));
                }
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
        let [single, forced, own, _] = chain.levels;
        let has_tls = [single, forced, own].into_iter().flatten().any(|level| {
            let table = level.dict.get("tls").and_then(Value::as_dict);
            table.is_some_and(|table: &Dict| !table.is_empty())
        });
        if has_tls && !may_be_secure && !tls_proxy {
            self.warnings.useless_tls.add(name);
        }
        if connection.proxy == ProxyChoice::Environment {
            let set = |variable: &str| (self.variable)(variable).is_some_and(|v| !v.is_empty());
            if !PROXY_VARIABLES.iter().any(|variable| set(variable)) {
                self.warnings.no_variable.add(name);
            }
        }
    }
}
