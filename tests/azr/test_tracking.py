"""The run's metrics in Weights & Biases, without a service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from azr.tracking import Tracking
from common.config import Config, LoggingConfig


def config(mode: str) -> Config:
    return Config(logging=LoggingConfig(wandb=mode))


def test_disabled_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')
    with Tracking(config("disabled"), tmp_path) as tracking:
        tracking.catch_up()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.real
def test_offline_keeps_what_the_run_wrote(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    with Tracking(config("offline"), tmp_path) as tracking:
        tracking.catch_up()
        with metrics.open("a", buffering=1) as file:
            for step in range(3):
                file.write(json.dumps({"step": step, "solve/deduction/accuracy": step / 4}) + "\n")
            tracking.catch_up()
            file.write('{"step": 3, "sol')
            tracking.catch_up()
            file.write('ve/deduction/accuracy": 0.75}\n')
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert list(run.glob("*.wandb"))
