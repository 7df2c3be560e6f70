//! The heartbeat as it is configured, and the dialect that is made of it at each connection.

use std::sync::Arc;

use super::{SecretSource, Target};
use crate::dialect::pattern::Pattern;
use crate::dialect::{Dialect, mqtt};
use crate::dialect::{
    actioncable::ActionCable, engineio::EngineIo, expect::Expect,
    graphql_transport_ws::GraphqlTransportWs, json_rpc::JsonRpc, listener::Listener,
    message::Templates, mqtt::Mqtt, phoenix::Phoenix, signalr::SignalR, stomp::Stomp,
};

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
        /// Identifiers in JSON.
        channels: Vec<Box<str>>,
    },
    EngineIo {
        /// The Socket.IO namespace to join; none is joined without.
        namespace: Option<Box<str>>,
        /// JSON.
        payload: Option<SecretSource>,
    },
    GraphqlTransportWs {
        /// JSON.
        payload: Option<SecretSource>,
        subscription: Option<Box<str>>,
    },
    Phoenix {
        /// Names and join payloads, in JSON.
        topics: Vec<(Box<str>, Box<str>)>,
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

/// How a message broker is entered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Broker {
    /// STOMP's `host`. Default the URL's host.
    pub(crate) vhost: Option<Box<str>>,
    pub(crate) login: Option<Box<str>>,
    pub(crate) password: Option<SecretSource>,
    /// Destinations or filters to subscribe to.
    pub(crate) topics: Vec<Box<str>>,
}

impl Heartbeat {
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
                Dialect::ActionCable(ActionCable::new(channels.clone()))
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
            Self::Phoenix { topics } => {
                let topics = topics.iter().map(|(topic, payload)| {
                    parsed("topics", payload).map(|payload| (topic.clone(), payload))
                });
                Dialect::Phoenix(Phoenix::new(topics.collect::<Result<_, _>>()?))
            }
            Self::Stomp(broker) => Dialect::Stomp(Stomp::new(crate::dialect::stomp::Login {
                vhost: match &broker.vhost {
                    Some(vhost) => vhost.clone(),
                    None => target.host().into(),
                },
                login: broker.login.clone(),
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
                username: broker.login.clone(),
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
