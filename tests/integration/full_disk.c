/* Preloaded into a program: the folder $ONESTEP_FULL_DISK takes $ONESTEP_FULL_DISK_BYTES bytes, then every write and
   every reservation in it fails with ENOSPC, as on a disk that is full. Needs no privileges, unlike a small mount. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_llong used;

/* True when `count` more bytes in the file behind `descriptor` do not fit. */
static int is_full(int descriptor, long long count) {
  const char *folder = getenv("ONESTEP_FULL_DISK");
  const char *limit = getenv("ONESTEP_FULL_DISK_BYTES");
  char link[64], path[4096];
  ssize_t length;
  if (!folder || !limit) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  if (strncmp(path, folder, strlen(folder)) != 0) return 0;
  return atomic_fetch_add(&used, count) + count > atoll(limit);
}

ssize_t write(int descriptor, const void *data, size_t count) {
  static ssize_t (*real)(int, const void *, size_t);
  if (!real) real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
  if (is_full(descriptor, (long long)count)) return errno = ENOSPC, -1;
  return real(descriptor, data, count);
}

ssize_t pwrite(int descriptor, const void *data, size_t count, off_t offset) {
  static ssize_t (*real)(int, const void *, size_t, off_t);
  if (!real) real = (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
  if (is_full(descriptor, (long long)count)) return errno = ENOSPC, -1;
  return real(descriptor, data, count, offset);
}

ssize_t pwrite64(int descriptor, const void *data, size_t count, off64_t offset) {
  static ssize_t (*real)(int, const void *, size_t, off64_t);
  if (!real) real = (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
  if (is_full(descriptor, (long long)count)) return errno = ENOSPC, -1;
  return real(descriptor, data, count, offset);
}

int posix_fallocate(int descriptor, off_t offset, off_t length) {
  static int (*real)(int, off_t, off_t);
  if (!real) real = (int (*)(int, off_t, off_t))dlsym(RTLD_NEXT, "posix_fallocate");
  return is_full(descriptor, (long long)length) ? ENOSPC : real(descriptor, offset, length);
}

int posix_fallocate64(int descriptor, off64_t offset, off64_t length) {
  static int (*real)(int, off64_t, off64_t);
  if (!real) real = (int (*)(int, off64_t, off64_t))dlsym(RTLD_NEXT, "posix_fallocate64");
  return is_full(descriptor, (long long)length) ? ENOSPC : real(descriptor, offset, length);
}
