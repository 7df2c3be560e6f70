//! The held target over real sockets on loopback: what becomes of a connection when the wish does.

use std::net::SocketAddr;

use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite;

use super::*;
use crate::config::{ConnectionOptions, DialLimits, Policy, Secret};
use crate::proto::backoff::BackoffPolicy;
use crate::proto::close::Cause;
use crate::proto::event::Phase;
use crate::stats::Identity;

pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Passes every event on.
struct Tell(mpsc::UnboundedSender<Event>);

impl Observer for Tell {
    fn observe(&mut self, event: Event) {
        let _ = self.0.send(event);
    }
}

pub(super) struct Held {
    pub(super) desired: Arc<Desired>,
    pub(super) events: mpsc::UnboundedReceiver<Event>,
    pub(super) task: tokio::task::JoinHandle<()>,
}

pub(super) fn held(target: Arc<Target>) -> Held {
    let (sender, events) = mpsc::unbounded_channel();
    let desired = Desired::new(target);
    let gate = DialGate::new(DialLimits {
        concurrency: 4,
        per_second: 1_000,
    });
    let task = tokio::spawn(hold(
        desired.clone(),
        gate,
        FirstPing::AfterInterval,
        Tell(sender),
    ));
    Held {
        desired,
        events,
        task,
    }
}

impl Held {
    /// The next event that `wanted` makes something of.
    pub(super) async fn next<T>(&mut self, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.events.recv().await.expect("the task goes on");
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("it never came")
    }

    pub(super) async fn established(&mut self) -> SocketAddr {
        self.next(|event| match event {
            Event::Established(up) => up.local,
            _ => None,
        })
        .await
    }

    pub(super) async fn ended(&mut self) -> Cause {
        self.next(|event| match event {
            Event::Ended(end) => Some(end.cause),
            _ => None,
        })
        .await
    }

    pub(super) async fn wait(&mut self) -> Duration {
        self.next(|event| match event {
            Event::Waiting { wait } => Some(*wait),
            _ => None,
        })
        .await
    }
}

pub(super) fn target(address: SocketAddr, policy: Policy) -> Arc<Target> {
    let url = format!("ws://{address}/");
    Arc::new(Target {
        identity: Arc::new(Identity {
            name: "edge".into(),
            url: url.as_str().into(),
            protocol: crate::stats::Protocol::WebSocket,
            server_beats: false,
            watches_staleness: false,
            labels: Arc::from([]),
            fan_out: None,
        }),
        url: Secret::new(url.into()),
        connection: Arc::new(ConnectionOptions::default()),
        policy: Arc::new(policy),
    })
}

pub(super) fn steady_backoff() -> Policy {
    Policy {
        reconnect: BackoffPolicy {
            initial: Duration::from_millis(200),
            jitter: 0.0,
            ..BackoffPolicy::default()
        },
        ..Policy::default()
    }
}

/// A peer that answers pings; tells when each connection came and went.
async fn peer() -> (
    SocketAddr,
    mpsc::UnboundedReceiver<(&'static str, SocketAddr)>,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, from)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let _ = tell.send(("came", from));
                serve(stream).await;
                let _ = tell.send(("went", from));
            });
        }
    });
    (address, told)
}

async fn serve(stream: TcpStream) {
    let mut ws = tokio_tungstenite::accept_async(stream).await.unwrap();
    while let Some(Ok(_)) = ws.next().await {}
}

/// Refuses, for its socket never listens; as long as that is there nobody else has the address.
fn nobody() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn a_retuned_target_keeps_its_socket() {
    let (address, _told) = peer().await;
    let mut held = held(target(address, Policy::default()));
    let before = held.established().await;
    let quick = HeartbeatPolicy {
        interval: Duration::from_millis(20),
        ..HeartbeatPolicy::default()
    };
    held.desired.set(target(
        address,
        Policy {
            heartbeat: quick,
            ..Policy::default()
        },
    ));
    // The first ping would have left after 10 s.
    held.next(|event| matches!(event, Event::Pong { .. }).then_some(()))
        .await;
    held.desired.stop(Asked::Shutdown);
    let local = held
        .next(|event| match event {
            Event::Ended(end) => end.local,
            Event::Established(up) => panic!("dialed again: {up:?}"),
            _ => None,
        })
        .await;
    assert_eq!(local, before);
    timeout(PATIENCE, held.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_replaced_targets_old_connection_ends_before_the_new_one_dials() {
    let (old, mut at_old) = peer().await;
    let (new, mut at_new) = peer().await;
    let mut held = held(target(old, Policy::default()));
    held.established().await;
    assert_eq!(at_old.recv().await.unwrap().0, "came");
    held.desired.set(target(new, Policy::default()));
    assert_eq!(held.ended().await, Cause::Replaced);
    held.established().await;
    assert_eq!(at_new.recv().await.unwrap().0, "came");
    let (what, _) = at_old.try_recv().expect("the old one had ended by then");
    assert_eq!(what, "went");
}

#[tokio::test]
async fn a_target_wished_back_while_its_close_is_awaited_is_dialed_again_without_a_wait() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, mut closed) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let ws = tokio_tungstenite::accept_async(stream).await.unwrap();
                // From here on it answers nothing.
                let mut stream = ws.into_inner();
                let mut first = [0];
                stream.read_exact(&mut first).await.unwrap();
                tell.send(first[0]).unwrap();
                while !matches!(stream.read(&mut first).await, Ok(0) | Err(_)) {}
            });
        }
    });
    let patient = || {
        let mut policy = Policy {
            reconnect: BackoffPolicy {
                initial: Duration::from_secs(3_600),
                max: Duration::from_secs(3_600),
                ..BackoffPolicy::default()
            },
            ..Policy::default()
        };
        policy.timeouts.close = Duration::from_millis(500);
        policy
    };
    let mut held = held(target(address, patient()));
    held.established().await;
    let (_nobody, dead) = nobody();
    held.desired.set(target(dead, Policy::default()));
    const CLOSE: u8 = 0x88;
    assert_eq!(timeout(PATIENCE, closed.recv()).await, Ok(Some(CLOSE)));
    held.desired.set(target(address, patient()));
    assert_eq!(held.ended().await, Cause::Replaced);
    held.established().await;
}

#[tokio::test]
async fn another_address_is_dialed_at_once_and_its_failures_counted_anew() {
    let (_nobody, dead) = nobody();
    let mut growing = steady_backoff();
    growing.reconnect.factor = 18_000.0;
    growing.reconnect.max = Duration::from_secs(3_600);
    let mut held = held(target(dead, growing));
    let waits = [held.wait().await, held.wait().await];
    assert_eq!(waits.map(|w| w.as_millis()), [200, 3_600_000]);
    let (_nobody_else, other) = nobody();
    held.desired.set(target(other, steady_backoff()));
    // At once, not after an hour.
    let failed = held.next(|event| match event {
        Event::DialFailed(failure) => Some(failure.message.clone()),
        _ => None,
    });
    let failed = failed.await;
    assert!(failed.contains(&other.to_string()), "{failed}");
    assert_eq!(held.wait().await.as_millis(), 200);
}

#[tokio::test]
async fn a_shorter_longest_wait_cuts_the_wait_under_way() {
    let slow = Policy {
        reconnect: BackoffPolicy {
            initial: Duration::from_secs(3_600),
            max: Duration::from_secs(3_600),
            jitter: 0.0,
            ..BackoffPolicy::default()
        },
        ..Policy::default()
    };
    let (_nobody, dead) = nobody();
    let mut held = held(target(dead, slow));
    assert_eq!(held.wait().await, Duration::from_secs(3_600));
    let mut quick = steady_backoff();
    quick.reconnect.max = Duration::from_millis(200);
    held.desired.set(target(dead, quick));
    assert_eq!(held.wait().await, Duration::from_millis(200));
}

#[tokio::test]
async fn asked_to_end_while_dialing_it_ends_at_once() {
    // Accepts by the kernel's queue alone and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut patient = Policy::default();
    patient.timeouts.connect = Duration::from_secs(3_600);
    patient.timeouts.upgrade = Duration::from_secs(3_600);
    let held = held(target(silent.local_addr().unwrap(), patient));
    let (_stream, _) = silent.accept().await.unwrap();
    held.desired.stop(Asked::Shutdown);
    timeout(PATIENCE, held.task)
        .await
        .expect("at once")
        .unwrap();
}

#[tokio::test]
async fn a_task_asked_to_end_stays_asked() {
    let (address, _told) = peer().await;
    let mut held = held(target(address, Policy::default()));
    held.established().await;
    held.desired.stop(Asked::Removed);
    held.desired.set(target(address, Policy::default()));
    assert_eq!(held.ended().await, Cause::Removed);
    timeout(PATIENCE, held.task).await.unwrap().unwrap();
}

/// A peer that answers each request by `answer`, then a Close frame if it agreed, and ends TCP.
async fn answering(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if answer.is_empty() {
                let mut ws = tokio_tungstenite::accept_async(stream).await.unwrap();
                let frame = tungstenite::protocol::CloseFrame {
                    code: 4001.into(),
                    reason: "no s3cret-token here".into(),
                };
                let _ = ws.close(Some(frame)).await;
                while let Some(Ok(_)) = ws.next().await {}
                continue;
            }
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn who_is_refused_waits_longest_and_sees_no_secret() {
    let longest = BackoffPolicy::default().max;
    let mut target = Arc::unwrap_or_clone(target(answering("").await, steady_backoff()));
    let options = Arc::make_mut(&mut target.connection);
    let token = Secret::new("Bearer s3cret-token".into());
    options.headers = vec![(
        http::header::AUTHORIZATION,
        crate::config::SecretSource::Literal(token),
    )];
    let mut closed = held(Arc::new(target));
    let message = closed
        .next(|event| match event {
            Event::Ended(end) => Some(end.message.clone()),
            _ => None,
        })
        .await;
    assert_eq!(&*message, "peer refused us (Close 4001 \"no *** here\")");
    assert_eq!(closed.wait().await, longest);

    let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    let mut refused = held(self::target(answering(answer).await, steady_backoff()));
    let times = refused
        .next(|event| match event {
            Event::DialFailed(failure) => Some(failure.times),
            _ => None,
        })
        .await;
    assert!(times[Phase::Tcp as usize].is_some(), "{times:?}");
    assert_eq!(refused.wait().await, longest);
}

#[tokio::test]
async fn attempts_are_counted_from_the_last_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for count in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            // Each second one is dropped without a word.
            if count % 2 == 1 {
                let _ = tokio_tungstenite::accept_async(stream).await;
            }
        }
    });
    let mut policy = steady_backoff();
    policy.reconnect.max = policy.reconnect.initial;
    let mut held = held(target(address, policy));
    for _ in 0..2 {
        let attempts = held.next(|event| match event {
            Event::Established(up) => Some(up.attempts),
            _ => None,
        });
        assert_eq!(attempts.await, 2);
    }
}

#[tokio::test]
async fn another_address_forgets_failures_while_it_is_dialed_and_while_it_stands() {
    for stands in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (up, mut is_up) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            for count in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                if count < 2 {
                    continue;
                }
                let _ = up.send(());
                if stands {
                    serve(stream).await;
                } else {
                    // It is never answered.
                    std::future::pending::<()>().await;
                }
            }
        });
        let mut held = held(target(address, steady_backoff()));
        assert_eq!(held.wait().await.as_millis(), 200);
        assert_eq!(held.wait().await.as_millis(), 400);
        if stands {
            held.established().await;
        } else {
            timeout(PATIENCE, is_up.recv()).await.unwrap();
        }
        let (_nobody, dead) = nobody();
        held.desired.set(target(dead, steady_backoff()));
        assert_eq!(held.wait().await.as_millis(), 200, "stands: {stands}");
    }
}

#[tokio::test]
async fn the_first_ping_of_a_single_client_leaves_after_a_whole_interval() {
    let (address, _told) = peer().await;
    let interval = Duration::from_millis(500);
    let spread = spread("edge", interval);
    assert!(spread < interval / 2, "{spread:?}: take another name");
    let policy = Policy {
        heartbeat: HeartbeatPolicy::every(interval),
        ..Policy::default()
    };
    let mut held = held(target(address, policy));
    held.established().await;
    let up = Instant::now();
    held.next(|event| matches!(event, Event::PingSent { .. }).then_some(()))
        .await;
    // It came up a little before that was told.
    let least = (spread + interval) / 2;
    assert!(up.elapsed() > least, "{:?}", up.elapsed());
}

/// Greets, and is never welcomed: each hello fails.
fn unwelcome(address: SocketAddr) -> Arc<Target> {
    let mut policy = steady_backoff();
    policy.timeouts.hello = Duration::from_millis(20);
    policy.reconnect.initial = Duration::from_millis(100);
    policy.reconnect.max = policy.reconnect.initial;
    let mut target = Arc::unwrap_or_clone(target(address, policy));
    Arc::make_mut(&mut target.connection).heartbeat = Heartbeat::ActionCable {
        channels: Vec::new(),
    };
    Arc::new(target)
}

#[tokio::test]
async fn a_hello_that_fails_is_a_failed_dial_to_the_gate_and_to_the_wait() {
    let (address, _told) = peer().await;
    let (sender, events) = mpsc::unbounded_channel();
    // One place for those that failed before, and one more.
    let gate = DialGate::new(DialLimits {
        concurrency: 2,
        per_second: 1_000_000,
    });
    let taken = gate.enter(true).await;
    let mut policy = Policy::clone(&unwelcome(address).policy);
    policy.reconnect.max = Duration::from_secs(30);
    let mut growing = Arc::unwrap_or_clone(unwelcome(address));
    growing.policy = Arc::new(policy);
    let desired = Desired::new(Arc::new(growing));
    let task = tokio::spawn(hold(
        desired.clone(),
        gate.clone(),
        FirstPing::AfterInterval,
        Tell(sender),
    ));
    let mut held = Held {
        desired,
        events,
        task,
    };
    let failed = held.next(|event| match event {
        Event::DialFailed(failure) => Some((failure.phase, failure.times, failure.attempts)),
        _ => None,
    });
    let (phase, times, attempts) = failed.await;
    assert_eq!((phase, attempts), (Phase::Hello, 1));
    assert!(times[Phase::Hello as usize].is_some(), "{times:?}");
    assert_eq!(held.wait().await.as_millis(), 100);
    held.next(|event| (*event == Event::Connecting).then_some(()))
        .await;
    // The place of those that failed is taken: it is not dialed before that is free.
    let more = timeout(Duration::from_millis(200), held.events.recv()).await;
    assert!(more.is_err(), "{more:?}");
    drop(taken);
    assert_eq!(held.wait().await.as_millis(), 200);
    assert!(gate.slowdown() > 1.0, "{}", gate.slowdown());
}

#[test]
fn a_session_lives_by_its_targets_policy() {
    let address = "127.0.0.1:1".parse().unwrap();
    let mut policy = Policy {
        staleness: Some(Duration::from_secs(7)),
        ..Policy::default()
    };
    policy.wishes.max_silence = Some(Duration::from_secs(9));
    let mut target = Arc::unwrap_or_clone(target(address, policy));
    let session = session_policy(&target);
    assert_eq!(session.heartbeat.mode, PingMode::Always);
    assert_eq!(session.wishes, target.policy.wishes);
    assert_eq!(session.staleness, target.policy.staleness);
    // The idle canary never pings.
    Arc::make_mut(&mut target.connection).heartbeat = Heartbeat::None;
    assert_eq!(session_policy(&target).heartbeat.mode, PingMode::Never);
}
