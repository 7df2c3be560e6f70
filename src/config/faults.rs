//! The fault switches of the embedded server, in the syntax of a URL's query. Pure: the
//! configuration judges them, the flag does, and the server does for what its clients ask.

use std::fmt;
use std::time::Duration;

use url::form_urlencoded;

use super::duration::format_duration;
use super::judge;
use super::read::nearest;
use crate::proto::close::CloseFrame;

/// A control frame holds 125 bytes, two of which are the code (RFC 6455 section 5.5).
const LONGEST_REASON: usize = 123;
/// How much of somebody's own words a mistake repeats, in characters.
const SHOWN: usize = 40;

/// `server.faults` and `--faults`: whose word on faults the server takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum FaultSwitches {
    /// Nobody's. The default.
    #[default]
    Off,
    /// Each client's, by the query of the URL it asks for.
    ByQuery,
    /// These for every connection that does not ask for others by its query.
    Always(Box<Faults>),
}

impl FaultSwitches {
    /// `true`, `false`, or switches.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(Self::ByQuery),
            "false" => Ok(Self::Off),
            switches => match Faults::parse(switches, &[], Others::Mistakes)? {
                faults if faults.is_none() => {
                    Err("names no fault; write such as close=1012&after=10s".into())
                }
                faults => Ok(Self::Always(Box::new(faults))),
            },
        }
    }
}

/// What goes wrong with one connection. The default: nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Faults {
    pub(crate) accept_and_close: bool,
    pub(crate) status: Option<Refusal>,
    pub(crate) timed: Option<Timed>,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) idle_cut: Option<Duration>,
    pub(crate) flood: bool,
    pub(crate) no_pongs_after: Option<u64>,
    pub(crate) wrong_payload: bool,
    pub(crate) pong_delay: Option<Duration>,
    pub(crate) silent: bool,
    pub(crate) buffer: Option<Duration>,
}

/// An answer in place of what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// 200 to 599.
    pub(crate) status: u16,
    /// Seconds.
    pub(crate) retry_after: Option<u32>,
}

/// What happens once, so long after the upgrade or the answer's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Timed {
    pub(crate) what: What,
    pub(crate) after: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Close(CloseFrame),
    /// The end of TCP, without a Close or the end of the body.
    Fin,
    Reset,
    /// Nothing is read or written any more; the socket stays open.
    Stall,
}

/// What a URL of the server leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    WebSocket,
    Events,
}

/// How a key is taken that is no switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    /// A switch misspelled: who asks for a fault and gets none would trust a test of nothing.
    Mistakes,
    /// The application's own, whose URL stays as it is while the server has its faults by flag.
    Ignored,
}

/// A switch, for people.
#[derive(Debug)]
pub(crate) struct Switch {
    pub(crate) name: &'static str,
    /// What follows the name, such as `=T`, or nothing.
    pub(crate) value: &'static str,
    /// Where it means something; `None`: everywhere.
    pub(crate) on: Option<Endpoint>,
    pub(crate) what: &'static str,
}

/// Every switch, in the order in which people are told of them: name, value, where, what.
pub(crate) const SWITCHES: [Switch; 17] = {
    const WS: Option<Endpoint> = Some(Endpoint::WebSocket);
    const SSE: Option<Endpoint> = Some(Endpoint::Events);
    const fn switch(
        name: &'static str,
        value: &'static str,
        on: Option<Endpoint>,
        what: &'static str,
    ) -> Switch {
        Switch {
            name,
            value,
            on,
            what,
        }
    }
    [
        switch(
            "no_pongs_after",
            "=N",
            WS,
            "N pings are answered and no more",
        ),
        switch(
            "wrong_payload",
            "",
            WS,
            "pongs carry another payload than their ping",
        ),
        switch("pong_delay", "=T", WS, "pongs leave that much later"),
        switch(
            "stall",
            "",
            None,
            "nothing is read or written any more; the socket stays open",
        ),
        switch("close", "=CODE", WS, "a Close frame"),
        switch("reason", "=TEXT", WS, "goes with close"),
        switch(
            "fin",
            "",
            None,
            "TCP ends (FIN) without a Close, or amid the answer",
        ),
        switch("reset", "", None, "TCP is reset (RST)"),
        switch(
            "after",
            "=T",
            None,
            "goes with stall, close, fin or reset: when; else at once",
        ),
        switch("lifetime", "=T", None, "FIN at that age, traffic or not"),
        switch(
            "idle_cut",
            "=T",
            None,
            "FIN when no frame came for T; on /events, when nothing was sent",
        ),
        switch(
            "accept_and_close",
            "",
            None,
            "closed without an answer; by flag as soon as accepted",
        ),
        switch(
            "status",
            "=CODE",
            None,
            "this answer instead of the one asked for",
        ),
        switch("retry_after", "=SECONDS", None, "goes with status"),
        switch(
            "flood",
            "",
            None,
            "messages or events as fast as they are taken",
        ),
        switch("silent", "", SSE, "no events and no comments"),
        switch(
            "buffer",
            "=T",
            SSE,
            "what is sent is held back, and leaves in a burst every T",
        ),
    ]
};

/// The switches as lines of text: what to write, and what it does.
pub(crate) fn switches_in_words() -> String {
    let mut text = String::new();
    for Switch {
        name,
        value,
        on,
        what,
    } in &SWITCHES
    {
        let only = match on {
            None => "",
            Some(Endpoint::WebSocket) => " (WebSocket)",
            Some(Endpoint::Events) => " (/events)",
        };
        text += &format!("  {:<20} {what}{only}\n", format!("{name}{value}"));
    }
    text
}

impl Faults {
    /// What `query` asks for. Keys in `own` are the endpoint's and read elsewhere.
    pub(crate) fn parse(query: &str, own: &[&str], others: Others) -> Result<Self, String> {
        let mut faults = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        let (mut reason, mut after, mut retry_after) = (None, None, None);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let Some(switch) = SWITCHES.iter().find(|switch| switch.name == key) else {
                if others == Others::Mistakes && !own.contains(&&*key) {
                    return Err(unknown(&key, own));
                }
                continue;
            };
            let name = switch.name;
            if seen.contains(&name) {
                return Err(format!("{name} stands there twice"));
            }
            seen.push(name);
            let wrong = |why: String| format!("{name}={}: {why}", shown(&value));
            if switch.value.is_empty() && !matches!(&*value, "" | "true") {
                return Err(wrong(format!("{name} stands alone, without a value")));
            }
            let wait = || judge::wait(&value).map_err(wrong);
            match name {
                "accept_and_close" => faults.accept_and_close = true,
                "flood" => faults.flood = true,
                "wrong_payload" => faults.wrong_payload = true,
                "silent" => faults.silent = true,
                "lifetime" => faults.lifetime = Some(wait()?),
                "idle_cut" => faults.idle_cut = Some(wait()?),
                "pong_delay" => faults.pong_delay = Some(wait()?),
                "buffer" => faults.buffer = Some(wait()?),
                "after" if value == "0s" => after = Some(Duration::ZERO),
                "after" => after = Some(wait()?),
                "no_pongs_after" => {
                    let n = value.parse();
                    let n = n.map_err(|_| wrong("expected a number of pings, such as 2".into()))?;
                    faults.no_pongs_after = Some(n);
                }
                "status" => {
                    let status = value.parse().ok().filter(|code| (200..600).contains(code));
                    let status = status.ok_or_else(|| {
                        wrong("expected a status between 200 and 599, such as 503".into())
                    })?;
                    let retry_after = None;
                    faults.status = Some(Refusal {
                        status,
                        retry_after,
                    });
                }
                "retry_after" => {
                    let seconds = value.parse();
                    let seconds = seconds
                        .map_err(|_| wrong("expected whole seconds, as in the header: 7".into()))?;
                    retry_after = Some(seconds);
                }
                "reason" if value.len() > LONGEST_REASON => {
                    let long = value.len();
                    return Err(wrong(format!(
                        "a reason has at most {LONGEST_REASON} bytes, this has {long}"
                    )));
                }
                "reason" => reason = Some(value.into_owned()),
                "close" => {
                    let code = value
                        .parse()
                        .ok()
                        .filter(|code| (1000..5000).contains(code));
                    let code = code.ok_or_else(|| {
                        wrong("expected a close code between 1000 and 4999, such as 1012".into())
                    })?;
                    faults.happens(What::Close(CloseFrame::new(code, "")))?;
                }
                "fin" => faults.happens(What::Fin)?,
                "reset" => faults.happens(What::Reset)?,
                "stall" => faults.happens(What::Stall)?,
                // A name of the table without an arm: the test of all switches fails.
                _ => return Err(unknown(name, own)),
            }
        }
        match (&mut faults.timed, after) {
            (Some(timed), Some(after)) => timed.after = after,
            (None, Some(_)) => {
                return Err("after goes with stall, close, fin or reset".into());
            }
            (_, None) => {}
        }
        match (&mut faults.timed, reason) {
            (_, None) => {}
            (
                Some(Timed {
                    what: What::Close(frame),
                    ..
                }),
                Some(reason),
            ) => {
                frame.reason = reason.into();
            }
            (_, Some(_)) => return Err("reason goes with close".into()),
        }
        match (&mut faults.status, retry_after) {
            (Some(refusal), seconds) => refusal.retry_after = seconds,
            (None, Some(_)) => return Err("retry_after goes with status".into()),
            (None, None) => {}
        }
        faults.exclusive()?;
        Ok(faults)
    }

    /// What ends the connection at once leaves nothing for another switch to do: who asks for both
    /// would trust a test of one of them.
    fn exclusive(&self) -> Result<(), String> {
        let (alone, own): (_, &[&str]) = if self.accept_and_close {
            ("accept_and_close", &["accept_and_close"])
        } else if self.status.is_some() {
            ("status", &["status", "retry_after"])
        } else {
            return Ok(());
        };
        let pairs = self.pairs();
        match pairs.iter().find(|(name, _)| !own.contains(name)) {
            None => Ok(()),
            Some((other, _)) => Err(format!(
                "{alone} and {other} exclude each other: {alone} ends the connection at once"
            )),
        }
    }

    fn happens(&mut self, what: What) -> Result<(), String> {
        if self.timed.is_some() {
            return Err("stall, close, fin and reset exclude each other: one of them".into());
        }
        let after = Duration::ZERO;
        self.timed = Some(Timed { what, after });
        Ok(())
    }

    /// Whether nothing is to go wrong.
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The first switch that means nothing at `endpoint`.
    pub(crate) fn misplaced(&self, endpoint: Endpoint) -> Option<&'static str> {
        let set = self.pairs();
        let set = |name: &str| set.iter().any(|(set, _)| *set == name);
        let mut switches = SWITCHES.iter();
        let misplaced =
            switches.find(|switch| switch.on.is_some_and(|on| on != endpoint) && set(switch.name));
        misplaced.map(|switch| switch.name)
    }

    /// Without what means nothing at `endpoint`.
    pub(crate) fn only(mut self, endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::WebSocket => {
                self.silent = false;
                self.buffer = None;
            }
            Endpoint::Events => {
                self.no_pongs_after = None;
                self.wrong_payload = false;
                self.pong_delay = None;
                let close = |timed: &Timed| matches!(timed.what, What::Close(_));
                self.timed = self.timed.filter(|timed| !close(timed));
            }
        }
        self
    }

    /// The switches that are set, and their values.
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs: Vec<(&'static str, Option<String>)> = Vec::new();
        let plain = String::new;
        let time = |time: &Option<Duration>| time.map(format_duration);
        pairs.push(("no_pongs_after", self.no_pongs_after.map(|n| n.to_string())));
        pairs.push(("wrong_payload", self.wrong_payload.then(plain)));
        pairs.push(("pong_delay", time(&self.pong_delay)));
        if let Some(Timed { what, after }) = &self.timed {
            match what {
                What::Close(frame) => {
                    pairs.push(("close", Some(frame.code.to_string())));
                    let reason = (!frame.reason.is_empty()).then(|| frame.reason.to_string());
                    pairs.push(("reason", reason));
                }
                What::Fin => pairs.push(("fin", Some(plain()))),
                What::Reset => pairs.push(("reset", Some(plain()))),
                What::Stall => pairs.push(("stall", Some(plain()))),
            }
            let after = (!after.is_zero()).then(|| format_duration(*after));
            pairs.push(("after", after));
        }
        pairs.push(("lifetime", time(&self.lifetime)));
        pairs.push(("idle_cut", time(&self.idle_cut)));
        pairs.push(("accept_and_close", self.accept_and_close.then(plain)));
        if let Some(refusal) = self.status {
            pairs.push(("status", Some(refusal.status.to_string())));
            let seconds = refusal.retry_after.map(|seconds| seconds.to_string());
            pairs.push(("retry_after", seconds));
        }
        pairs.push(("flood", self.flood.then(plain)));
        pairs.push(("silent", self.silent.then(plain)));
        pairs.push(("buffer", time(&self.buffer)));
        let set = pairs.into_iter();
        set.filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }
}

impl fmt::Display for Faults {
    /// As it is asked for: [`Faults::parse`] reads it back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.pairs().iter().enumerate() {
            let and = if index == 0 { "" } else { "&" };
            write!(f, "{and}{name}")?;
            if !value.is_empty() {
                let value: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
                write!(f, "={value}")?;
            }
        }
        Ok(())
    }
}

fn unknown(key: &str, own: &[&str]) -> String {
    let names = SWITCHES.iter().map(|switch| switch.name);
    let hint = match nearest(key, names.chain(own.iter().copied())) {
        Some(near) => format!("; did you mean {near}?"),
        None => String::new(),
    };
    format!("{} is no switch{hint}", shown(key))
}

/// Somebody's words, made harmless and short.
fn shown(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(SHOWN)
        .collect::<String>()
        .escape_debug()
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        shown += "..";
    }
    shown
}

#[cfg(test)]
mod tests;
