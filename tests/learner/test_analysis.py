"""Figures of a batch by hand, and the surface signs they count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.types import STREAMS, Kind, Task, TaskType
from learner.analysis import Episode, Response, figures
from learner.response import plans_in_comments, reflects, thought
from tests.project import reached

PROPOSE, SOLVE = Kind.PROPOSE_DEDUCTION, Kind.SOLVE_DEDUCTION
PLAN = "def f(a):\n    # first add one\n    a += 1\n    # then return it\n    return a"


def task(program: str, *pairs: tuple[str, str], task_type: TaskType = TaskType.DEDUCTION) -> Task:
    inputs, outputs = tuple(i for i, _ in pairs), tuple(o for _, o in pairs)
    return Task(task_type, program, inputs, outputs, key=program)


def response(text: str, *, right: bool = True, tokens: int = 4, answer: str = "", stream: Kind = SOLVE) -> Response:
    return Response(stream, text, tokens, right, answer)


def proposing(program: str, given: str, output: str, *references: str) -> Episode:
    text = f"<answer>{program}\ninput:{given}</answer>"
    return Episode(
        PROPOSE,
        (response(text, answer=program, stream=PROPOSE),),
        task(program, (given, output)),
        tuple(task(reference, ("1", "1")) for reference in references),
    )


def of(stream: Kind, *episodes: Episode) -> dict[str, float]:
    """Figures of one stream, by their short names."""
    prefix = f"analysis/{stream}/"
    return {name.removeprefix(prefix): v for name, v in figures(episodes).items() if name.startswith(prefix)}


def test_nothing_gives_nothing() -> None:
    assert figures([]) == {}


def test_responses_by_hand() -> None:
    got = of(
        SOLVE,
        Episode(SOLVE, (
            response("<think>abc</think><answer>1</answer>", tokens=4, answer="1"),
            response("<think>wait, 2</think><answer>2</answer>", tokens=10, answer="2"),
            response("<answer>2</answer>", right=False, tokens=5, answer="2"),
            response("hmm", right=False, tokens=8),
        )),
        Episode(SOLVE, (response("", answer="3"), response("", answer="3"))),
        Episode(SOLVE, (response("", right=False, tokens=2),)),
    )  # fmt: skip
    assert got == {
        "thought": pytest.approx((3 + 7 + 3) / 7),
        "reflection": pytest.approx(2 / 7),
        "reflection/right": 0.5,
        "step_comments": 0.0,
        "length/right": pytest.approx((4 + 10 + 4 + 4) / 4),
        "length/wrong": pytest.approx((5 + 8 + 2) / 3),
        "answers/distinct": pytest.approx((2 / 3 + 1 / 2) / 2),
    }


def test_proposals_by_hand() -> None:
    bad = Episode(PROPOSE, (response("<answer>def f(:</answer>", right=False, answer="def f(:", stream=PROPOSE),))
    got = of(
        PROPOSE,
        proposing("a = b + 1", "1", "'x'", "a = b + 2", "a = b + 1"),
        proposing("for i in a:\n  if i: b = 1", "1", "2"),
        bad,
    )
    assert got["edit_distance"] == pytest.approx((0.1 + 0.0) / 2)  # the other has no references
    assert (got["lines"], got["statements"], got["unparsed"]) == (1.5, 2.0, 0.0)
    assert got["cyclomatic"] == 0.0  # no function
    assert {name: got[name] for name in got if name.startswith(("inputs", "outputs"))} == {
        "inputs/types": 1,
        "inputs/distinct": 0.5,
        "inputs/type/int": 2,
        "outputs/types": 2,
        "outputs/distinct": 1.0,
        "outputs/type/int": 1,
        "outputs/type/str": 1,
    }


def test_a_program_that_cannot_be_read_leaves_the_figures_of_the_others() -> None:
    got = of(PROPOSE, proposing("a = b + 1", "1", "1", "a = b + 1"), proposing("-" * 9000 + "1", "1", "1", "a = b"))
    assert (got["unparsed"], got["lines"], got["edit_distance"]) == (0.5, 1.0, 0.0)
    got = of(PROPOSE, proposing("def f(:", "1", "1", "a = b"))
    assert got["unparsed"] == 1.0
    assert "lines" not in got and "edit_distance" not in got


def test_induction_proposals_are_measured_by_their_values_alone() -> None:
    kind = Kind.PROPOSE_INDUCTION
    given = task("a = 1", ("1", "1"), ("2, 3", "1"), task_type=TaskType.INDUCTION)
    got = of(kind, Episode(kind, (response("", stream=kind),), given, (given,)))
    assert (got["inputs/type/int"], got["inputs/distinct"], got["outputs/distinct"]) == (3, 1.0, 0.5)
    assert "lines" not in got and "edit_distance" not in got


def test_induction_answers_are_programs() -> None:
    kind = Kind.SOLVE_INDUCTION
    answers = [
        response("", answer=PLAN, stream=kind),
        response("", answer="def f(:", stream=kind),
        response("", stream=kind),
    ]
    got = of(kind, Episode(kind, tuple(answers)))
    assert (got["lines"], got["unparsed"], got["answers/distinct"]) == (5.0, 0.5, 1.0)
    assert got["step_comments"] == pytest.approx(1 / 3)


def test_answers_to_a_proposal_count_for_the_solver() -> None:
    episode = Episode(PROPOSE, (response("", stream=PROPOSE), response("", answer="1"), response("", answer="1")))
    assert of(SOLVE, episode)["answers/distinct"] == 0.5
    assert "inputs/types" not in of(PROPOSE, episode)


TEXTS = st.text(alphabet="ab1+=:()[]\n #<>/`'\"", max_size=60)


@given(st.lists(st.tuples(st.sampled_from(STREAMS), TEXTS, TEXTS, st.booleans()), max_size=8))
def test_any_batch_gives_finite_figures_and_shares_are_shares(rows: list[tuple[Kind, str, str, bool]]) -> None:
    episodes = []
    for stream, text, program, right in rows:
        made = Response(stream, text, len(text) + 1, right, program)
        valid = task(program, (text, program)) if stream.proposes else None
        episodes.append(Episode(stream, (made,), valid, (task(text, ("1", "1")),)))
    shares = ("reflection", "reflection/right", "step_comments", "distinct", "unparsed", "edit_distance")
    for name, value in figures(episodes).items():
        assert 0.0 <= value < float("inf")
        assert value <= 1.0 or not name.endswith(shares)


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("<think> a </think><answer>b</answer>", "a"),
        ("a</think>\n<answer>b</answer>", "a"),  # begun in the prompt
        ("<think>a</think>b</think>", "a"),
        ("<answer>b</answer>", ""),
        ("a <answer>b</answer> c <answer>d", "a <answer>b</answer> c"),
        ("<think>never ended", "never ended"),
        ("", ""),
    ],
)
def test_thoughts(text: str, inner: str) -> None:
    assert thought(text) == inner


@pytest.mark.parametrize(
    "text", ["Wait, no", "Let me re-check", "double-check it", "I was wrong", "Let's try again", "Hmm."]
)
def test_second_thoughts(text: str) -> None:
    assert reflects(text)


@pytest.mark.parametrize(
    "text", ["await g()", "waiter = 1", "the answer is right", "return recheckable", "wrong = 0", ""]
)
def test_none(text: str) -> None:
    assert not reflects(text)


def test_plans_in_comments() -> None:
    assert plans_in_comments("", PLAN)
    assert not plans_in_comments("# Title\n# Another\n", "")  # headings of a text
    assert not plans_in_comments("", "a = 1  # one\n# two\n#\n")
    assert plans_in_comments(f"so\n```python\n{PLAN}\n```\n", "a = 1")
    assert plans_in_comments(f"```\n{PLAN}")


def test_the_intake_does_without_what_analysis_needs() -> None:
    assert not {"radon", "complexipy", "rapidfuzz", "tokenizers"} & {
        name.partition(".")[0] for name in reached("learner.intake")
    }
    assert {"radon", "complexipy", "rapidfuzz"} <= {name.partition(".")[0] for name in reached("learner.analysis")}
