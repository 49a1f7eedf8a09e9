"""From groups of tokens to what they say, with the tokenizer and the environment of the run."""

from __future__ import annotations

from actors.environment import Environment
from actors.episode import Codec
from common.types import Group, Kind, Lease, Sample, Status, Task
from learner.analysis import Episode, Response


class Reader:
    """Makes episodes for learner/analysis.py. A group whose lease is not known loses its references and answers."""

    def __init__(self, codec: Codec, environment: Environment) -> None:
        self._codec, self._environment = codec, environment

    def episode(self, group: Group, lease: Lease | None) -> Episode:
        references = lease.references if lease is not None else ()
        asked = group.proposal or (lease.task if lease is not None else None)
        responses = tuple(self._response(sample, group.kind, references, asked) for sample in group.samples)
        return Episode(group.kind, responses, group.proposal, references)

    def _response(self, sample: Sample, kind: Kind, references: tuple[Task, ...], asked: Task | None) -> Response:
        text, answer = self._codec.decode(sample.tokens), ""
        if sample.stream.proposes:
            if references or sample.stream is not Kind.PROPOSE_INDUCTION:
                draft = self._environment.parse_proposal(kind.task_type, references, text)
                answer = draft.program if draft is not None else ""
        elif asked is not None:
            answer = self._environment.parse_answer(asked, text).text
        right = sample.status == Status.OK if sample.stream.proposes else sample.correct
        return Response(sample.stream, text, len(sample.tokens), right, answer)
