"""A folder is one process's at a time, until that process ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from azr.lock import held
from common.errors import ConfigError

HOLD = (
    "import sys, azr.lock, pathlib\nwith azr.lock.held(pathlib.Path(sys.argv[1])): print('held', flush=True); input()"
)


def test_a_second_process_is_told_to_wait(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match="another process works in"), held(tmp_path):
            pytest.fail("two hold it")
        holder.kill()
    with held(tmp_path):
        pass
    with held(tmp_path):
        pass
