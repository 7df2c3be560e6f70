//! Which beats of ours still wait for an answer, where the answers carry their numbers.

/// Beats are numbered upwards; an answer settles all up to its own.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Unanswered {
    sent: u32,
    settled: u32,
}

impl Unanswered {
    /// The beat `seq` is on its way.
    pub(super) fn sent(&mut self, seq: u32) {
        self.sent = seq;
    }

    /// An answer to beat `seq` came in: whether that one was waiting.
    pub(super) fn settle(&mut self, seq: u32) -> bool {
        let waits = self.settled < seq && seq <= self.sent;
        if waits {
            self.settled = seq;
        }
        waits
    }

    /// An answer without a number came in: whether any was waiting.
    pub(super) fn settle_any(&mut self) -> bool {
        self.settle(self.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sent_is_answered_and_only_once() {
        let mut beats = Unanswered::default();
        assert!(!beats.settle(0));
        assert!(!beats.settle(1));
        assert!(!beats.settle_any());
        beats.sent(1);
        beats.sent(2);
        beats.sent(3);
        assert!(!beats.settle(4));
        assert!(beats.settle(2));
        assert!(!beats.settle(2), "again");
        assert!(!beats.settle(1), "earlier");
        assert!(beats.settle_any());
        assert!(!beats.settle(3));
    }
}
