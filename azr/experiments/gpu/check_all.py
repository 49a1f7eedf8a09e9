"""All checks in order of what they are worth, within a budget of time: `python -m azr.experiments.gpu.check_all`.

Each is a process of its own, so that none is stopped by another's failure; one that is not over when its time is has
failed. Writes DIR/checks.json and DIR/checks.md, a table, after every check; those of an earlier call are kept, so that
several calls (`--only`) make one table.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from azr.cli import run
from azr.experiments.gpu import children
from common.errors import ConfigError, PartFailed

CHECKS = ("run", "push", "speed", "packing", "loop", "zero", "memory")
LEAST = 30.0  # seconds left below which none is begun
GRACE = 45.0  # seconds in which a check whose time is over ends its processes and writes what it has found


def check_all(device: str, names: Sequence[str], minutes: float, out: Path) -> bool:
    """Whether all were begun and no claim failed."""
    out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    if (out / "checks.json").exists():
        results = json.loads((out / "checks.json").read_text())
    deadline = time.monotonic() + 60 * minutes
    begun = True
    for name in names:
        left = deadline - time.monotonic()
        begun = begun and left >= LEAST
        results[name] = _one(name, device, left, out) if begun else _without(name, device, "no time was left")
        (out / "checks.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (out / "checks.md").write_text(table(results.values()), encoding="utf-8")
        print(told(results[name]), flush=True)
    return begun and not any(claim["result"] == "FAIL" for name in names for claim in results[name]["claims"])


def _one(name: str, device: str, seconds: float, out: Path) -> dict[str, Any]:
    file, log = out / f"{name}.json", out / f"{name}.log"
    file.unlink(missing_ok=True)
    module = f"azr.experiments.gpu.check_{name}"
    command = [sys.executable, "-m", module, "--device", device, "--out", str(file), "--work", str(out / "work")]
    why = ""
    began = time.monotonic()
    try:
        children.perform([command], [log], {"PYTHONUNBUFFERED": "1"}, seconds, GRACE)
    except PartFailed as error:
        why = error.what
    if file.exists():  # it tells itself what failed
        found: dict[str, Any] = json.loads(file.read_text())
        return found
    result = _without(name, device, why)
    result["claims"][0]["result"] = "FAIL"
    result["seconds"] = round(time.monotonic() - began, 1)
    return result


def _without(name: str, device: str, why: str) -> dict[str, Any]:
    claim = {"what": "the check ran to its end", "result": "NOT RUN", "detail": why}
    return {"check": name, "device": device, "seconds": 0.0, "claims": [claim], "figures": [], "versions": {}}


def told(result: dict[str, Any]) -> str:
    """One check for people."""
    lines = [f"== {result['check']} on {result['device']}, {result['seconds']:.0f} s"]
    lines += [f"{claim['result']:<8}{claim['what']}: {claim['detail'][-400:]}" for claim in result["claims"]]
    lines += [f"{'':<8}{figure['what']}: {figure['value']:.4g} {figure['unit']}" for figure in result["figures"]]
    return "\n".join(lines)


def table(results: Sequence[dict[str, Any]] | Any) -> str:
    """Markdown: a row per claim, then one per figure."""
    results = list(results)
    lines = ["| check | device | claim | result | detail |", "|---|---|---|---|---|"]
    for result in results:
        for claim in result["claims"]:
            lines.append(
                _row(result, claim["what"], claim["result"], claim["detail"].splitlines()[0] if claim["detail"] else "")
            )
    lines += ["", "| check | device | figure | value |", "|---|---|---|---|"]
    for result in results:
        for figure in result["figures"]:
            lines.append(_row(result, figure["what"], f"{figure['value']:.4g} {figure['unit']}".strip()))
    return "\n".join(lines) + "\n"


def _row(result: dict[str, Any], *cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in (result["check"], result["device"], *cells)) + " |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m azr.experiments.gpu.check_all", description="All checks in turn.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default: %(default)s")
    parser.add_argument("--minutes", type=float, default=30, help="for all of them (default: %(default)s)")
    parser.add_argument("--only", metavar="NAME,...", help=f"of {', '.join(CHECKS)} (default: all, in this order)")
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path("runs/gpu-checks"), help="default: %(default)s")
    parsed = parser.parse_args(arguments)

    def command() -> int:
        names = parsed.only.split(",") if parsed.only else list(CHECKS)
        if unknown := sorted(set(names) - set(CHECKS)):
            raise ConfigError(f"--only names {', '.join(CHECKS)}; not {', '.join(unknown)}")
        return int(not check_all(parsed.device, names, parsed.minutes, parsed.out.absolute()))

    return run(command)


if __name__ == "__main__":
    sys.exit(main())
