//! The heartbeats by name: what each takes, what is spoken for it, who beats.

use crate::stats::Protocol;

/// The `kind` of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Ping,
    Message,
    Expect,
    None,
    Sse,
    ActionCable,
    EngineIo,
    GraphqlTransportWs,
    Phoenix,
    Stomp,
    Mqtt,
    SignalR,
    JsonRpc,
}

impl Kind {
    /// In the order in which people are told of them.
    pub(crate) const ALL: [Self; 13] = [
        Self::Ping,
        Self::Message,
        Self::Expect,
        Self::None,
        Self::Sse,
        Self::ActionCable,
        Self::EngineIo,
        Self::GraphqlTransportWs,
        Self::Phoenix,
        Self::Stomp,
        Self::Mqtt,
        Self::SignalR,
        Self::JsonRpc,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Message => "message",
            Self::Expect => "expect",
            Self::None => "none",
            Self::Sse => "sse",
            Self::ActionCable => "actioncable",
            Self::EngineIo => "engineio",
            Self::GraphqlTransportWs => "graphql-transport-ws",
            Self::Phoenix => "phoenix",
            Self::Stomp => "stomp",
            Self::Mqtt => "mqtt",
            Self::SignalR => "signalr",
            Self::JsonRpc => "json-rpc",
        }
    }

    /// The kind of that name, or the one that speaks what people call so.
    pub(crate) fn meant_by(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "socketio" | "socket.io" | "socket-io" | "engine.io" => Some(Self::EngineIo),
            name => Self::ALL.into_iter().find(|kind| kind.as_str() == name),
        }
    }

    /// That of a URL, unless something else is asked for.
    pub(crate) fn of_url(streams: bool) -> Self {
        if streams { Self::Sse } else { Self::Ping }
    }

    /// Whether a URL can have it: an event stream has one, a WebSocket all others.
    pub(crate) fn fits(self, streams: bool) -> bool {
        (self == Self::Sse) == streams
    }

    /// The keys it takes beside `kind`.
    pub(crate) fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Ping | Self::None | Self::Sse | Self::SignalR => &[],
            Self::Message => &["send", "expect"],
            Self::Expect => &["expect"],
            Self::ActionCable => &["channels"],
            Self::EngineIo => &["namespace", "payload"],
            Self::GraphqlTransportWs => &["payload", "subscription"],
            Self::Phoenix => &["topics", "payload"],
            Self::Stomp => &["vhost", "login", "password", "topics"],
            Self::Mqtt => &["version", "client_id", "login", "password", "topics"],
            Self::JsonRpc => &["method", "params"],
        }
    }

    /// The keys it cannot do without, and what each is.
    pub(crate) fn required(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Message => &[
                ("send", "the message that is the beat: send = 'ping ${seq}'"),
                (
                    "expect",
                    "what its answer looks like: expect = '^pong ${seq}$'",
                ),
            ],
            Self::Expect => &[(
                "expect",
                "what the server's beats look like: expect = '\"type\":\"heartbeat\"'",
            )],
            Self::JsonRpc => &[(
                "method",
                "the call whose answer is the beat: method = \"system.ping\"",
            )],
            Self::Ping
            | Self::None
            | Self::Sse
            | Self::ActionCable
            | Self::EngineIo
            | Self::GraphqlTransportWs
            | Self::Phoenix
            | Self::Stomp
            | Self::Mqtt
            | Self::SignalR => &[],
        }
    }

    /// What is spoken: a heartbeat of the user's own making is no protocol of its own.
    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Self::Ping | Self::Message | Self::Expect | Self::None => Protocol::WebSocket,
            Self::Sse => Protocol::Sse,
            Self::ActionCable => Protocol::ActionCable,
            Self::EngineIo => Protocol::EngineIo,
            Self::GraphqlTransportWs => Protocol::GraphqlTransportWs,
            Self::Phoenix => Protocol::Phoenix,
            Self::Stomp => Protocol::Stomp,
            Self::Mqtt => Protocol::Mqtt,
            Self::SignalR => Protocol::SignalR,
            Self::JsonRpc => Protocol::JsonRpc,
        }
    }

    /// Whether it is a protocol that says itself how often it beats and how long it waits, so that
    /// only what is set for the very target replaces that.
    pub(crate) fn has_own_times(self) -> bool {
        match self {
            Self::ActionCable
            | Self::EngineIo
            | Self::GraphqlTransportWs
            | Self::Phoenix
            | Self::Stomp
            | Self::Mqtt
            | Self::SignalR
            | Self::JsonRpc => true,
            Self::Ping | Self::Message | Self::Expect | Self::None | Self::Sse => false,
        }
    }

    /// Whether there are beats that we begin, and so an interval.
    pub(crate) fn we_beat(self) -> bool {
        match self {
            Self::Ping
            | Self::Message
            | Self::GraphqlTransportWs
            | Self::Phoenix
            | Self::Stomp
            | Self::Mqtt
            | Self::SignalR
            | Self::JsonRpc => true,
            Self::Expect | Self::None | Self::Sse | Self::ActionCable | Self::EngineIo => false,
        }
    }

    /// Whether a beat of ours is answered, and so waited for and sent again.
    pub(crate) fn is_answered(self) -> bool {
        match self {
            Self::Ping
            | Self::Message
            | Self::GraphqlTransportWs
            | Self::Phoenix
            | Self::Mqtt
            | Self::JsonRpc => true,
            Self::Expect
            | Self::None
            | Self::Sse
            | Self::ActionCable
            | Self::EngineIo
            | Self::Stomp
            | Self::SignalR => false,
        }
    }

    /// Whether there are beats that the peer begins, and so a silence that may last too long.
    pub(crate) fn peer_beats(self) -> bool {
        match self {
            Self::Expect
            | Self::Sse
            | Self::ActionCable
            | Self::EngineIo
            | Self::Stomp
            | Self::SignalR => true,
            Self::Ping
            | Self::Message
            | Self::None
            // Its servers may ping, and need not.
            | Self::GraphqlTransportWs
            | Self::Phoenix
            | Self::Mqtt
            | Self::JsonRpc => false,
        }
    }

    /// Whether something has to pass before the connection counts as established.
    pub(crate) fn has_hello(self) -> bool {
        match self {
            Self::ActionCable
            | Self::EngineIo
            | Self::GraphqlTransportWs
            | Self::Phoenix
            | Self::Stomp
            | Self::Mqtt
            | Self::SignalR => true,
            Self::Ping | Self::Message | Self::Expect | Self::None | Self::Sse | Self::JsonRpc => {
                false
            }
        }
    }

    /// Offered where the user offers none.
    pub(crate) fn subprotocols(self) -> &'static [&'static str] {
        match self {
            Self::ActionCable => &["actioncable-v1-json"],
            Self::GraphqlTransportWs => &["graphql-transport-ws"],
            Self::Stomp => &["v12.stomp", "v11.stomp"],
            Self::Mqtt => &["mqtt"],
            Self::Ping
            | Self::Message
            | Self::Expect
            | Self::None
            | Self::Sse
            | Self::EngineIo
            | Self::Phoenix
            | Self::SignalR
            | Self::JsonRpc => &[],
        }
    }

    /// The path its URLs have where none is given, and the parameters that its server asks for.
    pub(crate) fn address(self) -> Option<(&'static str, &'static [(&'static str, &'static str)])> {
        match self {
            Self::EngineIo => Some(("/socket.io/", &[("EIO", "4"), ("transport", "websocket")])),
            Self::Phoenix => Some(("/", &[("vsn", "2.0.0")])),
            Self::Ping
            | Self::Message
            | Self::Expect
            | Self::None
            | Self::Sse
            | Self::ActionCable
            | Self::GraphqlTransportWs
            | Self::Stomp
            | Self::Mqtt
            | Self::SignalR
            | Self::JsonRpc => None,
        }
    }

    /// The kinds that `which` holds for, in words: `phoenix, stomp and mqtt`.
    pub(crate) fn list(which: impl Fn(Self) -> bool) -> String {
        let kinds = Self::ALL.into_iter().filter(|kind| which(*kind));
        let names: Vec<&str> = kinds.map(Self::as_str).collect();
        match names.split_last() {
            Some((last, [])) => (*last).to_owned(),
            Some((last, before)) => format!("{} and {last}", before.join(", ")),
            None => String::new(),
        }
    }
}
