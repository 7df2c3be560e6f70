//! A WebSocket connection without a session: `/ticker`, whose heartbeat is the client's own
//! affair, and any that is to go wrong. Nobody is pinged here.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::faults::{Answer, Answers, Cut, Schedule, Served};
use super::frames::{Frames, Incoming, put_close, put_message, put_pong};
use super::peer::{Connection, WRITE_TIMEOUT};
use super::ticker::{SILENCE, Ticker};
use super::wire::{ENOUGH, Gone, Step, Wire};
use crate::config::faults::Faults;
use crate::proto::close::CloseFrame;
use crate::proto::event::Message;

/// One message of a flood.
const FLOOD_BYTES: usize = 1024;
/// For a last Close to leave.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What is done with a client's messages.
#[derive(Debug)]
pub(super) enum Application {
    Ignore,
    Echo,
    Ticker(Ticker),
}

/// Why a talk is over.
enum Ending {
    Gone(Gone),
    /// The client sent a Close.
    Closed(CloseFrame),
    /// We do, for what it did or did not.
    Refused(CloseFrame),
    Cut(Cut),
    Shutdown,
}

struct Talk<'a> {
    connection: &'a Connection,
    wire: Wire,
    frames: Frames,
    application: Application,
    answers: Answers,
    schedule: Schedule<'a>,
    served: Served<'a>,
    flood: bool,
    flooded: u64,
    /// When the last frame came.
    heard: Instant,
}

/// Serves an upgraded connection until it ends.
pub(super) async fn serve(
    connection: &Connection,
    wire: Wire,
    application: Application,
    faults: &Faults,
) {
    let now = Instant::now();
    let mut talk = Talk {
        connection,
        wire,
        frames: Frames::new(connection.config.max_message_size),
        application,
        answers: Answers::new(faults),
        schedule: Schedule::new(faults, now),
        served: Served::new(&connection.config.name, connection.from, faults),
        flood: faults.flood,
        flooded: 0,
        heard: now,
    };
    let ending = talk.hold().await;
    talk.finish(ending).await;
}

impl Talk<'_> {
    async fn hold(&mut self) -> Ending {
        if self.flood {
            self.served.tell("flood");
        }
        loop {
            let now = Instant::now();
            let cut = self.schedule.next(self.heard);
            let cut_at = cut.as_ref().map(|(at, ..)| *at);
            if let Some((_, cut, switch)) = cut.filter(|(at, ..)| *at <= now) {
                self.served.tell(switch);
                return Ending::Cut(cut);
            }
            let silent_at = matches!(self.application, Application::Ticker(_));
            let silent_at = silent_at.then(|| self.heard + SILENCE);
            if silent_at.is_some_and(|at| at <= now) {
                return Ending::Refused(CloseFrame::new(1008, "silent"));
            }
            let taken = self.take_frames(now);
            self.put_what_is_due(now);
            if let Err(ending) = taken {
                return ending;
            }
            // What waits for the client to take bytes is not waited for by the clock, too.
            let free = !self.wire.is_full();
            let wakes = [
                cut_at,
                silent_at,
                self.answers.next().filter(|_| free),
                self.ticks_at().filter(|_| free),
            ];
            let wake = wakes.into_iter().flatten().min();
            // Frames are not taken while there is no room for answers, as in a flood; yet it is
            // read on, for one message more, and so that the client's end is seen.
            let most = self.connection.config.max_message_size + ENOUGH;
            let reading = self.wire.input.len() < most;
            match self
                .wire
                .step(reading, wake, &self.connection.shutdown)
                .await
            {
                Step::Read | Step::Drained | Step::Due => {}
                Step::Shutdown => return Ending::Shutdown,
                Step::Gone(gone) => return Ending::Gone(gone),
            }
        }
    }

    /// Takes the frames that came, as long as there is room for their answers.
    fn take_frames(&mut self, now: Instant) -> Result<(), Ending> {
        while !self.wire.is_full() && !self.answers.is_full() {
            let taken = self.frames.take(&mut self.wire.input);
            let Some(incoming) = taken.map_err(Ending::Refused)? else {
                return Ok(());
            };
            self.heard = now;
            match incoming {
                Incoming::Ping(payload) => {
                    let stats = &self.connection.stats;
                    stats.pings_received.fetch_add(1, Relaxed);
                    self.owe(Answer::Pong(payload), Answer::wrong_pong(), now);
                }
                Incoming::Pong => {}
                Incoming::Message(message) => self.take_message(message, now)?,
                Incoming::Close(frame) => return Err(Ending::Closed(frame)),
            }
        }
        Ok(())
    }

    fn take_message(&mut self, message: Message, now: Instant) -> Result<(), Ending> {
        let (answer, wrong) = match &mut self.application {
            Application::Ignore => return Ok(()),
            Application::Echo => (message, Message::text("not what was sent")),
            Application::Ticker(ticker) => {
                let answer = ticker.handle(&message, now, rand::random);
                let Some(pong) = answer.map_err(Ending::Refused)? else {
                    return Ok(());
                };
                (pong, Ticker::wrong_pong())
            }
        };
        // An application's heartbeat goes wrong as the protocol's does.
        self.owe(Answer::Message(answer), Answer::Message(wrong), now);
        Ok(())
    }

    fn owe(&mut self, answer: Answer, wrong: Answer, now: Instant) {
        if let Some(switch) = self.answers.owe(answer, wrong, now) {
            self.served.tell(switch);
        }
    }

    fn ticks_at(&self) -> Option<Instant> {
        match &self.application {
            Application::Ignore | Application::Echo => None,
            Application::Ticker(ticker) => ticker.next(),
        }
    }

    fn put_what_is_due(&mut self, now: Instant) {
        while !self.wire.is_full()
            && let Some(answer) = self.answers.due(now)
        {
            match answer {
                Answer::Pong(payload) => {
                    put_pong(self.wire.output(), &payload);
                    self.connection.stats.pongs_sent.fetch_add(1, Relaxed);
                }
                Answer::Message(message) => put_message(self.wire.output(), &message),
            }
        }
        if let Application::Ticker(ticker) = &mut self.application
            && !self.wire.is_full()
        {
            let unix = SystemTime::now().duration_since(UNIX_EPOCH);
            let unix = unix.map_or(0, |since| since.as_secs());
            if let Some(change) = ticker.change(now, unix, rand::random) {
                put_message(self.wire.output(), &change);
            }
        }
        while self.flood && !self.wire.is_full() {
            self.flooded += 1;
            let text = format!("{:<FLOOD_BYTES$}", format!("flood {}", self.flooded));
            put_message(self.wire.output(), &Message::text(text));
        }
    }

    async fn finish(mut self, ending: Ending) {
        let Connection { config, from, .. } = self.connection;
        let said = |why: &dyn std::fmt::Display| {
            tracing::debug!(listener = %config.name, %from, "{why}");
        };
        match ending {
            Ending::Gone(gone) => said(&gone),
            Ending::Closed(frame) => {
                said(&format_args!("the client closed: {frame}"));
                put_close(self.wire.output(), &CloseFrame::new(frame.code, ""));
                self.wire.drain(LAST_WORD).await;
                self.wire.hang_up().await;
            }
            Ending::Refused(frame) => {
                said(&format_args!("closed the client: {frame}"));
                put_close(self.wire.output(), &frame);
                self.wire.drain(LAST_WORD).await;
                self.wire.hang_up().await;
            }
            Ending::Shutdown => {
                // It has been heard; what is awaited from here on has a deadline.
                self.close(CloseFrame::new(1000, ""), &CancellationToken::new())
                    .await;
            }
            Ending::Cut(Cut::Close(frame)) => {
                let shutdown = self.connection.shutdown.clone();
                self.close(frame, &shutdown).await;
            }
            Ending::Cut(Cut::Fin) => self.wire.hang_up().await,
            Ending::Cut(Cut::Reset) => self.wire.reset(),
            Ending::Cut(Cut::Stall) => self.wire.stall(&self.connection.shutdown).await,
        }
    }

    /// Sends a Close and waits for the client's.
    async fn close(mut self, frame: CloseFrame, shutdown: &CancellationToken) {
        put_close(self.wire.output(), &frame);
        let limit = self.connection.config.close_timeout.min(WRITE_TIMEOUT);
        let reply = async {
            while let Step::Read | Step::Drained | Step::Due =
                self.wire.step(true, None, shutdown).await
            {
                loop {
                    match self.frames.take(&mut self.wire.input) {
                        Ok(Some(Incoming::Close(_))) | Err(_) => return,
                        Ok(Some(Incoming::Ping(_) | Incoming::Pong | Incoming::Message(_))) => {}
                        Ok(None) => break,
                    }
                }
            }
        };
        // With or without it, the connection is over.
        let _ = timeout(limit, reply).await;
        self.wire.hang_up().await;
    }
}

#[cfg(test)]
mod tests;
