"""`azr bench` round its parts: turns, failures, table, JSON, bars; and what parts make of what they read."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from azr.bench import bars, loop, run
from azr.bench.bars import Panel
from azr.bench.engine import answered, steady
from azr.bench.figures import Figure
from azr.bench.loop import of_run
from azr.bench.prompts import drawn, recorded
from azr.bench.result import NO_GPU, panels, use
from azr.bench.suite import Plan, bench
from azr.cli import MISUSED, main
from azr.footprint import on_gpus
from azr.timeline import Gpu, Process, Span, Timeline
from common.config import Config, ModelConfig, load
from common.engine import EngineConfig
from common.errors import ConfigError, PartFailed
from common.types import Kind
from learner.journal import Journal
from tests.fakes.engine import FakeEngine
from tests.fakes.groups import a_group, a_sample
from tests.project import ROOT

PRESET = ROOT / "configs" / "tiny.yaml"
FAKE = (sys.executable, "-m", "tests.fakes.bench_part")


def measured(tmp_path: Path, plan: Plan, *more: str) -> tuple[bool, dict[str, object], list[str]]:
    """Whether all went well, bench.json, and what was said."""
    model, said, out = tmp_path / "model", list[str](), tmp_path / "out"
    model.mkdir()
    good = bench(PRESET, [f"model.path={model}"], plan, out, command=(*FAKE, *more), say=said.append)
    return good, json.loads((out / "bench.json").read_text()), said


def test_parts_take_turns_and_every_repeat_is_kept(tmp_path: Path) -> None:
    good, found, said = measured(tmp_path, Plan(2, ("engine", "loop", "push")))
    order = (tmp_path / "out" / "order").read_text().splitlines()
    assert order == [f"{part} {repeat} False" for repeat in (0, 1) for part in ("loop", "engine", "push")]
    figures = {(f["section"], f["what"]): f for f in found["figures"]}  # type: ignore[attr-defined]
    assert good and not found["failed"]
    assert figures["engine", "tokens"]["values"] == [100, 90] and figures["engine", "tokens"]["median"] == 95
    assert figures["loop", "of the engine alone"]["values"] == [0.5, 0.5]
    assert found["config"]["learner"]["steps"] == 20  # type: ignore[index]
    assert {"system", "cores", "gpus", "versions"} <= set(found["setting"])  # type: ignore[call-overload]
    assert "engine" in said[-1] and "95" in said[-1]
    assert (tmp_path / "out" / "bench.txt").read_text().rstrip("\n") == said[-1]


def test_a_part_that_fails_is_named_and_stops_no_other(tmp_path: Path) -> None:
    good, found, said = measured(tmp_path, Plan(3, ("learner", "push")), "--broken", "learner")
    figures = {f["section"]: f["values"] for f in found["figures"]}  # type: ignore[attr-defined]
    assert not good
    assert figures == {"learner": [100], "push": [100, 90, 80]}
    assert found["failed"] == {"learner": "learner: it fell over"}
    assert "not measured\n  learner: learner: it fell over" in said[-1]


@pytest.mark.parametrize("words", [["--only", "engine,lop"], ["--repeats", "0"], ["learner.steps=3"]])
def test_nothing_is_started_on_a_wrong_order(words: list[str], tmp_path: Path) -> None:
    assert main(["bench", str(PRESET), "--out", str(tmp_path / "out"), *words]) == MISUSED
    assert not (tmp_path / "out").exists()


def test_a_measurement_is_not_written_over(tmp_path: Path) -> None:
    measured(tmp_path, Plan(1, ("push",)))
    with pytest.raises(ConfigError, match="holds a measurement"):
        bench(PRESET, [], Plan(1, ("push",)), tmp_path / "out", command=FAKE)


@pytest.mark.parametrize("preset", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_runs_of_every_preset_are_valid_with_and_without_its_learner(preset: Path) -> None:
    config = load(preset)
    alone, whole = load(preset, loop.settings(config)), load(preset, run.SETTINGS)
    assert not alone.learner.trainers and whole.learner.trainers
    assert on_gpus(alone) == on_gpus(config)


# -- engine --------------------------------------------------------------------------------------------------


async def test_as_many_groups_are_under_way_as_asked_and_each_takes_its_prompts_in_turn() -> None:
    engine = FakeEngine(lambda prompt, sample: "yes")
    first, second, other = (np.array([number, number], np.int32) for number in (65, 66, 67))
    groups = [[(first, 1), (second, 3)], [(other, 2)]]
    settings = EngineConfig(max_model_len=10, max_tokens=9)
    moments = await answered(engine, groups * 4, 2, settings)
    asked = [(call.prompt, call.n) for call in engine.calls]
    assert asked.count(("AA", 1)) >= asked.count(("BB", 3)) >= 3 and asked.count(("CC", 2)) >= 4
    assert asked[:2] == [("AA", 1), ("CC", 2)]
    assert {call.max_tokens for call in engine.calls} == {8}  # what the longest sequence leaves
    assert len({call.seed for call in engine.calls}) == len(engine.calls)
    assert moments[0][1] == 0 and len(moments) >= 1 + 12
    assert moments[1][1] == len("yes") + 1  # its stop token


async def test_a_dead_engine_is_not_waited_for() -> None:
    def gone(prompt: str, sample: int) -> str:
        raise PartFailed("engine", "it fell over")

    with pytest.raises(PartFailed, match="fell over"):
        async with asyncio.timeout(60):
            await answered(FakeEngine(gone), [[(np.array([65], np.int32), 1)]], 2, EngineConfig())


def test_the_first_fifth_does_not_count() -> None:
    """From second 10 to 20: what completes before 12 is left out, and what completes at 12 begins the rest."""
    assert steady([(10.0, 0), (11.0, 500), (12.0, 100), (16.0, 80), (20.0, 80)]) == 160 / 8


def test_too_little_to_tell_a_rate() -> None:
    with pytest.raises(PartFailed, match="hardly a request"):
        steady([(0.0, 0), (1.0, 5)])


def test_prompts_are_those_of_a_run_without_its_seeds(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    kind = Kind.PROPOSE_DEDUCTION
    journal.append(a_group(2, Kind.SOLVE_ABDUCTION, [a_sample(Kind.SOLVE_ABDUCTION) for _ in range(4)]))
    journal.append(a_group(0, Kind.SEED, [a_sample(kind)]))
    solved = [a_sample(Kind.SOLVE_DEDUCTION, prompt=1) for _ in range(3)]
    journal.append(a_group(1, kind, [a_sample(kind), *solved]))
    journal.close()
    found = [[(prompt.tolist(), samples) for prompt, samples in group] for group in recorded(tmp_path)]
    assert found == [[([7, 8], 1), ([9, 9], 3)], [([7, 8], 4)]]


def test_without_a_run_prompts_are_those_of_the_identity(tmp_path: Path) -> None:
    from azr.base import tokenizer
    from azr.base.recipe import Recipe

    tokenizer.save(tokenizer.train(Recipe(vocabulary_examples=50)), tmp_path)
    config = Config(model=ModelConfig(path=str(tmp_path)))
    groups = drawn(config)
    algorithm = config.algorithm
    assert len(groups) == 3 * (algorithm.proposals + algorithm.solves)
    assert sum(len(group) == 2 for group in groups) == 3 * algorithm.proposals
    assert {samples for group in groups for _, samples in group} == {1, algorithm.samples, algorithm.solve_samples}
    assert all(len(prompt) for group in groups for prompt, _ in group)


# -- loop ----------------------------------------------------------------------------------------------------


def test_the_rate_in_the_loop_is_of_what_completed_after_the_first_fifth(tmp_path: Path) -> None:
    """A run of 10 seconds until second 110, so from 102 on: 20 and 60 tokens in 8 seconds, by two engines."""
    steps = [{"step": step, "seconds": 5.0, "time": 105.0 + 5 * step} for step in (0, 1)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    (tmp_path / "summary.json").write_text('{"rollout": {"seconds": 10}}')

    def counted(name: str, at: float, pid: int, **args: float) -> dict[str, object]:
        return {"ph": "C", "name": name, "ts": at * 1e6, "args": args, "pid": pid}

    events = [
        *({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": f"actor-{pid}"}} for pid in (0, 1)),
        counted("tokens", 101, 0, tokens=1000),
        counted("tokens", 103, 0, tokens=20),
        counted("tokens", 110, 1, tokens=60),
        counted("tokens", 111, 1, tokens=1000),
        counted("costs", 105, 0, **{"generate/area": 16, "episode/seconds": 40}),
        {"ph": "X", "name": "generate", "ts": 100e6, "dur": 6e6, "pid": 0},
        {"ph": "X", "name": "idle", "ts": 106e6, "dur": 4e6, "pid": 0},
    ]
    (tmp_path / "trace.json").write_text(json.dumps(events) + "\n")
    rate = of_run(tmp_path)
    assert (rate.tokens_per_second, rate.running, rate.open, rate.engines) == (10.0, 2.0, 5.0, 2)
    assert {state: share for state, share in rate.states.items() if share} == {"generate": 0.5, "idle": 0.5}


# -- run -----------------------------------------------------------------------------------------------------


def a_timeline(*gpus: Gpu) -> Timeline:
    def process(name: str, **seconds: float) -> Process:
        spans, at = [], 0.0
        for state, length in seconds.items():
            spans.append(Span(state, at, at + length))
            at += length
        return Process(name, (tuple(spans),))

    actor, intake = process("actor-0", generate=3.0, idle=1.0), process("intake", idle=4.0)
    return Timeline((actor, intake, process("trainer-0", train=1.0, wait=3.0)), (), gpus)


def test_ledger_and_nvml_stand_side_by_side() -> None:
    timeline = a_timeline(Gpu("actor-0", "gpu 0", 4, 0.5, 1), Gpu("actor-0", "gpu 1", 4, 0.7, 1))
    readings = {reading.what: reading.value for reading in run.use(timeline)}
    assert readings == {
        "actor-0 busy by ledger": 75.0,
        "actor-0 busy by NVML": pytest.approx(60.0),
        "trainer-0 busy by ledger": 25.0,
    }
    lines = use([Figure("run", what, "%", (value,)) for what, value in readings.items()], NO_GPU).splitlines()
    assert [line.split() for line in lines] == [
        ["busy", "ledger", "NVML"],
        ["actor-0", "75.0%", "60.0%"],
        ["trainer-0", "25.0%", "no", "GPU"],
    ]


# -- drawing -------------------------------------------------------------------------------------------------


def test_a_bar_ends_at_the_median_and_its_whisker_at_the_extremes() -> None:
    text = bars.svg([Panel("rates <1>", [Figure("a", "x & y", "", (50.0, 100.0, 25.0))]), Panel("none", [])])
    root = ElementTree.fromstring(text)
    shapes = [element for element in root.iter() if element.tag.endswith(("rect", "line"))]
    assert float(shapes[1].attrib["width"]) == bars.BARS / 2
    ends = [float(shapes[2].attrib[side]) - bars.LABELS for side in ("x1", "x2")]
    assert ends == [bars.BARS / 4, bars.BARS]
    assert [element.text for element in root.iter() if element.tag.endswith("text")] == ["rates <1>", "x & y", "50"]


def test_rates_of_tokens_share_a_panel() -> None:
    figures = [
        Figure("engine", "tokens", "tokens/s", (9.0,)),
        Figure("learner", "step", "s", (1.0,)),
        Figure("learner", "answer tokens", "tokens/s", (3.0,)),
        Figure("run", "actor-0 busy by ledger", "%", (3.0,)),
        Figure("run", "push, stage", "ms", (3.0,)),
    ]
    named = [[figure.what for figure in panel.figures] for panel in panels(figures)]
    assert named == [
        ["engine: tokens", "learner: answer tokens"],
        ["step"],
        ["run: push, stage"],
        ["actor-0 busy by ledger"],
    ]
