/* Preloaded into a node under test: lets calls on some files fail, as long as a control file says so.
 *
 * The control file, named by FAULT_FILE, holds one line:
 *
 *     <calls> <errno> <part of the path> <end of the path>
 *
 * where calls are letters: r for reads, w for writes, s for flushes, t for truncations, y for syncs of the file system,
 * whatever the path. With ! among them only one call fails: the file is removed with it. With an errno below 0 the call
 * does not come back as long as the line is there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static int ends_with(const char *text, const char *end) {
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

static int path_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return 1;
}

/* The error that the call on the file has to end in, or 0. */
static int fault(char call, int fd) {
    const char *control = getenv("FAULT_FILE");
    int before = errno, error = 0;
    int file = control ? open(control, O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        char line[512], path[4096], calls[8], part[256], end[64];
        ssize_t length = syscall(SYS_read, file, line, sizeof line - 1);
        close(file);
        line[length < 0 ? 0 : length] = 0;
        int found = sscanf(line, "%7s %d %255s %63s", calls, &error, part, end);
        if (found != 4 || !strchr(calls, call) || !path_of(fd, path, sizeof path) ||
            (call != 'y' && (!strstr(path, part) || !ends_with(path, end))))
            error = 0;
        else if (strchr(calls, '!') && unlink(control) != 0)
            error = 0;
    }
    errno = before;
    return error;
}

#define FAULTY(call, type, name, parameters, arguments)           \
    type name parameters {                                        \
        static type(*real) parameters;                            \
        int error;                                                \
        while ((error = fault(call, fd)) < 0) usleep(2000);       \
        if (error) {                                              \
            errno = error;                                        \
            return -1;                                            \
        }                                                         \
        if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name); \
        return real arguments;                                    \
    }

FAULTY('r', ssize_t, read, (int fd, void *to, size_t size), (fd, to, size))
FAULTY('r', ssize_t, pread, (int fd, void *to, size_t size, off_t at), (fd, to, size, at))
FAULTY('r', ssize_t, pread64, (int fd, void *to, size_t size, off64_t at), (fd, to, size, at))
FAULTY('w', ssize_t, write, (int fd, const void *from, size_t size), (fd, from, size))
FAULTY('w', ssize_t, pwrite, (int fd, const void *from, size_t size, off_t at), (fd, from, size, at))
FAULTY('w', ssize_t, pwrite64, (int fd, const void *from, size_t size, off64_t at), (fd, from, size, at))
FAULTY('s', int, fsync, (int fd), (fd))
FAULTY('s', int, fdatasync, (int fd), (fd))
FAULTY('y', int, syncfs, (int fd), (fd))
FAULTY('t', int, ftruncate, (int fd, off_t size), (fd, size))
FAULTY('t', int, ftruncate64, (int fd, off64_t size), (fd, size))
