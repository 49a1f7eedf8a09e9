"""CPU seconds: they grow where work is done, and ZeroMQ's threads are found by name."""

from __future__ import annotations

import threading
import time

import zmq

from common.cpu_time import CpuTime


def burn(seconds: float) -> None:
    begin = time.thread_time()
    while time.thread_time() < begin + seconds:
        pass


def test_each_figure_counts_its_own_threads() -> None:
    cpu = CpuTime()
    assert cpu.read() == {"process": 0.0, "thread": 0.0, "zmq": 0.0}
    other = threading.Thread(target=burn, args=(0.05,))
    other.start()
    other.join()
    beside = cpu.read()
    assert beside["process"] >= 0.05 > beside["thread"]
    burn(0.05)
    assert cpu.read()["thread"] >= 0.05


def test_the_threads_of_sockets_are_found() -> None:
    cpu = CpuTime()
    cpu.read()
    with zmq.Context() as context, context.socket(zmq.PULL) as pull, context.socket(zmq.PUSH) as push:
        push.connect(f"tcp://127.0.0.1:{pull.bind_to_random_port('tcp://127.0.0.1')}")
        for _ in range(1000):
            push.send(bytes(4096))
        for _ in range(1000):
            pull.recv()
        assert cpu.read()["zmq"] > 0.0
