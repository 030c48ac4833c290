/* Kills the process, as kill -9 does, at the Nth call that changes what is on disk. Preloaded; counts once armed.
   Before the call, or after half of a write: that is what a process that dies at a bad moment leaves. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static long armed = 0, counted = 0;

void kill_at_arm(long n) { armed = n; counted = 0; }
long kill_at_counted(void) { return counted; }

static int due(void) {
    if (!armed) return 0;
    return ++counted == armed;
}

static void die(void) { kill(getpid(), SIGKILL); for (;;) pause(); }

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *p, size_t n) { REAL(write); if (fd > 2 && due()) { real(fd, p, n / 2); die(); } return real(fd, p, n); }
ssize_t pwrite(int fd, const void *p, size_t n, off_t o) { REAL(pwrite); if (due()) { real(fd, p, n / 2, o); die(); } return real(fd, p, n, o); }
ssize_t pwrite64(int fd, const void *p, size_t n, off64_t o) { REAL(pwrite64); if (due()) { real(fd, p, n / 2, o); die(); } return real(fd, p, n, o); }
int fsync(int fd) { REAL(fsync); if (due()) die(); return real(fd); }
int fdatasync(int fd) { REAL(fdatasync); if (due()) die(); return real(fd); }
int rename(const char *a, const char *b) { REAL(rename); if (due()) die(); return real(a, b); }
int renameat(int c, const char *a, int d, const char *b) { REAL(renameat); if (due()) die(); return real(c, a, d, b); }
int link(const char *a, const char *b) { REAL(link); if (due()) die(); return real(a, b); }
int linkat(int c, const char *a, int d, const char *b, int f) { REAL(linkat); if (due()) die(); return real(c, a, d, b, f); }
int symlink(const char *a, const char *b) { REAL(symlink); if (due()) die(); return real(a, b); }
int unlink(const char *a) { REAL(unlink); if (due()) die(); return real(a); }
int unlinkat(int c, const char *a, int f) { REAL(unlinkat); if (due()) die(); return real(c, a, f); }
int mkdir(const char *a, mode_t m) { REAL(mkdir); if (due()) die(); return real(a, m); }
int truncate(const char *a, off_t n) { REAL(truncate); if (due()) die(); return real(a, n); }
int truncate64(const char *a, off64_t n) { REAL(truncate64); if (due()) die(); return real(a, n); }
int ftruncate(int fd, off_t n) { REAL(ftruncate); if (due()) die(); return real(fd, n); }
int ftruncate64(int fd, off64_t n) { REAL(ftruncate64); if (due()) die(); return real(fd, n); }
