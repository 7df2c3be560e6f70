//! What an event stream brought, in figures.

use std::time::Duration;

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// An event, of this many bytes of data.
    Event(usize),
    /// A comment: how a stream with nothing to say keeps alive.
    Comment,
}

/// Events and comments as they come in.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    pub(super) events: u64,
    pub(super) comments: u64,
    /// When the first of either came, since the stream stood.
    pub(super) first: Option<Duration>,
    /// When the first event came, since the stream stood.
    pub(super) first_event: Option<Duration>,
    gaps: Option<Gaps>,
    sum: Duration,
}

/// From one arrival to the next. What there was before the first is no gap: a server that sends at
/// once would seem to send twice as often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gaps {
    pub(super) min: Duration,
    pub(super) avg: Duration,
    pub(super) max: Duration,
}

impl Arrivals {
    /// Events and comments together: the number of the last.
    pub(super) fn count(&self) -> u64 {
        self.events + self.comments
    }

    /// One came `gap` after the one before, when the stream had stood for `age`.
    pub(super) fn add(&mut self, arrival: Arrival, gap: Duration, age: Duration) {
        match arrival {
            Arrival::Event(_) => {
                self.events += 1;
                self.first_event.get_or_insert(age);
            }
            Arrival::Comment => self.comments += 1,
        }
        if self.first.is_none() {
            self.first = Some(age);
            return;
        }
        self.sum += gap;
        let (min, max) = match self.gaps {
            Some(gaps) => (gaps.min.min(gap), gaps.max.max(gap)),
            None => (gap, gap),
        };
        let avg = self.sum.div_f64((self.count() - 1) as f64);
        // Which no rounding takes out of its place.
        let avg = avg.clamp(min, max);
        self.gaps = Some(Gaps { min, avg, max });
    }

    /// `None` below two arrivals.
    pub(super) fn gaps(&self) -> Option<Gaps> {
        self.gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_between_arrivals() {
        let ms = Duration::from_millis;
        let mut arrivals = Arrivals::default();
        assert_eq!((arrivals.count(), arrivals.gaps()), (0, None));
        arrivals.add(Arrival::Comment, ms(900), ms(900));
        assert_eq!((arrivals.count(), arrivals.gaps()), (1, None));
        arrivals.add(Arrival::Event(3), ms(500), ms(1_400));
        let gaps = |min, avg, max| {
            Some(Gaps {
                min: ms(min),
                avg: ms(avg),
                max: ms(max),
            })
        };
        assert_eq!(arrivals.gaps(), gaps(500, 500, 500));
        arrivals.add(Arrival::Event(0), ms(0), ms(1_400));
        arrivals.add(Arrival::Event(3), ms(100), ms(1_500));
        assert_eq!(arrivals.gaps(), gaps(0, 200, 500));
        assert_eq!(arrivals.first, Some(ms(900)));
        assert_eq!(arrivals.first_event, Some(ms(1_400)));
        let counts = (arrivals.events, arrivals.comments, arrivals.count());
        assert_eq!(counts, (3, 1, 4));
    }
}
