//! Giving memory back: one of the three modules that may hold `unsafe` code.
//!
//! Reading a configuration and gathering a scrape take many times the memory of what stays. glibc
//! keeps freed memory for later, so that a daemon of many targets would for ever look as large as
//! its largest moment. `malloc_trim(3)` is the documented way to hand it back, and has no safe
//! wrapper in nix or rustix.
#![allow(unsafe_code)]

/// Hands memory freed by a large piece of work back to the operating system. Call after the work,
/// off the hot path: it looks at the whole heap, some milliseconds for a hundred megabytes.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim takes no pointer, may be called from any thread at any time, and only
    // touches memory that the allocator knows to be free.
    unsafe {
        libc::malloc_trim(0);
    }
}
