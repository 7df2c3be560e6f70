/* Counts the system calls that a program makes through libc, without a tracer's slowdown.
 *
 *     LD_PRELOAD=count.so HOLD_COUNT_FILE=FILE program ...
 *
 * FILE gets the counters of stats.h. What libc does inside itself (a lock's futex, malloc's brk and
 * mmap, stdio) is not seen, nor is a program that makes its calls without libc; a Rust program with
 * tokio makes all the calls of its steady work through the functions below. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include "stats.h"

static uint64_t before_mapping[COUNT_WORDS];
static uint64_t *counts = before_mapping;

__attribute__((constructor)) static void map_counts(void)
{
    const char *path = getenv("HOLD_COUNT_FILE");
    size_t size = sizeof before_mapping;
    int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd < 0)
        return;
    if (ftruncate(fd, (off_t)size) == 0) {
        void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map != MAP_FAILED)
            counts = map;
    }
    syscall(SYS_close, fd);
}

/* Defines `type name parameters` to count itself in `slot` and to call the real function. */
#define COUNTED(slot, type, name, parameters, arguments)                   \
    type name parameters                                                   \
    {                                                                      \
        static type(*real) parameters;                                     \
        if (!real)                                                         \
            *(void **)&real = dlsym(RTLD_NEXT, #name);                     \
        __atomic_fetch_add(&counts[slot], 1, __ATOMIC_RELAXED);            \
        return real arguments;                                             \
    }

COUNTED(COUNT_READ, ssize_t, read, (int fd, void *b, size_t n), (fd, b, n))
COUNTED(COUNT_READ, ssize_t, readv, (int fd, const struct iovec *v, int n), (fd, v, n))
COUNTED(COUNT_WRITE, ssize_t, write, (int fd, const void *b, size_t n), (fd, b, n))
COUNTED(COUNT_WRITE, ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n))

COUNTED(COUNT_RECV, ssize_t, recv, (int fd, void *b, size_t n, int flags), (fd, b, n, flags))
COUNTED(COUNT_RECV, ssize_t, recvfrom,
        (int fd, void *restrict b, size_t n, int flags, struct sockaddr *restrict a, socklen_t *restrict l),
        (fd, b, n, flags, a, l))
COUNTED(COUNT_RECV, ssize_t, recvmsg, (int fd, struct msghdr *m, int flags), (fd, m, flags))
COUNTED(COUNT_SEND, ssize_t, send, (int fd, const void *b, size_t n, int flags), (fd, b, n, flags))
COUNTED(COUNT_SEND, ssize_t, sendto,
        (int fd, const void *b, size_t n, int flags, const struct sockaddr *a, socklen_t l),
        (fd, b, n, flags, a, l))
COUNTED(COUNT_SEND, ssize_t, sendmsg, (int fd, const struct msghdr *m, int flags), (fd, m, flags))

COUNTED(COUNT_EPOLL_WAIT, int, epoll_wait, (int e, struct epoll_event *v, int n, int t), (e, v, n, t))
COUNTED(COUNT_EPOLL_WAIT, int, epoll_pwait,
        (int e, struct epoll_event *v, int n, int t, const sigset_t *s), (e, v, n, t, s))
COUNTED(COUNT_EPOLL_CTL, int, epoll_ctl, (int e, int op, int fd, struct epoll_event *v), (e, op, fd, v))
COUNTED(COUNT_OTHER, int, poll, (struct pollfd *fds, nfds_t n, int t), (fds, n, t))
COUNTED(COUNT_OTHER, int, ioctl, (int fd, unsigned long request, void *argument), (fd, request, argument))

COUNTED(COUNT_SOCKET, int, socket, (int domain, int type, int protocol), (domain, type, protocol))
COUNTED(COUNT_SOCKET, int, setsockopt, (int fd, int level, int name, const void *v, socklen_t l),
        (fd, level, name, v, l))
COUNTED(COUNT_SOCKET, int, getsockopt,
        (int fd, int level, int name, void *restrict v, socklen_t *restrict l), (fd, level, name, v, l))
COUNTED(COUNT_SOCKET, int, bind, (int fd, const struct sockaddr *a, socklen_t l), (fd, a, l))
COUNTED(COUNT_SOCKET, int, getsockname, (int fd, struct sockaddr *restrict a, socklen_t *restrict l),
        (fd, a, l))
COUNTED(COUNT_SOCKET, int, getpeername, (int fd, struct sockaddr *restrict a, socklen_t *restrict l),
        (fd, a, l))
COUNTED(COUNT_CONNECT, int, connect, (int fd, const struct sockaddr *a, socklen_t l), (fd, a, l))
COUNTED(COUNT_ACCEPT, int, accept4,
        (int fd, struct sockaddr *restrict a, socklen_t *restrict l, int flags), (fd, a, l, flags))
COUNTED(COUNT_CLOSE, int, close, (int fd), (fd))
COUNTED(COUNT_CLOSE, int, shutdown, (int fd, int how), (fd, how))

/* Six registers is what a system call takes; reading more than were passed is harmless on the ABIs
 * this is built for, and libc's own syscall() does the same. */
long syscall(long number, ...)
{
    static long (*real)(long, ...);
    long a[6];
    va_list list;
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "syscall");
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);

    int slot = COUNT_OTHER;
    if (number == SYS_futex)
        slot = COUNT_FUTEX;
#ifdef SYS_epoll_pwait2
    if (number == SYS_epoll_pwait2)
        slot = COUNT_EPOLL_WAIT;
#endif
    __atomic_fetch_add(&counts[slot], 1, __ATOMIC_RELAXED);
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
