/* The least a program can do to keep N WebSocket connections alive: no library, one thread, one
 * epoll instance, 16 bytes of state per connection. What it costs is the floor that the engine is
 * held against.
 *
 *     client CONNECTIONS INTERVAL_MS SECONDS PORT [ADDRESSES [QUANTUM_US]]
 *
 * Connects to 127.0.0.1 .. 127.0.0.ADDRESSES in turn (one address has too few ports for many
 * connections), upgrades each, then pings each once per interval, evenly spread, with a masked ping of
 * 8 bytes, and checks each pong. Sleeps end on multiples of QUANTUM_US (default 1000, the
 * granularity of tokio's timers; 0 is as fine as the kernel can). Prints one line of JSON. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 512
#define NS 1000000000ull
#define PING_LEN 14 /* 2 header, 4 mask, 8 payload */
#define PONG_LEN 10 /* a server masks nothing */

struct connection {
    int fd;
    uint32_t sequence;
    uint64_t sent_at;
};

/* Nanoseconds, one entry per ping; sized before the clock starts so that nothing allocates later. */
struct samples {
    uint32_t *values;
    size_t len, capacity;
};

static struct connection *connections;
static uint32_t connection_count;
static uint64_t syscalls;

static void fail(const char *what)
{
    fprintf(stderr, "client: %s: %s\n", what, errno ? strerror(errno) : "unexpected answer");
    exit(1);
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

static uint64_t micros(struct timeval t)
{
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_usec;
}

/* Pages that only this process maps: what would be free without it. */
static uint64_t private_bytes(void)
{
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    char line[256];
    unsigned long total = 0, kib;
    if (!file)
        fail("/proc/self/smaps_rollup");
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "Private_Clean: %lu", &kib) == 1 || sscanf(line, "Private_Dirty: %lu", &kib) == 1)
            total += kib;
    fclose(file);
    return (uint64_t)total * 1024;
}

static void push(struct samples *samples, uint64_t value)
{
    if (samples->len < samples->capacity)
        samples->values[samples->len++] = value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Sorted samples; in microseconds. */
static double percentile(const struct samples *samples, double fraction)
{
    if (!samples->len)
        return 0;
    size_t at = (size_t)(fraction * (double)samples->len);
    return samples->values[at < samples->len ? at : samples->len - 1] / 1e3;
}

static int dial(uint32_t index, int port, int addresses)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    struct timeval deadline = {.tv_sec = 10};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + index % (uint32_t)addresses);
    if (fd < 0)
        fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof deadline);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail("connect");

    static const char request[] = "GET / HTTP/1.1\r\n"
                                  "Host: localhost\r\n"
                                  "Connection: Upgrade\r\n"
                                  "Upgrade: websocket\r\n"
                                  "Sec-WebSocket-Version: 13\r\n"
                                  "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n\r\n";
    if (send(fd, request, sizeof request - 1, MSG_NOSIGNAL) != (ssize_t)sizeof request - 1)
        fail("sending the request");
    char response[1024];
    size_t len = 0;
    do {
        ssize_t got = recv(fd, response + len, sizeof response - 1 - len, 0);
        if (got <= 0)
            fail("reading the response");
        len += (size_t)got;
        response[len] = 0;
    } while (!strstr(response, "\r\n\r\n"));
    errno = 0;
    if (strncmp(response, "HTTP/1.1 101 ", 13))
        fail("upgrade");
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static void send_ping(uint32_t index)
{
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    struct connection *connection = &connections[index];
    uint32_t payload[2] = {index, ++connection->sequence};
    uint8_t frame[PING_LEN] = {0x89, 0x80 | sizeof payload};
    memcpy(frame + 2, mask, sizeof mask);
    memcpy(frame + 6, payload, sizeof payload);
    for (size_t i = 0; i < sizeof payload; i++)
        frame[6 + i] ^= mask[i % 4];
    syscalls++;
    if (send(connection->fd, frame, sizeof frame, MSG_NOSIGNAL) != (ssize_t)sizeof frame)
        fail("sending a ping");
}

/* Returns 1 when the pong of the last ping was read. */
static int read_pong(uint32_t index)
{
    struct connection *connection = &connections[index];
    uint8_t frame[256];
    syscalls++;
    ssize_t got = recv(connection->fd, frame, sizeof frame, 0);
    errno = got < 0 ? errno : 0;
    if (got <= 0)
        fail("the server closed");
    uint32_t payload[2];
    if (got < PONG_LEN || frame[0] != 0x8a || frame[1] != sizeof payload)
        fail("reading a pong");
    /* After a stall two may have come at once; the last one counts. */
    memcpy(payload, frame + got - sizeof payload, sizeof payload);
    if (payload[0] != index)
        fail("a pong of another connection");
    return payload[1] == connection->sequence;
}

static int wait_for_events(int epoll, struct epoll_event *events, uint64_t wait_ns)
{
    static int coarse; /* a kernel before 5.11 has whole milliseconds only */
    struct timespec timeout = {.tv_sec = (time_t)(wait_ns / NS), .tv_nsec = (long)(wait_ns % NS)};
    int count = -1;
    syscalls++;
    if (!coarse) {
        count = (int)syscall(SYS_epoll_pwait2, epoll, events, EVENTS, &timeout, NULL, 0);
        coarse = count < 0 && errno == ENOSYS;
    }
    if (coarse)
        count = epoll_wait(epoll, events, EVENTS, (int)((wait_ns + 999999) / 1000000));
    if (count < 0 && errno != EINTR)
        fail("epoll_pwait2");
    return count < 0 ? 0 : count;
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: client CONNECTIONS INTERVAL_MS SECONDS PORT [ADDRESSES [QUANTUM_US]]\n");
        return 2;
    }
    connection_count = (uint32_t)atoi(argv[1]);
    uint64_t interval = strtoull(argv[2], NULL, 10) * 1000000, seconds = strtoull(argv[3], NULL, 10);
    int port = atoi(argv[4]), addresses = argc > 5 ? atoi(argv[5]) : 1;
    uint64_t quantum = (argc > 6 ? strtoull(argv[6], NULL, 10) : 1000) * 1000;
    if (!connection_count || !interval || !seconds || addresses < 1)
        return 2;
    prctl(PR_SET_TIMERSLACK, 1000); /* the default of 50 us would be added to every sleep */

    uint64_t memory_before = private_bytes();
    connections = calloc(connection_count, sizeof *connections);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!connections || epoll < 0)
        fail("setting up");
    uint64_t wall = clock_ns(CLOCK_MONOTONIC), cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    for (uint32_t i = 0; i < connection_count; i++) {
        connections[i].fd = dial(i, port, addresses);
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, connections[i].fd, &event) < 0)
            fail("epoll_ctl");
    }
    uint64_t connect_cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    uint64_t connect_wall = clock_ns(CLOCK_MONOTONIC) - wall;
    sleep(1); /* let the far side settle */
    uint64_t memory = private_bytes() - memory_before;

    double gap = (double)interval / connection_count;
    struct samples rtt = {.capacity = (size_t)((double)(seconds * NS) / gap) + connection_count};
    struct samples lateness = {.capacity = rtt.capacity};
    rtt.values = malloc(rtt.capacity * sizeof *rtt.values);
    lateness.values = malloc(lateness.capacity * sizeof *lateness.values);
    if (!rtt.values || !lateness.values)
        fail("malloc");

    struct epoll_event events[EVENTS];
    struct rusage usage_before, usage;
    uint64_t pings = 0, wakeups = 0;
    uint32_t turn = 0;
    syscalls = 0;
    getrusage(RUSAGE_SELF, &usage_before);
    cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    uint64_t start = clock_ns(CLOCK_MONOTONIC), end = start + seconds * NS, now = start;
    for (; now < end; now = clock_ns(CLOCK_MONOTONIC)) {
        uint64_t due;
        while ((due = start + (uint64_t)((double)pings * gap)) <= now) {
            uint64_t sent_at = clock_ns(CLOCK_MONOTONIC);
            connections[turn].sent_at = sent_at;
            push(&lateness, sent_at - due);
            send_ping(turn);
            turn = turn + 1 < connection_count ? turn + 1 : 0;
            pings++;
        }
        uint64_t wake_at = due;
        if (quantum)
            wake_at = start + (due - start + quantum - 1) / quantum * quantum;
        now = clock_ns(CLOCK_MONOTONIC);
        int count = wait_for_events(epoll, events, wake_at > now ? wake_at - now : 0);
        wakeups++;
        for (int i = 0; i < count; i++) {
            uint32_t index = events[i].data.u32;
            if (read_pong(index))
                push(&rtt, clock_ns(CLOCK_MONOTONIC) - connections[index].sent_at);
        }
    }
    cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    getrusage(RUSAGE_SELF, &usage);

    qsort(rtt.values, rtt.len, sizeof *rtt.values, ascending);
    qsort(lateness.values, lateness.len, sizeof *lateness.values, ascending);
    double per_ping = pings ? 1.0 / (double)pings : 0;
    printf("{\"connections\":%u,\"interval_ms\":%lu,\"quantum_us\":%lu,\"pings\":%lu,\"pongs\":%zu,"
           "\"cpu_us_per_ping\":%.3f,\"user_us_per_ping\":%.3f,\"sys_us_per_ping\":%.3f,"
           "\"syscalls_per_ping\":%.3f,\"wakeups_per_ping\":%.3f,\"syscalls\":%lu,"
           "\"private_bytes_per_connection\":%.1f,\"connect_wall_ms\":%.1f,\"connect_cpu_us\":%.2f,"
           "\"rtt_us\":{\"p50\":%.1f,\"p99\":%.1f,\"max\":%.1f},"
           "\"lateness_us\":{\"p50\":%.1f,\"p99\":%.1f,\"max\":%.1f}}\n",
           connection_count, interval / 1000000, quantum / 1000, pings, rtt.len,
           (double)cpu / 1e3 * per_ping,
           (double)(micros(usage.ru_utime) - micros(usage_before.ru_utime)) * per_ping,
           (double)(micros(usage.ru_stime) - micros(usage_before.ru_stime)) * per_ping,
           (double)syscalls * per_ping, (double)wakeups * per_ping, syscalls,
           (double)memory / connection_count, (double)connect_wall / 1e6,
           (double)connect_cpu / 1e3 / connection_count, percentile(&rtt, .5), percentile(&rtt, .99),
           percentile(&rtt, 1), percentile(&lateness, .5), percentile(&lateness, .99),
           percentile(&lateness, 1));
    return 0;
}
