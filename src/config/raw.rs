//! The file as it is written: every key, its documentation, its default.

use std::borrow::Cow;

use figment::value::Value;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::heartbeat::Kind;
use super::layer::Step;
use super::leaf::{
    Addresses, AnswerHeaders, Attributes, AuthChoice, BindTo, BucketBounds, Channels, CipherSuites,
    CollectorUrl, CookieTable, Count, Destinations, Expectation, Factor, FaultSetting, FileMode,
    FilePath, Gzip, HeaderTable, HeaderText, Interval, JsonObject, JsonParams, KeepaliveTime,
    Labels, Line, ListenAddress, Login, LookupInterval, Name, Namespace, Passcode, Pem, Positive,
    Probes, ProxySetting, Redirects, Retries, Share, Size, Subprotocols, Template, Text, TlsName,
    Topics, UserTable, UserTimeout, WebTlsVersion, WsUrl,
};
use super::otlp::{OtlpProtocol, Temporality};
use super::read::{Key, Read, Reader, section};
use super::{ClientAuth, IpFamily, LogFormat, LogLevel, Secret, TlsVersion};
use crate::dialect::mqtt;

section! {
    /// The configuration file of ws-keepalive.
    File {
        /// What the program says about itself, on stderr.
        log: Log,
        /// The listener that Prometheus scrapes.
        metrics: Metrics,
        /// The socket that `ws-keepalive status` and `ws-keepalive reload` speak to.
        control: Control,
        /// The optional embedded listener: the peer of other people's clients. There is none without this table.
        server: Server,
        /// How hard the network is hit when many targets dial at once.
        dial: Dial,
        /// Metrics, traces and logs pushed to a collector by OTLP. Without this table nothing is, unless `OTEL_EXPORTER_OTLP_ENDPOINT`, or that of a
        /// signal, is set. What this table does not say OpenTelemetry's variables do: docs/otlp.md has them.
        otlp: Otlp,
        /// Any key of a target but `name` and `url`: what targets have that do not say otherwise.
        /// The tables `reconnect`, `labels`, `headers`, `cookies`, `tls` and `proxy_tls` merge key by key,
        /// any other value replaces, `auth` and arrays included; `heartbeat` merges with one of the same `kind`.
        /// What says something a target cannot use, as `subprotocols` to an event stream, is not for it.
        defaults: Defaults,
        /// The connections to hold, one `[[target]]` each.
        target: Targets,
    }
}

/// The targets, each judged and dropped again: with many of them the raw form is large, so
/// `resolve` reads them one by one.
#[derive(Debug, Clone)]
pub(super) struct Targets;

impl Read for Targets {
    const KEYS: &'static [Key] = Target::KEYS;

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::Array(_, targets) = value else {
            reader.expected::<()>("[[target]] tables", value);
            return None;
        };
        for (index, target) in targets.iter().enumerate() {
            reader.within(Step::Index(index), |reader| Target::read(target, reader));
        }
        Some(Self)
    }
}

impl JsonSchema for Targets {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Targets".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": generator.subschema_for::<Target>() })
    }
}

section! {
    /// What the program says about itself.
    Log {
        /// `debug`, `info`, `warn` or `error`. Flag: `--log-level`.
        level: LogLevel = "info",
        /// `text`, `json`, or `auto`: text on a terminal, entries with fields where standard error is systemd's journal, else JSON. Flag: `--log-format`.
        format: LogFormat = "auto",
    }
}

section! {
    /// The listener that Prometheus scrapes.
    Metrics {
        /// Address and port, or `"unix:/path"`, or a list of them. Sockets named `metrics` that systemd passes are served in their place. Flag: `--metrics-server`.
        listen: Addresses = "0.0.0.0:8080",
        /// Whether it is opened at all. Flag: `--metrics`.
        enabled: bool = true,
        /// Whether `POST /-/reload` is answered.
        reload: bool = false,
        /// Mode of the files of unix sockets: `"0660"`. Default: what the umask leaves.
        socket_mode: FileMode,
        /// Serve HTTPS instead of HTTP, on every address. This and the keys below are those of the web configuration that
        /// Prometheus' exporters share.
        tls_server_config: WebTls,
        /// How HTTP is spoken.
        http_server_config: WebHttp,
        /// Who may ask, for everything that is served: names, and bcrypt hashes of passwords (`htpasswd -nBC 10 NAME`), of cost
        /// 16 at most. A hash is a string, or where to read it whenever this file is read: `{ file = "/path" }`,
        /// `{ env = "VARIABLE" }`, `{ credential = "name" }`. Default: nobody is asked.
        basic_auth_users: UserTable,
        /// Whether `/healthz` and `/readyz` are answered without a password, for probes that have none.
        probes_without_auth: bool = false,
    }
}

section! {
    /// TLS of the metrics listener. A value that says where PEM is kept is a path, or one of `{ file = "/path" }`,
    /// `{ env = "VARIABLE" }` and `{ credential = "name" }`. The files are read again when they change.
    WebTls {
        /// PEM: the certificate, followed by its intermediates. A relative path is one from the directory of this file.
        cert_file: Pem,
        /// PEM: the private key of the certificate.
        key_file: Pem,
        /// What a client has to show: `NoClientCert`, `RequestClientCert` and `RequireAnyClientCert` verify nobody,
        /// `VerifyClientCertIfGiven` and `RequireAndVerifyClientCert` need `client_ca_file`. Default: `NoClientCert`.
        client_auth_type: ClientAuth,
        /// PEM: the CA whose clients' certificates are taken.
        client_ca_file: Pem,
        /// Names of which a client's certificate must have one: DNS names, addresses, e-mail addresses, URIs. Default: any will do.
        client_allowed_sans: Vec<Name>,
        /// `TLS12` or `TLS13`.
        min_version: WebTlsVersion = "TLS12",
        /// `TLS12` or `TLS13`.
        max_version: WebTlsVersion = "TLS13",
        /// The cipher suites that are spoken, by their IANA names; of a version of which none is named all are. Default: all there are, which are good.
        cipher_suites: CipherSuites,
        /// Whether the order of our cipher suites counts and not that of the client's.
        prefer_server_cipher_suites: bool = true,
    }
}

section! {
    /// How HTTP is spoken.
    WebHttp {
        /// Headers of every answer; only Strict-Transport-Security, X-Content-Type-Options, X-Frame-Options,
        /// Content-Security-Policy and X-XSS-Protection.
        headers: AnswerHeaders,
    }
}

section! {
    /// The control socket.
    Control {
        /// Its path, a relative one from the directory of this file. Only the daemon's own user and root may speak to it (mode 0600).
        /// Default: `control.sock` in `$RUNTIME_DIRECTORY`; without that variable there is no socket.
        socket: FilePath,
    }
}

section! {
    /// The embedded listener.
    Server {
        /// Address and port. A socket named `server` that systemd passes is served in its place.
        listen: ListenAddress = "0.0.0.0:9000",
        /// The `listener` label of its metrics.
        name: Name = "server",
        /// A client that has been silent this long is pinged.
        ping_interval: Interval = "5s",
        /// A client that stays silent this much longer is discarded. Default: twice `ping_interval`.
        pong_timeout: Positive,
        /// Connections held at once; more are refused with 503.
        max_connections: Count = 10000,
        /// A larger message ends its connection with Close 1009.
        max_message_size: Size = "16MiB",
        /// How long a client may take from connecting to the end of its upgrade.
        handshake_timeout: Positive = "10s",
        /// How long a drain waits for the clients' Close.
        close_timeout: Positive = "10s",
        /// Serve wss:// instead of ws://.
        tls: ServerTls,
        /// Faults to test alerts with: `true` serves those that a client asks for by query, as in `/ws?no_pongs_after=2`;
        /// a text in the same syntax, as in `"close=1012&after=10s"`, serves these to every client. `ws-keepalive server --help` has the list.
        faults: FaultSetting = false,
    }
}

section! {
    /// TLS of the embedded listener. The files are read again when they change.
    ServerTls {
        /// PEM: the certificate, followed by its intermediates: a path, `{ env = "VARIABLE" }` or `{ credential = "name" }`.
        /// A relative path is one from the directory of this file.
        cert: Pem,
        /// PEM: the private key of the certificate.
        key: Pem,
    }
}

section! {
    /// How hard the network is hit when many targets dial at once.
    Dial {
        /// Dials under way at once.
        concurrency: Count = 64,
        /// Dials begun per second; down to an eighth of it while none succeeds.
        per_second: Count = 2000,
    }
}

section! {
    /// OTLP.
    Otlp {
        /// Base URL of the collector; by HTTP `/v1/metrics`, `/v1/traces` and `/v1/logs` are added to it. `https://` is TLS. Default: what
        /// `OTEL_EXPORTER_OTLP_ENDPOINT` says, else `http://localhost:4318`, by gRPC `http://localhost:4317`.
        endpoint: CollectorUrl,
        /// `grpc` or `http/protobuf`. Default: what `OTEL_EXPORTER_OTLP_PROTOCOL` says, else `http/protobuf`.
        protocol: OtlpProtocol,
        /// How often metrics are exported; at least 1s. Default: what `OTEL_METRIC_EXPORT_INTERVAL` says, else 30s.
        interval: LookupInterval,
        /// One export. Default: what `OTEL_EXPORTER_OTLP_TIMEOUT` says, else 10s.
        timeout: Positive,
        /// Sent with every export; values as those of a target's `headers`, read each time.
        headers: HeaderTable,
        /// `gzip` or `none`. Default: what `OTEL_EXPORTER_OTLP_COMPRESSION` says, else `none`.
        compression: Gzip,
        /// TLS to an `https://` endpoint.
        tls: Tls,
        /// Attributes of the resource: `{ "deployment.environment.name" = "staging" }`. Those of `OTEL_RESOURCE_ATTRIBUTES` that it does not name
        /// stand beside them. `service.name` is `OTEL_SERVICE_NAME` or `ws-keepalive`, `service.instance.id` the host's name, unless said here.
        resource: Attributes,
        /// Whether metrics are pushed. Default: true.
        metrics: bool,
        /// Whether spans are: one `connect` per dial, one `outage` from loss to recovery, one `reload` per reload. Default: true.
        traces: bool,
        /// Whether log lines are. Default: false, unless `OTEL_EXPORTER_OTLP_LOGS_ENDPOINT` is set.
        logs: bool,
        /// The histogram of round trips: `delta`, counted from one export to the next, or `cumulative`, as it is scraped. Everything else is cumulative.
        /// Default: what `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE` says, else `delta`.
        rtt: Temporality,
    }
}

/// The keys that a target and `[defaults]` share, after the ones only `$name` has.
macro_rules! target_section {
    ($(#[doc = $about:literal])+ $name:ident { $($own:tt)* }) => { section! {
        $(#[doc = $about])+
        $name {
            $($own)*
            /// From an answered ping to the next one; at least 10ms. A heartbeat that is a protocol's (actioncable, engineio,
            /// graphql-transport-ws, phoenix, stomp, mqtt, signalr, json-rpc) has its own, which this replaces if the target sets it,
            /// not in `[defaults]`. Flag: `--ping-interval`, which is for every target.
            ping_interval: Interval = "10s",
            /// How long a pong is waited for before the ping is sent again. Default: twice `ping_interval`; of a protocol its own,
            /// which only the target replaces, not `[defaults]`.
            pong_timeout: Positive,
            /// How often an unanswered ping is sent again before the connection is given up. Only `ping` has this default: no
            /// other beat is sent again unless this says so; a protocol's only if the target says it, not `[defaults]`.
            /// Flag: `--max-retry-limit`, which is for every target.
            max_retry_limit: Retries = 3,
            /// The longest time without a beat that the server begins (`sse`: without a byte) before the connection is given up.
            /// For the heartbeats sse, expect, actioncable, engineio, stomp and signalr. Default: 45s of `sse` and `expect`, of a
            /// protocol its own, which only the target replaces, not `[defaults]`.
            max_silence: Positive,
            /// A connection that brings no application message for this long is shown as stale (`ws_keepalive_stale`); it is not ended.
            /// Default: never.
            staleness: Positive,
            /// Labels of the target's own in its metrics, as `{ region = "eu" }`. Not target, address_index, cause, phase, listener, le, url, protocol, nor names that begin with `__`.
            labels: Labels,
            /// Headers of the upgrade request: a string, or where to read the value at every dial:
            /// `{ file = "/path" }`, `{ env = "VARIABLE" }`, `{ credential = "name" }` (a file below `$CREDENTIALS_DIRECTORY`).
            headers: HeaderTable,
            /// The `User-Agent` header. Default: `ws-keepalive/VERSION`.
            user_agent: HeaderText,
            /// The `Origin` header, which browsers send and some servers ask for. Default: none.
            origin: HeaderText,
            /// The `Host` header. Default: host and port of the URL; of a unix socket `localhost`.
            host_header: HeaderText,
            /// Cookies, sent in one `Cookie` header: values as those of `headers`, without whitespace, `;`, `,`, `"` and `\`.
            cookies: CookieTable,
            /// The `Authorization` header: `{ username = "joe", password = .. }` (basic) or `{ bearer = .. }`;
            /// password and token are values as those of `headers`. One of it, of `Authorization` in `headers` and of userinfo in `url`.
            auth: AuthChoice,
            /// Offered in this order. Default: what the heartbeat's protocol asks for: actioncable-v1-json, graphql-transport-ws,
            /// v12.stomp and v11.stomp, mqtt.
            subprotocols: Subprotocols = [],
            /// Whether a peer that chooses none of `subprotocols` is an error.
            require_subprotocol: bool = false,
            /// Redirects that are followed, 20 at most: never from TLS to none, and without credentials to another host.
            max_redirects: Redirects = 0,
            /// Text messages sent in this order when the connection is established.
            on_open: Vec<Secret<Box<str>>> = [],
            /// What keeps the connection alive, and what is spoken for it. The table is merged with that of `[defaults]` key by key
            /// if both mean the same `kind`, or one says none; of two kinds the target's table stands alone.
            heartbeat: Heartbeat,
            /// How long to stay away before dialing again: before dial n + 1 it is `min(max, initial * factor^n)`, of which a random share of
            /// up to `jitter` is taken away; never under 100ms. n counts the failures in a row. After Close 1008, 3xxx and 4xxx, and after
            /// 401 and 403, it is `max` at once; a longer `Retry-After` is obeyed, up to 5min.
            reconnect: Reconnect,
            /// TLS to a `wss` or `https` url.
            tls: Tls,
            /// `http://`, `https://` (both CONNECT), `socks5://` or `socks5h://` (the proxy resolves the name), as `http://user:password@HOST:PORT`;
            /// `env` for what `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say; `none`. The ports are 3128, 443 and 1080 unless said.
            /// Or a table: `{ url = "http://proxy.example.com", username = "joe", password = .. }`, the password as a value of `headers`.
            proxy: ProxySetting = "none",
            /// TLS to a proxy of `https://`. Without this table `ca`, `ca_only`, `min_version`, `max_version` and `session_tickets` are those of `tls`;
            /// with it, even an empty one, nothing is.
            proxy_tls: Tls,
            /// Which addresses are dialed: `any`, `v4` or `v6`.
            ip_family: IpFamily = "any",
            /// Addresses dialed instead of what DNS says, in this order, 64 at most: `10.0.0.7:443`, `10.0.0.8` (the URL's port),
            /// `[fe80::1%eth0]:443`, `unix:/run/app.sock`. The `Host` header and the name TLS asks for stay the URL's.
            resolve: Destinations = [],
            /// The address or the interface that connections go out from. An interface may need CAP_NET_RAW.
            bind: BindTo,
            /// One connection to every address the name resolves to, or that `resolve` lists, each with the label `address_index`. Not through a proxy.
            fan_out: bool = false,
            /// How often the name is looked up again for `fan_out`; at least 1s.
            fan_out_interval: LookupInterval = "30s",
            /// TCP keepalive (tcp(7)): silence before the first probe, whole seconds. Default: that of the system, if either of these three is set; else no keepalive.
            tcp_keepalive_idle: KeepaliveTime,
            /// From one probe to the next, whole seconds.
            tcp_keepalive_interval: KeepaliveTime,
            /// Unanswered probes until the kernel ends the connection, 1 to 127.
            tcp_keepalive_count: Probes,
            /// How long sent bytes may stay unacknowledged until the kernel ends the connection (TCP_USER_TIMEOUT); at least 1ms. Default: that of the system.
            tcp_user_timeout: UserTimeout,
            /// The whole dial, redirects and all: after this long it has failed, with the name of the phase it was in. Each phase has a limit
            /// of its own below.
            connect_timeout: Positive = "15s",
            /// Looking up the host's name.
            dns_timeout: Positive = "5s",
            /// Connecting TCP, over all addresses of the name.
            tcp_timeout: Positive = "5s",
            /// Opening the proxy's tunnel.
            proxy_timeout: Positive = "5s",
            /// The TLS handshake.
            tls_timeout: Positive = "5s",
            /// The HTTP upgrade; of an event stream the request until its headers are there.
            upgrade_timeout: Positive = "5s",
            /// The hello of the heartbeat's protocol, until every subscription is confirmed.
            hello_timeout: Positive = "5s",
            /// How long the peer may take no bytes before the connection is given up.
            write_timeout: Positive = "10s",
            /// How long our Close waits for the peer's, when a target is removed or replaced or the program stops.
            close_timeout: Positive = "10s",
            /// A larger message ends the connection with Close 1009.
            max_message_size: Size = "16MiB",
            /// A longer line of an event stream ends the connection.
            max_line: Size = "1MiB",
            /// A larger event of an event stream ends the connection.
            max_event: Size = "4MiB",
            /// Whether the request carries `traceparent` (W3C Trace Context), so that what the peer records of it stands below our span. Only while
            /// `[otlp]` exports traces, and to no host a redirect leads to.
            traceparent: bool = false,
            /// The shortest idle timer on the way (a load balancer's, a proxy's), if you know it: an interval of half of it or more is warned about.
            path_idle_timeout: Positive,
            /// Upper bounds of the round-trip histogram's buckets, ascending, 64 at most.
            rtt_buckets: BucketBounds = ["500us", "1ms", "2.5ms", "5ms", "10ms", "25ms", "50ms", "100ms", "250ms", "500ms", "1s", "2.5s", "5s", "10s"],
        }
    } };
}

target_section! {
    /// What targets have that do not say otherwise.
    Defaults {}
}

target_section! {
    /// One connection to hold.
    Target {
        /// The `target` label, unique. Default: the URL's host and path, without port; two targets that come to the same must be named.
        name: Name,
        /// Required. `ws://` or `wss://` host, port and path is a WebSocket, `http://` or `https://` an event stream (Server-Sent Events).
        /// Userinfo in it becomes basic authentication. An IPv6 literal may have a zone:
        /// `ws://[fe80::1%25eth0]:9000/ws`. A unix socket is `unix:/run/app.sock`, or `unix:/run/app.sock:/request/path?query`.
        url: WsUrl,
    }
}

section! {
    /// How TLS is spoken. A value that says where PEM is kept is a path, or one of `{ file = "/path" }`,
    /// `{ env = "VARIABLE" }` and `{ credential = "name" }`.
    Tls {
        /// PEM: certificates to trust beside the system's: a path, `{ env = "VARIABLE" }` or `{ credential = "name" }`.
        ca: Pem,
        /// Whether `ca` is all that is trusted.
        ca_only: bool = false,
        /// PEM: the certificate we show if asked, and its chain. Needs `key`.
        cert: Pem,
        /// PEM: its private key.
        key: Pem,
        /// The name that is asked for (SNI) and that the certificate must have. Default: the URL's host.
        server_name: TlsName,
        /// `1.2` or `1.3`.
        min_version: TlsVersion = "1.2",
        /// `1.2` or `1.3`.
        max_version: TlsVersion = "1.3",
        /// Whether any certificate is taken. Then anybody on the way can read along.
        insecure_skip_verify: bool = false,
        /// Whether sessions are resumed by tickets: cheaper handshakes, a little memory.
        session_tickets: bool = true,
    }
}

section! {
    /// What keeps the connection alive. Values of `send`, `payload`, `params` and `password` are strings, or say where they are
    /// kept, as those of `headers` do, and are read at each dial.
    Heartbeat {
        /// `ping`: RFC 6455 pings. `message`: a message of your own and its answer. `expect`: messages that the server sends.
        /// `none`: nothing is sent, the connection is only held. `sse`: an event stream, of every http and https url and no other.
        /// A protocol by its name: actioncable, engineio (Socket.IO), graphql-transport-ws, phoenix, stomp, mqtt, signalr, json-rpc.
        /// Default: `ping`, of an http or https url `sse`.
        kind: Kind,
        /// `message`: what is sent. In it `${seq}` is the beat's number from 1, `${nonce}` 8 hex digits of the connection's own, `${unix}`
        /// seconds and `${unix_nanos}` nanoseconds since 1970, `${subsec_nanos}` those of the second; `$${` is a `${`.
        send: Template,
        /// `message`: what answers it, `expect`: what the server sends. A regular expression, or `{ regex = ".." }`, or JSON by
        /// `{ pointer = "/status", value = "ok" }` (RFC 6901). For `message` with the templates of `send`: `^pong ${seq}$`.
        expect: Expectation,
        /// `actioncable`: channels to subscribe to: names, or tables with their parameters: `{ channel = "ChatChannel", room = 5 }`.
        channels: Channels,
        /// `engineio`: the Socket.IO namespace to connect to: `/admin`; `""` for none, plain Engine.IO.
        namespace: Namespace = "/",
        /// A JSON object as text: `'{"token":"x"}'`. `engineio`: `auth` of the namespace; `graphql-transport-ws`: the payload of `connection_init`;
        /// `phoenix`: what topics are joined with that have no parameters of their own.
        payload: JsonObject,
        /// `graphql-transport-ws`: a subscription to start: `subscription { ticks }`.
        subscription: Text,
        /// `phoenix`: topics to join, `stomp`: destinations, `mqtt`: filters to subscribe to. Names; of `phoenix` also tables with the
        /// join's parameters: `{ topic = "room:lobby", token = ".." }`.
        topics: Topics,
        /// `stomp`: the `host` header, the broker's virtual host. Default: the url's host.
        vhost: Line,
        /// `stomp`, `mqtt`: who logs in.
        login: Login,
        /// `stomp`, `mqtt`: the password.
        password: Passcode,
        /// `mqtt`: who we are to the broker, which keeps one connection of a name. Default: a random one for each connection.
        client_id: Line,
        /// `mqtt`: `3.1.1` or `5`.
        version: mqtt::Version = "3.1.1",
        /// `json-rpc`: the method that is called; its answer is the beat, an error too.
        method: Line,
        /// `json-rpc`: its parameters, a JSON object or array as text: `'[1]'`.
        params: JsonParams,
    }
}

section! {
    /// The wait before dial n + 1 is `min(max, initial * factor^n)`, of which a random share of up to
    /// `jitter` is taken away; never under 100ms. n counts the failures in a row.
    Reconnect {
        /// The wait after the first failure.
        initial: Positive = "1s",
        /// No wait is longer.
        max: Positive = "30s",
        /// Growth from one failure to the next, at least 1.
        factor: Factor = 2.0,
        /// The share of the wait that is random: 0 none, 1 all of it.
        jitter: Share = 0.5,
        /// A connection that stood this long was no failure; the count is forgotten.
        reset_after: Positive = "5s",
    }
}
