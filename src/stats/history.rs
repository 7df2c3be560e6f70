//! What went wrong with a target, with the evidence, within bounds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::proto::close::{Cause, CloseFrame};
use crate::proto::event::{DialFailure, End, Facts, Recovered};

/// Ends remembered per target.
pub(super) const ENDS: usize = 20;

/// Bytes that one of them takes at most, with all it points to. The peer decides how many headers
/// it sends: those that do not fit are left out of the record.
const RECORD: usize = 1024;

/// What is only there once something went wrong.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Ends by cause, in the order of [`Cause::ALL`].
    pub(crate) causes: [u64; Cause::ALL.len()],
    /// Newest first.
    pub(crate) ends: VecDeque<PastEnd>,
    pub(crate) last_failure: Option<DialFailure>,
}

/// An end, and when the connection came back.
#[derive(Debug)]
pub(crate) struct PastEnd {
    pub(crate) end: End,
    pub(crate) recovered_after: Option<Duration>,
}

impl History {
    pub(super) fn ended(&mut self, end: &End) {
        self.causes[end.cause as usize] += 1;
        self.ends.truncate(ENDS - 1);
        // Room for one more and no further: most targets have few ends, and there are many targets.
        self.ends.reserve_exact(1);
        self.ends.push_front(PastEnd::keep(end));
    }

    pub(super) fn recovered(&mut self, recovered: Recovered) {
        let newest = self.ends.front_mut();
        if let Some(past) = newest.filter(|past| past.end.outage_id == recovered.outage_id) {
            past.recovered_after = Some(recovered.after);
        }
    }
}

impl PastEnd {
    fn keep(end: &End) -> Self {
        let mut past = Self {
            end: end.clone(),
            recovered_after: None,
        };
        if let Some(facts) = &end.facts {
            let mut room = RECORD.saturating_sub(past.size() - headers_size(&facts.headers));
            let fits = |header: &&Header| {
                let left = room.checked_sub(header_size(header));
                room = left.unwrap_or(room);
                left.is_some()
            };
            let kept: Vec<&Header> = facts.headers.iter().filter(fits).collect();
            if kept.len() < facts.headers.len() {
                past.end.facts = Some(Arc::new(Facts {
                    subprotocol: facts.subprotocol.clone(),
                    proxy: facts.proxy.clone(),
                    tls: facts.tls,
                    headers: kept.into_iter().cloned().collect(),
                }));
            }
        }
        past
    }

    /// Bytes it takes, with all it points to; what the allocator adds apart.
    pub(crate) fn size(&self) -> usize {
        let Self { end, .. } = self;
        let reason = |frame: &Option<CloseFrame>| frame.as_ref().map_or(0, |f| f.reason.len());
        let facts = end.facts.as_ref().map_or(0, |facts| {
            let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
            // The two counters of the Arc.
            2 * size_of::<usize>()
                + size_of::<Facts>()
                + text(&facts.subprotocol)
                + text(&facts.proxy)
                + headers_size(&facts.headers)
        });
        size_of::<Self>() + end.message.len() + reason(&end.received) + reason(&end.sent) + facts
    }
}

/// Name and value.
type Header = (Box<str>, Box<str>);

fn header_size(header: &Header) -> usize {
    size_of::<Header>() + header.0.len() + header.1.len()
}

fn headers_size(headers: &[Header]) -> usize {
    headers.iter().map(header_size).sum()
}
