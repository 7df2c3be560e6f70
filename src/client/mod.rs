//! Many sessions in a row: the reconnecting client.

pub(crate) mod gate;
pub(crate) mod hold;

use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::config::{
    self, ConnectionOptions, DialLimits, Heartbeat, Policy, Secret, SecretSource, Target,
    TlsOptions, WsUrl,
};
use crate::error::Error;
use crate::proto::backoff::BackoffPolicy;
use crate::proto::close::Asked;
use crate::proto::event::{Event, Message};
use crate::proto::heartbeat::HeartbeatPolicy;
use crate::stats::Identity;
use gate::DialGate;
use hold::{Desired, FirstPing, Observer, hold};

/// Messages that wait to be sent, and events that wait to be read, at most.
const QUEUE: usize = 100;

/// A WebSocket client that stays connected: pings, notices a dead peer, dials again with jittered
/// waits, and tells what happened.
///
/// The handle sends; the [`Events`] made with it tell. When the handle and all its clones are
/// dropped, the connection is closed with 1000.
///
/// ```no_run
/// # async fn example() -> Result<(), ws_keepalive::Error> {
/// use ws_keepalive::{Client, Event, Message};
///
/// let (client, mut events) = Client::builder("ws://localhost:9000/echo").start()?;
/// client.send(Message::text("hello")).await?;
/// while let Some(event) = events.next().await {
///     match event {
///         Event::Message(message) => println!("{:?}", message.as_text()),
///         Event::Ended(end) => println!("lost: {}", end.message),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    outbox: mpsc::Sender<(Message, oneshot::Sender<bool>)>,
    _stop: Arc<StopOnDrop>,
}

#[derive(Debug)]
struct StopOnDrop(Arc<Desired>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop(Asked::Shutdown);
    }
}

impl Client {
    /// A client of `url`: `ws://host[:port]/path` or `wss://host[:port]/path`; of `http://` or
    /// `https://` it reads an event stream (Server-Sent Events), to which nothing can be sent.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder {
            url: url.into(),
            options: ConnectionOptions::default(),
            policy: Policy::default(),
            give_up_after: None,
            bad: None,
        }
    }

    /// Sends a message, waiting for a connection if there is none; returns once it was handed to
    /// the operating system. Bound the wait with [`tokio::time::timeout`]: a message still queued
    /// when this future is dropped is sent all the same.
    ///
    /// # Errors
    /// [`Error::is_closed`] after [`Client::close`] or when the client gave up;
    /// [`Error::is_not_sent`] when the connection broke during the write. Whether the peer got a
    /// message is only known from the peer.
    pub async fn send(&self, message: Message) -> Result<(), Error> {
        let (written, outcome) = oneshot::channel();
        let queued = self.outbox.send((message, written)).await;
        queued.map_err(|_| Error::closed())?;
        match outcome.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::not_sent()),
            Err(_) if self.outbox.is_closed() => Err(Error::closed()),
            Err(_) => Err(Error::not_sent()),
        }
    }

    /// Closes the connection with 1000 and dials no more; [`Events::next`] tells how it went, then
    /// `None`.
    pub fn close(&self) {
        self._stop.0.stop(Asked::Shutdown);
    }
}

/// What happens to a [`Client`]'s connection, in order.
#[derive(Debug)]
pub struct Events {
    inbox: mpsc::Receiver<Event>,
}

impl Events {
    /// The next event; `None` after the client was closed or gave up. Cancel safe.
    ///
    /// A reader that falls behind by more than 100 events finds [`Event::Missed`] in the place of
    /// those it missed: pings never wait for a reader.
    pub async fn next(&mut self) -> Option<Event> {
        self.inbox.recv().await
    }
}

/// Makes a [`Client`]. Every setting has a default.
#[derive(Debug, Clone)]
pub struct Builder {
    url: String,
    options: ConnectionOptions,
    policy: Policy,
    give_up_after: Option<u32>,
    bad: Option<String>,
}

impl Builder {
    /// Adds a header to the upgrade request. Its value is never shown.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        let value = value.into();
        match config::judge::header(name, &value) {
            Ok(name) => {
                let value = SecretSource::Literal(Secret::new(value.into()));
                self.options.headers.push((name, value));
            }
            Err(error) => self.bad = Some(format!("header: {error}")),
        }
        self
    }

    /// Offers a subprotocol; call once for each, the preferred first.
    #[must_use]
    pub fn subprotocol(mut self, name: &str) -> Self {
        self.options.subprotocols.push(name.into());
        self
    }

    /// Trusts the certificates of this PEM file, beside the system's. Read again when it changes.
    #[must_use]
    pub fn tls_ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.tls().ca = Some(SecretSource::File(file.into()));
        self
    }

    /// Shows this certificate (a PEM file, with its chain) to peers that ask for one; `key` is the
    /// PEM file of its private key. Read again when they change.
    #[must_use]
    pub fn tls_client_certificate(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        let tls = self.tls();
        tls.cert = Some(SecretSource::File(certificate.into()));
        tls.key = Some(SecretSource::File(key.into()));
        self
    }

    /// Takes any certificate: then anybody on the way can read and change what is sent. For tests.
    #[must_use]
    pub fn insecure_skip_verify(mut self) -> Self {
        self.tls().insecure_skip_verify = true;
        self
    }

    fn tls(&mut self) -> &mut TlsOptions {
        Arc::make_mut(&mut self.options.tls)
    }

    /// Goes through a proxy: `http://`, `https://`, `socks5://` or `socks5h://` host and port, with
    /// userinfo where it asks for one; `env` for what `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
    /// `NO_PROXY` say. Default: none.
    #[must_use]
    pub fn proxy(mut self, proxy: &str) -> Self {
        match config::judge::proxy(proxy) {
            Ok(proxy) => self.options.proxy = proxy,
            Err(error) => self.bad = Some(format!("the proxy {error}")),
        }
        self
    }

    /// Follows up to this many redirects of the upgrade: never from `wss` to `ws`, and without
    /// headers or userinfo to another host. Default 0.
    #[must_use]
    pub fn max_redirects(mut self, redirects: u32) -> Self {
        self.options.max_redirects = redirects;
        self
    }

    /// When to ping and when to give up. Default: every 10 s, 20 s for the pong, 3 retries.
    #[must_use]
    pub fn heartbeat(mut self, policy: HeartbeatPolicy) -> Self {
        self.policy.heartbeat = policy;
        self
    }

    /// Of an event stream: gives it up after this long without a byte. Default 45 s.
    #[must_use]
    pub fn max_silence(mut self, limit: Duration) -> Self {
        self.policy.wishes.max_silence = Some(limit);
        self
    }

    /// Never pings.
    #[must_use]
    pub fn without_heartbeat(mut self) -> Self {
        self.options.heartbeat = Heartbeat::None;
        self
    }

    /// How long to wait between dials. Default: 1 s doubling to 30 s, half of it random.
    #[must_use]
    pub fn reconnect(mut self, policy: BackoffPolicy) -> Self {
        self.policy.reconnect = policy;
        self
    }

    /// Gives up after this many failed dials in a row. Default: never.
    #[must_use]
    pub fn give_up_after(mut self, failures: u32) -> Self {
        self.give_up_after = Some(failures);
        self
    }

    /// Sends a text message after every upgrade; call once for each.
    #[must_use]
    pub fn on_open(mut self, text: impl Into<String>) -> Self {
        self.policy.on_open.push(Secret::new(text.into().into()));
        self
    }

    /// Bounds the whole dial. Default 15 s.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.policy.timeouts.connect = limit;
        self
    }

    /// Larger messages, in bytes, end the connection with Close 1009. Default 16 MiB.
    #[must_use]
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.policy.max_message_size = bytes;
        self
    }

    /// Begins to dial. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::is_config`] if the URL or a setting is wrong.
    pub fn start(mut self) -> Result<(Client, Events), Error> {
        if let Some(bad) = self.bad {
            return Err(Error::config(bad));
        }
        let offered = self.options.subprotocols.iter().map(|name| &**name);
        config::judge::subprotocols(offered)
            .map_err(|e| Error::config(format!("subprotocol: {e}")))?;
        let tls = self
            .options
            .tls
            .read(&|variable| std::env::var_os(variable));
        tls.map_err(|(key, error)| Error::config(format!("tls.{key}: {error}")))?;
        // Who trusts a CA trusts it for the proxy, too.
        self.options.proxy_tls = Arc::new(TlsOptions {
            ca: self.options.tls.ca.clone(),
            ..TlsOptions::default()
        });
        let heartbeat = &self.policy.heartbeat;
        let silence = self.policy.wishes.max_silence;
        if heartbeat.interval.is_zero()
            || heartbeat.pong_timeout.is_zero()
            || silence.is_some_and(|silence| silence.is_zero())
        {
            return Err(Error::config("the heartbeat's durations must not be zero"));
        }
        let url =
            WsUrl::parse(&self.url).map_err(|error| Error::config(format!("the url {error}")))?;
        if url.place.streams {
            if !self.options.subprotocols.is_empty() || !self.policy.on_open.is_empty() {
                return Err(Error::config(
                    "an event stream (http, https) sends nothing: no subprotocol and no on_open",
                ));
            }
            self.options.heartbeat = Heartbeat::Sse;
        }
        let kind = self.options.heartbeat.kind();
        let target = Arc::new(Target {
            identity: Arc::new(Identity {
                name: (&*url.name).into(),
                url: url.shown,
                protocol: kind.protocol(),
                server_beats: kind.peer_beats(),
                watches_staleness: false,
                labels: Arc::from([]),
                fan_out: None,
            }),
            url: url.url,
            connection: Arc::new(self.options),
            policy: Arc::new(self.policy),
        });
        let limits = DialLimits {
            concurrency: 1,
            per_second: 10,
        };
        let desired = Desired::new(target);
        let (outbox, outgoing) = mpsc::channel(QUEUE);
        let (events, inbox) = mpsc::channel(QUEUE);
        let reader = Reader {
            events,
            missed: 0,
            outgoing,
            failures_left: self.give_up_after,
            give_up_after: self.give_up_after,
        };
        let gate = DialGate::new(limits);
        tokio::spawn(hold(
            desired.clone(),
            gate,
            FirstPing::AfterInterval,
            reader,
        ));
        let client = Client {
            outbox,
            _stop: Arc::new(StopOnDrop(desired)),
        };
        Ok((client, Events { inbox }))
    }
}

/// Passes events on to the user's stream.
struct Reader {
    events: mpsc::Sender<Event>,
    missed: u64,
    outgoing: mpsc::Receiver<(Message, oneshot::Sender<bool>)>,
    failures_left: Option<u32>,
    give_up_after: Option<u32>,
}

impl Observer for Reader {
    fn observe(&mut self, event: Event) {
        match &event {
            Event::DialFailed(_) => {
                self.failures_left = self.failures_left.map(|n| n.saturating_sub(1));
            }
            Event::Established(_) => self.failures_left = self.give_up_after,
            _ => {}
        }
        if self.missed > 0 {
            let count = self.missed;
            match self.events.try_send(Event::Missed { count }) {
                Ok(()) => self.missed = 0,
                Err(_) => {
                    self.missed += 1;
                    return;
                }
            }
        }
        // A reader that is gone misses everything, which nobody will ask about.
        if self.events.try_send(event).is_err() {
            self.missed += 1;
        }
    }

    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<(Message, oneshot::Sender<bool>)> {
        match self.outgoing.poll_recv(cx) {
            Poll::Ready(Some(message)) => Poll::Ready(message),
            // No handle is left: nothing more will be sent, and the end is on its way.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn dial_again(&mut self) -> bool {
        self.failures_left != Some(0)
    }

    fn stays_stopped(&self) -> bool {
        false
    }
}
