/* Writes down, in order, what a process does to the files below a directory, so that a test can tell what a disk would
 * hold of it after a power failure. Preloaded (LD_PRELOAD) into a program that it does not change.
 *
 * LOADLINE_JOURNAL       the file that is written, one record a call, by O_APPEND
 * LOADLINE_JOURNAL_ROOT  the directory, absolute and without links
 *
 * A record: kind, id, offset, length (8 bytes each, this machine's order), then `length` bytes. A call is written down
 * after it took effect and before it returns; of a sync also its beginning, since it covers only what came before that.
 *
 * SIGUSR2 kills the process as SIGKILL would, but between two calls: a kill from outside can come within the write of a
 * record, or after a call took effect and before it is written down.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATED = 1, WRITTEN, TRUNCATED, SYNC_BEGUN, SYNC_ENDED, DIRECTORY_SYNC_BEGUN, DIRECTORY_SYNC_ENDED, RENAMED, REMOVED, DIRECTORY_MADE };

#define MAX_FD 4096

static char root[PATH_MAX];
static size_t root_length;
static int journal = -1;
static unsigned char followed[MAX_FD];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t syncs;
static volatile sig_atomic_t killed;

static void kill_soon(int signal) { killed = signal; }

/* Begins a call that is written down: one at a time, and none once the process is to be killed. */
static void begin_call(void) {
    pthread_mutex_lock(&lock);
    while (killed) syscall(SYS_kill, getpid(), SIGKILL);
}

static void end_call(void) { pthread_mutex_unlock(&lock); }

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("LOADLINE_JOURNAL"), *below = getenv("LOADLINE_JOURNAL_ROOT");
    if (!file || !below || strlen(below) >= sizeof root) return;
    strcpy(root, below);
    root_length = strlen(root);
    journal = (int)syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    signal(SIGUSR2, kill_soon);
}

static void fail(const char *what) {
    dprintf(2, "journal.c: %s: %s\n", what, strerror(errno));
    _exit(99);
}

static void record(uint64_t kind, uint64_t id, uint64_t offset, const void *bytes, uint64_t length) {
    int before = errno;
    uint64_t head[4] = {kind, id, offset, length};
    struct iovec parts[2] = {{head, sizeof head}, {(void *)bytes, length}};
    ssize_t written = syscall(SYS_writev, journal, parts, length ? 2 : 1);
    if (written != (ssize_t)(sizeof head + length)) fail("a record could not be written");
    errno = before;
}

/* The path below the root into `relative`; 0 where it is not below it. */
static int below_root(const char *path, char *relative) {
    char whole[PATH_MAX];
    if (journal < 0 || !path) return 0;
    if (path[0] == '/') {
        if (strlen(path) >= sizeof whole) return 0;
        strcpy(whole, path);
    } else {
        if (!getcwd(whole, sizeof whole) || strlen(whole) + strlen(path) + 2 > sizeof whole) return 0;
        strcat(whole, "/");
        strcat(whole, path);
    }
    if (strncmp(whole, root, root_length) != 0 || (whole[root_length] != '/' && whole[root_length] != 0)) return 0;
    strcpy(relative, whole[root_length] ? whole + root_length + 1 : "");
    return 1;
}

static int opened(int directory, const char *path, int flags, mode_t mode) {
    char relative[PATH_MAX];
    int concerns = (directory == AT_FDCWD || path[0] == '/') && below_root(path, relative);
    if (!concerns) return (int)syscall(SYS_openat, directory, path, flags, mode);
    begin_call();
    struct stat status;
    int was_there = stat(path, &status) == 0;
    int fd = (int)syscall(SYS_openat, directory, path, flags, mode);
    if (fd >= 0 && fstat(fd, &status) == 0) {
        if (fd >= MAX_FD) fail("more files than it can follow");
        followed[fd] = S_ISREG(status.st_mode) || S_ISDIR(status.st_mode);
        if (S_ISREG(status.st_mode) && !was_there) record(CREATED, status.st_ino, 0, relative, strlen(relative));
        if (S_ISREG(status.st_mode) && was_there && (flags & O_TRUNC)) record(TRUNCATED, status.st_ino, 0, NULL, 0);
    }
    end_call();
    return fd;
}

static int is_followed(int fd) { return journal >= 0 && fd >= 0 && fd < MAX_FD && followed[fd]; }

static uint64_t id_of(int fd) {
    struct stat status;
    if (fstat(fd, &status) != 0) fail("fstat");
    return status.st_ino;
}

#define OPEN(name, ...)                                                                                                                               \
    {                                                                                                                                                 \
        mode_t mode = 0;                                                                                                                              \
        if (flags & (O_CREAT | O_TMPFILE)) {                                                                                                          \
            va_list rest;                                                                                                                             \
            va_start(rest, flags);                                                                                                                    \
            mode = va_arg(rest, mode_t);                                                                                                              \
            va_end(rest);                                                                                                                             \
        }                                                                                                                                             \
        return opened(__VA_ARGS__, flags, mode);                                                                                                      \
    }

int open(const char *path, int flags, ...) OPEN(open, AT_FDCWD, path)
int open64(const char *path, int flags, ...) OPEN(open64, AT_FDCWD, path)
int openat(int directory, const char *path, int flags, ...) OPEN(openat, directory, path)
int openat64(int directory, const char *path, int flags, ...) OPEN(openat64, directory, path)

int close(int fd) {
    if (is_followed(fd)) followed[fd] = 0;
    return (int)syscall(SYS_close, fd);
}

/* Writes at `offset`, or where the file stands (-1). */
static ssize_t written(int fd, const void *bytes, size_t length, off_t offset) {
    if (!is_followed(fd)) return offset < 0 ? syscall(SYS_write, fd, bytes, length) : syscall(SYS_pwrite64, fd, bytes, length, offset);
    begin_call();
    ssize_t count = offset < 0 ? syscall(SYS_write, fd, bytes, length) : syscall(SYS_pwrite64, fd, bytes, length, offset);
    if (count > 0) {
        /* What was appended stands before the place where the file stands now. */
        off_t at = offset < 0 ? lseek(fd, 0, SEEK_CUR) - count : offset;
        record(WRITTEN, id_of(fd), (uint64_t)at, bytes, (uint64_t)count);
    }
    end_call();
    return count;
}

ssize_t write(int fd, const void *bytes, size_t length) { return written(fd, bytes, length, -1); }
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return written(fd, bytes, length, offset); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset) { return written(fd, bytes, length, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (is_followed(fd)) fail("writev to a file that is followed: teach this file about it");
    return syscall(SYS_writev, fd, parts, count);
}

int fallocate64(int fd, int mode, off_t offset, off_t length) {
    if (is_followed(fd)) fail("fallocate of a file that is followed: teach this file about it");
    return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

static int truncated(int fd, off_t length) {
    if (!is_followed(fd)) return (int)syscall(SYS_ftruncate, fd, length);
    begin_call();
    int outcome = (int)syscall(SYS_ftruncate, fd, length);
    if (outcome == 0) record(TRUNCATED, id_of(fd), (uint64_t)length, NULL, 0);
    end_call();
    return outcome;
}

int ftruncate(int fd, off_t length) { return truncated(fd, length); }
int ftruncate64(int fd, off_t length) { return truncated(fd, length); }

static int synced(long call, int fd) {
    if (!is_followed(fd)) return (int)syscall(call, fd);
    struct stat status;
    char link[64], path[PATH_MAX], relative[PATH_MAX] = "";
    if (fstat(fd, &status) != 0) fail("fstat");
    uint64_t begun = SYNC_BEGUN, ended = SYNC_ENDED;
    if (S_ISDIR(status.st_mode)) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, path, sizeof path - 1);
        if (length < 0) fail("readlink");
        path[length] = 0;
        if (!below_root(path, relative)) return (int)syscall(call, fd);
        begun = DIRECTORY_SYNC_BEGUN;
        ended = DIRECTORY_SYNC_ENDED;
    }
    begin_call();
    uint64_t number = ++syncs | (uint64_t)getpid() << 32;
    record(begun, status.st_ino, number, relative, strlen(relative));
    end_call();
    int outcome = (int)syscall(call, fd);
    begin_call();
    if (outcome == 0) record(ended, status.st_ino, number, relative, strlen(relative));
    end_call();
    return outcome;
}

int fsync(int fd) { return synced(SYS_fsync, fd); }
int fdatasync(int fd) { return synced(SYS_fdatasync, fd); }

int rename(const char *from, const char *to) {
    char both[2 * PATH_MAX], target[PATH_MAX];
    if (!below_root(from, both) || !below_root(to, target)) return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    begin_call();
    int outcome = (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (outcome == 0) {
        size_t first = strlen(both) + 1;
        strcpy(both + first, target);
        record(RENAMED, 0, 0, both, first + strlen(target));
    }
    end_call();
    return outcome;
}

static int removed(const char *path, int flags) {
    char relative[PATH_MAX];
    if (!below_root(path, relative)) return (int)syscall(SYS_unlinkat, AT_FDCWD, path, flags);
    begin_call();
    int outcome = (int)syscall(SYS_unlinkat, AT_FDCWD, path, flags);
    if (outcome == 0) record(REMOVED, 0, 0, relative, strlen(relative));
    end_call();
    return outcome;
}

int unlink(const char *path) { return removed(path, 0); }
int rmdir(const char *path) { return removed(path, AT_REMOVEDIR); }

int mkdir(const char *path, mode_t mode) {
    char relative[PATH_MAX];
    if (!below_root(path, relative)) return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    begin_call();
    int outcome = (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if (outcome == 0) record(DIRECTORY_MADE, 0, 0, relative, strlen(relative));
    end_call();
    return outcome;
}
