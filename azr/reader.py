"""From groups of tokens to what they say, with the tokenizer and the environment of the run."""

from __future__ import annotations

from collections.abc import Mapping

from actors.environment import Environment
from actors.episode import Codec
from common.types import Group, Kind, Sample, Status, Task
from learner.analysis import Episode, Response
from learner.leases import blank


class Reader:
    """Makes episodes for learner/analysis.py."""

    def __init__(self, codec: Codec, environment: Environment) -> None:
        self._codec, self._environment = codec, environment

    def episode(self, group: Group, shown: Mapping[str, Task]) -> Episode:
        """`shown`: tasks by key. Without its reference a proposal for induction has no program."""
        references = tuple(shown[key] for key in group.references if key in shown)
        responses = tuple(self._response(sample, references) for sample in group.samples)
        return Episode(group.kind, responses, group.proposal, references)

    def _response(self, sample: Sample, references: tuple[Task, ...]) -> Response:
        text, answer = self._codec.decode(sample.tokens), ""
        task_type = sample.stream.task_type
        if not sample.stream.proposes:
            answer = self._environment.parse_answer(blank(task_type), text).text
        elif references or sample.stream is not Kind.PROPOSE_INDUCTION:
            draft = self._environment.parse_proposal(task_type, references, text)
            answer = draft.program if draft is not None else ""
        right = sample.status == Status.OK if sample.stream.proposes else sample.correct
        return Response(sample.stream, text, len(sample.tokens), right, answer)
