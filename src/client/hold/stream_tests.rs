//! An event stream held for ever: where it is taken up again, how soon, and when never again.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::tests::{PATIENCE, held, steady_backoff, target};
use super::*;
use crate::config::{ConnectionOptions, Policy, Secret};
use crate::proto::close::Cause;
use crate::proto::event::Phase;
use crate::proto::heartbeat::Wishes;

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

/// A peer that answers each request in turn by one of `answers`, the last one again and again, and
/// ends the response unless its answer says `{hold}` at the end. The heads of the requests.
async fn peer(answers: &[&str]) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    let answers: Vec<String> = answers.iter().map(|a| (*a).to_owned()).collect();
    tokio::spawn(async move {
        let mut held = Vec::new();
        let last = answers.last().unwrap();
        for answer in answers.iter().chain(std::iter::repeat(last)) {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let _ = tell.send(String::from_utf8(head).unwrap());
            let (answer, hold) = match answer.strip_suffix("{hold}") {
                Some(answer) => (answer, true),
                None => (&**answer, false),
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
            if hold {
                held.push(stream);
            }
        }
    });
    (address, told)
}

fn events(address: SocketAddr, policy: Policy) -> Arc<Target> {
    let mut target = Arc::unwrap_or_clone(target(address, policy));
    target.url = Secret::new(format!("http://{address}/events").into());
    target.connection = Arc::new(ConnectionOptions {
        heartbeat: Heartbeat::Sse,
        ..ConnectionOptions::default()
    });
    Arc::new(target)
}

/// Waits from 100 ms to 500 ms, without dice.
fn quick() -> Policy {
    let mut policy = steady_backoff();
    policy.reconnect.initial = Duration::from_millis(100);
    policy.reconnect.max = Duration::from_millis(500);
    policy
}

fn id_in(head: &str) -> Option<&str> {
    head.lines()
        .find_map(|line| line.strip_prefix("last-event-id: "))
}

async fn heard(heads: &mut mpsc::UnboundedReceiver<String>) -> String {
    timeout(PATIENCE, heads.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_stream_is_taken_up_where_it_ended_whatever_lies_between() {
    let (address, mut heads) = peer(&[
        &format!("{GOOD}id: 7\ndata: a\n\n"),
        "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        &format!("{GOOD}data: b\n\n"),
        &format!("{GOOD}id\ndata: c\n\n"),
        &format!("{GOOD}{{hold}}"),
    ])
    .await;
    let mut held = held(events(address, quick()));
    for id in [None, Some("7"), Some("7"), Some("7"), None] {
        assert_eq!(id_in(&heard(&mut heads).await), id);
    }
    let causes = [held.ended().await, held.ended().await, held.ended().await];
    assert_eq!(causes, [Cause::Fin; 3]);
}

#[tokio::test]
async fn a_server_s_retry_takes_the_place_of_initial_and_goes_on_growing() {
    let (address, _heads) = peer(&[
        &format!("{GOOD}retry: 150\n\n"),
        "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        // Clamped: from 100 ms to 500 ms.
        &format!("{GOOD}retry: 1\n\n"),
        &format!("{GOOD}retry: 3600000\n\n"),
        &format!("{GOOD}{{hold}}"),
    ])
    .await;
    let mut policy = quick();
    // Or each end would count as a failure, and grow the wait.
    policy.reconnect.reset_after = Duration::ZERO;
    let mut held = held(events(address, policy));
    let mut waits = Vec::new();
    for _ in 0..5 {
        waits.push(held.wait().await.as_millis());
    }
    assert_eq!(waits, [150, 150, 300, 100, 500]);
}

#[tokio::test]
async fn another_url_knows_nothing_of_the_stream_before() {
    for stands in [true, false] {
        let hold = if stands { "{hold}" } else { "" };
        let answer = format!("{GOOD}id: 7\nretry: 400\ndata: a\n\n{hold}");
        let (old, _heads) = peer(&[&answer]).await;
        let (new, mut heads) = peer(&["HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"]).await;
        let mut held = held(events(old, quick()));
        if stands {
            held.next(|event| matches!(event, Event::Message(_)).then_some(()))
                .await;
        } else {
            assert_eq!(held.wait().await, Duration::from_millis(400));
        }
        held.desired.set(events(new, quick()));
        assert_eq!(id_in(&heard(&mut heads).await), None);
        assert_eq!(held.wait().await, Duration::from_millis(100));
    }
}

#[tokio::test]
async fn a_204_stops_until_another_connection_is_wished_for() {
    let (done, mut heads) = peer(&["HTTP/1.1 204 No Content\r\n\r\n"]).await;
    let mut held = held(events(done, quick()));
    let message = held
        .next(|event| match event {
            Event::DialFailed(failure) => {
                assert_eq!((failure.phase, failure.status), (Phase::Upgrade, Some(204)));
                Some(failure.message.clone())
            }
            _ => None,
        })
        .await;
    assert!(message.contains("until the url"), "{message}");
    let next = timeout(PATIENCE, held.events.recv()).await.unwrap();
    assert_eq!(next, Some(Event::Stopped), "and no wait");

    // How it is kept does not matter to a connection that there is not.
    held.desired.set(events(done, Policy::default()));
    let more = timeout(Duration::from_millis(300), held.events.recv()).await;
    assert!(more.is_err(), "{more:?}");
    heard(&mut heads).await;
    assert!(heads.try_recv().is_err(), "asked once");

    // Neither the failure nor its number is of another one.
    let (bad, _heads) = peer(&["HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"]).await;
    held.desired.set(events(bad, quick()));
    let attempts = held.next(|event| match event {
        Event::DialFailed(failure) => Some(failure.attempts),
        _ => None,
    });
    assert_eq!(attempts.await, 1);
    assert_eq!(held.wait().await, Duration::from_millis(100));

    let (up, _heads) = peer(&[&format!("{GOOD}{{hold}}")]).await;
    held.desired.set(events(up, quick()));
    held.established().await;
    held.desired.set(events(done, quick()));
    held.next(|event| (*event == Event::Stopped).then_some(()))
        .await;
    held.desired.stop(Asked::Removed);
    timeout(PATIENCE, held.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn who_cannot_wish_for_another_does_not_stay_after_a_204() {
    struct Alone(mpsc::UnboundedSender<Event>);
    impl Observer for Alone {
        fn observe(&mut self, event: Event) {
            let _ = self.0.send(event);
        }
        fn stays_stopped(&self) -> bool {
            false
        }
    }
    let (done, _heads) = peer(&["HTTP/1.1 204 No Content\r\n\r\n"]).await;
    let (sender, _events) = mpsc::unbounded_channel();
    let gate = DialGate::new(crate::config::DialLimits {
        concurrency: 1,
        per_second: 10,
    });
    let desired = Desired::new(events(done, quick()));
    let held = hold(desired, gate, FirstPing::AfterInterval, Alone(sender));
    timeout(PATIENCE, held).await.unwrap();
}

fn silent_after(max_silence: Duration) -> Policy {
    Policy {
        wishes: Wishes {
            max_silence: Some(max_silence),
            ..Wishes::default()
        },
        ..quick()
    }
}

#[tokio::test]
async fn a_quiet_stream_is_cut_after_max_silence() {
    let (address, mut heads) = peer(&[&format!("{GOOD}data: a\n\n{{hold}}")]).await;
    let limit = Duration::from_millis(300);
    let mut held = held(events(address, silent_after(limit)));
    let end = held
        .next(|event| match event {
            Event::Ended(end) => Some(end.clone()),
            _ => None,
        })
        .await;
    assert_eq!((end.cause, end.initiator.as_str()), (Cause::Silence, "us"));
    assert!(end.message.contains("max_silence"), "{}", end.message);
    assert!(end.age >= limit, "{:?}", end.age);
    assert_eq!((end.received, end.sent), (None, None), "it just ends");
    assert!(end.tcp_info.is_some() && end.local.is_some());
    heard(&mut heads).await;
    // And is dialed again.
    heard(&mut heads).await;
}

#[tokio::test]
async fn a_stream_of_comments_alone_is_healthy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limit = Duration::from_secs(1);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(GOOD.as_bytes()).await.unwrap();
        let mut beat = tokio::time::interval(limit / 10);
        loop {
            beat.tick().await;
            if stream.write_all(b": beat\n\n").await.is_err() {
                return;
            }
        }
    });
    let mut held = held(events(address, silent_after(limit)));
    held.established().await;
    let up = Instant::now();
    let (mut beats, mut arrivals) = (0, 0);
    held.next(|event| {
        match event {
            Event::HeartbeatReceived => beats += 1,
            Event::Arrived { .. } => arrivals += 1,
            Event::Ended(end) => panic!("{end:?}"),
            _ => {}
        }
        (up.elapsed() > limit * 2).then_some(())
    })
    .await;
    assert!(beats >= 10 && arrivals >= 10, "{beats}, {arrivals}");
}

#[tokio::test]
async fn another_url_while_a_stream_stands_knows_nothing_of_the_one_before_that() {
    let first = format!("{GOOD}id: 7\nretry: 400\ndata: a\n\n");
    let (old, _heads) = peer(&[&first, &format!("{GOOD}{{hold}}")]).await;
    let (new, mut heads) = peer(&["HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"]).await;
    let mut held = held(events(old, quick()));
    held.ended().await;
    held.established().await;
    held.desired.set(events(new, quick()));
    assert_eq!(id_in(&heard(&mut heads).await), None);
    assert_eq!(held.wait().await, Duration::from_millis(100));
}

#[tokio::test]
async fn who_dials_no_more_does_not_stay_after_a_204_either() {
    struct Spent;
    impl Observer for Spent {
        fn observe(&mut self, _: Event) {}
        fn dial_again(&mut self) -> bool {
            false
        }
    }
    let (done, _heads) = peer(&["HTTP/1.1 204 No Content\r\n\r\n"]).await;
    let gate = DialGate::new(crate::config::DialLimits {
        concurrency: 1,
        per_second: 10,
    });
    let desired = Desired::new(events(done, quick()));
    let held = hold(desired, gate, FirstPing::AfterInterval, Spent);
    timeout(PATIENCE, held).await.unwrap();
}

#[tokio::test]
async fn the_first_event_s_delay_is_told_once_and_bytes_alone_are_arrivals() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let delay = Duration::from_millis(200);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(GOOD.as_bytes()).await.unwrap();
        tokio::time::sleep(delay).await;
        // One write, of five comments.
        let bytes = b": 1\n\n: 2\n\n: 3\n\n: 4\n\n: 5\n\ndata: a\n\ndata: b\n\n";
        stream.write_all(bytes).await.unwrap();
    });
    let mut held = held(events(address, quick()));
    let (mut first, mut beats, mut arrivals) = (Vec::new(), 0, 0);
    held.next(|event| match event {
        Event::FirstEvent { delay } => {
            first.push(*delay);
            None
        }
        Event::HeartbeatReceived => {
            beats += 1;
            None
        }
        Event::Arrived { .. } => {
            arrivals += 1;
            None
        }
        Event::Ended(_) => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(first.len(), 1, "{first:?}");
    // The head may have been read a little after it was written.
    assert!(first[0] >= delay / 2, "{first:?}");
    // However the network cut the bytes, there were fewer pieces than meanings.
    assert_eq!(beats, 5);
    assert!((1..5).contains(&arrivals), "{arrivals}");
}

#[tokio::test]
async fn an_event_stream_is_sent_nothing_and_says_so() {
    /// Has something to say as soon as it is up.
    struct Talkative {
        tell: mpsc::UnboundedSender<Event>,
        message: Option<(Message, oneshot::Sender<bool>)>,
    }
    impl Observer for Talkative {
        fn observe(&mut self, event: Event) {
            let _ = self.tell.send(event);
        }
        fn poll_outgoing(&mut self, _: &mut Context<'_>) -> Poll<(Message, oneshot::Sender<bool>)> {
            self.message.take().map_or(Poll::Pending, Poll::Ready)
        }
    }
    let (address, _heads) = peer(&[&format!("{GOOD}data: a\n\n{{hold}}")]).await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let (written, is_written) = oneshot::channel();
    let message = Some((Message::text("hello"), written));
    let gate = DialGate::new(crate::config::DialLimits {
        concurrency: 1,
        per_second: 10,
    });
    let desired = Desired::new(events(address, quick()));
    let observer = Talkative { tell, message };
    tokio::spawn(hold(desired, gate, FirstPing::AfterInterval, observer));
    assert!(!timeout(PATIENCE, is_written).await.unwrap().unwrap());
    loop {
        match timeout(PATIENCE, told.recv()).await.unwrap().unwrap() {
            Event::MessageSent { .. } => panic!("it was told as sent"),
            Event::Message(_) => break,
            _ => {}
        }
    }
}
