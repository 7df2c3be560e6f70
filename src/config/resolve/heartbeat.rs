//! What keeps a connection alive, from the tables that say so.

use std::sync::Arc;
use std::time::Duration;

use super::Resolver;
use crate::config::chain::{Chain, HeartbeatTables, Picked};
use crate::config::heartbeat::{Broker, Kind, Topic};
use crate::config::layer::{Step, quoted};
use crate::config::leaf::{Member, Positive, Sourced, Use, WsUrl};
use crate::config::raw;
use crate::config::read::Read;
use crate::config::{Heartbeat, Secret, SecretSource};
use crate::dialect::mqtt;
use crate::dialect::pattern::Pattern;

/// What the tables have for `heartbeat.key`.
macro_rules! of {
    ($tables:expr, $key:ident) => {
        $tables.pick(|table| &table.$key)
    };
}

impl Resolver<'_, '_> {
    pub(super) fn heartbeat(&mut self, chain: &Chain<'_>, url: &WsUrl) -> Heartbeat {
        let streams = url.place.streams;
        let usual = || match Kind::of_url(streams) {
            Kind::Sse => Heartbeat::Sse,
            _ => Heartbeat::Ping,
        };
        let Some(tables) = chain.heartbeat(streams) else {
            return usual(); // a kind that could not be read was reported
        };
        if let (Some(giver), false) = (tables.giver, tables.kind.fits(streams)) {
            let kind = tables.kind.as_str();
            let message = match streams {
                true => format!(
                    "`{kind}` is spoken over a WebSocket, and the url is an event stream; write \
                     ws:// or wss:// there, or remove the kind"
                ),
                false => "`sse` is of event streams, and the url is a WebSocket; write http:// or \
                          https:// there, or another kind"
                    .to_owned(),
            };
            self.mistake_at(giver, &["heartbeat".into(), "kind".into()], &message);
            return usual();
        }
        self.misplaced(chain, &tables);
        if !self.complete(chain, &tables) {
            return usual();
        }
        self.built(&tables).unwrap_or_else(usual)
    }

    /// Reports keys of another kind.
    fn misplaced(&mut self, chain: &Chain<'_>, tables: &HeartbeatTables<'_>) {
        let kind = tables.kind;
        for level in &tables.levels {
            // Defaults that leave the kind to the target may be meant for others.
            let said_by = tables.giver.is_some_and(|giver| !chain.is_default(giver));
            if said_by && chain.is_default(level) {
                continue;
            }
            let table = level
                .dict
                .get("heartbeat")
                .and_then(|table| table.as_dict());
            for key in table.into_iter().flat_map(|table| table.keys()) {
                let known = raw::Heartbeat::KEYS.iter().any(|known| known.name == key);
                if !known || key == "kind" || kind.keys().contains(&key.as_str()) {
                    continue;
                }
                let takes = |kind: Kind| kind.keys().contains(&key.as_str());
                let takers = Kind::list(takes);
                let alone = Kind::ALL.into_iter().filter(|kind| takes(*kind)).count() == 1;
                let message = match tables.giver {
                    Some(_) => format!(
                        "belongs to {takers}, and the kind here is `{}`; remove it",
                        kind.as_str()
                    ),
                    None if alone => format!("belongs to {takers}; add kind = \"{takers}\""),
                    None => format!("belongs to {takers}; add the `kind` that is meant"),
                };
                self.mistake_at(level, &["heartbeat".into(), key.as_str().into()], &message);
            }
        }
    }

    /// Whether nothing is missing that the kind cannot do without; reported if not.
    fn complete(&mut self, chain: &Chain<'_>, tables: &HeartbeatTables<'_>) -> bool {
        let Some(level) = tables.giver.or(chain.levels[2]) else {
            return true;
        };
        let mut complete = true;
        for (key, what) in tables.kind.required() {
            let mut levels = tables.levels.iter();
            let there = levels.any(|level| {
                let table = level
                    .dict
                    .get("heartbeat")
                    .and_then(|table| table.as_dict());
                table.is_some_and(|table| table.contains_key(*key))
            });
            if !there {
                let kind = tables.kind.as_str();
                let message = format!("the kind `{kind}` needs `{key}`, {what}");
                self.mistake_at(level, &["heartbeat".into()], &message);
                complete = false;
            }
        }
        complete
    }

    /// `None` if something could not be read, which was reported.
    fn built(&mut self, tables: &HeartbeatTables<'_>) -> Option<Heartbeat> {
        Some(match tables.kind {
            Kind::Ping => Heartbeat::Ping,
            Kind::None => Heartbeat::None,
            Kind::Sse => Heartbeat::Sse,
            Kind::SignalR => Heartbeat::SignalR,
            Kind::Message => {
                let send = of!(tables, send).map(|template| &template.0);
                Heartbeat::Message {
                    send: self.kept(send, "send", Use::Template)?,
                    expect: of!(tables, expect).get()?.0.clone(),
                }
            }
            Kind::Expect => Heartbeat::Expect(self.fixed(tables)?),
            Kind::ActionCable => Heartbeat::ActionCable {
                channels: of!(tables, channels).get().map_or_else(Vec::new, |c| {
                    c.0.iter().map(identifier).map(Secret::new).collect()
                }),
            },
            Kind::EngineIo => {
                let namespace = of!(tables, namespace).get().map(|name| name.0.clone());
                let payload = of!(tables, payload).map(|payload| &payload.0);
                if let (Picked::Set(level, _), Some("")) = (&payload, namespace.as_deref()) {
                    let message = "is sent to a namespace, and `namespace` says none; remove one";
                    self.mistake_at(level, &["heartbeat".into(), "payload".into()], message);
                }
                let payload = self.kept(payload, "payload", Use::Object);
                Heartbeat::EngineIo { namespace, payload }
            }
            Kind::GraphqlTransportWs => {
                let payload = of!(tables, payload).map(|payload| &payload.0);
                Heartbeat::GraphqlTransportWs {
                    payload: self.kept(payload, "payload", Use::Object),
                    subscription: of!(tables, subscription).get().map(|text| text.0.clone()),
                }
            }
            Kind::Phoenix => {
                let payload = of!(tables, payload).map(|payload| &payload.0);
                let topics = self.topics(tables).into_iter().map(|member| Topic {
                    name: member.name.clone(),
                    payload: member.parameters.clone(),
                });
                let topics = topics.collect();
                Heartbeat::Phoenix {
                    topics,
                    payload: self.kept(payload, "payload", Use::Object),
                }
            }
            Kind::Stomp => Heartbeat::Stomp(self.broker(tables)),
            Kind::Mqtt => {
                let version = of!(tables, version).get().copied().unwrap_or_default();
                let (login, password) = (of!(tables, login), of!(tables, password));
                if let (Picked::Absent, Picked::Set(level, _)) = (login, password)
                    && version == mqtt::Version::V311
                {
                    let message = "needs a `login`: MQTT 3.1.1 has no password without a user's \
                                   name (section 3.1.2.9)";
                    self.mistake_at(level, &["heartbeat".into(), "password".into()], message);
                }
                Heartbeat::Mqtt {
                    version,
                    client_id: of!(tables, client_id).get().map(|id| id.0.clone()),
                    broker: self.broker(tables),
                }
            }
            Kind::JsonRpc => {
                let params = of!(tables, params).map(|params| &params.0);
                Heartbeat::JsonRpc {
                    method: of!(tables, method).get()?.0.clone(),
                    params: self.kept(params, "params", Use::Params),
                }
            }
        })
    }

    /// A value that may be kept elsewhere, judged.
    fn kept(
        &mut self,
        picked: Picked<'_, Sourced>,
        key: &str,
        purpose: Use,
    ) -> Option<SecretSource> {
        match picked {
            Picked::Set(level, sourced) => {
                let key = ["heartbeat".into(), key.into()];
                Some(self.source(level, &key, sourced, purpose))
            }
            Picked::Bad | Picked::Absent => None,
        }
    }

    /// A pattern of messages that nothing of ours comes before.
    fn fixed(&mut self, tables: &HeartbeatTables<'_>) -> Option<Pattern> {
        let Picked::Set(level, expected) = of!(tables, expect) else {
            return None;
        };
        if let Err(wrong) = expected.0.check_fixed() {
            self.mistake_at(level, &["heartbeat".into(), "expect".into()], &wrong);
        }
        Some(expected.0.clone())
    }

    fn broker(&mut self, tables: &HeartbeatTables<'_>) -> Arc<Broker> {
        let password = of!(tables, password).map(|password| &password.0);
        let topics = self.topics(tables);
        Arc::new(Broker {
            vhost: of!(tables, vhost).get().map(|host| host.0.clone()),
            login: of!(tables, login).get().map(|login| login.0.clone()),
            password: self.kept(password, "password", Use::Passcode),
            topics: topics.iter().map(|topic| topic.name.clone()).collect(),
        })
    }

    /// Topics as the kind takes them.
    fn topics<'a>(&mut self, tables: &HeartbeatTables<'a>) -> Vec<&'a Member> {
        let Picked::Set(level, topics) = of!(tables, topics) else {
            return Vec::new();
        };
        let mut good: Vec<&Member> = Vec::with_capacity(topics.0.len());
        for (index, topic) in topics.0.iter().enumerate() {
            let kind = tables.kind;
            let name = topic.name.escape_debug();
            let wrong = if topic.parameters.is_some() && kind != Kind::Phoenix {
                Some(format!(
                    "parameters are for `phoenix`; `{}` takes the name alone: {}",
                    kind.as_str(),
                    quoted(&topic.name)
                ))
            } else if kind == Kind::Mqtt && !is_filter(&topic.name) {
                Some(format!(
                    "`{name}` is no topic filter: `#` only as the last level, `+` only as a whole \
                     level (MQTT section 4.7)"
                ))
            } else if good.iter().any(|before| before.name == topic.name) {
                Some(format!("`{name}` is there twice"))
            } else {
                None
            };
            match wrong {
                Some(wrong) => {
                    let key = ["heartbeat".into(), "topics".into(), Step::Index(index)];
                    self.mistake_at(level, &key, &wrong);
                }
                None => good.push(topic),
            }
        }
        good
    }

    /// The longest silence, of a heartbeat whose peers beat.
    pub(super) fn max_silence(
        &mut self,
        chain: &Chain<'_>,
        picked: Picked<'_, Positive>,
        kind: Kind,
    ) -> Option<Duration> {
        let Picked::Set(level, limit) = picked else {
            return None;
        };
        if kind.peer_beats() {
            return Some(limit.0);
        }
        if !chain.is_default(level) {
            let message = format!(
                "the heartbeat `{}` has no beats that the server begins; remove this, or choose a \
                 heartbeat that has: {}",
                kind.as_str(),
                Kind::list(Kind::peer_beats)
            );
            self.mistake_at(level, &["max_silence".into()], &message);
        }
        None
    }
}

/// What a channel is called on the wire: JSON, the channel first as Rails' own client has it.
fn identifier(channel: &Member) -> Box<str> {
    let name = serde_json::Value::from(&*channel.name);
    let rest = channel.parameters.as_ref();
    // `{"a":1}` without its first brace.
    match rest.and_then(|rest| rest.expose().strip_prefix('{')) {
        Some(rest) => format!("{{\"channel\":{name},{rest}").into(),
        None => format!("{{\"channel\":{name}}}").into(),
    }
}

/// MQTT 3.1.1 and 5, section 4.7.1.
fn is_filter(topic: &str) -> bool {
    let last = topic.split('/').count() - 1;
    let mut levels = topic.split('/').enumerate();
    levels.all(|(index, level)| match level {
        "#" => index == last,
        "+" => true,
        _ => !level.contains(['#', '+']),
    })
}
