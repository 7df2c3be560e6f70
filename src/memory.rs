//! Giving memory back: one of the three modules that may hold `unsafe` code.
//!
//! Reading a configuration and gathering a scrape take many times the memory of what stays. glibc
//! keeps freed memory for later, so that a daemon of many targets would for ever look as large as
//! its largest moment. `malloc_trim(3)` is the documented way to hand it back, and has no safe
//! wrapper in nix or rustix.
#![allow(unsafe_code)]

/// A piece of memory of this size or more is mapped by itself, in bytes, and so goes back to the
/// operating system when it is freed. Above whatever a connection holds, below the text of a scrape
/// of a thousand targets.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_FROM: libc::c_int = 1 << 20;

/// Lets large pieces of memory, texts of scrapes above all, return to the operating system as soon
/// as they are freed. glibc moves its threshold up to the largest piece it saw freed, 32 MiB at most
/// (`M_MMAP_THRESHOLD` of `mallopt(3)`), and from then on keeps pieces below it for later. Call once,
/// before there are threads.
pub(crate) fn keep_no_large_pieces() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes no pointer, and only sets parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
        // Setting one threshold ends the adjusting of the other, whose start of 128 KiB would have
        // the heap's end moved with every burst.
        libc::mallopt(libc::M_TRIM_THRESHOLD, MAPPED_FROM);
    }
}

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
