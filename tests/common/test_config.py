"""A configuration is read strictly: what is not understood is refused with the key it should have been."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config import Config, check, load, to_yaml
from common.errors import ConfigError


def preset(folder: Path, text: str) -> Path:
    file = folder / "preset.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("learner.stpes", "learner.steps"),
        ("engine.max_num_seq", "engine.max_num_seqs"),
        ("staleness.etta", "staleness.eta"),
        ("lerner.steps", "learner.steps"),
    ],
)
def test_an_unknown_key_names_the_nearest_right_one(wrong: str, right: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown key {wrong} .*did you mean {right}"):
        load("tiny.yaml", [f"{wrong}=5"])


def test_an_unknown_key_in_a_file_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key learner\.stpes in .*preset\.yaml; did you mean learner\.steps"):
        load(preset(tmp_path, "learner: {stpes: 5}"))


def test_an_unknown_section_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="known sections: run, model, environment"):
        load("tiny.yaml", ["qqqq=1"])


@pytest.mark.parametrize(
    "override", ["learner.steps=many", "engine.prefix_caching=5.5", "learner.betas=3", "learner=3"]
)
def test_a_value_of_the_wrong_type_names_its_key(override: str) -> None:
    with pytest.raises(ConfigError, match=override.partition("=")[0]):
        load("tiny.yaml", [override])


@pytest.mark.parametrize("override", ["learner.steps", "=5", ""])
def test_an_override_without_key_or_value_says_how_to_write_one(override: str) -> None:
    with pytest.raises(ConfigError, match="write key=value"):
        load("tiny.yaml", [override])


@pytest.mark.parametrize(
    "override",
    [
        "learner.zero_stage=4", "learner.kind=no", "staleness.eta=-2", "engine.kind=gpu", "environment.shown=6",
        "learner.betas=[0.9]", "algorithm.invalid_reward=-1.5", "algorithm.invalid_reward=0.1",
        "cluster.watchdog=-1", "cluster.watchdog_end=60", "cluster.restarts=-1",
    ],
)  # fmt: skip
def test_a_bound_names_its_key(override: str) -> None:
    with pytest.raises(ConfigError, match=override.partition("=")[0]):
        load("tiny.yaml", [override])


def test_without_a_learner_nobody_joins_at_a_later_version() -> None:
    config = load("tiny.yaml", ["learner.kind=none", "learner.ranks=2"])
    assert (config.learner.trainers, load("tiny.yaml", ["learner.ranks=2"]).learner.trainers) == (0, 2)
    with pytest.raises(ConfigError, match=r"engine\.join_after"):
        load("tiny.yaml", ["learner.kind=none", "engine.join_after=1"])


def test_a_thought_is_begun_once() -> None:
    load("tiny.yaml", ["eval.forced=true"])
    with pytest.raises(ConfigError, match=r"eval\.forced is for environment\.prompts=compact"):
        load("tiny.yaml", ["eval.forced=true", "environment.prompts=paper"])


@pytest.mark.parametrize("text", ["learner: [", "- learner", "5", "learner:\n\t- 1"])
def test_a_file_that_is_no_mapping_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"preset\.yaml"):
        load(preset(tmp_path, text))


def test_a_missing_file_lists_the_presets() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml; presets in configs/: .*tiny\.yaml"):
        load("nowhere.yaml")


def test_a_folder_is_not_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=str(tmp_path)):
        load(tmp_path)


def test_overrides_win_over_the_file_and_the_last_over_the_first(tmp_path: Path) -> None:
    file = preset(tmp_path, "learner: {steps: 7, ranks: 2}")
    config = load(file, ["learner.steps=8", "learner.steps=9"])
    assert (config.learner.steps, config.learner.ranks, config.engine) == (9, 2, Config().engine)


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load(preset(tmp_path, "")) == Config()


def test_betas_are_a_pair_of_floats() -> None:
    assert load("tiny.yaml", ["learner.betas=[0.5, 0.75]"]).learner.betas == (0.5, 0.75)


def test_the_digest_tells_configurations_apart() -> None:
    assert load("tiny.yaml").digest == load("tiny.yaml").digest
    assert load("tiny.yaml").digest != load("tiny.yaml", ["learner.lr=0.1"]).digest


def test_defaults_are_within_bounds_and_can_be_written() -> None:
    check(Config())
    assert "max_num_seqs" in to_yaml(Config())


@pytest.mark.parametrize(
    ("eta", "set_to", "bound"), [(0, -1, 0), (2, -1, 4), (2, 3, 3), (0, 5, 5), (-1, -1, 1 << 30), (-1, 8, 8)]
)
def test_the_staleness_bound_follows_eta_unless_it_is_set(eta: int, set_to: int, bound: int) -> None:
    config = load("tiny.yaml", [f"staleness.eta={eta}", f"staleness.max_staleness={set_to}"])
    assert config.staleness.bound == bound


def test_error_deduction_adds_a_type_and_two_streams() -> None:
    plain, more = load("tiny.yaml").algorithm, load("tiny.yaml", ["algorithm.error=true"]).algorithm
    assert plain.task_types == ("deduction", "abduction", "induction")
    assert [stream.task_type for stream in plain.streams] == [*plain.task_types] * 2
    assert more.task_types == (*plain.task_types, "error")
    assert set(more.streams) - set(plain.streams) == {"propose/error", "solve/error"}


def test_banned_words_are_a_tuple_however_they_are_written(tmp_path: Path) -> None:
    assert load("tiny.yaml").environment.error_banned == ("raise",)
    assert load("tiny.yaml", ["environment.error_banned=[raise, assert]"]).environment.error_banned == (
        "raise",
        "assert",
    )
    written = preset(tmp_path, to_yaml(load("tiny.yaml", ["environment.error_banned=[]"])))
    assert load(written).environment.error_banned == ()
    with pytest.raises(ConfigError, match=r"environment\.error_banned has an empty word"):
        load("tiny.yaml", ["environment.error_banned=['']"])
