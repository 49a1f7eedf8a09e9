"""Simulated runs whose figures follow from their costs."""

from __future__ import annotations

import json
import random
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from azr.experiments.plot import svg
from azr.simulation.costs import Costs, Responses
from azr.simulation.measured import measured
from azr.simulation.simulate import Outcome, simulate
from azr.simulation.sweep import knee, sweep
from common.config import AlgorithmConfig, Config
from common.engine import EngineConfig
from common.errors import ConfigError
from common.learner import LearnerConfig
from common.staleness import StalenessConfig
from common.types import Kind

FREE = Costs(decode=1e-6, decode_each=0, job=0, step=0, step_token=0, stage=0, pause=0, save=0)


def a_run(*, eta: int = 1, mode: str = "natural", actors: int = 1, steps: int = 12, episodes: int = 64) -> Config:
    """A batch is two groups of each of six kinds; nothing proposed is valid unless costs say so."""
    return Config(
        algorithm=AlgorithmConfig(proposals=2, solves=2, samples=2, solve_samples=1),
        staleness=StalenessConfig(eta=eta, mode=mode),
        engine=EngineConfig(actors=actors, episodes=episodes, max_tokens=1000),
        learner=LearnerConfig(steps=steps, save_every=0),
    )


def test_where_the_learner_is_the_limit_it_is_never_idle() -> None:
    """12 sequences a step of 2 seconds."""
    outcome = simulate(a_run(eta=2), replace(FREE, step=2.0, valid=0.0))
    assert outcome.sequences_per_second == pytest.approx(6.0, rel=1e-3)
    assert outcome.trainer["train"] > 0.99
    assert outcome.actor["wait-lease"] > 0.99
    assert outcome.mean_staleness == 2.0


def test_where_sampling_is_the_limit_tokens_are_fresh() -> None:
    """12 answers of 1 token, one after the other, a second each."""
    config = a_run(eta=2, episodes=1)
    outcome = simulate(config, replace(FREE, decode=1.0, solve_length=0, propose_length=0, valid=0.0))
    assert outcome.sequences_per_second == pytest.approx(1.0, rel=1e-2)
    assert outcome.mean_staleness < 1.0
    assert outcome.trainer["wait-batch"] > 0.99


def test_lock_step_takes_turns_and_running_ahead_does_not() -> None:
    """Generating a batch takes 2 seconds, a step 2: together 4 in turn and 2 side by side."""
    costs = replace(FREE, decode=2.0, decode_each=0, solve_length=0, propose_length=0, valid=0.0, step=2.0)
    rates = [simulate(a_run(eta=eta), costs).sequences_per_second for eta in (0, 1)]
    assert rates == pytest.approx([12 / 4, 12 / 2], rel=1e-2)


@pytest.mark.parametrize("eta", [0, 1, 3])
def test_exact_staleness_is_exact_and_still_overlaps(eta: int) -> None:
    costs = replace(FREE, decode=2.0, solve_length=0, propose_length=0, valid=0.0, step=2.0, stage=0.1)
    outcome = simulate(a_run(eta=eta, mode="exact"), costs)
    assert set(outcome.staleness) == {eta}
    assert outcome.sequences_per_second == pytest.approx(12 / (4.2 if eta == 0 else 2.2), rel=0.1)


def adapting(eta: int, episodes: int = 64) -> Config:
    config = a_run(eta=eta, steps=60, episodes=episodes)
    return replace(config, staleness=replace(config.staleness, auto=True, eta_max=4))


def test_eta_grows_out_of_lock_step_as_far_as_the_learner_waits() -> None:
    """Generating a batch and a step take 2 seconds each: with eta 1 they go on side by side, and no more is needed."""
    costs = replace(FREE, decode=2.0, solve_length=0, propose_length=0, valid=0.0, step=2.0)
    adapted, fixed = simulate(adapting(0), costs), simulate(a_run(eta=1, steps=60), costs)
    assert adapted.sequences_per_second == pytest.approx(fixed.sequences_per_second, rel=0.01)
    assert adapted.staleness == fixed.staleness


def test_the_window_of_an_actor_finds_the_slots_of_its_engine() -> None:
    """8 slots, a second per answer; a proposal and 3 answers to it. Of 64 episodes most queue half done, and age."""
    costs = replace(FREE, decode=1.0, solve_length=0, propose_length=0, valid=1.0)
    config = a_run(eta=8, steps=100)
    few = replace(config, engine=replace(config.engine, max_num_seqs=8), algorithm=AlgorithmConfig(12, 0, 3))
    fixed, adaptive = (simulate(replace(few, engine=replace(few.engine, episodes=n)), costs) for n in (64, 0))
    assert adaptive.sequences_per_second > 0.95 * fixed.sequences_per_second
    assert adaptive.mean_staleness < 0.5 * fixed.mean_staleness


def test_a_number_of_slots_that_a_run_would_find_must_be_given() -> None:
    config = a_run(eta=1, steps=2)
    with pytest.raises(ConfigError, match="max_num_seqs"):
        simulate(replace(config, engine=replace(config.engine, max_num_seqs=0)), FREE)


def test_eta_stays_where_actors_are_merely_slow() -> None:
    """One episode at a time, a second each: the learner waits for all it gets, and no lead would help."""
    costs = replace(FREE, decode=1.0, solve_length=0, propose_length=0, valid=0.0)
    adapted, fixed = simulate(adapting(1, episodes=1), costs), simulate(a_run(eta=1, steps=60, episodes=1), costs)
    assert adapted == fixed


def test_two_ranks_halve_the_step() -> None:
    config = a_run(eta=2)
    costs = replace(FREE, step_token=0.1, valid=0.0, solve_length=0, propose_length=0)
    one = simulate(config, costs)
    two = simulate(replace(config, learner=replace(config.learner, ranks=2)), costs)
    assert two.sequences_per_second == pytest.approx(2 * one.sequences_per_second, rel=0.01)


def test_actors_that_die_come_back_and_nothing_is_lost() -> None:
    costs = Costs(failure=2.0, restart=0.5, decode=0.01)
    outcome = simulate(a_run(actors=4, steps=20), costs)
    assert sum(outcome.staleness.values()) > 0
    assert 0.0 < outcome.actor["dead"] < 0.5
    assert sum(outcome.actor.values()) == pytest.approx(1.0)


def test_what_changes_no_cost_changes_no_outcome() -> None:
    """No program is there to be measured or to call others, and no watchdog looks at virtual time."""
    config, costs = a_run(actors=2), Costs()
    expected = simulate(config, costs)
    for changed in (
        replace(config, algorithm=replace(config.algorithm, invalid_reward=-1.0)),
        replace(config, composite=replace(config.composite, start=0, chance=1.0, chance_max=1.0)),
        replace(config, intrinsic=replace(config.intrinsic, complexity=1.0)),
        replace(config, learner=replace(config.learner, minibatches=2)),
        replace(config, cluster=replace(config.cluster, watchdog=1.0, watchdog_end=1.0)),
    ):
        assert simulate(changed, costs) == expected


def test_error_deduction_has_streams_of_its_own() -> None:
    config = a_run()
    outcome = simulate(
        replace(config, algorithm=replace(config.algorithm, error=True)), replace(FREE, step=2.0, valid=0.0)
    )
    assert outcome.sequences_per_second == pytest.approx(16 / 2, rel=0.01)


def test_without_a_learner_there_is_nothing_to_simulate(tmp_path: Path) -> None:
    config = a_run()
    with pytest.raises(ConfigError, match=r"learner\.kind=none"):
        sweep(replace(config, learner=replace(config.learner, kind="none")), Costs(), [1], tmp_path)
    rows = [{"step": step, "time": 100.0 + step, "seconds": 1.0, "tokens": 10, "sequences": 5} for step in range(3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ConfigError, match="pushed no weights"):
        measured(tmp_path, config)


def test_equal_settings_give_equal_outcomes() -> None:
    config, costs = a_run(actors=3), Costs(failure=5.0)
    assert simulate(config, costs) == simulate(config, costs)


def test_a_sweep_finds_the_knee_and_writes_what_it_found(tmp_path: Path) -> None:
    """A batch of 12 that takes 12 seconds of one engine, and a step of 3: 4 actors are enough."""
    costs = replace(FREE, decode_each=1.0, decode=0.0, solve_length=0, propose_length=0, valid=0.0, step=3.0)
    told: list[str] = []
    outcomes = sweep(a_run(eta=4, episodes=1), costs, [8, 1, 4], tmp_path, say=told.append)
    assert [o.actors for o in outcomes] == [1, 4, 8]
    assert knee(outcomes) == 4
    assert any("knee: 4 actors" in line for line in told)
    written = json.loads((tmp_path / "simulation.json").read_text())
    assert written["knee"] == 4 and written["costs"]["step"] == 3.0
    assert (tmp_path / "simulation.svg").read_text().count("<polyline") > 3 * 5
    with pytest.raises(ConfigError, match="at least 1"):
        sweep(a_run(), costs, [0], tmp_path)


def test_quantiles_of_staleness_by_hand() -> None:
    outcome = Outcome(1, 1.0, 1.0, {0: 50, 1: 45, 7: 5}, {}, {}, 0.0, 0.0)
    assert [outcome.quantile(q) for q in (0.5, 0.51, 0.95, 0.96)] == [0, 1, 1, 7]
    assert outcome.mean_staleness == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["speed=3"], "no cost is called speed; there are decode"),
        (["step=fast"], "'fast' is no number"),
        (["step=-1"], "0 or more"),
        (["valid=1.5"], "probabilities"),
        (["decode=0", "decode_each=0"], "tokens take time"),
    ],
)
def test_costs_that_cannot_be(words: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Costs().with_settings(words)


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
def test_lengths_have_the_mean_and_the_spread_they_are_given(spread: float) -> None:
    rng, responses = random.Random(1), Responses(200.0, spread, 0.5)
    found = [responses.draw(rng, 100_000) for _ in range(20_000)]
    assert statistics.mean(found) == pytest.approx(200.0, rel=0.03)
    assert statistics.pstdev(found) == pytest.approx(200.0 * spread, rel=0.05)
    assert responses.draw(rng, 7) <= 7


def test_a_setting_holds_for_all_kinds_also_for_measured_ones() -> None:
    proposal, answer = Kind.PROPOSE_DEDUCTION, Kind.SOLVE_INDUCTION
    costs = Costs(kinds={proposal: Responses(10.0, 0.5, 0.9), answer: Responses(20.0, 0.6, 0.8)})
    changed = costs.with_settings(["solve_length=7", "valid=0.1", "spread=0"])
    assert changed.responses(proposal) == Responses(10.0, 0.0, 0.1)
    assert changed.responses(answer) == Responses(7.0, 0.0, 0.8)
    assert changed.responses(Kind.SOLVE_DEDUCTION) == Responses(7.0, 0.0, 0.3)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run folder"):
        measured(tmp_path, Config())
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "seconds": 1.0}\n')
    with pytest.raises(ConfigError, match="1 learner steps: too few"):
        measured(tmp_path, Config())


def test_a_plot_without_panels_of_shares_is_labelled_by_its_top() -> None:
    from azr.experiments.plot import Line, Panel

    drawn = svg([Panel("p", [Line([(0, 0), (1, 500)], "red")], 1000.0)], 1.0, "x", ((0.0, "one"), (1.0, "ten")))
    assert all(f">{text}<" in drawn for text in ("0", "250", "1e+03", "one", "ten", "x"))
