"""The command line: what it understands, what it prints, and its exit codes. Nothing is started."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from azr.cli import FAILED, INTERRUPTED, MISUSED, main, parse, run
from common.errors import ConfigError, PartFailed, SandboxUnavailable


def test_an_unknown_key_ends_with_the_nearest_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "configs/tiny.yaml", "learner.stpes=5"]) == MISUSED
    printed = capsys.readouterr()
    assert "learner.steps" in printed.err and "Traceback" not in printed.err and not printed.out


def test_a_failed_check_is_an_exit_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["check", "tiny.yaml", "model.build=false", f"model.path={tmp_path / 'none'}"]) == FAILED
    assert "there is no model folder" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("train tiny.yaml a.b=1 --resume R", ["tiny.yaml", "a.b=1"]),
        ("train --resume R tiny.yaml a.b=1", ["tiny.yaml", "a.b=1"]),
        ("train tiny.yaml --resume R a.b=1 c.d=-1", ["tiny.yaml", "a.b=1", "c.d=-1"]),
        ("train --resume R a.b=1", ["a.b=1"]),
    ],
)
def test_settings_may_stand_anywhere(words: str, settings: list[str]) -> None:
    parsed = parse(words.split())
    assert (parsed.settings, parsed.resume) == (settings, "R")


@pytest.mark.parametrize(
    "words", ["", "trian tiny.yaml", "train tiny.yaml --resmue R", "base a.b=1", "base --steps many", "train a --x=1"]
)
def test_wrong_usage_exits_with_2(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(words.split())
    assert caught.value.code == MISUSED
    assert "usage: azr" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["train", "--help"],
        ["check", "--help"],
        ["report", "--help"],
        ["replay", "--help"],
        ["simulate", "--help"],
        ["base", "--help"],
        ["experiment", "learning", "--help"],
        ["experiment", "peers", "--help"],
    ],
)
def test_help_is_there_for_every_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0
    assert "usage: azr" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "which configuration?"),
        (["train", "a.yaml", "b.yaml"], "one configuration at a time"),
        (["train", "nowhere.yaml"], "no configuration file nowhere.yaml"),
        (["train", "--resume", "no-such-run"], "no run at no-such-run"),
        (["report", "no-such-run"], "no run at no-such-run"),
        (["base", "--steps", "0"], "--steps must be at least 1"),
        (["base", "--out", "configs"], "configs exists"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_message(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == MISUSED
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("wrong"), MISUSED),
        (PartFailed("engine", "wrong", log="runs/a/engine.log", hint="a smaller model"), FAILED),
        (SandboxUnavailable("wrong"), FAILED),
    ],
)
def test_errors_become_exit_codes_and_messages(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: _raise(error)) == code
    printed = capsys.readouterr().err
    assert str(error) in printed and "Traceback" not in printed


def test_an_interrupt_is_130() -> None:
    assert run(lambda: _raise(KeyboardInterrupt())) == INTERRUPTED == 130


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run(lambda: _raise(ZeroDivisionError()))


def test_parse_yields_a_command_that_can_be_called() -> None:
    assert isinstance(parse(["check", "tiny.yaml"]), argparse.Namespace)
    assert callable(parse(["check", "tiny.yaml"]).command)


def _raise(error: BaseException) -> int:
    raise error
