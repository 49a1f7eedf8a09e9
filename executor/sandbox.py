"""What the kernel is asked to take away from a process before it meets untrusted text: Linux only, no root needed.

`confine` is called once, by a process that has imported all it will ever import: no new privileges, death with its
parent, limits, no files and no network (Landlock), and leaving root if it was root. The system-call filters of
executor/seccomp.py come last, as `Filter` objects made beforehand, so that installing one costs a single call.

Guaranteed: if any layer but Landlock is missing, SandboxUnavailable is raised and nothing untrusted runs. Landlock is
a second wall behind seccomp; its absence is reported (0), not fatal.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys

from common.errors import SandboxUnavailable
from executor import seccomp

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_SECCOMP_SET_MODE_FILTER = 1
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF, _LANDLOCK_VERSION = 444, 446, 1
_NOBODY = 65534

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


class Filter:
    """A system-call filter, held ready in memory."""

    def __init__(self, code: bytes) -> None:
        self._code = ctypes.create_string_buffer(code, len(code))
        self._program = _FilterProgram(len(code) // 8, ctypes.addressof(self._code))
        self._call = (
            ctypes.c_long(machine().seccomp),
            ctypes.c_uint(_SECCOMP_SET_MODE_FILTER),
            ctypes.c_uint(0),
            ctypes.byref(self._program),
        )

    def install(self) -> None:
        """From here on, for this process and its children, for good. SandboxUnavailable if the kernel refuses."""
        if _syscall(*self._call) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise SandboxUnavailable(
                f"the kernel refused a seccomp filter ({reason}); untrusted code is not run without one"
            )


def machine() -> seccomp.Machine:
    """This machine's system-call numbers. SandboxUnavailable where there is no filter for it."""
    name = os.uname().machine
    if sys.platform != "linux" or name not in seccomp.MACHINES:
        raise SandboxUnavailable(
            f"the sandbox needs Linux on {' or '.join(seccomp.MACHINES)}, this is {sys.platform} on {name}"
        )
    return seccomp.MACHINES[name]


def confine(memory_bytes: int) -> int:
    """Take files, network, privileges and growth beyond `memory_bytes` from this process and its children.

    Returns the Landlock ABI in force, 0 for none.
    """
    machine()
    address_space = _address_space() + memory_bytes
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    die_with_parent()  # after the change of user, which clears it
    _prctl(_PR_SET_DUMPABLE, 0)
    for limit, value in (
        (resource.RLIMIT_AS, address_space),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the supervisor, whose end is our end
    return _landlock()


def die_with_parent() -> None:
    """SIGKILL for this process when the thread that made it ends. Not inherited: each child asks for itself."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def limit_cpu(seconds: float) -> None:
    """SIGPROF, which kills, after so much CPU time of this process. Not inherited."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _address_space() -> int:
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[0]) * resource.getpagesize()


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise SandboxUnavailable(f"prctl {option} was refused ({os.strerror(ctypes.get_errno())})")


def _landlock() -> int:
    """Deny all files, TCP, and signals and abstract sockets that leave the domain, as far as this kernel's ABI goes."""
    abi = int(_syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION))
    if abi <= 0:
        return 0
    file_rights = 13 if abi == 1 else 14 if abi == 2 else 15 if abi < 5 else 16
    network = 0b11 if abi >= 4 else 0
    scoped = 0b11 if abi >= 6 else 0
    attributes = struct.pack("<QQQ", (1 << file_rights) - 1, network, scoped)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = int(_syscall(_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0))
    if ruleset < 0:
        return 0
    restricted = _syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return abi if restricted else 0
