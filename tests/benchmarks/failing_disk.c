/* A disk that fails: loaded before the C library, it lets the n-th call that writes to the store's file, or to its
 * journal, fail or write half of what it was given.
 *
 *     FAILING_CALL=pwrite|fsync FAILING_ACTION=EIO|ENOSPC|torn FAILING_AT=n FAILING_MARK=file
 *
 * `torn` kills the process after half of the bytes: a page of which one half is old.  The file is made when it strikes,
 * and nothing strikes while it is there.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef ssize_t (*pwrite_call)(int, const void *, size_t, off64_t);
typedef int (*sync_call)(int);

static int of_the_store(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, "/gridsearch.db") != NULL;
}

/* The action, if it is this call's turn; NULL else. */
static const char *struck(int fd, const char *call) {
    static int calls;
    const char *wanted = getenv("FAILING_CALL"), *at = getenv("FAILING_AT"), *mark = getenv("FAILING_MARK");
    if (!wanted || !at || !mark || strcmp(wanted, call) || !of_the_store(fd) || ++calls != atoi(at)) return NULL;
    int made = open(mark, O_CREAT | O_EXCL | O_WRONLY, 0600);
    if (made < 0) return NULL;
    close(made);
    return getenv("FAILING_ACTION");
}

static ssize_t written(pwrite_call next, int fd, const void *bytes, size_t size, off64_t offset) {
    const char *action = struck(fd, "pwrite");
    if (!action) return next(fd, bytes, size, offset);
    if (!strcmp(action, "torn")) {
        next(fd, bytes, size / 2, offset);
        kill(getpid(), SIGKILL);
    }
    errno = strcmp(action, "ENOSPC") ? EIO : ENOSPC;
    return -1;
}

static int synced(sync_call next, int fd) {
    if (!struck(fd, "fsync")) return next(fd);
    errno = EIO;
    return -1;
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset) {
    return written((pwrite_call)dlsym(RTLD_NEXT, "pwrite64"), fd, bytes, size, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t offset) {
    return written((pwrite_call)dlsym(RTLD_NEXT, "pwrite64"), fd, bytes, size, offset);
}

int fsync(int fd) { return synced((sync_call)dlsym(RTLD_NEXT, "fsync"), fd); }

int fdatasync(int fd) { return synced((sync_call)dlsym(RTLD_NEXT, "fdatasync"), fd); }
