"""The filters, run by a small BPF interpreter, so that the tables of both architectures are exercised anywhere."""

from __future__ import annotations

import os
import signal
import struct

import pytest

from common.types import Status
from executor import frames, seccomp, selftest
from executor.seccomp import ALLOW, KILL, MACHINES, REFUSE, Machine

machines = pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES.keys())
READ_WRITE, EXECUTE, ANONYMOUS = 3, 4, 0x20


def verdict(code: bytes, number: int, arguments: tuple[int, ...] = (), audit: int = 0) -> int:
    data = struct.pack("<IIQ6Q", number, audit, 0, *arguments, *[0] * (6 - len(arguments)))
    program = list(struct.iter_unpack("<HBBI", code))
    place, accumulator = 0, 0
    while True:
        operation, yes, no, operand = program[place]
        place += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, operand)
        elif operation == 0x06:
            return int(operand)
        else:
            tests = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x45: bool(accumulator & operand)}
            place += yes if tests[operation] else no


@machines
def test_an_execution_may_compute_and_write_its_result(machine: Machine) -> None:
    code = seccomp.execution_filter(machine, write_to=3)

    def ask(name: str, *arguments: int) -> int:
        return verdict(code, machine.calls[name], arguments, machine.audit)

    assert ask("write", 3) == ask("brk") == ask("exit_group") == ask("clock_gettime") == ALLOW
    assert ask("write", 1) == ask("read", 3) == ask("openat") == ask("nanosleep") == ask("close", 3) == REFUSE
    assert ask("mmap", 0, 4096, READ_WRITE, ANONYMOUS | 2) == ask("mprotect", 0, 4096, READ_WRITE) == ALLOW
    assert ask("mmap", 0, 4096, READ_WRITE, 2) == ask("mmap", 0, 4096, EXECUTE, ANONYMOUS) == KILL
    assert ask("mprotect", 0, 4096, EXECUTE) == KILL
    for number in range(600):
        if number not in machine.calls.values():
            assert verdict(code, number, (), machine.audit) == KILL
    assert all(verdict(code, number, (), machine.audit) == KILL for number in machine.privileged.values())


@machines
def test_a_checker_may_read_one_descriptor(machine: Machine) -> None:
    code = seccomp.execution_filter(machine, write_to=0, read_from=0)
    assert verdict(code, machine.calls["read"], (0,), machine.audit) == ALLOW
    assert verdict(code, machine.calls["read"], (1,), machine.audit) == REFUSE


@machines
def test_a_fork_server_loses_what_is_privileged_only(machine: Machine) -> None:
    code = seccomp.fork_server_filter(machine)
    assert all(verdict(code, number, (), machine.audit) == KILL for number in machine.privileged.values())
    assert all(verdict(code, number, (), machine.audit) == ALLOW for number in machine.calls.values())


@machines
def test_numbers_of_another_architecture_kill(machine: Machine) -> None:
    for code in (seccomp.execution_filter(machine, write_to=3), seccomp.fork_server_filter(machine)):
        assert verdict(code, machine.calls["exit_group"], (), machine.audit ^ 1) == KILL
    if machine is MACHINES["x86_64"]:
        assert verdict(code, 0x40000000 | machine.calls["write"], (3,), machine.audit) == KILL


def test_a_probe_that_gets_through_is_noticed() -> None:
    probes = {probe.name: probe for probe in selftest.PROBES}
    assert selftest.run(probes["open"], 0) == 0  # no sandbox here
    assert not selftest.passed(probes["open"], 0)
    assert selftest.passed(probes["open"], selftest.REFUSED << 8)
    assert selftest.passed(probes["fork"], signal.SIGSYS)
    assert not selftest.passed(probes["fork"], selftest.REFUSED << 8)
    assert not selftest.passed(probes["CPU limit"], signal.SIGKILL)
    assert os.WIFSIGNALED(signal.SIGSYS)


def test_status_codes_of_the_sandbox_are_status_words() -> None:
    assert all(text in set(Status) for text in frames.STATUSES)
