import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from azr import concurrency
from azr.check import examine, report
from azr.machine import Machine
from azr.memory import GIB
from azr.model_folder import TINY
from common.config import Config, load

GRAPHS = {1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)}  # that vLLM captures
ROOMY = Machine("linux", 8, 64 * GIB, 100 * GIB, seccomp=True, compiler="/usr/bin/c++", headers=True, ninja=True)


def left_open(*overrides: str) -> Config:
    return load(os.devnull, ["engine.max_num_seqs=0", "model.path=/nowhere/tiny", "model.build=true", *overrides])


def slots(*overrides: str) -> int:
    return concurrency.decided(left_open(*overrides), TINY).engine.max_num_seqs


def test_a_number_that_is_given_stands() -> None:
    assert slots("engine.max_num_seqs=37") == 37


def test_by_hand() -> None:
    """The tiny model keeps 2 · 2 layers · 2 heads · 32 · 4 bytes = 1 KiB a token."""
    longest = "engine.max_model_len=499"  # 250 tokens a sequence
    assert slots("engine.kv_cache_gib=0.03125", longest) == 128  # 32,768 tokens: 131 sequences, 128 of them in a graph
    assert slots("engine.kv_cache_gib=0.03125", longest, "model.dtype=bfloat16") == 256  # 65,536: 262
    assert slots("engine.kv_cache_gib=4", longest) == 512  # 16,777, and no larger graph
    assert slots("engine.kv_cache_gib=0.001", longest) == 4  # 1,048 tokens
    assert slots("engine.kv_cache_gib=0.0001", longest) == 1  # less than one: another finding is the error


@given(st.integers(0, 512))
def test_there_is_a_cuda_graph_of_that_size(sequences: int) -> None:
    size = concurrency.graph_size(sequences)
    assert size == max((graph for graph in GRAPHS if graph <= sequences), default=1)


def test_check_says_the_number_and_a_run_gets_it() -> None:
    open_, given_ = "engine.kv_cache_gib=0.03125", "engine.max_num_seqs=80"
    result = examine(left_open(open_), ROOMY)
    assert result.config.engine.max_num_seqs == concurrency.decided(left_open(open_), TINY).engine.max_num_seqs > 0
    assert f"up to {result.config.engine.max_num_seqs} sequences at a time" in report(result)
    assert not any("preempted" in finding.text for finding in result.findings)
    assert "up to 80 sequences at a time" in report(examine(left_open(open_, given_), ROOMY))


def test_where_the_model_is_unknown_it_stays_open(tmp_path: Path) -> None:
    result = examine(left_open("model.build=false", f"model.path={tmp_path / 'none'}"), ROOMY)
    assert result.errors and result.config.engine.max_num_seqs == 0
