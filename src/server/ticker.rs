//! `/ticker`: the protocol of a demo that people know, with a heartbeat of the application's own.
//! Text messages `Name:JSON`, split at the first colon. Pure: time and dice are arguments.
//!
//! The client asks for symbols (`TickerRequest`) and is told their prices every two seconds
//! (`TickerChange`); its `Ping` is answered by a `Pong` with the same fields.

use std::time::Duration;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::proto::close::CloseFrame;
use crate::proto::event::Message;

/// From one `TickerChange` to the next.
const PERIOD: Duration = Duration::from_secs(2);
/// A client silent this long is discarded; any frame counts.
pub(super) const SILENCE: Duration = Duration::from_secs(120);
/// Symbols of one client.
const MOST_SYMBOLS: usize = 1000;
/// Bytes of a symbol's name.
const LONGEST_SYMBOL: usize = 64;
/// Bytes of a request: room for as many, and for spaces.
const LONGEST_REQUEST: usize = 1 << 20;
/// Prices, in cents, begin between these.
const FIRST_PRICE: f64 = 1_000.0;
const LAST_PRICE: f64 = 50_000.0;
/// The most a price changes from one time to the next.
const STRIDE: f64 = 0.01;

/// The prices one client follows.
#[derive(Debug, Default)]
pub(super) struct Ticker {
    /// As they were asked for.
    prices: Vec<(Box<str>, f64)>,
    next: Option<Instant>,
}

#[derive(Debug, Deserialize)]
struct TickerRequest {
    /// Absent or null: none, as where the protocol comes from.
    #[serde(rename = "Tickers", default)]
    tickers: Option<Vec<Box<str>>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct TickerChange<'a> {
    changes: Vec<Change<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Change<'a> {
    symbol: &'a str,
    /// Unix seconds.
    update_time: u64,
    /// Cents.
    price: f64,
}

impl Ticker {
    /// What `message` is answered with. A message that is none of the protocol's earns a Close
    /// that says so: who types by hand learns what is wrong.
    pub(super) fn handle(
        &mut self,
        message: &Message,
        now: Instant,
        dice: impl FnMut() -> f64,
    ) -> Result<Option<Message>, CloseFrame> {
        let Some(text) = message.as_text() else {
            return Err(CloseFrame::new(1003, "expected text, Name:JSON"));
        };
        let Some((name, json)) = text.split_once(':') else {
            return Err(CloseFrame::new(
                1007,
                "expected Name:JSON, there is no colon",
            ));
        };
        match name {
            // Only looked at: taken apart it would need thirty times the memory.
            "Ping" => match serde_json::from_str::<IgnoredAny>(json) {
                // Not written anew: no number may change on the way.
                Ok(_) if json.trim_start().starts_with('{') => {
                    Ok(Some(Message::text(format!("Pong:{}", json.trim()))))
                }
                Ok(_) | Err(_) => Err(CloseFrame::new(1007, "expected Ping:{..}, a JSON object")),
            },
            "TickerRequest" if json.len() > LONGEST_REQUEST => Err(too_many()),
            "TickerRequest" => {
                let request: TickerRequest = serde_json::from_str(json).map_err(|_| {
                    let reason = r#"expected TickerRequest:{"Tickers":["AAPL"]}"#;
                    CloseFrame::new(1007, reason)
                })?;
                self.follow(request.tickers.unwrap_or_default(), now, dice)?;
                Ok(None)
            }
            _ => {
                let reason = "expected TickerRequest:{..} or Ping:{..}";
                Err(CloseFrame::new(1008, reason))
            }
        }
    }

    /// A `Pong` to no `Ping`.
    pub(super) fn wrong_pong() -> Message {
        Message::text(r#"Pong:{"Sequence":-1,"Seconds":0,"Nanos":0}"#)
    }

    /// A new request takes the place of the last. Prices that were followed go on.
    fn follow(
        &mut self,
        symbols: Vec<Box<str>>,
        now: Instant,
        mut dice: impl FnMut() -> f64,
    ) -> Result<(), CloseFrame> {
        if symbols.len() > MOST_SYMBOLS || symbols.iter().any(|s| s.len() > LONGEST_SYMBOL) {
            return Err(too_many());
        }
        let before = std::mem::take(&mut self.prices);
        for symbol in symbols {
            let has = |prices: &[(Box<str>, f64)]| {
                let known = prices.iter().find(|(known, _)| *known == symbol);
                known.map(|(_, price)| *price)
            };
            if has(&self.prices).is_none() {
                let price = has(&before);
                let price = price
                    .unwrap_or_else(|| rounded(FIRST_PRICE + (LAST_PRICE - FIRST_PRICE) * dice()));
                self.prices.push((symbol, price));
            }
        }
        self.next = match self.next {
            _ if self.prices.is_empty() => None,
            // Asking again and again brings no more of them, and does not put them off.
            Some(next) => Some(next),
            None => Some(now + PERIOD),
        };
        Ok(())
    }

    /// When [`Self::change`] has something to say.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// The prices, each a random step further, if it is time. `unix` in seconds; `dice` from 0 to 1.
    pub(super) fn change(
        &mut self,
        now: Instant,
        unix: u64,
        mut dice: impl FnMut() -> f64,
    ) -> Option<Message> {
        let next = self.next.filter(|next| *next <= now)?;
        // A late clock brings one message, not those that were missed.
        self.next = Some((next + PERIOD).max(now));
        let changes = self.prices.iter_mut().map(|(symbol, price)| {
            *price = rounded(*price * (1.0 + STRIDE * (2.0 * dice() - 1.0))).max(1.0);
            Change {
                symbol,
                update_time: unix,
                price: *price,
            }
        });
        let changes = TickerChange {
            changes: changes.collect(),
        };
        let json = serde_json::to_string(&changes).expect("names and finite numbers are JSON");
        Some(Message::text(format!("TickerChange:{json}")))
    }
}

fn too_many() -> CloseFrame {
    let reason = format!("at most {MOST_SYMBOLS} tickers, each of at most {LONGEST_SYMBOL} bytes");
    CloseFrame::new(1008, &reason)
}

/// To the hundredth, as people read prices.
fn rounded(price: f64) -> f64 {
    (price * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fair() -> f64 {
        0.5
    }

    fn handle(ticker: &mut Ticker, text: &str) -> Result<Option<Message>, CloseFrame> {
        ticker.handle(&Message::text(text), Instant::now(), fair)
    }

    fn changes(message: &Message) -> Vec<(String, u64, f64)> {
        let json = message
            .as_text()
            .unwrap()
            .strip_prefix("TickerChange:")
            .unwrap();
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        let change = |change: &serde_json::Value| {
            let time = change["UpdateTime"].as_u64().unwrap();
            (
                change["Symbol"].as_str().unwrap().to_owned(),
                time,
                change["Price"].as_f64().unwrap(),
            )
        };
        json["Changes"]
            .as_array()
            .unwrap()
            .iter()
            .map(change)
            .collect()
    }

    #[test]
    fn prices_walk_every_two_seconds_and_a_new_request_replaces_the_old() {
        let (mut ticker, start) = (Ticker::default(), Instant::now());
        let ask = |ticker: &mut Ticker, now, text: &str| {
            let answer = ticker.handle(&Message::text(text), now, fair);
            assert_eq!(answer, Ok(None), "{text}");
        };
        assert_eq!(ticker.next(), None);
        let request = r#"TickerRequest:{"Id":"client:1 ","Tickers":["AAPL","X:Y","AAPL"]}"#;
        ask(&mut ticker, start, request);
        assert_eq!(ticker.next(), Some(start + PERIOD));
        assert_eq!(
            ticker.change(start + PERIOD - Duration::from_millis(1), 7, fair),
            None
        );
        let first = ticker.change(start + PERIOD, 7, || 1.0).unwrap();
        let middle = (FIRST_PRICE + LAST_PRICE) / 2.0;
        let up = rounded(middle * (1.0 + STRIDE));
        assert_eq!(
            changes(&first),
            [("AAPL".into(), 7, up), ("X:Y".into(), 7, up)]
        );
        // Another request amid the wait, with one symbol that goes on and one that is new.
        ask(
            &mut ticker,
            start + PERIOD * 3 / 2,
            r#"TickerRequest:{"Tickers":["NEW","AAPL"]}"#,
        );
        let second = ticker.change(start + PERIOD * 2, 9, fair).unwrap();
        assert_eq!(
            changes(&second),
            [("NEW".into(), 9, middle), ("AAPL".into(), 9, up)]
        );
        // A clock that is late by ten periods.
        let late = start + PERIOD * 12;
        assert!(ticker.change(late, 29, || 0.0).is_some());
        assert_eq!(ticker.next(), Some(late));
        ask(&mut ticker, late, r#"TickerRequest:{"Tickers":null}"#);
        assert_eq!(ticker.next(), None);
    }

    #[test]
    fn a_ping_is_answered_with_its_own_fields_to_the_digit() {
        let mut ticker = Ticker::default();
        let fields = r#"{"Sequence":0,"Seconds":1700000000,"Nanos":123456789012345678901}"#;
        let pong = handle(&mut ticker, &format!("Ping:{fields}"))
            .unwrap()
            .unwrap();
        assert_eq!(pong.as_text(), Some(&*format!("Pong:{fields}")));
    }

    #[test]
    fn what_is_not_of_the_protocol_is_refused_with_a_reason_that_fits_a_close() {
        let mut ticker = Ticker::default();
        for (text, code, reason) in [
            ("hello", 1007, "expected Name:JSON, there is no colon"),
            ("Ping:7", 1007, "expected Ping:{..}, a JSON object"),
            ("Ping:", 1007, "expected Ping:{..}, a JSON object"),
            (
                "TickerRequest:[",
                1007,
                r#"expected TickerRequest:{"Tickers":["AAPL"]}"#,
            ),
            (
                "TickerRequest:{\"Tickers\":[1]}",
                1007,
                r#"expected TickerRequest:{"Tickers":["AAPL"]}"#,
            ),
            ("Quit:{}", 1008, "expected TickerRequest:{..} or Ping:{..}"),
        ] {
            assert_eq!(
                handle(&mut ticker, text),
                Err(CloseFrame::new(code, reason)),
                "{text}"
            );
        }
        let binary = ticker.handle(&Message::binary(*b"Ping:{}"), Instant::now(), fair);
        assert_eq!(
            binary,
            Err(CloseFrame::new(1003, "expected text, Name:JSON"))
        );
        let ask = |symbols: &[String]| format!("TickerRequest:{{\"Tickers\":{symbols:?}}}");
        let many: Vec<String> = (0..=MOST_SYMBOLS).map(|n| n.to_string()).collect();
        assert_eq!(handle(&mut ticker, &ask(&many)).unwrap_err().code, 1008);
        assert_eq!(handle(&mut ticker, &ask(&many[1..])), Ok(None));
        let longest = ask(&["x".repeat(LONGEST_SYMBOL)]);
        assert_eq!(handle(&mut ticker, &longest), Ok(None));
        let long = handle(&mut ticker, &ask(&["x".repeat(LONGEST_SYMBOL + 1)])).unwrap_err();
        assert!(long.code == 1008 && long.reason.len() <= 123, "{long}");
    }

    #[test]
    fn a_price_never_falls_to_nothing() {
        let mut ticker = Ticker::default();
        handle(&mut ticker, r#"TickerRequest:{"Tickers":["A"]}"#).unwrap();
        let mut last = f64::MAX;
        for _ in 0..2_000 {
            let now = ticker.next().unwrap();
            last = changes(&ticker.change(now, 0, || 0.0).unwrap())[0].2;
        }
        assert_eq!(last, 1.0);
    }

    #[test]
    fn a_request_is_not_taken_apart_beyond_a_size() {
        let mut ticker = Ticker::default();
        // Few tickers, and much room between them.
        let request =
            |room: usize| format!("TickerRequest:{{\"Tickers\":[{}\"A\"]}}", " ".repeat(room));
        assert_eq!(handle(&mut ticker, &request(1000)), Ok(None));
        let refused = handle(&mut ticker, &request(LONGEST_REQUEST)).unwrap_err();
        assert_eq!((refused.code, refused), (1008, too_many()));
        let ping = format!("{{\"a\":[{}0]}}", "0,".repeat(1 << 20));
        let pong = Message::text(format!("Pong:{ping}"));
        let answer = handle(&mut ticker, &format!("Ping: {ping}"));
        assert!(answer == Ok(Some(pong)), "an object of any size");
    }
}
