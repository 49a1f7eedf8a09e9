/* The fork server's loop outside Python: executor/zygote.py says what it does, this does the same with fewer pages
 * touched. Every page that either side writes after a fork is copied by the kernel, and that is what a short program
 * costs; a parent that stays in this function writes a handful.
 *
 * serve(control, result, filter) returns in a child, locked down to the descriptor `result`: what `unpack` makes of its
 * request; and once in the parent, when the control socket closes: None. The caller has confined the process and holds the
 * only thread. No Python object is touched between a fork and the lock-down.
 */
#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* executor/frames.py: REQUEST, REPORT, ITEM; both machines of executor/seccomp.py are little-endian. */
struct request {
    uint32_t cpu_ms, wall_ms, bound, output_limit;
    uint8_t probe;
} __attribute__((packed));
struct report {
    uint32_t length; /* of what follows */
    int32_t status;
    uint8_t ended;
    uint32_t cpu_us;
} __attribute__((packed));
struct item {
    uint8_t code;
    uint32_t length;
} __attribute__((packed));
enum { ITSELF, BY_CLOCK, BY_FLOOD };
enum { NO_CHILD = 12 };
enum { MORE = 1 << 16, DESCRIPTORS = 64 };

static int read_all(int descriptor, char *into, size_t count) {
    while (count) {
        ssize_t got = read(descriptor, into, count);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return -1;
        into += got;
        count -= (size_t)got;
    }
    return 0;
}

static int write_all(int descriptor, const char *from, size_t count) {
    while (count) {
        ssize_t put = write(descriptor, from, count);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return -1;
        from += put;
        count -= (size_t)put;
    }
    return 0;
}

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Bytes that children do not inherit: what one wrote is nobody else's business, and pages not shared are not copied. */
struct sink {
    char *data;
    size_t room, size;
};

static int grow(struct sink *sink, size_t room) {
    char *data = sink->data == NULL
                     ? mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                     : mremap(sink->data, sink->room, room, MREMAP_MAYMOVE);
    if (data == MAP_FAILED)
        return -1;
    sink->data = data;
    sink->room = room;
    return madvise(data, room, MADV_DONTFORK);
}

static void die(void) {
    raise(NO_CHILD);
    _exit(1);
}

/* In the child. Ends the process rather than run anything with a layer missing. */
static void lock_down(pid_t parent, int pipe_end, int result, uint32_t cpu_ms, const struct sock_fprog *filter) {
    struct itimerval cpu = {{0, 0}, {cpu_ms / 1000, (suseconds_t)(cpu_ms % 1000) * 1000}};
    if (pipe_end != result && dup2(pipe_end, result) < 0)
        die();
    if (syscall(SYS_close_range, result + 1, ~0U, 0) != 0)
        for (int other = result + 1; other < DESCRIPTORS; other++)
            close(other);
    for (int other = 0; other < result; other++)
        close(other);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0 || getppid() != parent || setitimer(ITIMER_PROF, &cpu, NULL) != 0 ||
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, filter) != 0)
        die();
}

/* What the child writes until it closes, added to `sink`. Returns why listening ended. */
static int listen_to(int pipe_end, int64_t deadline, size_t bound, struct sink *sink) {
    struct pollfd poller = {.fd = pipe_end, .events = POLLIN};
    bound += sink->size;
    for (;;) {
        int64_t left = deadline - now_ms();
        int ready = left > 0 ? poll(&poller, 1, (int)left) : 0;
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return BY_CLOCK;
        if (sink->room - sink->size < MORE && grow(sink, 2 * sink->room) != 0)
            return BY_FLOOD;
        ssize_t got = read(pipe_end, sink->data + sink->size, MORE);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return ITSELF;
        sink->size += (size_t)got;
        if (sink->size > bound)
            return BY_FLOOD;
    }
}

/* (probe, output limit, items) of a request. */
static PyObject *unpack(const struct request *head, const char *at, const char *end) {
    PyObject *items = PyList_New(0);
    struct item item;
    for (; items != NULL && at < end; at += item.length) {
        memcpy(&item, at, sizeof item);
        at += sizeof item;
        PyObject *data = PyBytes_FromStringAndSize(at, item.length);
        if (data == NULL || PyList_Append(items, data) != 0)
            return NULL;
        Py_DECREF(data);
    }
    return items == NULL ? NULL : Py_BuildValue("(BIN)", head->probe, head->output_limit, items);
}

static PyObject *serve(PyObject *Py_UNUSED(self), PyObject *arguments) {
    int control, result;
    Py_buffer code;
    if (!PyArg_ParseTuple(arguments, "iiy*", &control, &result, &code))
        return NULL;
    struct sock_fprog filter = {.len = (unsigned short)(code.len / sizeof(struct sock_filter)), .filter = code.buf};
    struct sink reply = {NULL, 0, 0};
    if (grow(&reply, 4 * MORE) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    pid_t parent = getpid();
    char *body = NULL;
    size_t room = 0, used = 0;
    for (;;) {
        uint32_t length;
        if (read_all(control, (char *)&length, sizeof length) != 0)
            Py_RETURN_NONE;
        if (used)
            explicit_bzero(body, used); /* a child shall not find what another was given */
        if (length > room) {
            free(body);
            body = malloc(length);
            room = length;
        }
        used = length;
        struct request limits;
        if (body == NULL || length < sizeof limits)
            return PyErr_Format(PyExc_ValueError, "a request of %u bytes", length);
        if (read_all(control, body, length) != 0)
            Py_RETURN_NONE;
        memcpy(&limits, body, sizeof limits);

        int ends[2];
        pid_t child = -1;
        if (pipe(ends) == 0 && (child = fork()) < 0) {
            close(ends[0]);
            close(ends[1]);
        }
        if (child < 0) { /* no descriptors, no processes or no memory just now */
            struct report none = {.length = sizeof none - sizeof none.length, .status = NO_CHILD};
            if (write_all(control, (const char *)&none, sizeof none) != 0)
                Py_RETURN_NONE;
            continue;
        }
        if (child == 0) {
            lock_down(parent, ends[1], result, limits.cpu_ms, &filter);
            return unpack(&limits, body + sizeof limits, body + length);
        }
        close(ends[1]);
        reply.size = sizeof(struct report);
        int ended = listen_to(ends[0], now_ms() + limits.wall_ms, limits.bound, &reply);
        close(ends[0]);
        kill(child, SIGKILL); /* bounds the wait; it cannot change how an ended child has ended */
        int status;
        struct rusage usage;
        while (wait4(child, &status, 0, &usage) < 0)
            if (errno != EINTR)
                return PyErr_SetFromErrno(PyExc_OSError);
        struct report head = {
            .length = (uint32_t)(reply.size - sizeof head.length),
            .status = status,
            .ended = (uint8_t)ended,
            .cpu_us = (uint32_t)((usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 + usage.ru_utime.tv_usec +
                                 usage.ru_stime.tv_usec),
        };
        memcpy(reply.data, &head, sizeof head);
        if (write_all(control, reply.data, reply.size) != 0)
            Py_RETURN_NONE;
    }
}

static PyMethodDef methods[] = {
    {"serve", serve, METH_VARARGS, "serve(control, result, filter): as executor/zygote.py has it."},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_forkloop", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__forkloop(void) { return PyModule_Create(&module); }
