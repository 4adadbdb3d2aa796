/* Records what a program does to the files below one directory, in order, and can make its syncs fail.
 *
 * Loaded before the C library (LD_PRELOAD). Environment:
 *   RECORD_DIRECTORY   absolute path; calls on files outside are none of our business
 *   RECORD_TO          the file that receives the records
 *   RECORD_FAIL_SYNC   which sync fails with EIO, counted from 1; each other one succeeds
 *
 * A record: 40 bytes (kind, three of padding, descriptor, offset, length, path bytes, data bytes), then path, then data. Numbers are those of
 * the machine. The other end is raft/testing/recording.py.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define DESCRIPTORS 4096

struct record {
    char kind;
    char padding[3];
    int32_t descriptor;
    int64_t offset;
    int64_t length;
    int64_t path_bytes;
    int64_t data_bytes;
};

static char ours[DESCRIPTORS];
static int output = -1;
static const char *directory;
static size_t directory_bytes;
static long fail_sync, syncs;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(result, name, ...) \
    static result (*real_##name)(__VA_ARGS__); \
    if (!real_##name) real_##name = dlsym(RTLD_NEXT, #name)

static ssize_t write_out(const void *bytes, size_t count) {
    REAL(ssize_t, write, int, const void *, size_t);
    return real_write(output, bytes, count);
}

__attribute__((constructor)) static void begin(void) {
    const char *to = getenv("RECORD_TO"), *fail = getenv("RECORD_FAIL_SYNC");
    directory = getenv("RECORD_DIRECTORY");
    if (!to || !directory) return;
    directory_bytes = strlen(directory);
    fail_sync = fail ? atol(fail) : 0;
    output = open(to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int inside(const char *path) {
    return output >= 0 && path && !strncmp(path, directory, directory_bytes) && (path[directory_bytes] == '/' || !path[directory_bytes]);
}

static int known(int descriptor) {
    return output >= 0 && descriptor >= 0 && descriptor < DESCRIPTORS && ours[descriptor];
}

static void put(char kind, int descriptor, int64_t offset, int64_t length, const char *path, const void *data, size_t data_bytes) {
    struct record record = {kind, {0}, descriptor, offset, length, path ? strlen(path) : 0, data_bytes};
    write_out(&record, sizeof record);
    if (path) write_out(path, record.path_bytes);
    if (data_bytes) write_out(data, data_bytes);
}

static int opened(int descriptor, const char *path, int flags) {
    if (descriptor < 0 || !inside(path)) return descriptor;
    if (descriptor >= DESCRIPTORS) abort();
    pthread_mutex_lock(&lock);
    ours[descriptor] = 1;
    put('o', descriptor, flags & O_CREAT ? 1 : 0, flags & O_TRUNC ? 1 : 0, path, NULL, 0);
    pthread_mutex_unlock(&lock);
    return descriptor;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int, name, const char *, int, ...); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        return opened(real_##name(path, flags, mode), path, flags); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int at, const char *path, int flags, ...) { \
        REAL(int, name, int, const char *, int, ...); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        return opened(real_##name(at, path, flags, mode), path, flags); \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int descriptor) {
    REAL(int, close, int);
    if (known(descriptor)) {
        pthread_mutex_lock(&lock);
        ours[descriptor] = 0;
        put('c', descriptor, 0, 0, NULL, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    return real_close(descriptor);
}

ssize_t write(int descriptor, const void *bytes, size_t count) {
    REAL(ssize_t, write, int, const void *, size_t);
    if (!known(descriptor)) return real_write(descriptor, bytes, count);
    pthread_mutex_lock(&lock);
    int64_t before = lseek(descriptor, 0, SEEK_CUR);
    int append = fcntl(descriptor, F_GETFL) & O_APPEND;
    if (append) before = lseek(descriptor, 0, SEEK_END);
    ssize_t written = real_write(descriptor, bytes, count);
    if (written > 0) put('w', descriptor, before, 0, NULL, bytes, written);
    pthread_mutex_unlock(&lock);
    return written;
}

#define PWRITE(name, offset_type) \
    ssize_t name(int descriptor, const void *bytes, size_t count, offset_type offset) { \
        REAL(ssize_t, name, int, const void *, size_t, offset_type); \
        if (!known(descriptor)) return real_##name(descriptor, bytes, count, offset); \
        pthread_mutex_lock(&lock); \
        ssize_t written = real_##name(descriptor, bytes, count, offset); \
        if (written > 0) put('w', descriptor, offset, 0, NULL, bytes, written); \
        pthread_mutex_unlock(&lock); \
        return written; \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define FTRUNCATE(name, offset_type) \
    int name(int descriptor, offset_type length) { \
        REAL(int, name, int, offset_type); \
        if (!known(descriptor)) return real_##name(descriptor, length); \
        pthread_mutex_lock(&lock); \
        int failed = real_##name(descriptor, length); \
        if (!failed) put('t', descriptor, 0, length, NULL, NULL, 0); \
        pthread_mutex_unlock(&lock); \
        return failed; \
    }
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)

#define SYNC(name) \
    int name(int descriptor) { \
        REAL(int, name, int); \
        if (!known(descriptor)) return real_##name(descriptor); \
        pthread_mutex_lock(&lock); \
        int fails = ++syncs == fail_sync; \
        int failed = fails ? -1 : real_##name(descriptor); \
        put(failed ? 'f' : 's', descriptor, 0, 0, NULL, NULL, 0); \
        pthread_mutex_unlock(&lock); \
        if (fails) errno = EIO; \
        return failed; \
    }
SYNC(fsync)
SYNC(fdatasync)

#define NAMES(call, ...) \
    { \
        pthread_mutex_lock(&lock); \
        int failed = call; \
        if (!failed && inside(path)) put(__VA_ARGS__); \
        pthread_mutex_unlock(&lock); \
        return failed; \
    }

int rename(const char *path, const char *to) {
    REAL(int, rename, const char *, const char *);
    NAMES(real_rename(path, to), 'r', -1, 0, 0, path, to, strlen(to))
}

int renameat(int from, const char *path, int into, const char *to) {
    REAL(int, renameat, int, const char *, int, const char *);
    NAMES(real_renameat(from, path, into, to), 'r', -1, 0, 0, path, to, strlen(to))
}

int unlink(const char *path) {
    REAL(int, unlink, const char *);
    NAMES(real_unlink(path), 'u', -1, 0, 0, path, NULL, 0)
}

int unlinkat(int at, const char *path, int flags) {
    REAL(int, unlinkat, int, const char *, int);
    NAMES(real_unlinkat(at, path, flags), 'u', -1, 0, 0, path, NULL, 0)
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    NAMES(real_mkdir(path, mode), 'd', -1, 0, 0, path, NULL, 0)
}
