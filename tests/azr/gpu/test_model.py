"""Shapes as published, and a folder that learner and tokenizer load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from actors.codec import Codec
from azr import architecture, model_folder
from azr.cli import MISUSED
from azr.experiments.gpu import model
from azr.experiments.gpu.model import FORMS, SPREAD
from learner.policy import load_policy


@pytest.mark.parametrize(("shape", "parameters"), [("0.5b", 494_032_768), ("3b", 3_085_938_688)])
def test_published_shapes_have_the_published_number_of_parameters(shape: str, parameters: int) -> None:
    assert sum(p.numel() for p in model._skeleton(FORMS[shape], "bfloat16").parameters()) == parameters


def test_a_tiny_one_is_whole_and_the_same_each_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        model.make(tmp_path / name, "tiny", seed=seed, dtype="float32")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]
    assert model_folder.missing(tmp_path / "a") == []
    form = FORMS["tiny"]
    shape = model_folder.shape(tmp_path / "a")
    assert (shape.hidden, shape.layers, shape.heads) == (form.hidden, form.layers, form.heads)
    assert architecture.read(tmp_path / "a", shape).feed_forward == form.feed_forward
    codec = Codec(tmp_path / "a")
    assert 0 < codec.encode("def f(x): return x").max() < form.vocabulary
    assert codec.stop_token_id == 1
    assert codec.decode(np.array([form.vocabulary - 1])) == ""  # no text, and no failure
    policy = load_policy(tmp_path / "a")
    matrix = policy.model.base_model.layers[0].mlp.up_proj.weight
    assert abs(matrix.std().item() / SPREAD - 1) < 0.05
    assert torch.equal(policy.model.base_model.norm.weight, torch.ones(form.hidden))
    assert model.main([str(tmp_path / "a"), "--shape", "tiny"]) == MISUSED
    assert "exists" in capsys.readouterr().err
