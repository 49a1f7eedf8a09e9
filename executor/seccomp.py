"""System-call filters: classic BPF programs for seccomp, for x86-64 and aarch64, from the standard library alone.

Two stages. `fork_server_filter` takes from a fork server what neither it nor a child ever needs. `execution_filter`
is an allow-list for a process that runs (or parses) untrusted text: compute, memory, and reading or writing one given
descriptor. Calls that ordinary library code makes in passing (stat, open, getpid …) fail with EPERM, so that Python
raises; every other call kills the process. Writable-and-executable or newly executable memory kills it too.

Not guaranteed: anything about side channels or kernel bugs behind the calls that remain.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050001  # REFUSE: the call returns EPERM

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = (
    0x20,
    0x15,
    0x35,
    0x45,
    0x06,
)  # BPF opcodes, 32-bit constant operand
_NUMBER, _ARCHITECTURE, _ARGUMENTS = (
    0,
    4,
    16,
)  # offsets in struct seccomp_data; arguments are 8 bytes, low half first
_PROT_EXEC, _MAP_ANONYMOUS = 4, 0x20
_X32 = 0x40000000  # numbers from here on are the x32 ABI of x86-64


@dataclass(frozen=True)
class Machine:
    """The numbers of one architecture. `audit` is its AUDIT_ARCH, `seccomp` the number of seccomp(2) itself."""

    audit: int
    seccomp: int
    calls: dict[str, int]  # what Python needs, allowed or refused
    privileged: dict[str, int]  # what only an attack needs


_X86_64 = Machine(
    audit=0xC000003E,
    seccomp=317,
    calls=dict(
        read=0, write=1, open=2, close=3, stat=4, fstat=5, lstat=6, lseek=8, mmap=9, mprotect=10, munmap=11,
        brk=12, rt_sigaction=13, rt_sigprocmask=14, rt_sigreturn=15, ioctl=16, access=21, sched_yield=24,
        mremap=25, madvise=28, nanosleep=35, getpid=39, exit=60, uname=63, fcntl=72, getcwd=79, readlink=89,
        gettimeofday=96, getrlimit=97, getrusage=98, sysinfo=99, times=100, getuid=102, getgid=104,
        geteuid=107, getegid=108, sigaltstack=131, gettid=186, futex=202, sched_getaffinity=204,
        getdents64=217, restart_syscall=219, clock_gettime=228, clock_getres=229, clock_nanosleep=230,
        exit_group=231, openat=257, newfstatat=262, readlinkat=267, faccessat=269, getrandom=318, statx=332,
        rseq=334, faccessat2=439,
    ),
    privileged=dict(
        shmget=29, shmat=30, socket=41, connect=42, accept=43, bind=49, listen=50, socketpair=53, execve=59,
        semget=64, msgget=68, ptrace=101, syslog=103, personality=135, modify_ldt=154, pivot_root=155,
        chroot=161, acct=163, mount=165, umount2=166, swapon=167, reboot=169, init_module=175,
        delete_module=176, quotactl=179, mq_open=240, kexec_load=246, add_key=248, request_key=249,
        keyctl=250, unshare=272, accept4=288, inotify_init1=294, perf_event_open=298, fanotify_init=300,
        name_to_handle_at=303, open_by_handle_at=304, setns=308, process_vm_readv=310,
        process_vm_writev=311, finit_module=313, memfd_create=319, kexec_file_load=320, bpf=321,
        execveat=322, userfaultfd=323, pidfd_send_signal=424, io_uring_setup=425, io_uring_enter=426,
        io_uring_register=427, open_tree=428, move_mount=429, fsopen=430, fsconfig=431, fsmount=432,
        pidfd_open=434, pidfd_getfd=438, process_madvise=440, memfd_secret=447,
    ),
)  # fmt: skip

_AARCH64 = Machine(
    audit=0xC00000B7,
    seccomp=277,
    calls=dict(
        getcwd=17, fcntl=25, ioctl=29, faccessat=48, openat=56, close=57, getdents64=61, lseek=62, read=63,
        write=64, readlinkat=78, newfstatat=79, fstat=80, exit=93, exit_group=94, futex=98, nanosleep=101,
        clock_gettime=113, clock_getres=114, clock_nanosleep=115, sched_getaffinity=123, sched_yield=124,
        restart_syscall=128, sigaltstack=132, rt_sigaction=134, rt_sigprocmask=135, rt_sigreturn=139,
        times=153, uname=160, getrlimit=163, getrusage=165, gettimeofday=169, getpid=172, getuid=174,
        geteuid=175, getgid=176, getegid=177, gettid=178, sysinfo=179, brk=214, munmap=215, mremap=216,
        mmap=222, mprotect=226, madvise=233, getrandom=278, statx=291, rseq=293, faccessat2=439,
    ),
    privileged=dict(
        inotify_init1=26, umount2=39, mount=40, pivot_root=41, chroot=51, quotactl=60, acct=89,
        personality=92, unshare=97, kexec_load=104, init_module=105, delete_module=106, syslog=116,
        ptrace=117, reboot=142, mq_open=180, msgget=186, semget=190, shmget=194, shmat=196, socket=198,
        socketpair=199, bind=200, listen=201, accept=202, connect=203, add_key=217, request_key=218,
        keyctl=219, execve=221, swapon=224, perf_event_open=241, accept4=242, fanotify_init=262,
        name_to_handle_at=264, open_by_handle_at=265, setns=268, process_vm_readv=270,
        process_vm_writev=271, finit_module=273, memfd_create=279, bpf=280, execveat=281, userfaultfd=282,
        kexec_file_load=294, pidfd_send_signal=424, io_uring_setup=425, io_uring_enter=426,
        io_uring_register=427, open_tree=428, move_mount=429, fsopen=430, fsconfig=431, fsmount=432,
        pidfd_open=434, pidfd_getfd=438, process_madvise=440, memfd_secret=447,
    ),
)  # fmt: skip

MACHINES = {"x86_64": _X86_64, "aarch64": _AARCH64}

_GRANTED = (
    "exit_group", "brk", "munmap", "mremap", "madvise", "futex", "rt_sigreturn", "exit", "clock_gettime",
    "gettimeofday", "sched_yield", "getrandom", "restart_syscall",
)  # fmt: skip
_JUDGED = ("read", "write", "mmap", "mprotect")  # granted or not by their arguments


@dataclass(frozen=True)
class _Op:
    """One instruction. `yes` and `no` name the label to jump to; None falls through to the next instruction."""

    code: int
    operand: int
    yes: str | None = None
    no: str | None = None


def execution_filter(machine: Machine, *, write_to: int, read_from: int | None = None) -> bytes:
    """The allow-list: struct sock_filter[] for a process that may use only these descriptors."""
    calls = machine.calls
    granted = [calls[name] for name in _GRANTED]
    refused = [number for name, number in calls.items() if name not in _GRANTED + _JUDGED]
    program: list[_Op | str] = [
        *_entry(machine),
        _Op(_EQUAL, calls["write"], "write"),
        _Op(_EQUAL, calls["read"], "read"),
        *(_Op(_EQUAL, number, "allow") for number in granted),
        _Op(_EQUAL, calls["mmap"], "mmap"),
        _Op(_EQUAL, calls["mprotect"], "mprotect"),
        *(_Op(_EQUAL, number, "refuse") for number in sorted(refused)),
        "kill",
        _Op(_RETURN, KILL),
        "write",
        _Op(_LOAD, _ARGUMENTS),
        _Op(_EQUAL, write_to, "allow", "refuse"),
        "read",
        *((_Op(_LOAD, _ARGUMENTS), _Op(_EQUAL, read_from, "allow", "refuse")) if read_from is not None else ()),
        "refuse",
        _Op(_RETURN, REFUSE),
        "mmap",
        _Op(_LOAD, _ARGUMENTS + 3 * 8),
        _Op(_ANY_BIT, _MAP_ANONYMOUS, None, "die"),
        "mprotect",  # both calls carry their protection in the third argument
        _Op(_LOAD, _ARGUMENTS + 2 * 8),
        _Op(_ANY_BIT, _PROT_EXEC, "die", "allow"),
        "allow",
        _Op(_RETURN, ALLOW),
        "die",
        _Op(_RETURN, KILL),
    ]
    return _assemble(program)


def fork_server_filter(machine: Machine) -> bytes:
    """The deny-list of a fork server: no programs, sockets, namespaces, modules, memory of others."""
    program: list[_Op | str] = [
        *_entry(machine),
        *(_Op(_EQUAL, number, "kill") for number in sorted(machine.privileged.values())),
        _Op(_RETURN, ALLOW),
        "kill",
        _Op(_RETURN, KILL),
    ]
    return _assemble(program)


def _entry(machine: Machine) -> Iterable[_Op]:
    """Leave the call's number in the accumulator; another architecture's numbers mean other calls, so kill."""
    yield _Op(_LOAD, _ARCHITECTURE)
    yield _Op(_EQUAL, machine.audit, None, "kill")
    yield _Op(_LOAD, _NUMBER)
    if machine is _X86_64:
        yield _Op(_AT_LEAST, _X32, "kill")


def _assemble(program: Sequence[_Op | str]) -> bytes:
    """Resolve labels (the strings) to forward distances and encode. ValueError if a jump exceeds 255."""
    labels: dict[str, int] = {}
    operations: list[_Op] = []
    for line in program:
        if isinstance(line, str):
            labels[line] = len(operations)
        else:
            operations.append(line)
    code = bytearray()
    for place, op in enumerate(operations):
        distances = [0 if label is None else labels[label] - place - 1 for label in (op.yes, op.no)]
        if not all(0 <= distance < 256 for distance in distances):
            raise ValueError(f"instruction {place} jumps {distances}, a filter jumps 0 to 255 forward")
        code += struct.pack("<HBBI", op.code, *distances, op.operand)
    return bytes(code)
