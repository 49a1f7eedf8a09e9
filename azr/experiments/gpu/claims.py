"""What a check claims and finds: lines for people, JSON for tables, an exit code for scripts.

A claim holds, fails, or was not run, with the reason; it never holds for want of looking. A check that crashes or is
interrupted has failed one more claim, and keeps what it had found.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azr.bench import setting
from azr.cli import run
from common.errors import ConfigError

WORDS = {True: "PASS", False: "FAIL", None: "NOT RUN"}


@dataclass(frozen=True, slots=True)
class Claim:
    """`held` None: not run, and `detail` says why."""

    what: str
    held: bool | None
    detail: str = ""

    def __str__(self) -> str:
        return f"{WORDS[self.held]:<8}{self.what}" + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True, slots=True)
class Figure:
    what: str
    value: float
    unit: str = ""

    def __str__(self) -> str:
        return f"{'':<8}{self.what}: {self.value:.4g} {self.unit}".rstrip()


@dataclass(frozen=True)
class Request:
    """On which device (cuda or cpu) to check, a folder for what it makes, and one for models, which checks share."""

    device: str
    work: Path
    models: Path

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def model(self, shape: str, *, dtype: str = "bfloat16") -> Path:
        """A model of random weights, made once for all checks that share `models`. On a CPU it is the tiny one."""
        from azr.experiments.gpu.model import make

        shape = shape if self.on_gpu else "tiny"
        path = self.models / f"{shape}-{dtype}"
        if not path.exists():
            make(path, shape, dtype=dtype, device=self.device)
        return path


@dataclass
class Record:
    """Of one check."""

    name: str
    device: str
    claims: list[Claim] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    seconds: float = 0.0

    def claim(self, what: str, held: bool, detail: str = "") -> None:
        self._add(Claim(what, bool(held), detail))

    def not_run(self, what: str, why: str) -> None:
        self._add(Claim(what, None, why))

    def figure(self, what: str, value: float, unit: str = "") -> None:
        self.figures.append(Figure(what, float(value), unit))
        print(self.figures[-1], flush=True)

    @property
    def failed(self) -> bool:
        return any(claim.held is False for claim in self.claims)

    def as_json(self) -> dict[str, Any]:
        return {
            "check": self.name,
            "device": self.device,
            "seconds": round(self.seconds, 1),
            "claims": [{"what": c.what, "result": WORDS[c.held], "detail": c.detail} for c in self.claims],
            "figures": [{"what": f.what, "value": f.value, "unit": f.unit} for f in self.figures],
            "versions": versions(),
        }

    def _add(self, claim: Claim) -> None:
        self.claims.append(claim)
        print(claim, flush=True)


Check = Callable[[Record, Request], None]


def main(name: str, check: Check, arguments: Sequence[str] | None = None) -> int:
    """The command line of one check; 0 if no claim failed, 1 if one did."""
    parser = argparse.ArgumentParser(prog=f"python -m azr.experiments.gpu.check_{name}", description=check.__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write claims and figures there, too")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep models, runs and logs there")
    parsed = parser.parse_args(arguments)

    def command() -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
        if parsed.device == "cuda":
            _need_gpu()
        with tempfile.TemporaryDirectory(prefix="azr-check-", ignore_cleanup_errors=True) as temporary:
            work = (parsed.work or Path(temporary)).absolute()
            work.mkdir(parents=True, exist_ok=True)
            own = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=work))
            record = perform(name, check, Request(parsed.device, own, work / "models"))
        if parsed.out is not None:
            parsed.out.parent.mkdir(parents=True, exist_ok=True)
            parsed.out.write_text(json.dumps(record.as_json(), indent=1) + "\n", encoding="utf-8")
        return int(record.failed)

    return run(command)


def perform(name: str, check: Check, request: Request) -> Record:
    """Run one check and print its verdict."""
    record = Record(name, request.device)
    print(f"{name} on {request.device}: " + ", ".join(f"{k} {v}" for k, v in versions().items()), flush=True)
    began = time.monotonic()
    try:
        check(record, request)
    except Exception as error:  # noqa: BLE001 - the boundary of a check: what was found before is told all the same
        traceback.print_exc()
        record.claim("the check ran to its end", False, f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        record.claim("the check ran to its end", False, "it was interrupted")
    record.seconds = time.monotonic() - began
    count = {word: sum(WORDS[claim.held] == word for claim in record.claims) for word in WORDS.values()}
    told = ", ".join(f"{number} {word}" for word, number in count.items() if number)
    print(f"{name}: {'FAIL' if record.failed else 'PASS'} ({told}; {record.seconds:.0f} s)", flush=True)
    return record


def versions() -> dict[str, str]:
    """Of Python, the packages that do the work, and the GPU with CUDA if there is one."""
    found = setting.versions()
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        if torch.cuda.is_available():
            found |= {"cuda": str(torch.version.cuda), "gpu": torch.cuda.get_device_name()}
    return found


def _need_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(f"torch {torch.__version__} sees no GPU: --device cpu checks the same with tiny shapes")
