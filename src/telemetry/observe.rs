//! One event, told twice: to the statistics and to the log.

use crate::proto::event::Event;
use crate::stats::TargetStats;

/// Takes `event` into the numbers of its target and writes its log line.
pub(crate) fn observe(stats: &TargetStats, event: &Event) {
    stats.apply(event);
}
