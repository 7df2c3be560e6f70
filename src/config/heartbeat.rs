//! The heartbeat as it is configured, and the dialect that is made of it at each connection.

mod kind;

use std::sync::Arc;

pub(crate) use self::kind::Kind;

use super::secret::Secrets;
use super::{Secret, SecretSource, Target};
use crate::dialect::pattern::Pattern;
use crate::dialect::{Dialect, Timing, mqtt, stomp};
use crate::dialect::{
    actioncable::ActionCable, engineio::EngineIo, expect::Expect,
    graphql_transport_ws::GraphqlTransportWs, json_rpc::JsonRpc, listener::Listener,
    message::Templates, mqtt::Mqtt, phoenix::Phoenix, signalr::SignalR, stomp::Stomp,
};
use crate::proto::heartbeat::Wishes;

/// What keeps the connection alive, and what is spoken for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) enum Heartbeat {
    /// RFC 6455 pings.
    #[default]
    Ping,
    /// Nothing: hold, never send.
    None,
    /// An event stream, whose server beats. All http(s) urls, and no other.
    Sse,
    /// The server beats with messages like this.
    Expect(Pattern),
    /// A message, and what it is answered with; templates both.
    Message {
        send: SecretSource,
        expect: Pattern,
    },
    ActionCable {
        /// Identifiers in JSON: `{"channel":"ChatChannel","room":5}`.
        channels: Vec<Secret<Box<str>>>,
    },
    EngineIo {
        /// The Socket.IO namespace to join. Default `/`; an empty one is none.
        namespace: Option<Box<str>>,
        /// A JSON object.
        payload: Option<SecretSource>,
    },
    GraphqlTransportWs {
        /// A JSON object.
        payload: Option<SecretSource>,
        subscription: Option<Box<str>>,
    },
    Phoenix {
        topics: Vec<Topic>,
        /// A JSON object: what topics are joined with that have nothing of their own.
        payload: Option<SecretSource>,
    },
    Stomp(Arc<Broker>),
    Mqtt {
        version: mqtt::Version,
        /// Without one a random one is made for each connection.
        client_id: Option<Box<str>>,
        broker: Arc<Broker>,
    },
    SignalR,
    JsonRpc {
        method: Box<str>,
        /// JSON: an array or an object.
        params: Option<SecretSource>,
    },
}

/// A topic of Phoenix to join.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Topic {
    pub(crate) name: Box<str>,
    /// Its own join payload: a JSON object.
    pub(crate) payload: Option<Secret<Box<str>>>,
}

/// How a message broker is entered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Broker {
    /// STOMP's `host`. Default the URL's host.
    pub(crate) vhost: Option<Box<str>>,
    pub(crate) login: Option<Secret<Box<str>>>,
    pub(crate) password: Option<SecretSource>,
    /// Destinations or filters to subscribe to.
    pub(crate) topics: Vec<Box<str>>,
}

impl Heartbeat {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Ping => Kind::Ping,
            Self::None => Kind::None,
            Self::Sse => Kind::Sse,
            Self::Expect(_) => Kind::Expect,
            Self::Message { .. } => Kind::Message,
            Self::ActionCable { .. } => Kind::ActionCable,
            Self::EngineIo { .. } => Kind::EngineIo,
            Self::GraphqlTransportWs { .. } => Kind::GraphqlTransportWs,
            Self::Phoenix { .. } => Kind::Phoenix,
            Self::Stomp(_) => Kind::Stomp,
            Self::Mqtt { .. } => Kind::Mqtt,
            Self::SignalR => Kind::SignalR,
            Self::JsonRpc { .. } => Kind::JsonRpc,
        }
    }

    /// How the protocol beats before its peer has said anything of it; `None` of RFC 6455's pings
    /// and of no heartbeat.
    pub(crate) fn timing(&self, wishes: &Wishes) -> Option<Timing> {
        // Neither secrets nor patterns have a part in it.
        let pattern = || Pattern::Regex(".".into());
        let dialect = match self {
            Self::Ping | Self::None => return None,
            Self::Sse => Dialect::Sse(Listener),
            Self::Expect(_) => Dialect::Expect(Expect::new(&pattern()).ok()?),
            Self::Message { .. } => Dialect::Message(Templates::new("", &pattern(), 0).ok()?),
            Self::ActionCable { .. } => Dialect::ActionCable(ActionCable::new(Vec::new())),
            Self::EngineIo { .. } => Dialect::EngineIo(EngineIo::new(None, None)),
            Self::GraphqlTransportWs { .. } => {
                Dialect::GraphqlTransportWs(GraphqlTransportWs::new(None, None))
            }
            Self::Phoenix { .. } => Dialect::Phoenix(Phoenix::new(Vec::new())),
            // Negotiated: what we offer and ask for.
            Self::Stomp(_) => {
                return Some(Timing {
                    heartbeat: wishes.telling(stomp::INTERVAL),
                    max_silence: Some(wishes.max_silence.unwrap_or(stomp::INTERVAL * 2)),
                });
            }
            Self::Mqtt { version, .. } => Dialect::Mqtt(Mqtt::new(mqtt::Login {
                version: *version,
                client_id: "".into(),
                username: None,
                password: None,
                topics: Vec::new(),
            })),
            Self::SignalR => Dialect::SignalR(SignalR::new()),
            Self::JsonRpc { method, .. } => Dialect::JsonRpc(JsonRpc::new(method, None)),
        };
        Some(dialect.timing(wishes))
    }

    /// What of it must not be shown when a peer repeats it. What cannot be read was not sent.
    pub(super) fn add_secrets(&self, secrets: &mut Secrets) {
        let mut message = |source: &SecretSource| {
            if let Ok(text) = source.text() {
                secrets.message(text.expose());
                secrets.json(text.expose());
            }
        };
        match self {
            Self::Ping | Self::None | Self::Sse | Self::Expect(_) | Self::SignalR => {}
            Self::Message { send, .. } => message(send),
            Self::EngineIo { payload, .. }
            | Self::GraphqlTransportWs { payload, .. }
            | Self::JsonRpc {
                params: payload, ..
            } => payload.iter().for_each(message),
            Self::Phoenix { topics, payload } => {
                payload.iter().for_each(message);
                let own = topics.iter().filter_map(|topic| topic.payload.as_ref());
                own.for_each(|payload| secrets.json(payload.expose()));
            }
            Self::ActionCable { channels } => {
                for identifier in channels {
                    secrets.parameters(identifier.expose());
                }
            }
            Self::Stomp(broker) | Self::Mqtt { broker, .. } => {
                let login = broker.login.as_ref().map(|login| &**login.expose());
                let password = broker.password.as_ref().map(SecretSource::text);
                match password {
                    Some(Ok(password)) => {
                        secrets.basic(login.unwrap_or_default(), password.expose());
                    }
                    Some(Err(_)) | None => secrets.header(login.unwrap_or_default()),
                }
            }
        }
    }

    /// The dialect of a new connection of `target`, its secrets read now; `None` where there is
    /// nothing to speak. `nonce` makes this connection's beats its own.
    pub(crate) fn dialect(
        &self,
        target: &Target,
        nonce: u32,
    ) -> Result<Option<Box<Dialect>>, String> {
        let text = |key: &str, source: &SecretSource| {
            let text = source.text();
            text.map_err(|error| format!("heartbeat.{key}: {error}"))
        };
        let json = |key: &str, source: &Option<SecretSource>| match source {
            None => Ok(None),
            Some(source) => parsed(key, text(key, source)?.expose()).map(Some),
        };
        let login = |broker: &Broker| broker.login.as_ref().map(|login| login.expose().clone());
        let password = |broker: &Broker| match &broker.password {
            None => Ok(None),
            Some(source) => {
                text("password", source).map(|text| Some(text.expose().clone().into_boxed_str()))
            }
        };
        Ok(Some(Box::new(match self {
            Self::Ping | Self::None => return Ok(None),
            Self::Sse => Dialect::Sse(Listener),
            Self::Expect(pattern) => {
                let speaker = Expect::new(pattern);
                Dialect::Expect(speaker.map_err(|wrong| format!("heartbeat.expect: {wrong}"))?)
            }
            Self::Message { send, expect } => {
                let send = text("send", send)?;
                // Its file may have changed since the configuration was read.
                let speaker = Templates::new(send.expose(), expect, nonce);
                Dialect::Message(speaker.map_err(|wrong| format!("heartbeat: {wrong}"))?)
            }
            Self::ActionCable { channels } => {
                let channels = channels.iter().map(|channel| channel.expose().clone());
                Dialect::ActionCable(ActionCable::new(channels.collect()))
            }
            Self::EngineIo { namespace, payload } => {
                let payload = json("payload", payload)?;
                Dialect::EngineIo(EngineIo::new(namespace.as_deref(), payload))
            }
            Self::GraphqlTransportWs {
                payload,
                subscription,
            } => {
                let payload = json("payload", payload)?;
                let speaker = GraphqlTransportWs::new(payload, subscription.as_deref());
                Dialect::GraphqlTransportWs(speaker)
            }
            Self::Phoenix { topics, payload } => {
                let usual = json("payload", payload)?;
                let usual = usual.unwrap_or_else(|| serde_json::json!({}));
                let topics = topics.iter().map(|topic| {
                    let payload = match &topic.payload {
                        Some(own) => parsed("topics", own.expose())?,
                        None => usual.clone(),
                    };
                    Ok((topic.name.clone(), payload))
                });
                Dialect::Phoenix(Phoenix::new(topics.collect::<Result<_, String>>()?))
            }
            Self::Stomp(broker) => Dialect::Stomp(Stomp::new(stomp::Login {
                vhost: match &broker.vhost {
                    Some(vhost) => vhost.clone(),
                    None => target.host().into(),
                },
                login: login(broker),
                passcode: password(broker)?,
                topics: broker.topics.clone(),
            })),
            Self::Mqtt {
                version,
                client_id,
                broker,
            } => Dialect::Mqtt(Mqtt::new(mqtt::Login {
                version: *version,
                client_id: match client_id {
                    Some(id) => id.clone(),
                    None => format!("ws-keepalive-{nonce:08x}").into(),
                },
                username: login(broker),
                password: password(broker)?.map(|text| text.into_boxed_bytes()),
                topics: broker.topics.clone(),
            })),
            Self::SignalR => Dialect::SignalR(SignalR::new()),
            Self::JsonRpc { method, params } => {
                Dialect::JsonRpc(JsonRpc::new(method, json("params", params)?))
            }
        })))
    }
}

fn parsed(key: &str, text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|error| {
        // serde_json's own words may quote what is secret.
        let (line, column) = (error.line(), error.column());
        format!("heartbeat.{key} is not JSON (line {line}, column {column})")
    })
}
