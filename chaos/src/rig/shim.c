/* Preloaded into a replica by kontiki-chaos. What the drill wants is in a file of three numbers that both have mapped. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct faults {
    volatile int64_t clock_ahead_ns;
    volatile int64_t sync_delay_us;
    volatile int64_t sync_fails;
};

static struct faults none;
static struct faults *faults = &none;

static int (*real_clock_gettime)(clockid_t, struct timespec *);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_cond_timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);

static void find(void) {
    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    /* An older version of the same name expects another layout. */
    real_cond_timedwait = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!real_cond_timedwait)
        real_cond_timedwait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
}

__attribute__((constructor)) static void start(void) {
    if (!real_clock_gettime)
        find();
    const char *path = getenv("KONTIKI_CHAOS_FAULTS");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof(struct faults), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED)
        faults = mapped;
    close(file);
}

static void add(struct timespec *time, int64_t ns) {
    int64_t total = time->tv_nsec + ns % 1000000000;
    time->tv_sec += ns / 1000000000;
    if (total < 0) {
        total += 1000000000;
        time->tv_sec -= 1;
    } else if (total >= 1000000000) {
        total -= 1000000000;
        time->tv_sec += 1;
    }
    time->tv_nsec = total;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!real_clock_gettime)
        find();
    int result = real_clock_gettime(clock, time);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        add(time, faults->clock_ahead_ns);
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return result;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result)
        *result = now.tv_sec;
    return now.tv_sec;
}

/* Its deadline was made of the shifted clock, and it waits by the true one. (RocksDB's condition variables all use the
   default clock, and nothing else here uses these.) */
int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    struct timespec true_until = *until;
    if (!real_cond_timedwait)
        find();
    add(&true_until, -faults->clock_ahead_ns);
    return real_cond_timedwait(condition, mutex, &true_until);
}

static int before_sync(void) {
    /* In steps, so that a disk that hangs goes on when it is told to. */
    for (int64_t waited = 0, left; (left = faults->sync_delay_us - waited) > 0;) {
        int64_t step = left < 10000 ? left : 10000;
        usleep(step);
        waited += step;
    }
    if (faults->sync_fails) {
        errno = EIO;
        return -1;
    }
    return 0;
}

int fsync(int file) {
    if (!real_fsync)
        find();
    return before_sync() ? -1 : real_fsync(file);
}

int fdatasync(int file) {
    if (!real_fdatasync)
        find();
    return before_sync() ? -1 : real_fdatasync(file);
}
