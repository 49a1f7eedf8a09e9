"""The order of things in a trainer rank, with a learner and an intake that write down what they are asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from common import messages as m
from common.ledger import Ledger
from common.types import Float32Array, Int32Array, Share
from learner.rank import Bucket, train

PROBE = [np.arange(3, dtype=np.int32)]
GATHERED = ("gather v", "gather w")


class Diary:
    """A learner, an intake and a disk in one, which keep what happened in order."""

    def __init__(self, first: int, last: int, save: set[int] | None = None) -> None:
        self.did: list[str] = []
        self.states: list[str] = []
        self.done: list[m.StepDone] = []
        self.held: dict[int, tuple[list[float], list[float]]] = {}
        self._last, self._save = last, save or set()
        self._trained = first
        self.ledger = Ledger()

    # learner
    def step(self, share: Share) -> dict[str, float]:
        self._note(f"step {share.step}")
        self._trained = share.step + 1
        return {"loss": float(share.step)}

    def weights(self) -> Iterator[Bucket]:
        for name in ("v", "w"):
            self._note(f"gather {name}")
            yield [(name, torch.tensor([float(self._trained)]))]

    def score(self, sequences: Sequence[Int32Array]) -> list[Float32Array]:
        self._note("score")
        return [np.full(len(s) - 1, self._trained, np.float32) for s in sequences]

    # intake
    def request(self, message: object) -> object:
        match message:
            case m.WantShare(rank, step):
                self._note(f"want {rank}/{step}")
                return m.ShareReply(None if step == self._last else Share(step), step + 1 in self._save)
            case m.StepDone():
                self._note(f"done {message.step}")
                self.done.append(message)
            case m.CheckpointDone(step, path):
                self._note(f"saved {step} at {path}")
        return m.Ack()

    # disk and publisher
    def save(self, step: int) -> str:
        self._note(f"save {step}")
        return f"checkpoints/{step}"

    def hold(self, version: int, weights: Iterable[Bucket], logprobs: list[Float32Array]) -> None:
        self._note(f"hold {version}")
        values = [tensor.item() for bucket in weights for _, tensor in bucket]
        self.held[version] = (values, logprobs[0].tolist())

    def _note(self, what: str) -> None:
        self.did.append(what)
        self.states.append(self.ledger.state)

    def train(self, rank: int, first: int) -> int:
        return train(rank, first, self, self.request, self.hold, self.save, PROBE, self.ledger)


def test_rank_0_holds_a_version_before_it_says_that_the_step_is_done() -> None:
    diary = Diary(0, 2, save={2})
    assert diary.train(0, 0) == 2
    assert diary.did == [
        *("score", "hold 0", *GATHERED, "want 0/0"),
        *("step 0", "score", "hold 1", *GATHERED, "done 0", "want 0/1"),
        *("step 1", "score", "hold 2", *GATHERED, "done 1", "save 2", "saved 2 at checkpoints/2", "want 0/2"),
    ]
    assert diary.held == {v: ([float(v)] * 2, [float(v)] * 2) for v in range(3)}
    assert [(d.step, d.metrics) for d in diary.done] == [(0, {"loss": 0.0}), (1, {"loss": 1.0})]


def test_other_ranks_do_the_same_collectives_and_report_nothing() -> None:
    diary = Diary(0, 2, save={2})
    assert diary.train(1, 0) == 2
    assert diary.did == [
        *("score", *GATHERED, "want 1/0"),
        *("step 0", "score", *GATHERED, "want 1/1"),
        *("step 1", "score", *GATHERED, "save 2", "want 1/2"),
    ]
    assert diary.held == {} and diary.done == []


def test_a_resumed_run_goes_on_at_its_checkpoint() -> None:
    diary = Diary(5, 6)
    assert diary.train(0, 5) == 6
    assert list(diary.held) == [5, 6]
    assert [d.step for d in diary.done] == [5]
    assert diary.did[4] == "want 0/5"


def test_a_run_that_is_over_trains_nothing() -> None:
    diary = Diary(3, 3)
    assert diary.train(0, 3) == 3
    assert diary.did == ["score", "hold 3", *GATHERED, "want 0/3"]


def test_the_ledger_says_what_the_rank_is_at() -> None:
    diary = Diary(0, 1, save={1})
    diary.train(0, 0)
    states = dict(zip(diary.did, diary.states, strict=True))
    assert states["want 0/0"] == "wait-batch"
    assert states["step 0"] == "train"
    assert states["hold 1"] == "snapshot"
    assert states["save 1"] == "save"
    assert diary.ledger.state == "wait-batch"
