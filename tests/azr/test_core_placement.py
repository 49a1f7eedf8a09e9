"""Which cores each role gets, and that a process keeps to them with all its threads and children."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

from azr.core_placement import CorePlacement, missing
from common.config import Config, load


def configured(*settings: str) -> Config:
    return load(os.devnull, settings)


def test_roles_that_nothing_is_said_of_have_all_cores() -> None:
    every = (0, 1, 2)
    assert CorePlacement.of(configured(), {2, 0, 1}) == CorePlacement(every, every, every, every, every)
    named = CorePlacement.of(configured("cluster.cores.ray=1", "cluster.cores.actor=0,2"), {0, 1, 2})
    assert named == CorePlacement(actor=(0, 2), executor=every, intake=every, trainer=every, ray=(1,))


def test_pinned_roles_share_the_machine_by_halves() -> None:
    pinned = CorePlacement.of(configured("cluster.pin=true"), {0, 1, 2, 3, 4})
    assert (pinned.actor, pinned.intake, pinned.trainer) == ((0, 1), (2, 3, 4), (2, 3, 4))
    assert pinned.executor == pinned.ray == (0, 1, 2, 3, 4)
    assert CorePlacement.of(configured("cluster.pin=true", "cluster.cores.intake=0"), {0, 1}).intake == (0,)
    assert CorePlacement.of(configured("cluster.pin=true"), {3}).actor == (3,)


def test_nothing_is_said_of_the_machines_of_a_given_cluster() -> None:
    assert CorePlacement.of(configured("cluster.pin=true", "cluster.address=10.0.0.1:6379"), {0, 1}) == CorePlacement()


def test_a_core_that_is_not_there_is_an_error() -> None:
    usable = min(os.sched_getaffinity(0))
    assert list(missing(configured(f"cluster.cores.actor={usable}"))) == []
    (found,) = missing(configured(f"cluster.cores.actor={usable},99999"))
    assert found.fatal and "cluster.cores.actor" in found.text and "may not use core 99999" in found.text


def test_threads_that_run_already_and_children_keep_to_the_cores() -> None:
    """In a process of its own, which stays bound."""
    core = max(os.sched_getaffinity(0))
    code = f"""
        import os, subprocess, threading
        from azr.core_placement import keep_to

        begun, told = threading.Event(), threading.Event()
        seen = []

        def work():
            begun.set()
            told.wait()
            seen.append(os.sched_getaffinity(0))

        thread = threading.Thread(target=work)
        thread.start()
        begun.wait()
        keep_to([])
        keep_to([{core}])
        told.set()
        thread.join()
        assert seen == [os.sched_getaffinity(0)] == [{{{core}}}], seen
        print(subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout)
    """
    answer = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert f"Cpus_allowed_list:\t{core}\n" in answer.stdout
