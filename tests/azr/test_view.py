"""What people see of a run, printed to a console in memory."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from azr.view import View, line, screen, table
from common.config import Config, LoggingConfig

FOLDER = Path("runs/some run [draft]")

EMPTY: dict[str, Any] = {
    "step": 0,
    "steps": 60,
    "version": None,
    "batched": 0,
    "open": {},
    "waiting": {},
    "states": {},
    "shares": {},
    "last": {},
    "staleness": {},
    "sequences": 0,
    "stall": [],
    "evaluating": False,
    "seeding": {},
    "flags": "",
    "evaluation": [],
}
BUSY: dict[str, Any] = {
    "step": 12,
    "steps": 60,
    "version": 11,
    "batched": 13,
    "open": {"solve/deduction": 3, "propose/deduction": 4},
    "waiting": {"solve/deduction": 5, "propose/deduction": 0},
    "states": {"actor-0": "generate", "trainer-0": "train"},
    "shares": {"actor-0": {"generate": 0.9, "wait-lease": 0.1}, "trainer-0": {"train": 1.0}},
    "last": {
        "solve/deduction/accuracy": 0.25,
        "solve/deduction/reward": -0.125,
        "solve/deduction/length": 21.5,
        "propose/deduction/valid": 0.75,
        "staleness/mean": 1.5,
    },
    "staleness": {"1": 30, "2": 10},
    "sequences": 800,
    "stall": [],
    "evaluating": True,
    "seeding": {},
    "flags": "",
    "evaluation": [{"version": 0, "deduction": 0.5, "abduction": 0.25, "induction": 0.0}],
}
SUMMARY: dict[str, Any] = {
    "steps": 60,
    "sequences": 4321,
    "sequences_per_second": 12.34,
    "staleness": {"10": 1, "2": 3},
    "evaluation": [
        {"version": version, "accuracy": {"deduction": accuracy, "abduction": 0.1, "induction": 0.2}}
        for version, accuracy in [(0, 0.125), (30, 0.5), (60, 0.75)]
    ],
    "ledger": {"actor-0": {"wait-lease": 0.1, "generate": 0.9}},
    "leases": {"trained": 120, "cancelled": 3},
    "rejected": {"known": 7, "format": 2},
    "flags": {},
    "seeds": {"deduction": {"ok": 64, "error": 5}, "abduction": {}, "induction": {}},
    "overlap": {"steps": 60, "with_tokens": 57},
}


def console(width: int = 80) -> tuple[Console, StringIO]:
    out = StringIO()
    return Console(file=out, width=width), out


def view(mode: str) -> tuple[View, StringIO]:
    made, out = console()
    return View(Config(logging=LoggingConfig(view=mode)), FOLDER, made), out


def rendered(status: dict[str, Any]) -> str:
    made, out = console(120)
    made.print(screen(status))
    return out.getvalue()


def test_a_line_per_step() -> None:
    assert line(BUSY) == (
        "step 12/60  version 11  solved ded 0.25 abd 0.00 ind 0.00  staleness 1.5  waiting 5  open 7  evaluating"
    )


def test_a_line_before_anything_happened() -> None:
    assert line(EMPTY).startswith("step 0/60  version None")


@pytest.mark.parametrize("mode", ["plain", "auto"])
def test_a_step_is_shown_once_and_on_one_line(mode: str) -> None:
    shown, out = view(mode)
    with shown:
        for status in (EMPTY, EMPTY, BUSY, BUSY):
            shown.show(status)
    assert out.getvalue().splitlines() == [f"run folder: {FOLDER}", line(EMPTY), line(BUSY)]


def test_seeding_is_shown_as_it_grows_and_then_no_more() -> None:
    shown, out = view("plain")
    seeding = [{**EMPTY, "seeding": {"deduction": [n, 64], "abduction": [1, 64]}} for n in (1, 40, 40)]
    with shown:
        for status in (*seeding, EMPTY):
            shown.show(status)
    assert out.getvalue().splitlines()[1:] == [
        "seeding deduction 1/64  abduction 1/64",
        "seeding deduction 40/64  abduction 1/64",
        line(EMPTY),
    ]
    assert "seeding deduction 40/64" in rendered(seeding[1])


@pytest.mark.parametrize("mode", ["plain", "live"])
def test_a_stall_is_told_once_each_time(mode: str) -> None:
    told = ["nothing has moved for 120 s; all wait for actor-0", "actor-0: in generate for 121 s"]
    shown, out = view(mode)
    with shown:
        for stall in (told, told, [], told):
            shown.show({**BUSY, "stall": stall})
    assert out.getvalue().count("\n".join((told[0], f"  {told[1]}")) + "\n") == 2
    assert told[1] in rendered({**BUSY, "stall": told}) and "nothing" not in rendered(BUSY)


def test_progress_is_shown_as_it_is() -> None:
    shown, out = view("plain")
    with shown:
        shown.progress("actor-0 failed and is started again (OSError: [/dev/shm] is [bold]full)")
    assert out.getvalue().splitlines()[1] == (
        "· actor-0 failed and is started again (OSError: [/dev/shm] is [bold]full)"
    )


def test_a_live_screen_ends_with_the_last_status() -> None:
    shown, out = view("live")
    with shown:
        shown.progress("starting Ray")
        shown.show(EMPTY)
        shown.show(BUSY)
    text = out.getvalue()
    assert "· starting Ray" in text
    assert "step 12 of 60   version 11   800 sequences" in text


def test_the_screen_says_how_streams_and_processes_do() -> None:
    text = rendered(BUSY)
    rows = {words[0]: words[1:] for row in text.splitlines() if (words := row.strip("│ ").split())}
    assert set(rows) >= {stream.value for stream in Config().algorithm.streams}
    assert "error" not in text
    assert rows["solve/deduction"] == ["-0.12", "0.25", "21.5", "5"]
    assert rows["propose/deduction"] == ["+0.00", "0.75", "0.0", "0"]
    assert rows["actor-0"] == ["generate", "generate", "90%", "wait-lease", "10%"]
    assert "staleness of trained tokens  1: 75%  2: 25%" in text
    assert "held-out at version 0: deduction 0.500  abduction 0.250  induction 0.000" in text


def test_error_deduction_is_shown_where_it_is_waited_for() -> None:
    assert "error" not in line(BUSY) and " err " not in line(BUSY)
    for kind in ("solve/error", "propose/error"):
        status = {**BUSY, "waiting": {**BUSY["waiting"], kind: 7}}
        assert "solved ded 0.25 abd 0.00 ind 0.00 err 0.00  staleness" in line(status)
        (row,) = [row.split() for row in rendered(status).splitlines() if kind in row]
        assert row[-2:] == ["7", "│"]


def test_the_screen_before_anything_happened() -> None:
    assert "step 0 of 60   version None   0 sequences" in rendered(EMPTY)


def test_the_closing_table() -> None:
    rows = table(SUMMARY, FOLDER).splitlines()
    assert rows == [
        f"run {FOLDER}",
        "steps                   60",
        "trained sequences       4321",
        "sequences per second    12.3",
        "held-out deduction      0.125 (version 0) → 0.750 (version 60)",
        "held-out abduction      0.100 (version 0) → 0.100 (version 60)",
        "held-out induction      0.200 (version 0) → 0.200 (version 60)",
        "staleness of tokens     2: 75%  10: 25%",
        "steps while generating  57 of 60",
        "time of actor-0         generate 90%  wait-lease 10%",
        "rejected proposals      format 2  known 7",
        "seeds of deduction      error 5  ok 64",
        "leases                  cancelled 3  trained 120",
    ]


def test_the_closing_table_of_a_run_without_learner() -> None:
    rates = {"seconds": 10.0, "sequences_per_second": 432.1, "tokens_per_second": 2345.6}
    rows = table({**SUMMARY, "rollout": rates, "evaluation": []}, FOLDER).splitlines()
    assert "discarded sequences     4321" in rows
    assert "actors and executor     432.1 sequences and 2346 answer tokens a second, over 10.0 s" in rows
    assert not any(row.startswith(("staleness", "steps while", "trained")) for row in rows)


def test_the_closing_table_tells_harder_tasks_apart() -> None:
    rounds = [
        {**r, "sets": {"harder": {"accuracy": dict.fromkeys(r["accuracy"], 0.0625)}}} for r in SUMMARY["evaluation"]
    ]
    rows = table({**SUMMARY, "evaluation": rounds}, FOLDER).splitlines()
    assert "held-out deduction      0.125 (version 0) → 0.750 (version 60)" in rows
    assert "harder induction        0.062 (version 0) → 0.062 (version 60)" in rows


def test_the_closing_table_of_a_run_that_was_cut_short() -> None:
    rows = table({**SUMMARY, "staleness": {}, "evaluation": SUMMARY["evaluation"][:1], "ledger": {}}, FOLDER)
    assert "held-out deduction      0.125 (version 0)\n" in rows
    assert "held-out" not in table({**SUMMARY, "evaluation": []}, FOLDER)


def test_flagged_thoughts_are_in_every_view() -> None:
    told = "3, last deceives in solve/deduction, version 7"
    assert line({**BUSY, "flags": told}).endswith(f"flagged {told}")
    assert "flagged" not in line(BUSY) + rendered(BUSY) + table(SUMMARY, FOLDER)
    assert f"flagged by the safety rules: {told}, see safety.jsonl" in rendered({**BUSY, "flags": told})
    rows = table({**SUMMARY, "flags": {"outsmarts": 1, "deceives": 2}}, FOLDER).splitlines()
    assert f"flagged thoughts        deceives 2  outsmarts 1  (read {FOLDER / 'safety.jsonl'})" in rows
