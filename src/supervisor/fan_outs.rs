//! Keeps the targets that fan out at the addresses their names have: looks each up again and
//! again, and says what is to be held when that has changed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::fan_out::{Addresses, assign, expand};
use crate::config::{self, IpFamily, ResolveTo, Target};
use crate::os;
use crate::transport::resolver::resolve;

/// Addresses of one name that are held.
const ADDRESSES: usize = 256;

/// A name that never had an address is looked up again after this time, if its interval is longer.
const SOON: Duration = Duration::from_secs(5);

/// An interval is varied by this part of it, so that names do not line up.
const JITTER: f64 = 0.1;

/// Looks up a name's addresses of a family.
pub(crate) type LookUp = Arc<
    dyn Fn(Box<str>, IpFamily) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync,
>;

/// The system's resolver.
pub(crate) fn system_look_up() -> LookUp {
    // Any port does: only the addresses are used.
    Arc::new(|host, family| Box::pin(async move { resolve(&host, 0, family).await }))
}

/// The targets that fan out, by name, and where they are.
pub(crate) struct FanOuts {
    look_up: LookUp,
    by_name: BTreeMap<Arc<str>, FanOut>,
    /// Targets that do not fan out; empty as long as none does.
    others: Vec<Arc<Target>>,
    /// Names to look up, in order of time: those of `by_name` that have a `due`.
    due: BTreeSet<(Instant, Arc<str>)>,
    /// At most one lookup per name that is wanted, and those of names that were, which end by
    /// their timeout.
    under_way: FuturesUnordered<BoxFuture<'static, LookedUp>>,
    /// Numbers lookups.
    asked: u64,
}

struct FanOut {
    target: Arc<Target>,
    place: Place,
    addresses: Addresses,
    expanded: Vec<Arc<Target>>,
    /// The lookup under way.
    asking: Option<u64>,
    /// When the next one begins.
    due: Option<Instant>,
    /// The last lookup failed, and that has been said.
    failing: bool,
    /// The name has too many addresses, and that has been said.
    too_many: bool,
}

/// Where a target's addresses come from.
#[derive(PartialEq, Eq)]
enum Place {
    /// Its name is looked up.
    Name { host: Box<str>, family: IpFamily },
    /// It says so itself.
    Given(Vec<Option<ResolveTo>>),
}

/// How a lookup went.
struct LookedUp {
    name: Arc<str>,
    number: u64,
    found: Result<Vec<SocketAddr>, String>,
}

impl Place {
    fn of(target: &Target) -> Self {
        let address = &target.connection.address;
        if !address.resolve.is_empty() {
            let given = address.resolve.iter().take(ADDRESSES);
            return Self::Given(given.cloned().map(Some).collect());
        }
        let place = config::Place::parse(target.url.expose());
        match place {
            Ok(place) if place.unix.is_none() && place.host.parse::<IpAddr>().is_err() => {
                Self::Name {
                    host: place.host.into(),
                    family: address.family,
                }
            }
            // What has no host has been refused; if not, its dial says what is wrong.
            Ok(_) | Err(_) => Self::Given(vec![None]),
        }
    }
}

impl FanOuts {
    pub(crate) fn new(look_up: LookUp) -> Self {
        Self {
            look_up,
            by_name: BTreeMap::new(),
            others: Vec::new(),
            due: BTreeSet::new(),
            under_way: FuturesUnordered::new(),
            asked: 0,
        }
    }

    /// Takes over the configuration's targets. Returns what is to be held: those that do not fan
    /// out, and the addresses that are known of those that do. New names are looked up by
    /// [`FanOuts::turn`].
    pub(crate) fn set(&mut self, targets: &[Arc<Target>]) -> Vec<Arc<Target>> {
        let (fan_outs, others): (Vec<_>, Vec<_>) = targets
            .iter()
            .cloned()
            .partition(|target| target.policy.fan_out.is_some());
        if fan_outs.is_empty() {
            self.stop();
            return others;
        }
        self.others = others;
        let mut before = std::mem::take(&mut self.by_name);
        self.due.clear();
        for target in fan_outs {
            let name = target.identity.name.clone();
            let place = Place::of(&target);
            let mut fan_out = FanOut::new(before.remove(&name), target, place);
            fan_out.expand(&taken(&self.others));
            self.by_name.insert(name.clone(), fan_out);
            self.schedule(&name);
        }
        self.desired()
    }

    /// Looks names up as they fall due, until what is to be held has changed: all of it. Nothing
    /// is lost when it is dropped while it waits; call it again and again.
    pub(crate) async fn turn(&mut self) -> Vec<Arc<Target>> {
        loop {
            let due = self.due.first().map(|(at, _)| *at);
            let is_due = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let changed = tokio::select! {
                Some(looked_up) = self.under_way.next() => self.take(looked_up),
                () = is_due => {
                    self.ask_what_is_due();
                    false
                }
            };
            if changed {
                return self.desired();
            }
        }
    }

    /// Ends every lookup and forgets every target.
    pub(crate) fn stop(&mut self) {
        self.by_name.clear();
        self.others = Vec::new();
        self.due.clear();
        self.under_way.clear();
    }

    fn desired(&self) -> Vec<Arc<Target>> {
        let expanded = self.by_name.values().flat_map(|fan_out| &fan_out.expanded);
        self.others.iter().chain(expanded).cloned().collect()
    }

    /// Puts `name` down for its next lookup, if it has one to come.
    fn schedule(&mut self, name: &Arc<str>) {
        if let Some(at) = self.by_name.get(name).and_then(|fan_out| fan_out.due) {
            self.due.insert((at, name.clone()));
        }
    }

    fn ask_what_is_due(&mut self) {
        let now = Instant::now();
        while let Some((at, _)) = self.due.first()
            && *at <= now
            && let Some((_, name)) = self.due.pop_first()
        {
            let Some(fan_out) = self.by_name.get_mut(&name) else {
                continue;
            };
            fan_out.due = None;
            let Place::Name { host, family } = &fan_out.place else {
                continue;
            };
            self.asked += 1;
            let number = self.asked;
            fan_out.asking = Some(number);
            let limit = fan_out.target.policy.timeouts.dns;
            let answer = (self.look_up)(host.clone(), *family);
            self.under_way.push(Box::pin(async move {
                let found = match timeout(limit, answer).await {
                    Ok(found) => found.map_err(|error| os::words(&error)),
                    Err(_) => Err(format!("no answer within {limit:?} (dns_timeout)")),
                };
                LookedUp {
                    name,
                    number,
                    found,
                }
            }));
        }
    }

    /// Takes over what a lookup found. Whether something else is to be held now.
    fn take(&mut self, looked_up: LookedUp) -> bool {
        let LookedUp {
            name,
            number,
            found,
        } = looked_up;
        let Some(fan_out) = self.by_name.get_mut(&name) else {
            return false;
        };
        // Another name, meanwhile.
        if fan_out.asking != Some(number) {
            return false;
        }
        fan_out.asking = None;
        let changed = match found {
            Ok(found) if !found.is_empty() => fan_out.found(found),
            Ok(_) => fan_out.failed("the name has no address"),
            Err(why) => fan_out.failed(&why),
        };
        if changed {
            fan_out.expand(&taken(&self.others));
        }
        fan_out.due = Some(Instant::now() + fan_out.pause());
        self.schedule(&name);
        changed
    }
}

/// The names of `others`, as far as one that fans out could come to have one of them.
fn taken(others: &[Arc<Target>]) -> HashSet<Arc<str>> {
    let names = others.iter().map(|target| &target.identity.name);
    let alike = |name: &&Arc<str>| name.ends_with([']', '\'']);
    names.filter(alike).cloned().collect()
}

impl FanOut {
    /// A target that is new or of which all is kept that its place does not change.
    fn new(before: Option<Self>, target: Arc<Target>, place: Place) -> Self {
        let now = Instant::now();
        let mut fan_out = match before {
            Some(before) if before.place == place => {
                let hurried = before.target.policy.fan_out != target.policy.fan_out;
                let mut fan_out = Self { target, ..before };
                if let Some(due) = fan_out.due.filter(|_| hurried) {
                    fan_out.due = Some(due.min(now + fan_out.pause()));
                }
                return fan_out;
            }
            before => {
                let (addresses, expanded) = before
                    .map(|before| (before.addresses, before.expanded))
                    .unwrap_or_default();
                Self {
                    target,
                    place,
                    addresses,
                    expanded,
                    asking: None,
                    due: None,
                    failing: false,
                    too_many: false,
                }
            }
        };
        match &fan_out.place {
            Place::Given(given) => fan_out.addresses = assign(&fan_out.addresses, given),
            Place::Name { .. } => {
                fan_out.addresses.clear();
                fan_out.due = Some(now);
            }
        }
        fan_out
    }

    fn expand(&mut self, taken: &HashSet<Arc<str>>) {
        self.expanded = expand(&self.target, &self.addresses, &self.expanded, taken);
    }

    fn has_addresses(&self) -> bool {
        self.addresses.values().any(Option::is_some)
    }

    /// Until the next lookup.
    fn pause(&self) -> Duration {
        let interval = self.target.policy.fan_out.unwrap_or(SOON);
        let interval = match self.has_addresses() {
            true => interval,
            false => interval.min(SOON),
        };
        interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * rand::random::<f64>())
    }

    /// The name has these addresses. Whether that is new.
    fn found(&mut self, mut found: Vec<SocketAddr>) -> bool {
        let name = &*self.target.identity.name;
        if self.failing {
            self.failing = false;
            info!(
                event = "addresses_known",
                target = name,
                "{name}: its name resolves again"
            );
        }
        // In this order, for resolvers turn theirs: after a restart each has its index again.
        found.sort_unstable();
        found.dedup();
        let too_many = found.len() > ADDRESSES;
        if too_many && !self.too_many {
            let count = found.len();
            warn!(
                event = "addresses_too_many",
                target = name,
                "{name}: its name has {count} addresses; the first {ADDRESSES} of them are held"
            );
        }
        self.too_many = too_many;
        found.truncate(ADDRESSES);

        let found: Vec<_> = found
            .iter()
            .map(|address| Some(resolve_to(address)))
            .collect();
        let assigned = assign(&self.addresses, &found);
        let new = |(index, address): &(&u32, &Option<ResolveTo>), before: &Addresses| {
            before.get(index) != Some(*address)
        };
        let gone = self.addresses.iter().filter(|one| new(one, &assigned));
        for address in gone.filter_map(|(_, address)| address.as_ref()) {
            let address = shown(address);
            info!(
                event = "address_gone",
                target = name,
                address,
                "{name}: address {address} is gone from DNS"
            );
        }
        let came = assigned.iter().filter(|one| new(one, &self.addresses));
        for (index, address) in came.filter_map(|(i, a)| Some((i, a.as_ref()?))) {
            let address = shown(address);
            info!(
                event = "address_new",
                target = name,
                address,
                address_index = index,
                "{name}: new address {address} (index {index})"
            );
        }
        let changed = assigned != self.addresses;
        self.addresses = assigned;
        changed
    }

    /// The lookup failed: the addresses stay. Without one, what the url says is held as index 0,
    /// so that its dial fails in its turn, and shows. Whether that is new.
    fn failed(&mut self, why: &str) -> bool {
        let name = &*self.target.identity.name;
        if !self.failing {
            self.failing = true;
            let host = match &self.place {
                Place::Name { host, .. } => host,
                Place::Given(_) => "its name",
            };
            let then = match self.addresses.values().flatten().count() {
                0 => "it has no address yet".to_owned(),
                1 => "the address it has is kept".to_owned(),
                n => format!("the {n} addresses it has are kept"),
            };
            warn!(
                event = "addresses_unknown",
                target = name,
                error = why,
                "{name}: cannot resolve {host}: {why}; {then}"
            );
        }
        let changed = self.addresses.is_empty();
        if changed {
            self.addresses.insert(0, None);
        }
        changed
    }
}

fn resolve_to(address: &SocketAddr) -> ResolveTo {
    let zone = match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => Some(v6.scope_id().to_string().into()),
        SocketAddr::V4(_) | SocketAddr::V6(_) => None,
    };
    ResolveTo::Ip {
        ip: address.ip(),
        zone,
        port: None,
    }
}

fn shown(address: &ResolveTo) -> String {
    match address {
        ResolveTo::Ip { ip, zone, port } => {
            let zone = zone
                .as_ref()
                .map_or(String::new(), |zone| format!("%{zone}"));
            match (ip, port) {
                (_, None) => format!("{ip}{zone}"),
                (IpAddr::V4(_), Some(port)) => format!("{ip}:{port}"),
                (IpAddr::V6(_), Some(port)) => format!("[{ip}{zone}]:{port}"),
            }
        }
        ResolveTo::Unix(path) => format!("unix:{}", path.display()),
    }
}

#[cfg(test)]
mod tests;
