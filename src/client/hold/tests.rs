//! The held target over real sockets on loopback: what becomes of a connection when the wish does.

use std::net::SocketAddr;

use futures_util::StreamExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::config::{ConnectionOptions, DialLimits, Policy, Secret};
use crate::proto::backoff::BackoffPolicy;
use crate::proto::close::Cause;
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

async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
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
async fn another_address_is_dialed_at_once_and_its_failures_counted_anew() {
    let dead = nobody().await;
    let mut held = held(target(dead, steady_backoff()));
    let waits = [held.wait().await, held.wait().await, held.wait().await];
    assert_eq!(waits.map(|w| w.as_millis()), [200, 400, 800]);
    let other = nobody().await;
    held.desired.set(target(other, steady_backoff()));
    let failed = held.next(|event| match event {
        Event::DialFailed(failure) => Some(failure.message.clone()),
        _ => None,
    });
    let failed = timeout(Duration::from_millis(700), failed).await;
    assert!(
        failed
            .expect("at once, not after 800 ms")
            .contains(&other.to_string())
    );
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
    let dead = nobody().await;
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
    let held = held(target(silent.local_addr().unwrap(), Policy::default()));
    let (_stream, _) = silent.accept().await.unwrap();
    held.desired.stop(Asked::Shutdown);
    timeout(Duration::from_secs(1), held.task)
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
