/* Counters that a C program shares with the benchmark while both run.
 *
 * The benchmark creates a file of zeroes and names it to the program, which maps it; the benchmark
 * reads it with plain reads. Every value is a 64-bit word, written by one thread, so a reader sees
 * whole values without any lock. benches/hold/stats.rs mirrors the order of these slots. */
#ifndef HOLD_STATS_H
#define HOLD_STATS_H

#include <stdint.h>

/* What server.c tells about itself. Times are CLOCK_MONOTONIC nanoseconds. */
enum server_slot {
    SERVER_LISTENING_AT,    /* when listen() had succeeded */
    SERVER_ACCEPTED,        /* connections accepted, ever */
    SERVER_DIALING,         /* accepted, and not upgraded yet */
    SERVER_DIALING_MAX,     /* the most there ever were of those at once */
    SERVER_UPGRADED,        /* upgraded, ever */
    SERVER_LIVE,            /* upgraded and still open */
    SERVER_REFUSED,         /* closed by us: no WebSocket request, or a frame too long */
    SERVER_CLOSE_FRAMES,    /* Close frames received */
    SERVER_PINGS,           /* pings received and answered */
    SERVER_FIRST_ACCEPT_AT, /* when the first connection came */
    SERVER_LAST_UPGRADE_AT, /* when the last one was upgraded */
    SERVER_UNSTAMPED,       /* pings that came without the kernel's receive stamp */
    SERVER_HEADER = 16      /* the histogram of ping lateness follows here */
};

/* Lateness histogram: a bucket is 10 us wide, the last one holds everything longer. */
#define LATENESS_BUCKET_NS 10000
#define LATENESS_BUCKETS 65536
#define SERVER_WORDS (SERVER_HEADER + LATENESS_BUCKETS)

/* What count.c counts. Several threads may write: additions are atomic there. */
enum count_slot {
    COUNT_READ,
    COUNT_WRITE,
    COUNT_RECV,
    COUNT_SEND,
    COUNT_EPOLL_WAIT,
    COUNT_EPOLL_CTL,
    COUNT_SOCKET,   /* socket, setsockopt, getsockopt, bind, getpeername, ... */
    COUNT_CONNECT,
    COUNT_ACCEPT,
    COUNT_CLOSE,    /* close, shutdown */
    COUNT_FUTEX,    /* through syscall() */
    COUNT_OTHER,    /* anything else through syscall(), and the few wrapped rarities */
    COUNT_WORDS = 16
};

#endif
