//! Sends a line per second, and gives up after three failed dials in a row.
//!
//! ```text
//! ws-keepalive server &
//! cargo run --example send -- ws://localhost:9000/echo
//! ```
//!
//! Exits 1 when it gave up. A message that could not be sent is not queued again by the library:
//! whether the peer got it is only known from the peer, so what to do is this program's choice. Here
//! it is sent once more.

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use ws_keepalive::{BackoffPolicy, Client, Error, Event, Message};

/// How long a message may wait for a connection.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Error> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "ws://localhost:9000/echo".into());
    let (client, mut events) = Client::builder(url)
        .give_up_after(3)
        .reconnect(BackoffPolicy {
            initial: Duration::from_millis(200),
            max: Duration::from_secs(2),
            ..BackoffPolicy::default()
        })
        .start()?;

    // Events are read beside the sending: a reader that falls behind misses some, it holds up nothing.
    let told = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            match event {
                Event::DialFailed(failure) => {
                    eprintln!("dial {} failed: {}", failure.attempts, failure.message);
                }
                Event::Ended(end) => eprintln!("lost: {}", end.message),
                Event::Message(message) => println!("echo {:?}", message.as_text()),
                Event::Missed { count } => eprintln!("{count} events went by unread"),
                _ => {}
            }
        }
    });

    for n in 1_u64.. {
        let line = format!("line {n}");
        let sent = timeout(PATIENCE, send(&client, &line)).await;
        match sent {
            Ok(Ok(())) => sleep(Duration::from_secs(1)).await,
            Ok(Err(error)) if error.is_closed() => break,
            Ok(Err(error)) => return Err(error),
            // Still queued: it goes out when there is a connection.
            Err(_) => eprintln!("line {n} waits for a connection"),
        }
    }
    eprintln!("gave up");
    // Ends with the last event; a panic in it would be this example's own.
    if let Err(error) = told.await {
        eprintln!("the reader of events: {error}");
    }
    Ok(ExitCode::FAILURE)
}

/// Sends `line`, and once more if the connection broke while it was written.
async fn send(client: &Client, line: &str) -> Result<(), Error> {
    match client.send(Message::text(line)).await {
        Err(error) if error.is_not_sent() => client.send(Message::text(line)).await,
        done => done,
    }
}
