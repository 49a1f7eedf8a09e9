"""A check tells what held, what failed and what was not run; nothing that was not looked at passes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from azr.cli import MISUSED
from azr.experiments.gpu import check_all, claims
from azr.experiments.gpu.claims import Record, Request, perform


def test_each_claim_is_a_line_and_one_failure_is_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(record: Record, request: Request) -> None:
        record.claim("two and two", 2 + 2 == 4, "four")
        record.not_run("a GPU is fast", "there is none")
        record.figure("pause", 0.0625, "s")

    out = tmp_path / "good.json"
    assert claims.main("good", check, ["--device", "cpu", "--out", str(out), "--work", str(tmp_path / "work")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("good on cpu: python 3")
    assert lines[1:4] == [
        "PASS    two and two: four",
        "NOT RUN a GPU is fast: there is none",
        " " * 8 + "pause: 0.0625 s",
    ]
    assert lines[4].startswith("good: PASS (1 PASS, 1 NOT RUN;")
    told = json.loads(out.read_text())
    assert [claim["result"] for claim in told["claims"]] == ["PASS", "NOT RUN"]
    assert told["figures"] == [{"what": "pause", "value": 0.0625, "unit": "s"}] and "python" in told["versions"]

    def failing(record: Record, request: Request) -> None:
        check(record, request)
        record.claim("one is two", False)

    assert claims.main("bad", failing, ["--device", "cpu"]) == 1
    assert "bad: FAIL (1 PASS, 1 FAIL, 1 NOT RUN;" in capsys.readouterr().out


def test_a_crash_is_a_failed_claim_and_keeps_what_was_found(tmp_path: Path) -> None:
    def check(record: Record, request: Request) -> None:
        record.claim("began", True)
        raise ZeroDivisionError("by nought")

    record = perform("crashing", check, Request("cpu", tmp_path, tmp_path))
    assert record.failed
    assert [str(claim) for claim in record.claims] == [
        "PASS    began",
        "FAIL    the check ran to its end: ZeroDivisionError: by nought",
    ]


def test_a_model_is_made_once_and_tiny_without_a_gpu(tmp_path: Path) -> None:
    request = Request("cpu", tmp_path, tmp_path / "models")
    path = request.model("3b", dtype="float32")
    before = (path / "model.safetensors").stat()
    assert request.model("0.5b", dtype="float32") == path
    assert (path / "model.safetensors").stat().st_mtime_ns == before.st_mtime_ns and before.st_size < 1 << 20


def test_results_of_several_calls_are_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No time is left, so nothing is started; what an earlier call found stays."""
    (tmp_path / "checks.json").write_text(
        json.dumps(
            {
                "zero": {
                    "check": "zero",
                    "device": "cuda",
                    "seconds": 9,
                    "claims": [{"what": "stages | agree", "result": "PASS", "detail": "error 0\nmore"}],
                    "figures": [{"what": "memory", "value": 12.34567, "unit": "GiB"}],
                    "versions": {},
                }
            }
        )
    )
    assert check_all.main(["--device", "cpu", "--minutes", "0", "--only", "run", "--out", str(tmp_path)]) == 1
    assert "no time was left" in capsys.readouterr().out
    assert (tmp_path / "checks.md").read_text().splitlines() == [
        "| check | device | claim | result | detail |",
        "|---|---|---|---|---|",
        "| zero | cuda | stages / agree | PASS | error 0 |",
        "| run | cpu | the check ran to its end | NOT RUN | no time was left |",
        "",
        "| check | device | figure | value |",
        "|---|---|---|---|",
        "| zero | cuda | memory | 12.35 GiB |",
    ]
    assert check_all.main(["--only", "sped"]) == MISUSED
    assert "--only names run, push" in capsys.readouterr().err


def test_every_check_has_a_command_of_its_own() -> None:
    folder = Path(check_all.__file__).parent
    assert {file.stem.removeprefix("check_") for file in folder.glob("check_*.py")} == {*check_all.CHECKS, "all"}


def test_an_interrupt_keeps_what_was_found_too(tmp_path: Path) -> None:
    def check(record: Record, request: Request) -> None:
        record.claim("began", True)
        raise KeyboardInterrupt

    out = tmp_path / "found.json"
    assert claims.main("long", check, ["--device", "cpu", "--out", str(out)]) == 1
    assert [claim["result"] for claim in json.loads(out.read_text())["claims"]] == ["PASS", "FAIL"]
