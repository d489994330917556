/* Loaded with LD_PRELOAD, makes one system call fail for files whose name contains a text.

   FAULT_NAME   the text; FAULT_CALL  the call, such as pwrite
   FAULT_ERRNO  the error; 0: half of the bytes are written; -1: the call succeeds, but nothing is written
   FAULT_AFTER  how many calls succeed before (default 0); FAULT_COUNT  how many fail (default all)
   FAULT_RANK   only on this rank of Open MPI (default all) */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long number(const char *name, long otherwise)
{
    const char *value = getenv(name);
    return value ? atol(value) : otherwise;
}

/* Return whether this call shall fail. */
static int fails(const char *call, const char *path)
{
    static long calls = 0;
    const char *wanted = getenv("FAULT_CALL"), *name = getenv("FAULT_NAME"), *rank = getenv("FAULT_RANK");
    const char *own = getenv("OMPI_COMM_WORLD_RANK");
    if (!wanted || !name || strcmp(wanted, call) || !strstr(path, name) || (rank && (!own || strcmp(rank, own))))
        return 0;
    long done = __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED) - number("FAULT_AFTER", 0);
    return done >= 0 && done < number("FAULT_COUNT", LONG_MAX);
}

static int fails_on(const char *call, int descriptor)
{
    char link[64], path[PATH_MAX] = "";
    int kept = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = kept;
    return length > 0 && fails(call, path);
}

#define REAL(type, name, ...) ((type (*)(__VA_ARGS__)) dlsym(RTLD_NEXT, #name))
#define FAIL return errno = (int) number("FAULT_ERRNO", EIO), -1

#define WRITE(name, call, ...)                                                                                      \
    if (count > 1 && fails_on(call, descriptor)) {                                                                  \
        if (number("FAULT_ERRNO", EIO) < 0) return (ssize_t) count;                                                 \
        if (number("FAULT_ERRNO", EIO)) FAIL;                                                                       \
        count /= 2;                                                                                                 \
    }

ssize_t write(int descriptor, const void *bytes, size_t count)
{
    WRITE(write, "write")
    return REAL(ssize_t, write, int, const void *, size_t)(descriptor, bytes, count);
}

#define PWRITE(name)                                                                                                \
    ssize_t name(int descriptor, const void *bytes, size_t count, off_t offset)                                     \
    {                                                                                                               \
        WRITE(name, "pwrite")                                                                                       \
        return REAL(ssize_t, name, int, const void *, size_t, off_t)(descriptor, bytes, count, offset);             \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define ON_DESCRIPTOR(name, call, parameters, arguments, ...)                                                       \
    int name parameters                                                                                             \
    {                                                                                                               \
        if (fails_on(call, descriptor)) FAIL;                                                                       \
        return REAL(int, name, __VA_ARGS__) arguments;                                                              \
    }
ON_DESCRIPTOR(fsync, "fsync", (int descriptor), (descriptor), int)
ON_DESCRIPTOR(fdatasync, "fsync", (int descriptor), (descriptor), int)
ON_DESCRIPTOR(flock, "flock", (int descriptor, int kind), (descriptor, kind), int, int)
ON_DESCRIPTOR(ftruncate, "ftruncate", (int descriptor, off_t size), (descriptor, size), int, off_t)
ON_DESCRIPTOR(ftruncate64, "ftruncate", (int descriptor, off_t size), (descriptor, size), int, off_t)
ON_DESCRIPTOR(fallocate, "fallocate", (int descriptor, int mode, off_t offset, off_t size),
              (descriptor, mode, offset, size), int, int, off_t, off_t)

int rename(const char *from, const char *to)
{
    if (fails("rename", from)) FAIL;
    return REAL(int, rename, const char *, const char *)(from, to);
}

#define OPEN(name)                                                                                                  \
    int name(const char *path, int flags, ...)                                                                      \
    {                                                                                                               \
        va_list rest;                                                                                               \
        va_start(rest, flags);                                                                                      \
        int mode = va_arg(rest, int);                                                                               \
        va_end(rest);                                                                                               \
        if (flags & (O_WRONLY | O_RDWR) && fails("open", path)) FAIL;                                               \
        return REAL(int, name, const char *, int, ...)(path, flags, mode);                                          \
    }
OPEN(open)
OPEN(open64)
