/* Preloaded, it makes every lock of a file fail as on a file system that has none; LOCK_ERRNO says how. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>

static int refused(void) {
    errno = atoi(getenv("LOCK_ERRNO"));
    return -1;
}

static int control(const char *name, int descriptor, int command, void *argument) {
    int (*real)(int, int, ...) = (int (*)(int, int, ...))dlsym(RTLD_NEXT, name);
    switch (command) {
        case F_GETLK: case F_SETLK: case F_SETLKW:
        case F_OFD_GETLK: case F_OFD_SETLK: case F_OFD_SETLKW:
            return refused();
    }
    return real(descriptor, command, argument);
}


int flock(int descriptor, int how) {
    (void)descriptor;
    (void)how;
    return refused();
}

int fcntl(int descriptor, int command, ...) {
    va_list list;
    va_start(list, command);
    void *argument = va_arg(list, void *);
    va_end(list);
    return control("fcntl", descriptor, command, argument);
}

int fcntl64(int descriptor, int command, ...) {
    va_list list;
    va_start(list, command);
    void *argument = va_arg(list, void *);
    va_end(list);
    return control("fcntl64", descriptor, command, argument);
}
