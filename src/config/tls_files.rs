//! Whether the files that TLS needs could be read.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static GOOD: AtomicBool = AtomicBool::new(true);

/// Whether every TLS file was good when it was last read.
pub(crate) fn tls_files_are_good() -> bool {
    GOOD.load(Relaxed)
}
