/* A clock ahead of the machine's, preloaded into a process: LD_PRELOAD=ahead.so AHEAD_FILE=<file with seconds>.
 *
 * How far ahead is read once, as the process starts. Clocks that only count (CLOCK_MONOTONIC) stay, and so do waits:
 * a moment to wait for is given by the shifted clock, and is taken back before the kernel hears it. libfaketime would
 * do, but its 0.9.10 ends Java's waits and Python's sleeps at once, and does not know `cnd_timedwait` of librdkafka.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>

/* A moment of a clock that only counts is seconds since the machine started: less than thirty years. */
#define SINCE_1970 1000000000L

static long ahead_s;
static int (*real_clock)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("AHEAD_FILE");
    FILE *file = name ? fopen(name, "r") : NULL;
    if (file) {
        if (fscanf(file, "%ld", &ahead_s) != 1) ahead_s = 0;
        fclose(file);
    }
}

static int is_shifted(clockid_t clock) { return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (!real_clock) real_clock = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real_clock(clock, now);
    if (!failed && is_shifted(clock)) now->tv_sec += ahead_s;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *kept) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (kept) *kept = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *now, int base) { return clock_gettime(CLOCK_REALTIME, now) ? 0 : base; }

static struct timespec machines(const struct timespec *moment) {
    struct timespec real = *moment;
    if (real.tv_sec > SINCE_1970) real.tv_sec -= ahead_s;
    return real;
}

static int wait_until(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *moment) {
    struct timespec real = machines(moment);
    clockid_t clock = real.tv_sec > SINCE_1970 ? CLOCK_REALTIME : CLOCK_MONOTONIC;
    return pthread_cond_clockwait(condition, mutex, clock, &real);
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict moment) {
    return wait_until(condition, mutex, moment);
}

/* glibc's C11 threads are its POSIX threads under other names. */
int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict moment) {
    int code = wait_until((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, moment);
    return code == 0 ? thrd_success : code == ETIMEDOUT ? thrd_timedout : thrd_error;
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict moment) {
    struct timespec real = machines(moment);
    return sem_clockwait(semaphore, CLOCK_REALTIME, &real);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex, const struct timespec *restrict moment) {
    struct timespec real = machines(moment);
    return pthread_mutex_clocklock(mutex, CLOCK_REALTIME, &real);
}
