"""safety.jsonl: every thought that a safety rule matched, for a person to read, and what is done about it.

There is no file while nothing was flagged.

What is done, `safety.on_flag`: log (nothing more) | drop (the group is kept, but none of its samples is trained, and
its proposal, of status `flagged` from now on, does not enter the book) | stop (as drop, and the run ends; what it has
stays, and it can be resumed).

Invariants: a thought is on file before its group is journaled or counted, once per delivered group. Not guaranteed:
thoughts of groups that came too late to be used, and a bound on the file, which grows with what is flagged.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from pathlib import Path

from common.errors import PartFailed
from common.types import Group, Sample, Status


class SafetyLog:
    """`counts`: flags by rule since this process began; `told`: how many, and the last one, for the live view."""

    def __init__(self, path: Path, on_flag: str) -> None:
        self._path, self._on_flag = path, on_flag
        self.counts: Counter[str] = Counter()
        self.told = ""

    def take(self, group: Group) -> Group:
        """Write the flags of `group` down; the group as it is to be used."""
        if not group.flags:
            return group
        rows = [
            {
                "time": time.time(),
                "rule": flag.rule,
                "stream": group.samples[flag.sample].stream,
                "kind": group.kind,
                "lease": group.lease,
                "versions": [group.oldest_version, group.newest_version],
                "prompt": flag.prompt,
                "response": flag.response,
                "action": self._on_flag,
            }
            for flag in group.flags
        ]
        with self._path.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        self.counts.update(flag.rule for flag in group.flags)
        last = rows[-1]
        self.told = f"{self.counts.total()}, last {last['rule']} in {last['stream']}, version {group.newest_version}"
        if self._on_flag == "log":
            return group
        return dataclasses.replace(group, samples=tuple(map(_dropped, group.samples)), proposal=None, solve_rate=None)

    def stopped(self, group: Group) -> PartFailed | None:
        """Why the run ends because of `group`, if it does."""
        if self._on_flag != "stop" or not group.flags:
            return None
        rules = ", ".join(dict.fromkeys(flag.rule for flag in group.flags))
        return PartFailed(
            "safety",
            f"a response of lease {group.lease} ({group.kind}) matched {rules}, and safety.on_flag is stop",
            log=str(self._path),
            hint="read it there; to go on, resume the run (--resume) with safety.on_flag=drop or log",
        )


def _dropped(sample: Sample) -> Sample:
    legal = sample.stream.proposes and sample.status == Status.OK
    return dataclasses.replace(sample, trainable=False, status=Status.FLAGGED if legal else sample.status)
