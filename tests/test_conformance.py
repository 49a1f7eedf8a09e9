"""The rules of Absolute Zero in one place, with numbers worked out by hand, and that its code's defects are not ours.

Real environment, episode, task book and one real executor shard; only the model is scripted. docs/algorithm.md has the
same rules in prose and says of each departure why.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from actors import rewards
from actors.environment import Answer, Draft
from actors.episode import Parts, run_episode
from actors.paper import Paper
from actors.triplets import PythonTriplets
from actors.wording import Proposal
from common.composite import CompositeConfig
from common.config import AlgorithmConfig, Config, EnvironmentConfig, ExecutorConfig
from common.engine import EngineConfig
from common.jobs import Validate, Verdict
from common.types import TASK_TYPES, Group, Kind, Lease, Status, Task, TaskType
from executor.shard import Shard
from learner.batch import sequences
from learner.leases import LeaseMaker, lease_id
from learner.settlement import settle
from learner.task_book import TaskBook
from tests.fakes.engine import CharCodec, FakeEngine
from tests.fakes.groups import a_group, a_sample, a_task

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAPER = EnvironmentConfig(prompts="paper", references=6, inputs=10, shown=5, message=True)
LONG = EngineConfig(max_model_len=10_000, max_tokens=5_000)
SAMPLES = 8
DOUBLE = "def f(a):\n return a*2"
OFFERED = f"<answer>{DOUBLE}\ninput:21</answer>"
RIGHT, WRONG, BARE = "<answer>42</answer>", "<answer>41</answer>", "42"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def executor() -> AsyncIterator[Shard]:
    shard = Shard(ExecutorConfig(memory_mb=128))
    await shard.start()
    yield shard
    await shard.close()


BOOK_LIMIT = 50


@pytest.fixture(params=[0])
def book(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TaskBook]:
    """Empty; the parameter is `algorithm.book_limit`."""
    config = Config(algorithm=AlgorithmConfig(book_limit=request.param))
    opened = TaskBook(tmp_path / "tasks.sqlite", [], config)
    yield opened
    opened.close()


def parts_of(engine: FakeEngine, executor: Shard, book: TaskBook, config: Config) -> Parts:
    async def novelty(task: Task) -> str:
        return book.status(task.type, task.key, task.program_key)

    return Parts(engine, executor, PythonTriplets(config.environment), CharCodec(), novelty, config)


async def proposal(executor: Shard, book: TaskBook, response: str, *answers: str, **settings: object) -> Group:
    """What becomes of a proposal for deduction that is answered so."""
    config = Config(algorithm=AlgorithmConfig(**settings), engine=LONG)  # type: ignore[arg-type]
    engine = FakeEngine(lambda prompt, i: response if prompt.startswith("propose") else answers[i])
    lease = Lease(lease_id(Kind.PROPOSE_DEDUCTION, 0), 0, Kind.PROPOSE_DEDUCTION, 0, seed=1, samples=len(answers))
    return await run_episode(lease, parts_of(engine, executor, book, config))


async def status_of(executor: Shard, program: str, given: str = "1") -> str:
    return (await executor.validate(Validate(program, (given,)))).status


async def judged(executor: Shard, task: Task, *answers: str) -> tuple[Verdict, ...]:
    return await PythonTriplets(PAPER).verify(task, [Answer(text, True) for text in answers], executor)


async def right(executor: Shard, task: Task, *answers: str) -> list[bool]:
    return [verdict.correct for verdict in await judged(executor, task, *answers)]


def deduction(output: str, program: str = "def f(x): return x", given: str = "1") -> Task:
    return Task(TaskType.DEDUCTION, program, (given,), (output,), key="d")


def abduction(program: str, output: str) -> Task:
    return Task(TaskType.ABDUCTION, program, ("1",), (output,), key="a")


def induction() -> Task:
    """Ten pairs 'kak' -> 'KAK', 'kbk' -> 'KBK' …, five of them hidden."""
    inputs = tuple(f"'k{letter}k'" for letter in "abcdefghij")
    outputs = tuple(text.upper() for text in inputs)
    return Task(TaskType.INDUCTION, "def f(x): return x.upper()", inputs, outputs, "i", "Speak up!", shown=5)


# -- rewards -----------------------------------------------------------------------------------------------------


async def test_rewards_of_answers_and_of_their_proposal(executor: Shard, book: TaskBook) -> None:
    answers = (RIGHT, RIGHT, WRONG, WRONG, WRONG, BARE, "<answer></answer>", f"so {RIGHT}")
    group = await proposal(executor, book, OFFERED, *answers)
    proposed, *solved = group.samples
    assert [s.reward for s in solved] == [1.0, 1.0, -0.5, -0.5, -0.5, -1.0, -1.0, -1.0]
    # The last answer is right though its format is not: 3 of 8 count for the rate, 2 are paid.
    assert (group.solve_rate, proposed.reward) == (0.375, 0.625)
    assert group.proposal is not None and group.proposal.outputs == ("42",)


@pytest.mark.parametrize("count", range(SAMPLES + 1))
@pytest.mark.parametrize("extreme", [0.0, -0.5])
async def test_learnability(count: int, extreme: float) -> None:
    """1 − mean; where all or none are right the paper pays 0 and its code −0.5."""
    expected = [extreme, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, extreme][count]
    assert rewards.proposer(count / SAMPLES, extreme) == expected


async def test_a_proposal_without_format_or_validity(executor: Shard, book: TaskBook) -> None:
    for response, status, reward in (
        (f"{DOUBLE}\ninput:21", Status.FORMAT, -1.0),
        ("<answer>def f(a:\n return a\ninput:21</answer>", Status.SYNTAX, -0.5),
        ("<answer>import random\ndef f(a):\n return a*2\ninput:21</answer>", Status.POLICY, -0.5),
        ("<answer>def f(a):\n return a/0\ninput:21</answer>", Status.ERROR, -0.5),
    ):
        group = await proposal(executor, book, response, *[RIGHT] * SAMPLES)
        (sample,) = group.samples  # nothing is solved, and nothing enters the book
        assert (sample.status, sample.reward, group.proposal, group.solve_rate) == (status, reward, None, None)


@pytest.mark.parametrize(("trained", "count"), [(0, 0), (3, 3), (SAMPLES, SAMPLES)])
async def test_a_solve_rate_is_over_all_answers_however_many_are_trained(
    executor: Shard, book: TaskBook, trained: int, count: int
) -> None:
    group = await proposal(executor, book, OFFERED, *[WRONG] * 5, *[RIGHT] * 3, train_mc=trained)
    assert group.solve_rate == 0.375
    assert sum(s.trainable for s in group.samples[1:]) == count


async def test_answers_that_measure_a_proposal_are_sampled_at_temperature_1(executor: Shard, book: TaskBook) -> None:
    book.add(1, [(None, a_task("a", t), 0.5) for t in TASK_TYPES])
    config = Config(algorithm=AlgorithmConfig(samples=SAMPLES), engine=LONG)
    maker = LeaseMaker(config, book)
    assert maker.evaluation(7, 0, a_task("b"), temperature=0.0).temperature == 0.0
    assert {maker.make(lease_id(kind, 1), version=0).temperature for kind in config.algorithm.streams} == {1.0}
    engine = FakeEngine(lambda prompt, i: OFFERED if prompt.startswith("propose") else RIGHT)
    await run_episode(maker.make(lease_id(Kind.PROPOSE_DEDUCTION, 1), 0), parts_of(engine, executor, book, config))
    asked, measured = engine.calls
    assert (asked.n, measured.n) == (1, SAMPLES) and asked.seed != measured.seed
    assert asked.temperature == measured.temperature == 1.0


# -- advantages --------------------------------------------------------------------------------------------------


def long_and_short(kind: Kind, shift: float) -> Group:
    """Rewards over tokens: six of 1, two of −1, so over tokens the mean is ½ and the variance 6 / 7."""
    samples = [a_sample(kind, length=n, reward=r + shift) for n, r in ((3, 1), (1, -1), (3, 1), (1, -1))]
    return a_group(0, kind, samples)


@pytest.mark.parametrize(("error", "streams"), [(False, 6), (True, 8)])
async def test_trr_plus_plus_whitens_streams_apart_over_sequences_or_over_tokens(error: bool, streams: int) -> None:
    of_run = AlgorithmConfig(error=error).streams
    batch = [long_and_short(kind, shift=10.0 * i) for i, kind in enumerate(of_run)]
    root = math.sqrt(6 / 7)  # squared deviations 6 · ¼ + 2 · 2¼ = 6, over 8 tokens less one
    official = [0.5 / root, -1.5 / root, 0.5 / root, -1.5 / root]
    ours = [math.sqrt(0.75), -math.sqrt(0.75)] * 2  # mean 0, squared deviations 4, over 4 sequences less one
    for whiten, expected in (("tokens", official), ("sequences", ours)):
        found = sequences(0, batch, AlgorithmConfig(whiten=whiten, error=error), seed=0)
        assert [row.advantage for row in found.rows] == pytest.approx(expected * streams, rel=1e-6)
        # each stream weighs a sixth, or an eighth, spread over its 8 tokens
        assert [row.weight for row in found.rows] == pytest.approx([1 / (8 * streams)] * (4 * streams))


# -- the question ------------------------------------------------------------------------------------------------


async def test_induction_shows_half_of_its_pairs_and_judges_by_the_other(executor: Shard) -> None:
    task = induction()
    prompt = PythonTriplets(PAPER).solve_prompt(task)
    assert all(text in prompt for text in (*task.inputs[:5], *task.outputs[:5], task.message))
    assert not any(text in prompt for text in (*task.inputs[5:], *task.outputs[5:], task.program))
    table = ", ".join(f"{given}: {output}" for given, output in zip(task.inputs[:5], task.outputs[:5], strict=True))
    listed, other_half = f"def f(x): return {{{table}}}.get(x)", "def f(x): return x.upper() if x > 'kek' else ''"
    assert await right(executor, task, "def f(n): return str.upper(n)", listed, other_half) == [True, False, True]


async def test_a_prompt_does_not_hold_what_it_asks_for() -> None:
    triplets = PythonTriplets(PAPER)
    deduce = triplets.solve_prompt(deduction("'0ut'", "def f(x): return g(x)", "'1n'"))
    abduce = triplets.solve_prompt(Task(TaskType.ABDUCTION, "def f(x): return g(x)", ("'1n'",), ("'0ut'",), ""))
    assert "'1n'" in deduce and "'0ut'" not in deduce
    assert "'0ut'" in abduce and "'1n'" not in abduce


async def test_references_are_distinct_triplets_of_the_type_in_question(book: TaskBook) -> None:
    given = [a_task(f"{t.value}{i}", t) for t in TASK_TYPES for i in range(20)]
    book.add(1, [(None, task, 0.5) for task in given])
    for task_type in (TaskType.DEDUCTION, TaskType.ABDUCTION):
        drawn = book.references(random.Random(0), task_type, 6)
        assert len({task.key for task in drawn}) == 6 and {task.type for task in drawn} == {task_type}
        prompt = PythonTriplets(PAPER).propose_prompt(task_type, drawn)
        assert all(task.program in prompt and task.outputs[0] in prompt for task in drawn)
    (program,) = book.references(random.Random(0), TaskType.INDUCTION, 6)
    assert program.type is not TaskType.INDUCTION


# -- reading responses -------------------------------------------------------------------------------------------

CODE, GIVEN = "```python\ndef f(a):\n    return a * 2\n```", "```input\n21\n```"


@pytest.mark.parametrize("blocks", [(CODE, GIVEN), (GIVEN, CODE), (GIVEN, "Assistant: and the program:", CODE)])
async def test_the_blocks_of_a_proposal_come_in_any_order(blocks: tuple[str, ...]) -> None:
    response = "A plan.</think>\n<answer>\n" + "\n".join(blocks) + "\n</answer>"
    assert Paper().read_proposal(TaskType.DEDUCTION, response) == Proposal("def f(a):\n    return a * 2", ("21",))


async def test_more_than_one_definition_is_legal(executor: Shard) -> None:
    program = """from collections import deque

class Queue:
    def __init__(self, items):
        self.items = deque(items)

    def turn(self):
        self.items.rotate(1)
        return list(self.items)

def helper(items):
    def inner(x):
        return x + 1

    return [inner(x) for x in items]

def f(items):
    return helper(Queue(items).turn())"""
    written = Paper().write_proposal(TaskType.DEDUCTION, Proposal(program, ("[1, 2, 3]",)))
    assert Paper().read_proposal(TaskType.DEDUCTION, written) == Proposal(program, ("[1, 2, 3]",))
    found = await PythonTriplets(PAPER).validate(Draft(TaskType.DEDUCTION, program, ("[1, 2, 3]",)), executor)
    assert found.task is not None and found.task.outputs == ("[4, 2, 3]",)


async def test_an_input_of_several_lines_is_one_when_proposed_and_when_answered(executor: Shard) -> None:
    given = "[\n    1,\n    2,\n]"
    response = f"Lists.</think>\n<answer>\n{CODE}\n```input\n{given}\n```\n</answer>"
    draft = PythonTriplets(PAPER).parse_proposal(TaskType.ABDUCTION, [], response)
    assert draft is not None and draft.inputs == (given,)
    task = (await PythonTriplets(PAPER).validate(draft, executor)).task
    assert task is not None and task.outputs == ("[1, 2, 1, 2]",)
    answer = PythonTriplets(PAPER).parse_answer(task, f"So.</think>\n<answer>\n```input\n{given}\n```\n</answer>")
    assert answer.well_formed and await right(executor, task, answer.text) == [True]


# -- what is valid -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [("Exception('x')", Status.ERROR), ("StopIteration", Status.ERROR), ("ValueError", Status.ERROR),
     ("KeyboardInterrupt", Status.ERROR), ("SystemExit", Status.EXIT)],
)  # fmt: skip
async def test_what_raises_is_invalid_whatever_the_exception_is_called(
    executor: Shard, error: str, status: Status
) -> None:
    assert await status_of(executor, f"def f(x):\n    raise {error}") == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("str(object())", Status.NONDETERMINISTIC),
        ("repr(f)", Status.NONDETERMINISTIC),
        ("[c for c in {'a', 'b', 'c', 'd', 'e', 'f'}]", Status.NONDETERMINISTIC),
        ("id(x)", Status.POLICY),
        ("__import__('random').random()", Status.POLICY),
        ("__import__('os').urandom(4)", Status.POLICY),
    ],
)
async def test_what_is_not_deterministic_is_invalid(executor: Shard, body: str, status: Status) -> None:
    assert await status_of(executor, f"def f(x): return {body}") == status


async def test_a_function_whose_name_ends_in_input_reads_no_input(executor: Shard) -> None:
    assert await status_of(executor, "def user_input(x): return x + 1\ndef f(x): return user_input(x)") == Status.OK


@pytest.mark.parametrize("body", ["lambda: x", "(y for y in [x])", "Thing()", "Counter('aab')", "object()"])
async def test_what_cannot_be_written_down_is_invalid_instead_of_an_empty_output(executor: Shard, body: str) -> None:
    program = f"from collections import Counter\nclass Thing: pass\ndef f(x): return {body}"
    assert await status_of(executor, program) == Status.UNSERIALISABLE


async def test_long_outputs_survive_whole_or_are_rejected(executor: Shard) -> None:
    program = "def f(n): return ''.join(chr(97 + i % 7) for i in range(n))"
    found = await executor.validate(Validate(program, ("2000",)))
    (output,) = found.outputs
    assert len(output) == 2002
    cut = output[:200] + "..." + output[-200:]
    assert await right(executor, deduction(output, program, "2000"), output, cut) == [True, False]
    limit = ExecutorConfig().output_limit
    assert await status_of(executor, program, str(limit)) == Status.TOO_BIG


async def test_programs_leave_nothing_to_the_next_and_end(executor: Shard) -> None:
    assert await status_of(executor, "import math\ndef f(x):\n    math.pi = 3\n    return x") == Status.OK
    found = await executor.validate(Validate("import math\ndef f(x): return math.pi", ("1",)))
    assert found.outputs == (repr(math.pi),)
    spoilt = "import builtins\ndef f(x):\n    builtins.len = None\n    return x"
    assert await status_of(executor, spoilt) == Status.POLICY
    swallowing = "def f(x):\n    while True:\n        try:\n            x += 1\n        except BaseException: pass"
    assert await status_of(executor, swallowing) == Status.TIMEOUT_CPU
    assert await status_of(executor, "def f(x): return len('abc')") == Status.OK


# -- what is right -----------------------------------------------------------------------------------------------


async def test_a_deduction_answer_is_a_literal_and_never_evaluated(executor: Shard) -> None:
    task = deduction("[7, 7, 7]")
    evaluated = "__import__('os').environ.__setitem__('AZR_OWNED', '1') or [7, 7, 7]"
    answers = ("[7, 7, 7]", "[7,7,  7]", "eval('[7, 7, 7]')", "eval(gold_output)", "[7] * 3", "f([7, 7, 7])", evaluated)
    assert await right(executor, task, *answers) == [True, True, False, False, False, False, False]
    assert "AZR_OWNED" not in os.environ


async def test_an_abduction_answer_is_an_input_and_nothing_else(executor: Shard) -> None:
    task = abduction("def f(x): return x + 1", "5")
    answers = ("4", "0) == 1 or (True", "0) or 5 #", "4); (4", "x", "3")
    assert await right(executor, task, *answers) == [True, False, False, False, False, False]


async def test_an_output_that_equals_everything_is_wrong(executor: Shard) -> None:
    program = "class Any:\n    def __eq__(self, other): return True\ndef f(x): return Any()"
    subclass = "class Any(str):\n    def __eq__(self, other): return True\n    __hash__ = None\ndef f(x): return Any(x)"
    assert await right(executor, induction(), program, subclass) == [False, False]
    assert await status_of(executor, program) == Status.UNSERIALISABLE


async def test_values_are_compared_as_python_does_but_for_nan(executor: Shard) -> None:
    assert await right(executor, deduction("4"), "4.0", "'4'", "True") == [True, False, False]
    assert await right(executor, deduction("1"), "True") == [True]
    assert await right(executor, deduction("{1, 2, 3}"), "{3, 2, 1}") == [True]
    nan = await executor.validate(Validate("def f(x): return [float('nan'), x]", ("1",)))
    assert await right(executor, deduction(nan.outputs[0]), nan.outputs[0]) == [True]


async def test_every_answer_gets_a_verdict_also_the_same_failing_one_twice(executor: Shard) -> None:
    task = abduction("def f(x):\n    if x != 1: raise Exception('x')\n    return 5", "5")
    found = await right(executor, task, "2", "2", "1", "2")
    assert found == [False, False, True, False]
    assert sum(found) / len(found) == 0.25


async def test_a_solver_program_meets_the_rules_of_a_proposer(executor: Shard) -> None:
    task = induction()
    upper = "def f(x): return x.upper()"
    assert await right(executor, task, f"import os\n{upper}", f"{upper}\nimport random", upper) == [False, False, True]


# -- the book ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("book", [BOOK_LIMIT], indirect=True)
async def test_a_bounded_book_still_takes_new_tasks(book: TaskBook) -> None:
    """The official buffers keep the first that came."""
    total = 8 * BOOK_LIMIT
    for version in range(total):
        book.add(version, [(version, a_task(str(version)), 0.5)])
    assert (book.sizes[TaskType.DEDUCTION], book.added[TaskType.DEDUCTION]) == (BOOK_LIMIT, total)
    drawn = [book.task(random.Random(i), TaskType.DEDUCTION, total) for i in range(500)]
    order = sorted(int(task.key.partition(":")[2]) for task in drawn)
    assert order[0] < total / 4 and order[-1] >= total * 3 / 4
    assert 0.3 < np.mean(np.array(order) >= total / 2) < 0.7


async def test_a_program_is_proposed_once(executor: Shard, book: TaskBook) -> None:
    one = await proposal(executor, book, OFFERED, *[RIGHT] * 3, *[WRONG] * 5)
    again = await proposal(executor, book, OFFERED.replace("21", "7"), *["<answer>14</answer>"] * 8)
    assert one.proposal is not None and again.proposal is not None
    first, second = settle(0, [one, again], Config(), book, [])
    assert first is one
    copy = second.samples[0]
    assert (copy.status, copy.reward, second.proposal) == (Status.COPY, -0.5, None)
    book.add_batch(1, [first, second])
    assert book.sizes[TaskType.DEDUCTION] == 1
    (known,) = (await proposal(executor, book, OFFERED, *[RIGHT] * 8)).samples
    assert (known.status, known.reward) == (Status.KNOWN, -0.5)


# -- error deduction, off in the published runs ------------------------------------------------------------------


async def test_error_deduction_from_the_proposal_to_the_rewards(executor: Shard, book: TaskBook) -> None:
    """The exception is the answer, whatever is said behind a colon; what raises by itself is not legal."""
    config = Config(algorithm=AlgorithmConfig(error=True), engine=LONG)
    kind = Kind.PROPOSE_ERROR
    lease = Lease(lease_id(kind, 0), 0, kind, 0, seed=1, samples=4)
    program = "def f(a):\n return [7][a]"

    async def outcome(response: str, *answers: str) -> Group:
        engine = FakeEngine(lambda prompt, i: response if prompt.startswith("propose") else answers[i])
        return await run_episode(lease, parts_of(engine, executor, book, config))

    answers = [f"<answer>{text}</answer>" for text in ("IndexError: list index", "indexerror", "KeyError", "NoError")]
    group = await outcome(f"<answer>{program}\ninput:1</answer>", *answers)
    assert group.proposal is not None and group.proposal.outputs == ("IndexError",)
    assert [s.stream for s in group.samples] == [kind, *[Kind.SOLVE_ERROR] * 4]
    assert [s.reward for s in group.samples] == [0.5, 1.0, 1.0, -0.5, -0.5]
    runs = await outcome(f"<answer>{program}\ninput:0</answer>", *answers)
    assert runs.proposal is not None and (runs.proposal.outputs, runs.solve_rate) == (("NoError",), 0.25)
    for response, status in (
        ("def f(a):\n raise KeyError\ninput:1", "policy"),
        ("def f(a):\n return [7][a]\ninput:1 / 0", "input"),
        ("def f(a):\n return [7][a\ninput:1", "syntax"),
    ):
        (sample,) = (await outcome(f"<answer>{response}</answer>")).samples
        assert (sample.status, sample.reward) == (status, -0.5)


# -- composite functions f(g()), off in the published runs -------------------------------------------------------


async def test_a_composite_from_the_lease_to_the_book(executor: Shard, book: TaskBook) -> None:
    """What f does not call, or takes for its own, is an invalid proposal; a composite is no component."""
    book.add(1, [(0, Task(TaskType.ABDUCTION, DOUBLE, ("1",), ("2",), "double", program_key="double"), 0.5)])
    schedule = CompositeConfig(start=1, chance=1.0, chance_max=1.0)
    config = Config(composite=schedule, engine=LONG, environment=EnvironmentConfig(references=0))
    lease = LeaseMaker(config, book).make(lease_id(Kind.PROPOSE_DEDUCTION, 0), 1)
    assert [task.program for task in lease.components] == [DOUBLE]

    async def outcome(own: str) -> Group:
        offered = f"<answer>{own}\ninput:20</answer>"
        engine = FakeEngine(lambda prompt, i: offered if prompt.startswith("propose") else (RIGHT, WRONG)[i % 2])
        return await run_episode(lease, parts_of(engine, executor, book, config))

    for own in ("def f(a):\n return a*2+2", "def g_0(a):\n return a\ndef f(a):\n return g_0(a)"):
        (sample,) = (await outcome(own)).samples
        assert (sample.status, sample.reward) == (Status.COMPOSITION, -0.5)
    group = await outcome("def f(a):\n return g_0(a)+2")
    composite = group.proposal
    assert composite is not None and composite.composite and group.solve_rate == 0.5
    assert composite.program == "def g_0(a):\n return a*2\ndef f(a):\n return g_0(a)+2"
    assert [sample.reward for sample in group.samples] == [0.5, *[1.0, -0.5] * 3]
    book.add_batch(2, settle(1, [group], config, book, []))
    assert book.find(composite.key) == composite
    again = [LeaseMaker(config, book).make(lease_id(Kind.PROPOSE_ABDUCTION, n), 2) for n in range(20)]
    assert {task.program for lease in again for task in lease.components} == {DOUBLE}
