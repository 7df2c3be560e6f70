/* A WebSocket server that does the least a server can: one thread, one epoll instance, a pong for
 * every ping, a Close for every Close. The benchmark's far side, for the engine and the floor alike.
 *
 *     server [--port P] [--stats FILE] [--interval-us N] [--upgrade-delay-us N]
 *
 * Listens on every loopback address (127.0.0.0/8) of port P, or of a free port when P is 0; prints
 * "listening PORT". With --stats it keeps the counters of stats.h in FILE. With --interval-us it also
 * keeps a histogram of how far the distance of two pings of one connection is from that interval, read
 * off the kernel's receive stamps, so that neither this process being late nor the RTT counts.
 * --upgrade-delay-us answers each upgrade that much later, so that dials pile up and a client's bound
 * on them shows. SIGTERM and SIGINT end it; it prints its totals then. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "stats.h"

#define MAX_FD 65536
#define BUFFER 65536
#define EVENTS 256
#define NS 1000000000ull

enum opcode { OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };

enum phase {
    UNUSED,
    REQUESTING, /* accepted, its request has not come whole */
    DELAYED,    /* its request is answered later: --upgrade-delay-us */
    OPEN        /* upgraded */
};

struct peer {
    uint64_t last_ping; /* kernel stamp of its last ping; 0 before the first */
    uint8_t *held;      /* bytes that did not make a whole request or frame yet */
    uint32_t held_len;
    uint32_t generation; /* tells a reused descriptor from the one that was delayed */
    enum phase phase;
};

struct delayed {
    uint64_t due;
    int fd;
    uint32_t generation;
    char accept[32];
};

static struct peer peers[MAX_FD];
static struct delayed delayed[MAX_FD]; /* a ring: the delay is the same for all, so it stays in order */
static uint32_t delayed_head, delayed_len;

static uint64_t private_stats[SERVER_WORDS];
static uint64_t *stats = private_stats;
static uint64_t interval_ns, upgrade_delay_ns;
static uint8_t input[BUFFER + 1], output[2 * BUFFER];
static int epoll;
static volatile sig_atomic_t stopping;

static void on_signal(int signal_number)
{
    (void)signal_number;
    stopping = 1;
}

static void fail(const char *what)
{
    fprintf(stderr, "server: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t monotonic(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

static void set(enum server_slot slot, uint64_t value)
{
    __atomic_store_n(&stats[slot], value, __ATOMIC_RELAXED);
}

static void add(enum server_slot slot, int64_t delta)
{
    set(slot, stats[slot] + (uint64_t)delta);
}

/* SHA-1 (RFC 3174) of the handshake's key with its GUID: 60 bytes, which padding makes two blocks. */

static uint32_t rotate(uint32_t word, int bits)
{
    return word << bits | word >> (32 - bits);
}

static void sha1_block(uint32_t state[5], const uint8_t *block)
{
    uint32_t w[80];
    for (int t = 0; t < 16; t++)
        w[t] = (uint32_t)block[4 * t] << 24 | (uint32_t)block[4 * t + 1] << 16 |
               (uint32_t)block[4 * t + 2] << 8 | block[4 * t + 3];
    for (int t = 16; t < 80; t++)
        w[t] = rotate(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);

    static const uint32_t constant[4] = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};
    uint32_t s[5];
    memcpy(s, state, sizeof s);
    for (int t = 0; t < 80; t++) {
        uint32_t mix;
        switch (t / 20) {
        case 0:
            mix = (s[1] & s[2]) | (~s[1] & s[3]);
            break;
        case 2:
            mix = (s[1] & s[2]) | (s[1] & s[3]) | (s[2] & s[3]);
            break;
        default:
            mix = s[1] ^ s[2] ^ s[3];
        }
        uint32_t next = rotate(s[0], 5) + mix + s[4] + constant[t / 20] + w[t];
        s[4] = s[3];
        s[3] = s[2];
        s[2] = rotate(s[1], 30);
        s[1] = s[0];
        s[0] = next;
    }
    for (int i = 0; i < 5; i++)
        state[i] += s[i];
}

static void sha1(const char *text, size_t len, uint8_t digest[20])
{
    uint8_t padded[128] = {0}; /* room for texts of up to 119 bytes */
    size_t blocks = (len + 8) / 64 + 1;
    memcpy(padded, text, len);
    padded[len] = 0x80;
    for (int i = 0; i < 8; i++)
        padded[64 * blocks - 1 - i] = (uint8_t)((uint64_t)len * 8 >> (8 * i));

    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    for (size_t b = 0; b < blocks; b++)
        sha1_block(state, padded + 64 * b);
    for (int i = 0; i < 20; i++)
        digest[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
}

/* 20 bytes are 28 characters, the last of them '='. */
static void base64_digest(const uint8_t digest[20], char text[29])
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int group = 0; group < 7; group++) {
        uint32_t bits = 0;
        for (int i = 0; i < 3; i++) {
            int at = 3 * group + i;
            bits = bits << 8 | (at < 20 ? digest[at] : 0);
        }
        for (int i = 0; i < 4; i++)
            text[4 * group + i] = alphabet[bits >> (18 - 6 * i) & 63];
    }
    text[27] = '=';
    text[28] = 0;
}

/* RFC 6455, section 4.2.2. Returns 0, or -1 if the request names no usable key. */
static int accept_value(const char *request, char text[29])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const char *key = strcasestr(request, "\r\nsec-websocket-key:");
    if (!key)
        return -1;
    key += strlen("\r\nsec-websocket-key:");
    key += strspn(key, " \t");
    size_t len = strcspn(key, " \t\r\n");
    if (len != 24)
        return -1;

    char joined[24 + sizeof guid];
    memcpy(joined, key, 24);
    memcpy(joined + 24, guid, sizeof guid);
    uint8_t digest[20];
    sha1(joined, 24 + sizeof guid - 1, digest);
    base64_digest(digest, text);
    return 0;
}

static void drop_held(struct peer *peer)
{
    free(peer->held);
    peer->held = NULL;
    peer->held_len = 0;
}

static void forget(int fd)
{
    struct peer *peer = &peers[fd];
    if (peer->phase == OPEN)
        add(SERVER_LIVE, -1);
    else
        add(SERVER_DIALING, -1);
    drop_held(peer);
    peer->phase = UNUSED;
    peer->last_ping = 0;
    peer->generation++;
    close(fd);
}

static void refuse(int fd)
{
    add(SERVER_REFUSED, 1);
    forget(fd);
}

/* A full socket buffer would need a queue of our own. A client that has 8-byte pings outstanding by
 * the thousand and reads none of the answers is not what is measured here: it is cut off. */
static int send_all(int fd, const void *bytes, size_t len)
{
    return send(fd, bytes, len, MSG_NOSIGNAL) == (ssize_t)len ? 0 : -1;
}

static int upgrade(int fd, const char *accept)
{
    char response[192];
    int len = snprintf(response, sizeof response,
                       "HTTP/1.1 101 Switching Protocols\r\n"
                       "Upgrade: websocket\r\n"
                       "Connection: Upgrade\r\n"
                       "Sec-WebSocket-Accept: %s\r\n\r\n",
                       accept);
    /* Counted before it is sent: a client that dials its next target the moment it reads this must
     * not be seen with one dial more than it has. */
    peers[fd].phase = OPEN;
    add(SERVER_DIALING, -1);
    add(SERVER_LIVE, 1);
    add(SERVER_UPGRADED, 1);
    set(SERVER_LAST_UPGRADE_AT, monotonic());
    return send_all(fd, response, (size_t)len);
}

static void delay(int fd, const char *accept)
{
    struct delayed *entry = &delayed[(delayed_head + delayed_len++) % MAX_FD];
    entry->due = monotonic() + upgrade_delay_ns;
    entry->fd = fd;
    entry->generation = peers[fd].generation;
    memcpy(entry->accept, accept, 29);
    peers[fd].phase = DELAYED;
}

static void upgrade_due(void)
{
    uint64_t now = delayed_len ? monotonic() : 0;
    while (delayed_len && delayed[delayed_head].due <= now) {
        struct delayed *entry = &delayed[delayed_head];
        delayed_head = (delayed_head + 1) % MAX_FD;
        delayed_len--;
        struct peer *peer = &peers[entry->fd];
        if (peer->phase == DELAYED && peer->generation == entry->generation &&
            upgrade(entry->fd, entry->accept) < 0)
            forget(entry->fd);
    }
}

static int until_next_upgrade_ms(void)
{
    if (!delayed_len)
        return -1;
    uint64_t now = monotonic(), due = delayed[delayed_head].due;
    return due <= now ? 0 : (int)((due - now + 999999) / 1000000);
}

static void record_ping(struct peer *peer, uint64_t stamp)
{
    add(SERVER_PINGS, 1);
    if (!interval_ns)
        return;
    if (peer->last_ping) {
        int64_t off = (int64_t)(stamp - peer->last_ping - interval_ns);
        uint64_t bucket = (uint64_t)(off < 0 ? -off : off) / LATENESS_BUCKET_NS;
        if (bucket >= LATENESS_BUCKETS)
            bucket = LATENESS_BUCKETS - 1;
        add((enum server_slot)(SERVER_HEADER + bucket), 1);
    }
    peer->last_ping = stamp;
}

/* Answers every whole frame of bytes[at..len). Returns where the first incomplete one begins, or -1
 * when the connection is to be closed. Data frames are skipped. */
static ssize_t answer_frames(int fd, uint8_t *bytes, size_t at, size_t len, uint64_t stamp)
{
    size_t out = 0;
    int closing = 0;
    while (!closing && len - at >= 2) {
        uint8_t opcode = bytes[at] & 15;
        int masked = bytes[at + 1] >> 7;
        size_t payload_len = bytes[at + 1] & 127, header = 2;
        if (payload_len == 127) {
            add(SERVER_REFUSED, 1);
            return -1;
        }
        if (payload_len == 126) {
            if (len - at < 4)
                break;
            payload_len = (size_t)bytes[at + 2] << 8 | bytes[at + 3];
            header = 4;
        }
        header += masked ? 4 : 0;
        if (len - at < header + payload_len)
            break;

        uint8_t *payload = bytes + at + header;
        if (masked)
            for (size_t i = 0; i < payload_len; i++)
                payload[i] ^= bytes[at + header - 4 + i % 4];
        if (payload_len <= 125 && (opcode == OP_PING || opcode == OP_CLOSE)) {
            output[out++] = 0x80 | (opcode == OP_PING ? OP_PONG : OP_CLOSE);
            output[out++] = (uint8_t)payload_len;
            memcpy(output + out, payload, payload_len);
            out += payload_len;
            if (opcode == OP_PING)
                record_ping(&peers[fd], stamp);
        }
        closing = opcode == OP_CLOSE;
        at += header + payload_len;
    }
    if (closing)
        add(SERVER_CLOSE_FRAMES, 1);
    if (out && send_all(fd, output, out) < 0)
        return -1;
    return closing ? -1 : (ssize_t)at;
}

/* The kernel stamps a segment when it arrives, whenever we come to read it. */
static uint64_t receive_stamp(struct msghdr *message)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(c), sizeof t);
            return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
        }
    }
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    add(SERVER_UNSTAMPED, 1);
    return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

static void readable(int fd)
{
    struct peer *peer = &peers[fd];
    size_t len = peer->held_len;
    if (len)
        memcpy(input, peer->held, len);
    drop_held(peer);

    char control[CMSG_SPACE(sizeof(struct timespec))];
    struct iovec space = {.iov_base = input + len, .iov_len = BUFFER - len};
    struct msghdr message = {.msg_iov = &space, .msg_iovlen = 1};
    if (interval_ns) {
        message.msg_control = control;
        message.msg_controllen = sizeof control;
    }
    ssize_t got = recvmsg(fd, &message, 0);
    if (got <= 0) {
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
            if (len && (peer->held = malloc(len))) {
                memcpy(peer->held, input, len);
                peer->held_len = (uint32_t)len;
            }
            return;
        }
        forget(fd);
        return;
    }
    len += (size_t)got;

    size_t at = 0;
    if (peer->phase == DELAYED) {
        refuse(fd); /* a client may not speak before the 101 */
        return;
    }
    if (peer->phase == REQUESTING) {
        input[len] = 0;
        char *end = strstr((char *)input, "\r\n\r\n");
        if (end) {
            char accept[29];
            end[2] = 0;
            at = (size_t)(end + 4 - (char *)input);
            if (accept_value((char *)input, accept) < 0) {
                refuse(fd);
                return;
            }
            if (upgrade_delay_ns) {
                delay(fd, accept);
                return;
            }
            if (upgrade(fd, accept) < 0) {
                forget(fd);
                return;
            }
        }
    }
    if (peer->phase == OPEN) {
        uint64_t stamp = interval_ns && len > at ? receive_stamp(&message) : 0;
        ssize_t rest = answer_frames(fd, input, at, len, stamp);
        if (rest < 0) {
            forget(fd);
            return;
        }
        at = (size_t)rest;
    }
    if (at < len) {
        peer->held = len - at < BUFFER ? malloc(len - at) : NULL;
        if (!peer->held) {
            refuse(fd);
            return;
        }
        memcpy(peer->held, input + at, len - at);
        peer->held_len = (uint32_t)(len - at);
    }
}

/* Takes everything that waits, so that dials count from the kernel's handshake on. */
static void accept_all(int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            if (errno != EAGAIN)
                fail("accept");
            return;
        }
        if (fd >= MAX_FD) {
            close(fd);
            continue;
        }
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
            fail("epoll_ctl");
        peers[fd].phase = REQUESTING;
        if (!stats[SERVER_ACCEPTED])
            set(SERVER_FIRST_ACCEPT_AT, monotonic());
        add(SERVER_ACCEPTED, 1);
        add(SERVER_DIALING, 1);
        if (stats[SERVER_DIALING] > stats[SERVER_DIALING_MAX])
            set(SERVER_DIALING_MAX, stats[SERVER_DIALING]);
    }
}

/* Bound to the loopback device, so that INADDR_ANY is 127.0.0.0/8 and nothing else. */
static int listen_on(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    if (fd < 0)
        fail("socket");
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
        fail("SO_REUSEADDR");
    if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3) < 0)
        fail("SO_BINDTODEVICE lo");
    /* Accepted sockets inherit both of these. */
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
        fail("TCP_NODELAY");
    if (interval_ns && setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) < 0)
        fail("SO_TIMESTAMPNS");

    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_ANY);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail("bind");
    if (listen(fd, 65535) < 0)
        fail("listen");
    socklen_t size = sizeof address;
    getsockname(fd, (struct sockaddr *)&address, &size);
    set(SERVER_LISTENING_AT, monotonic());
    printf("listening %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void map_stats(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    size_t size = SERVER_WORDS * sizeof(uint64_t);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
        fail(path);
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        fail(path);
    close(fd);
    stats = map;
    memset(stats, 0, size);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'},
        {"stats", required_argument, NULL, 's'},
        {"interval-us", required_argument, NULL, 'i'},
        {"upgrade-delay-us", required_argument, NULL, 'd'},
        {NULL, 0, NULL, 0},
    };
    int port = 0, option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'p':
            port = atoi(optarg);
            break;
        case 's':
            map_stats(optarg);
            break;
        case 'i':
            interval_ns = strtoull(optarg, NULL, 10) * 1000;
            break;
        case 'd':
            upgrade_delay_ns = strtoull(optarg, NULL, 10) * 1000;
            break;
        default:
            return 2;
        }
    }

    struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: epoll_wait is to return */
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        fail("epoll_create1");
    int listener = listen_on(port);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[EVENTS];
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) < 0)
        fail("epoll_ctl");

    while (!stopping) {
        int count = epoll_wait(epoll, events, EVENTS, until_next_upgrade_ms());
        if (count < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listener)
                accept_all(listener);
            else
                readable(events[i].data.fd);
        }
        upgrade_due();
    }

    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"accepted\":%lu,\"upgraded\":%lu,\"live\":%lu,\"dialing_max\":%lu,\"refused\":%lu,"
           "\"close_frames\":%lu,\"pings\":%lu,\"unstamped\":%lu,\"user_ms\":%ld,\"sys_ms\":%ld}\n",
           stats[SERVER_ACCEPTED], stats[SERVER_UPGRADED], stats[SERVER_LIVE],
           stats[SERVER_DIALING_MAX], stats[SERVER_REFUSED], stats[SERVER_CLOSE_FRAMES],
           stats[SERVER_PINGS], stats[SERVER_UNSTAMPED],
           usage.ru_utime.tv_sec * 1000 + usage.ru_utime.tv_usec / 1000,
           usage.ru_stime.tv_sec * 1000 + usage.ru_stime.tv_usec / 1000);
    return 0;
}
