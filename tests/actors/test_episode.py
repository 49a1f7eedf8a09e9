"""What a lease becomes, with an engine that follows a script and an executor that judges by one."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import rewards
from actors.episode import INFRA_RETRIES, Parts, run_episode
from actors.triplets import PythonTriplets
from common.config import AlgorithmConfig, Config, EnvironmentConfig, RunConfig
from common.engine import EngineConfig
from common.jobs import Validate, Validation, Verdict
from common.types import Group, Kind, Lease, Sample, Status, Task, TaskType
from learner.group_check import require_consistent
from learner.leases import blank
from tests.fakes.engine import STOP_TOKEN, Call, CharCodec, FakeEngine, Script
from tests.fakes.executor import FakeExecutor, by_output, defined
from tests.fakes.intake import SAFETY_NET, a_task, proposing, seeding, solving

CODEC = CharCodec()
PROPOSAL = "<answer>def f(a):\n return a*2\ninput:5</answer>"
PROPOSED = "def f(a):\n return a*2"


def tagged(text: str) -> str:
    return f"<answer>{text}</answer>"


def play(proposal: str, *answers: str) -> Script:
    """The i-th sample of a solver says `answers[i]`, counted round."""
    return lambda prompt, i: proposal if prompt.startswith("propose") else answers[i % len(answers)]


def config(
    *,
    train_mc: int = 4,
    extreme: float = 0.0,
    invalid: float = -0.5,
    max_tokens: int = 64,
    max_model_len: int = 256,
    inputs: int = 2,
    prompts: str = "compact",
) -> Config:
    return Config(
        run=RunConfig(incarnation=3),
        environment=EnvironmentConfig(
            prompts=prompts, inputs=inputs, shown=1, reject_identity=False, reject_constant=False
        ),
        algorithm=AlgorithmConfig(train_mc=train_mc, extreme_reward=extreme, invalid_reward=invalid),
        engine=EngineConfig(max_tokens=max_tokens, max_model_len=max_model_len),
    )


class Book:
    """Says `status` to every proposal, and remembers what it was asked."""

    def __init__(self, status: str = "ok") -> None:
        self._status = status
        self.asked: list[Task] = []

    async def status(self, task: Task) -> str:
        self.asked.append(task)
        return self._status


async def run(
    lease: Lease,
    engine: FakeEngine,
    executor: FakeExecutor | None = None,
    *,
    settings: Config | None = None,
    book: Book | None = None,
) -> Group:
    settings = settings or config()
    parts = Parts(
        engine,
        executor or FakeExecutor(),
        PythonTriplets(settings.environment),
        CODEC,
        (book or Book()).status,
        settings,
    )
    return await asyncio.wait_for(run_episode(lease, parts), SAFETY_NET)


def say(sample: Sample) -> str:
    return CODEC.decode(sample.tokens)


# -- rewards -----------------------------------------------------------------------------------------------------


def test_solver_rewards() -> None:
    assert rewards.solver(correct=True, well_formed=True) == 1.0
    assert rewards.solver(correct=False, well_formed=True) == -0.5
    assert rewards.solver(correct=True, well_formed=False) == -1.0
    assert rewards.solver(correct=False, well_formed=False) == -1.0


@given(st.integers(2, 32).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.0, -0.5]))
def test_proposer_reward_is_what_solvers_got_wrong(counts: tuple[int, int], extreme: float) -> None:
    right, n = counts
    reward = rewards.proposer(right / n, extreme)
    assert reward == (extreme if right in (0, n) else pytest.approx((n - right) / n))


# -- a lease to solve --------------------------------------------------------------------------------------------


async def test_answers_to_a_task_of_the_book() -> None:
    engine = FakeEngine(play("", tagged("4"), tagged("5"), "4", f"so {tagged('4')}"))
    group = await run(solving(11, samples=4), engine)
    assert (group.lease, group.attempt, group.kind, group.incarnation) == (11, 0, Kind.SOLVE_DEDUCTION, 3)
    assert group.failure == "" and group.proposal is None
    assert (group.asked, group.references) == (a_task().key, ())
    (prompt,) = group.prompts
    assert CODEC.decode(prompt).startswith("solve deduction")
    assert [s.prompt for s in group.samples] == [0] * 4
    assert [s.stream for s in group.samples] == [Kind.SOLVE_DEDUCTION] * 4
    assert [s.reward for s in group.samples] == [1.0, -0.5, -1.0, -1.0]
    assert [s.correct for s in group.samples] == [True, False, False, True]
    assert [s.status for s in group.samples] == ["ok", "ok", "format", "format"]
    assert all(s.trainable for s in group.samples)
    assert group.solve_rate == 0.5


async def test_what_the_engine_sampled_is_what_travels() -> None:
    engine = FakeEngine(play("", tagged("4")), logprob=-1.25)
    engine.version = 5
    (sample,) = (await run(solving(1, samples=1), engine)).samples
    assert sample.tokens[-1] == STOP_TOKEN
    assert say(sample) == tagged("4")
    assert sample.logprobs.tolist() == [-1.25] * len(sample.tokens)
    assert [(s.version, s.start, s.end) for s in sample.spans] == [(5, 0, len(sample.tokens))]


async def test_train_mc_limits_proposals_only() -> None:
    group = await run(solving(1, samples=4), FakeEngine(play("", tagged("4"))), settings=config(train_mc=0))
    assert all(s.trainable for s in group.samples)


@pytest.mark.parametrize("task_type", TaskType)
async def test_evaluation_is_never_trained(task_type: TaskType) -> None:
    lease = Lease(1, 0, Kind.EVAL, 0, 7, 3, task=a_task(task_type, 2), temperature=0.0)
    engine = FakeEngine(play("", tagged("4")))
    group = await run(lease, engine)
    assert group.kind is Kind.EVAL
    assert [s.trainable for s in group.samples] == [False] * 3
    assert {s.stream.task_type for s in group.samples} == {task_type}
    assert engine.calls[0].temperature == 0.0


async def test_what_is_begun_belongs_to_the_prompt_and_is_read_as_part_of_the_answer() -> None:
    lease = Lease(1, 0, Kind.EVAL, 0, 7, 1, task=a_task(TaskType.DEDUCTION, 2), begun="<think>")
    engine = FakeEngine(play("", "so</think><answer>4</answer>"))
    group = await run(lease, engine)
    (sample,) = group.samples
    assert engine.calls[0].prompt == CODEC.decode(group.prompts[0])
    assert engine.calls[0].prompt.endswith("\n<think>")
    assert say(sample) == "so</think><answer>4</answer>"
    assert (sample.correct, sample.status, sample.reward) == (True, "ok", 1.0)


async def test_an_answer_cut_at_the_limit_has_no_format_but_is_judged() -> None:
    response = tagged("4") + "\n" * 20  # well-formed, but the stop token never came
    engine = FakeEngine(play("", response))
    (sample,) = (await run(solving(1, samples=1), engine, settings=config(max_tokens=25))).samples
    assert len(sample.tokens) == 25 and sample.tokens[-1] != STOP_TOKEN
    assert sample.correct
    assert sample.reward == rewards.NO_FORMAT
    assert sample.status == Status.FORMAT


async def test_why_an_answer_has_no_value_is_kept() -> None:
    executor = FakeExecutor(verify=lambda task, answer: Verdict(False, "crash_11" if answer == "5" else "ok"))
    engine = FakeEngine(play("", tagged("5"), tagged("6"), "5"))
    group = await run(solving(1, samples=3), engine, executor)
    assert [s.status for s in group.samples] == ["crash_11", "ok", "format"]
    assert [s.reward for s in group.samples] == [-0.5, -0.5, -1.0]


async def test_no_answer_at_all_costs_no_execution() -> None:
    executor = FakeExecutor()
    group = await run(solving(1), FakeEngine(play("", "what?")), executor)
    assert executor.verified == []
    assert [s.status for s in group.samples] == ["format", "format"]


# -- a lease to propose ------------------------------------------------------------------------------------------


async def test_a_valid_proposal_travels_with_its_answers() -> None:
    engine = FakeEngine(play(PROPOSAL, tagged("f(5)"), tagged("1"), tagged("f(5)"), "f(5)"))
    executor = FakeExecutor()
    group = await run(proposing(21), engine, executor, settings=config(train_mc=2))
    assert group.kind is Kind.PROPOSE_DEDUCTION and group.failure == ""
    assert group.proposal is not None
    assert (group.proposal.program, group.proposal.inputs, group.proposal.outputs) == (PROPOSED, ("5",), ("f(5)",))
    assert [CODEC.decode(p).partition("\n")[0] for p in group.prompts] == ["propose deduction", "solve deduction"]
    assert executor.validated == [Validate(PROPOSED, ("5",))]
    assert len(executor.verified) == 1

    proposal, *answers = group.samples
    assert (proposal.stream, proposal.prompt, say(proposal)) == (Kind.PROPOSE_DEDUCTION, 0, PROPOSAL)
    assert proposal.correct and proposal.trainable and proposal.status == Status.OK
    assert [s.stream for s in answers] == [Kind.SOLVE_DEDUCTION] * 4
    assert [s.prompt for s in answers] == [1] * 4
    assert [s.correct for s in answers] == [True, False, True, False]
    assert [s.trainable for s in answers] == [True, True, False, False]
    assert group.solve_rate == 0.5
    assert proposal.reward == 0.5


@pytest.mark.parametrize(("answer", "rate"), [("f(5)", 1.0), ("1", 0.0)])
@pytest.mark.parametrize("extreme", [0.0, -0.5])
async def test_a_task_that_all_or_none_solve_pays_the_extreme(answer: str, rate: float, extreme: float) -> None:
    engine = FakeEngine(play(PROPOSAL, tagged(answer)))
    group = await run(proposing(1), engine, settings=config(extreme=extreme))
    assert group.solve_rate == rate
    assert group.samples[0].reward == extreme


async def test_the_solve_rate_ignores_the_format() -> None:
    engine = FakeEngine(play(PROPOSAL, f"it is {tagged('f(5)')}", tagged("1")))
    group = await run(proposing(1), engine)
    assert group.solve_rate == 0.5
    assert [s.reward for s in group.samples[1:]] == [-1.0, -0.5, -1.0, -0.5]


async def test_a_proposal_of_inputs_for_a_reference() -> None:
    engine = FakeEngine(play(tagged("5\n6"), tagged("anything")))
    executor = FakeExecutor(verify=lambda task, answer: Verdict(answer == "anything", "ok"))
    lease = proposing(1, TaskType.INDUCTION)
    group = await run(lease, engine, executor)
    assert executor.validated == [Validate(lease.references[0].program, ("5", "6"))]
    assert group.references == tuple(task.key for task in lease.references) != ()
    assert group.proposal is not None and group.proposal.shown == 1
    assert CODEC.decode(group.prompts[1]) == "solve induction\n5->f(5)\n"
    assert {s.stream for s in group.samples[1:]} == {Kind.SOLVE_INDUCTION}


@pytest.mark.parametrize("response", ["no tags", tagged("def f(a):\n return a"), tagged("input:1")])
async def test_a_proposal_without_format(response: str) -> None:
    executor = FakeExecutor()
    engine = FakeEngine(play(response))
    group = await run(proposing(1), engine, executor)
    alone(group, Status.FORMAT, -1.0)
    assert len(engine.calls) == 1 and executor.validated == []


async def test_a_proposal_cut_at_the_limit_has_no_format() -> None:
    executor = FakeExecutor()
    engine = FakeEngine(play(PROPOSAL + "\n" * 40))
    alone(await run(proposing(1), engine, executor, settings=config(max_tokens=60)), Status.FORMAT, -1.0)
    assert executor.validated == []


@pytest.mark.parametrize("invalid", [-0.5, -1.0])
@pytest.mark.parametrize("status", [Status.ERROR, Status.TIMEOUT_CPU, Status.POLICY, "crash_9"])
async def test_an_invalid_proposal(status: str, invalid: float) -> None:
    engine = FakeEngine(play(PROPOSAL))
    executor = FakeExecutor(validate=lambda job: Validation(status))
    alone(await run(proposing(1), engine, executor, settings=config(invalid=invalid)), status, invalid)
    assert len(engine.calls) == 1


async def test_a_wrong_answer_is_paid_the_same_whatever_an_invalid_proposal_is() -> None:
    engine = FakeEngine(play(PROPOSAL, tagged("f(5)"), tagged("1")))
    group = await run(proposing(1), engine, settings=config(invalid=-1.0))
    assert [s.reward for s in group.samples] == [0.5, 1.0, -0.5, 1.0, -0.5]


@pytest.mark.parametrize("status", [Status.KNOWN, Status.HELD_OUT])
async def test_a_proposal_that_the_book_rejects_costs_no_solves(status: str) -> None:
    engine, book = FakeEngine(play(PROPOSAL)), Book(status)
    alone(await run(proposing(1), engine, book=book, settings=config(invalid=-0.25)), status, -0.25)
    assert len(engine.calls) == 1 and len(book.asked) == 1


async def test_the_book_is_asked_for_the_task_that_was_validated() -> None:
    book = Book()
    group = await run(proposing(1), FakeEngine(play(PROPOSAL, tagged("1"))), book=book)
    assert group.proposal is not None and book.asked == [group.proposal]


async def test_a_task_whose_prompt_leaves_no_room_is_too_big() -> None:
    engine, book = FakeEngine(play(PROPOSAL)), Book()
    executor = FakeExecutor(validate=lambda job: Validation(Status.OK, "", ("9" * 300,), "program", job.inputs))
    alone(await run(proposing(1, TaskType.ABDUCTION), engine, executor, book=book), Status.TOO_BIG, -0.5)
    assert len(engine.calls) == 1 and book.asked == []


def alone(group: Group, status: str, reward: float) -> None:
    """A proposal that came to no task is trained by itself."""
    (sample,) = group.samples
    assert (sample.status, sample.reward, sample.correct, sample.trainable) == (status, reward, False, True)
    assert (sample.stream, sample.prompt, len(group.prompts)) == (group.kind, 0, 1)
    assert group.failure == "" and group.proposal is None and group.solve_rate is None


# -- a lease to seed ---------------------------------------------------------------------------------------------


async def test_a_seed_is_proposed_and_validated_and_no_more() -> None:
    engine, executor, book = FakeEngine(play(PROPOSAL)), FakeExecutor(), Book()
    group = await run(seeding(1), engine, executor, book=book)
    assert (group.kind, group.failure, group.solve_rate) == (Kind.SEED, "", None)
    assert group.proposal is not None and group.proposal.program == PROPOSED
    assert executor.validated == [Validate(PROPOSED, ("5",))]
    assert len(engine.calls) == 1 and executor.verified == [] and book.asked == []
    (sample,) = group.samples
    assert (sample.stream, sample.status, sample.trainable) == (Kind.PROPOSE_DEDUCTION, "ok", False)
    assert CODEC.decode(group.prompts[0]).startswith("propose deduction") and say(sample) == PROPOSAL


@pytest.mark.parametrize(
    ("response", "validity", "status"), [("no tags", "ok", "format"), (PROPOSAL, "timeout_cpu", "timeout_cpu")]
)
async def test_a_seed_that_comes_to_nothing_says_why(response: str, validity: str, status: str) -> None:
    executor = FakeExecutor(validate=lambda job: Validation(validity) if validity != "ok" else defined(job))
    group = await run(seeding(1), FakeEngine(play(response)), executor)
    assert (group.proposal, group.failure, group.samples[0].status) == (None, "", status)


BLOCKS = f"```python\n{PROPOSED}\n```\n```input\n5\n```"
LINES = f"{PROPOSED}\ninput:5"


@pytest.mark.parametrize(
    ("prompts", "response"),
    [
        ("compact", LINES),
        ("compact", f"<answer>{LINES}"),
        ("compact", f"{LINES}</answer>"),
        ("paper", BLOCKS),
        ("paper", f"So:\n{BLOCKS}\nThat is all."),
        ("paper", f"A plan.</think>\n{BLOCKS}"),
        ("paper", f"A plan, never ended.\n<answer>\n{BLOCKS}\n</answer>"),
        ("paper", f"</think><answer>{BLOCKS}</answer>\nUser: next\nAssistant: <think>{BLOCKS.replace('5', '6')}"),
    ],
)
async def test_what_has_no_format_can_be_a_seed_and_no_proposal(prompts: str, response: str) -> None:
    settings, executor = config(prompts=prompts, max_tokens=5_000, max_model_len=20_000), FakeExecutor()
    group = await run(seeding(1), FakeEngine(lambda prompt, i: response), executor, settings=settings)
    assert executor.validated == [Validate(PROPOSED, ("5",))]
    assert group.proposal is not None and (group.proposal.program, group.proposal.inputs) == (PROPOSED, ("5",))
    assert group.samples[0].status == Status.OK
    alone(await run(proposing(1), FakeEngine(lambda prompt, i: response), settings=settings), Status.FORMAT, -1.0)


async def test_inputs_without_format_can_be_a_seed() -> None:
    for prompts, response in (("compact", "5\n6"), ("paper", "```input\n5\n```\nand\n```input\n6\n```")):
        settings, executor = config(prompts=prompts, max_tokens=500, max_model_len=20_000), FakeExecutor()
        lease = dataclasses.replace(seeding(1, blank(TaskType.INDUCTION)), references=(a_task(),))
        group = await run(lease, FakeEngine(lambda prompt, i, said=response: said), executor, settings=settings)  # type: ignore[misc]
        assert executor.validated == [Validate(a_task().program, ("5", "6"))]
        assert group.proposal is not None and group.proposal.shown == 1


async def test_a_seed_that_was_cut_is_what_there_is_of_it() -> None:
    settings = config(prompts="paper", max_tokens=len(BLOCKS) + 5, max_model_len=20_000)
    group = await run(seeding(1), FakeEngine(lambda prompt, i: f"{BLOCKS}\nUser: and so on"), settings=settings)
    assert group.proposal is not None and group.proposal.inputs == ("5",)
    open_ = await run(seeding(1), FakeEngine(lambda prompt, i: f"{BLOCKS[:-3]}\n" + "6\n" * 9), settings=settings)
    assert (open_.proposal, open_.samples[0].status) == (None, Status.FORMAT)


async def test_a_seed_in_the_right_format_is_its_answer_and_not_its_thought() -> None:
    settings, executor = config(prompts="paper", max_tokens=5_000, max_model_len=20_000), FakeExecutor()
    response = f"{BLOCKS.replace('a*2', 'a')}</think><answer>{BLOCKS}</answer>"
    await run(seeding(1), FakeEngine(lambda prompt, i: response), executor, settings=settings)
    assert executor.validated == [Validate(PROPOSED, ("5",))]


@pytest.mark.parametrize(("shown", "seen"), [(0, 1), (2, 2)])
async def test_a_loaded_task_shows_what_it_says_or_what_the_run_says(shown: int, seen: int) -> None:
    claimed = Task(TaskType.INDUCTION, PROPOSED, ("1", "2", "3"), ("8", "8", "8"), "", shown=shown)
    group = await run(seeding(1, claimed), FakeEngine(play("")))
    assert group.proposal is not None and group.proposal.shown == seen


async def test_a_loaded_task_that_hides_nothing_is_none() -> None:
    executor = FakeExecutor()
    for shown, given_ in ((2, ("1", "2")), (0, ("1",))):
        claimed = Task(TaskType.INDUCTION, PROPOSED, given_, given_, "", shown=shown)
        group = await run(seeding(1, claimed), FakeEngine(play("")), executor)
        assert (group.proposal, group.samples[0].status) == (None, Status.INPUT)
    assert executor.validated == []


async def test_a_loaded_task_is_executed_and_its_outputs_are_only_claims() -> None:
    engine, executor = FakeEngine(play(PROPOSAL)), FakeExecutor()
    claimed = Task(TaskType.INDUCTION, PROPOSED, ("1", "2", "3"), ("8", "8", "8"), "", "double it", composite=True)
    group = await run(seeding(1, claimed), engine, executor)
    require_consistent(group)
    assert engine.calls == []
    assert executor.validated == [Validate(PROPOSED, ("1", "2", "3"))]
    assert group.proposal is not None
    assert (group.proposal.outputs, group.proposal.message) == (("f(1)", "f(2)", "f(3)"), "double it")
    assert group.proposal.composite


async def test_a_seed_whose_executor_is_lost_is_no_verdict() -> None:
    nothing(await run(seeding(1), FakeEngine(play(PROPOSAL)), FakeExecutor(lost_validations=9)), "infra")


# -- failures of parts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", range(INFRA_RETRIES + 2))
async def test_a_lost_verdict_is_asked_again_twice(lost: int) -> None:
    executor = FakeExecutor(lost_verifications=lost)
    group = await run(solving(1), FakeEngine(play("", tagged("4"))), executor)
    if lost <= INFRA_RETRIES:
        assert group.failure == "" and group.solve_rate == 1.0
        assert len(executor.verified) == lost + 1
    else:
        nothing(group, "infra")
        assert len(executor.verified) == INFRA_RETRIES + 1


@pytest.mark.parametrize("lost", range(INFRA_RETRIES + 2))
async def test_a_lost_validation_is_asked_again_twice(lost: int) -> None:
    executor = FakeExecutor(lost_validations=lost)
    engine = FakeEngine(play(PROPOSAL, tagged("1")))
    group = await run(proposing(1), engine, executor)
    if lost <= INFRA_RETRIES:
        assert group.failure == "" and len(group.samples) == 5
    else:
        nothing(group, "infra")
        assert len(engine.calls) == 1 and len(executor.validated) == INFRA_RETRIES + 1


async def test_one_lost_verdict_spoils_the_solve_rate() -> None:
    executor = FakeExecutor(verify=lambda task, answer: Verdict(False, "infra" if answer == "1" else "ok"))
    nothing(await run(proposing(1), FakeEngine(play(PROPOSAL, "none", tagged("1"))), executor), "infra")


@pytest.mark.parametrize("lease", [proposing(1), solving(1)])
@pytest.mark.parametrize("logprob", [float("nan"), float("-inf")])
async def test_log_probs_that_are_no_numbers(lease: Lease, logprob: float) -> None:
    nothing(await run(lease, FakeEngine(play(PROPOSAL, tagged("4")), logprob=logprob)), "nonfinite")


async def test_an_aborted_answer() -> None:
    nothing(await run(solving(1), FakeEngine(play("", tagged("4")), finish="abort")), "aborted")


@pytest.mark.parametrize("lease", [proposing(1), solving(1)])
async def test_a_prompt_that_leaves_no_room(lease: Lease) -> None:
    engine = FakeEngine(play(PROPOSAL, tagged("4")))
    nothing(await run(lease, engine, settings=config(max_model_len=10)), "prompt_too_long")
    assert engine.calls == []


async def test_an_answer_gets_the_room_that_its_prompt_leaves() -> None:
    prompt = len(CODEC.encode(PythonTriplets(config().environment).solve_prompt(a_task())))
    engine = FakeEngine(play("", tagged("4")))
    await run(solving(1), engine, settings=config(max_model_len=prompt + 1))
    assert engine.calls[0].max_tokens == 1


def nothing(group: Group, failure: str) -> None:
    assert group.failure == failure
    assert (group.prompts, group.samples, group.proposal, group.solve_rate) == ((), (), None, None)


# -- determinism and resources -----------------------------------------------------------------------------------


async def calls(lease: Lease) -> list[Call]:
    engine = FakeEngine(play(PROPOSAL, tagged("f(5)"), tagged("1")))
    await run(lease, engine)
    return engine.calls


async def test_seeds_come_from_the_lease_alone() -> None:
    lease = proposing(1, seed=99)
    propose_call, solve_call = await calls(lease)
    assert (propose_call.n, solve_call.n) == (1, 4)
    assert propose_call.seed != solve_call.seed
    again = dataclasses.replace(lease, id=2, attempt=3, version=8)
    assert await calls(again) == [propose_call, solve_call]
    other = await calls(dataclasses.replace(lease, seed=100))
    assert {c.seed for c in other}.isdisjoint({propose_call.seed, solve_call.seed})


async def test_equal_leases_make_equal_groups() -> None:
    first, second = [await run(proposing(1), FakeEngine(play(PROPOSAL, tagged("f(5)"), "x"))) for _ in range(2)]
    assert [(say(s), s.reward, s.correct, s.status) for s in first.samples] == [
        (say(s), s.reward, s.correct, s.status) for s in second.samples
    ]
    assert all(np.array_equal(a, b) for a, b in zip(first.prompts, second.prompts, strict=True))


async def test_one_slot_and_one_credit_do_for_twenty_episodes() -> None:
    engine = FakeEngine(play(PROPOSAL, tagged("f(5)"), tagged("4")), slots=1)
    executor = FakeExecutor(credits=1)
    leases = [proposing(i) if i % 2 else solving(i) for i in range(20)]
    groups = await asyncio.gather(*(run(lease, engine, executor) for lease in leases))
    assert [g.lease for g in groups] == list(range(20))
    assert all(g.failure == "" for g in groups)
    assert (engine.most_running, executor.most_running) == (1, 1)


async def test_an_episode_holds_one_scarce_thing_at_a_time() -> None:
    held: list[int] = []

    def script(prompt: str, i: int) -> str:
        held.append(executor.running)
        return play(PROPOSAL, tagged("f(5)"))(prompt, i)

    def verify(task: Task, answer: str) -> Verdict:
        held.append(engine.running)
        return by_output(task, answer)

    executor, engine = FakeExecutor(verify=verify), FakeEngine(script)
    await run(proposing(1), engine, executor)
    assert held == [0] * 6  # a proposal, four answers, which are one text to judge
