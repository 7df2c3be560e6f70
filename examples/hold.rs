//! Holds one connection and says what happens to it.
//!
//! ```text
//! ws-keepalive server &
//! cargo run --example hold -- ws://localhost:9000/echo
//! ```
//!
//! Stop the server, start it again, or stall it (`kill -STOP`), and watch. The first Ctrl-C closes
//! the connection in order.

use std::time::Duration;

use ws_keepalive::{Client, Error, Event, HeartbeatPolicy};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "ws://localhost:9000/echo".into());
    let (client, mut events) = Client::builder(url)
        .heartbeat(HeartbeatPolicy::every(Duration::from_secs(2)))
        .on_open("hello")
        .start()?;

    let mut stopping = false;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = tokio::signal::ctrl_c(), if !stopping => {
                stopping = true;
                client.close();
                continue;
            }
        };
        // `None`: the client was closed, and everything about it has been told.
        let Some(event) = event else { return Ok(()) };
        match event {
            Event::Established(up) => match up.recovered {
                Some(outage) => println!("back after {:.1?}", outage.after),
                None => println!("established, dial {}", up.attempts),
            },
            Event::DialFailed(failure) => {
                println!("no connection ({}): {}", failure.phase, failure.message);
            }
            Event::Waiting { wait } => println!("dialing again in {wait:.1?}"),
            Event::Pong { rtt: Some(rtt), .. } => println!("pong after {rtt:.1?}"),
            Event::Message(message) => println!("message: {:?}", message.as_text()),
            Event::Ended(end) => println!(
                "ended after {:.1?}: {} (cause {}, by {}, {} pings unanswered)",
                end.age, end.message, end.cause, end.initiator, end.outstanding_pings,
            ),
            // Pings, waits and whatever a later version adds.
            _ => {}
        }
    }
}
