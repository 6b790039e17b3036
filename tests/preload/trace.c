/* Writes down what a process does to the files below one folder, in order: for tests/src/power_loss.
 *
 * Preloaded, it stands before libc's calls. TRACE_FOLDER names the folder, TRACE_FILE what is appended to. A record is
 * six little-endian numbers of 64 bits and three byte strings:
 *
 *   kind, time (CLOCK_MONOTONIC, ns), argument, length of path, length of second path, length of data
 *
 *   C create path            O cut path to `argument` bytes      W write data to path at offset `argument`
 *   R rename path to second  U unlink path                       M mkdir path, D rmdir path
 *   S path was synced: it holds what was written before record number `argument`; A the same of all files and folders
 *
 * Changes are made and written down under one lock, so the order is the order in which they happened. A sync is written
 * down when it has succeeded, with the number of records before it began: what came later may not be on disk.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *folder;
static size_t folder_length;
static int file = -1;
static uint64_t records;

__attribute__((constructor)) static void start(void) {
  const char *path = getenv("TRACE_FILE");
  folder = getenv("TRACE_FOLDER");
  if (!path || !folder) return;
  folder_length = strlen(folder);
  file = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* The part of an absolute path below the folder, or null. */
static const char *below(const char *path) {
  if (file < 0 || strncmp(path, folder, folder_length) || path[folder_length] != '/') return NULL;
  return path + folder_length + 1;
}

static const char *path_of(int fd, char buffer[PATH_MAX]) {
  char link[64];
  if (file < 0) return NULL;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, buffer, PATH_MAX - 1);
  if (length < 0) return NULL;
  buffer[length] = 0;
  /* The folder itself may be synced. */
  return strcmp(buffer, folder) ? below(buffer) : "";
}

static void note(char kind, uint64_t argument, const char *path, const char *second, const void *data, size_t length) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  size_t path_length = strlen(path), second_length = second ? strlen(second) : 0;
  uint64_t head[6] = {(uint64_t)kind, now.tv_sec * 1000000000ull + now.tv_nsec, argument, path_length,
                      second_length,  length};
  struct iovec parts[4] = {
      {head, sizeof head}, {(void *)path, path_length}, {(void *)second, second_length}, {(void *)data, length}};
  if (syscall(SYS_writev, file, parts, 4) != (ssize_t)(sizeof head + path_length + second_length + length)) abort();
  records++;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Makes a change under the lock and writes it down if it succeeded. Later code must not change errno. */
#define CHANGE(type, path, call, ...)           \
  do {                                          \
    if (!(path)) return call;                   \
    pthread_mutex_lock(&lock);                  \
    type result = call;                         \
    int error = errno;                          \
    if (result != -1) note(__VA_ARGS__);        \
    pthread_mutex_unlock(&lock);                \
    errno = error;                              \
    return result;                              \
  } while (0)

static int open_file(const char *path, int flags, mode_t mode) {
  const char *name = path[0] == '/' ? below(path) : NULL;
  if (!name || !(flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE)
    return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
  pthread_mutex_lock(&lock);
  int is_new = access(path, F_OK) != 0;
  int fd = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
  int error = errno;
  if (fd >= 0 && is_new) note('C', 0, name, NULL, NULL, 0);
  else if (fd >= 0 && (flags & O_TRUNC)) note('O', 0, name, NULL, NULL, 0);
  pthread_mutex_unlock(&lock);
  errno = error;
  return fd;
}

static mode_t mode_of(int flags, va_list arguments) {
  return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

#define OPEN(name)                              \
  int name(const char *path, int flags, ...) {  \
    va_list arguments;                          \
    va_start(arguments, flags);                 \
    mode_t mode = mode_of(flags, arguments);    \
    va_end(arguments);                          \
    return open_file(path, flags, mode);        \
  }
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void *data, size_t length) {
  char buffer[PATH_MAX];
  struct stat status;
  /* Sockets, pipes and event descriptors are written to all the time. */
  const char *path = !fstat(fd, &status) && S_ISREG(status.st_mode) ? path_of(fd, buffer) : NULL;
  if (!path) return syscall(SYS_write, fd, data, length);
  pthread_mutex_lock(&lock);
  ssize_t result = syscall(SYS_write, fd, data, length);
  int error = errno;
  if (result > 0) note('W', lseek(fd, 0, SEEK_CUR) - result, path, NULL, data, result);
  pthread_mutex_unlock(&lock);
  errno = error;
  return result;
}

#define PWRITE(name, offset_type)                                                                       \
  ssize_t name(int fd, const void *data, size_t length, offset_type offset) {                           \
    char buffer[PATH_MAX];                                                                              \
    const char *path = path_of(fd, buffer);                                                             \
    CHANGE(ssize_t, path, syscall(SYS_pwrite64, fd, data, length, offset), 'W', offset, path, NULL, data, result); \
  }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define FTRUNCATE(name, offset_type)                                                       \
  int name(int fd, offset_type length) {                                                   \
    char buffer[PATH_MAX];                                                                 \
    const char *path = path_of(fd, buffer);                                                \
    CHANGE(int, path, syscall(SYS_ftruncate, fd, length), 'O', length, path, NULL, NULL, 0); \
  }
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)

int rename(const char *from, const char *to) {
  const char *name = below(from), *second = below(to);
  CHANGE(int, name, REAL(rename)(from, to), 'R', 0, name, second ? second : "", NULL, 0);
}

int unlink(const char *path) {
  const char *name = below(path);
  CHANGE(int, name, REAL(unlink)(path), 'U', 0, name, NULL, NULL, 0);
}

int unlinkat(int at, const char *path, int flags) {
  char buffer[PATH_MAX], whole[2 * PATH_MAX];
  const char *parent = path[0] == '/' ? NULL : path_of(at, buffer), *name = below(path);
  if (parent) {
    snprintf(whole, sizeof whole, "%s%s%s", parent, *parent ? "/" : "", path);
    name = whole;
  }
  CHANGE(int, name, syscall(SYS_unlinkat, at, path, flags), flags & AT_REMOVEDIR ? 'D' : 'U', 0, name, NULL, NULL, 0);
}

int rmdir(const char *path) {
  const char *name = below(path);
  CHANGE(int, name, REAL(rmdir)(path), 'D', 0, name, NULL, NULL, 0);
}

int mkdir(const char *path, mode_t mode) {
  const char *name = below(path);
  CHANGE(int, name, REAL(mkdir)(path, mode), 'M', 0, name, NULL, NULL, 0);
}

static int sync_file(int fd, long number) {
  char buffer[PATH_MAX];
  const char *path = path_of(fd, buffer);
  if (!path) return syscall(number, fd);
  pthread_mutex_lock(&lock);
  uint64_t before = records;
  pthread_mutex_unlock(&lock);
  CHANGE(int, path, syscall(number, fd), 'S', before, path, NULL, NULL, 0);
}

int fsync(int fd) { return sync_file(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_file(fd, SYS_fdatasync); }

int syncfs(int fd) {
  pthread_mutex_lock(&lock);
  uint64_t before = records;
  pthread_mutex_unlock(&lock);
  CHANGE(int, file < 0 ? NULL : folder, syscall(SYS_syncfs, fd), 'A', before, "", NULL, NULL, 0);
}
