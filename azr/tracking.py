"""Weights & Biases beside the run's own files: offline in RUN/wandb/ unless the user is logged in.

It reads metrics.jsonl as that grows, so a slow or dead service can never hold the run up.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import netrc
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from common.config import Config

log = logging.getLogger(__name__)

INIT_TIMEOUT = 20.0  # seconds until an online service that does not answer is done without


class Tracking:
    """A context; `catch_up` logs the rows that metrics.jsonl has gained."""

    def __init__(self, config: Config, folder: Path) -> None:
        mode = config.logging.wandb
        self._mode = ("online" if logged_in() else "offline") if mode == "auto" else mode
        self._config, self._folder = config, folder
        self._run: Any = None
        self._read = 0

    def __enter__(self) -> Self:
        if self._mode != "disabled":
            import wandb

            try:
                self._run = self._start(wandb, self._mode)
            except wandb.Error as error:
                log.warning("Weights & Biases does not answer, so this run is tracked offline: %s", error)
                self._run = self._start(wandb, "offline")
        return self

    def _start(self, wandb: Any, mode: str) -> Any:
        run = wandb.init(
            project="azr",
            name=self._folder.name,
            dir=str(self._folder),
            mode=mode,
            config=dataclasses.asdict(self._config),
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, init_timeout=INIT_TIMEOUT),
        )
        run.define_metric("analysis/*", step_metric="step")  # its rows come behind those of their steps
        return run

    def catch_up(self) -> None:
        path = self._folder / "metrics.jsonl"
        if self._run is None or not path.exists():
            return
        with path.open() as file:
            file.seek(self._read)
            while (line := file.readline()).endswith("\n"):
                self._run.log(json.loads(line))
                self._read = file.tell()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._run is not None:
            import wandb

            self.catch_up()
            self._run.finish(exit_code=0 if error is None else 1)
            wandb.teardown()  # its service must not outlive this block


def logged_in() -> bool:
    """Whether there is a key: in the environment or in the user's netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
