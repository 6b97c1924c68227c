/* A wall clock that can be stepped: preloaded into a server, never into a program of ours.
 *
 * The real time and an offset are added. The offset is in the file that CLOCKSHIM names, in
 * milliseconds, as two equal texts of 12 bytes ("    7200000     7200000"): a reader that sees
 * them differ has come in the middle of a write and keeps what it knew. The monotonic clocks stay
 * as they are, as they do where an administrator or NTP steps the clock of a machine. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { TEXT = 12 };

static const char *file;
static _Atomic long long offset_ms;

__attribute__((constructor)) static void open_file(void) {
    const char *path = getenv("CLOCKSHIM");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *found = fd < 0 ? MAP_FAILED : mmap(NULL, 2 * TEXT, PROT_READ, MAP_SHARED, fd, 0);
    if (fd >= 0) close(fd);
    if (found != MAP_FAILED) file = found;
}

static long long offset(void) {
    char text[2 * TEXT + 1] = "";
    if (!file) return 0;
    memcpy(text, file, 2 * TEXT);
    if (memcmp(text, text + TEXT, TEXT) == 0) atomic_store(&offset_ms, atoll(text + TEXT));
    return atomic_load(&offset_ms);
}

/* By the system call: the library's own function is the one that is replaced here. */
int clock_gettime(clockid_t clock, struct timespec *at) {
    int failed = (int)syscall(SYS_clock_gettime, clock, at);
    if (failed || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return failed;
    long long ns = at->tv_sec * 1000000000LL + at->tv_nsec + offset() * 1000000LL;
    at->tv_sec = ns / 1000000000LL;
    at->tv_nsec = ns % 1000000000LL;
    return 0;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
