"""The executor's work in one training step of Absolute Zero, made from rows of programs with an input each.

Per task type 64 proposals are checked and 8 answers judged to each, and 64 tasks of earlier steps get one answer each;
an induction task has 10 inputs, 5 of them hidden. At one call per check of an input, per answer, and per hidden input
of an induction answer these are 4,800 calls. All proposals are valid, as in the costliest step; inputs beyond a row's
own differ from it in one number or string and are distinct by value.

No text is asked twice: every program, right answers too, is spelt in a way of its own that survives compiling, so a
cache of results helps nobody. Wrong answers differ by value from the right one, or make the program fail. Outputs are
short enough for an executor that cuts its answers at 400 characters.
"""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from azr.rows import Row
from common.jobs import Executor, Validate, Verify
from common.types import TASK_TYPES, Status, Task, TaskType

PROPOSALS = 64  # of each type, and tasks of earlier steps
SAMPLES = 8  # answers to a proposal
INPUTS, SHOWN = 10, 5
WARM = "def f(x): return x"  # no part of the step: to start processes with
ENDLESS = "def f(*given):\n    while True:\n        pass\n"
_MUTANTS = 32
_MAX_OUTPUT = 300  # characters


@dataclass(frozen=True, slots=True)
class Material:
    """A program with distinct inputs and their outputs, and inputs that do not give the first output."""

    program: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    wrong: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Episode:
    """What one lease asks of the executor: to check the task if it is proposed, then to judge the answers to it."""

    task: Task
    proposes: bool
    answers: tuple[str, ...] = ()

    @property
    def calls(self) -> int:
        hidden = len(self.task.inputs) - self.task.shown
        return len(self.task.inputs) * self.proposes + len(self.answers) * hidden


async def materials(rows: Sequence[Row], executor: Executor) -> list[Material]:
    """Of the rows that have enough inputs of both sorts."""
    found = await asyncio.gather(*[_material(row, executor) for row in rows])
    return [material for material in found if material is not None]


def training_step(found: Sequence[Material], right: float, seed: int) -> list[Episode]:
    """`right`: share of right answers. In the order of the phases: per type the proposals, then the older tasks."""
    rng = random.Random(seed)
    episodes: list[Episode] = []
    for task_type in TASK_TYPES:
        for number in range(2 * PROPOSALS):
            material = found[len(episodes) % len(found)]
            proposes = number < PROPOSALS
            count, shown = (INPUTS, SHOWN) if task_type is TaskType.INDUCTION else (1, 0)
            program = f"{material.program}\n\n_number = {len(episodes)}\n"
            task = Task(task_type, program, material.inputs[:count], material.outputs[:count], key="", shown=shown)
            answers = [_answer(task, material, n, rng.random() < right) for n in range(SAMPLES if proposes else 1)]
            episodes.append(Episode(task, proposes, tuple(answers)))
    return episodes


def with_loops(episodes: Sequence[Episode], share: float, seed: int) -> list[Episode]:
    """The same with about `share` of all calls made to programs that never end: of the proposed programs and of the
    induction answers, which are 5 calls each."""
    changed, rng = list(episodes), random.Random(seed)
    proposed = [i for i, e in enumerate(changed) if e.proposes and e.task.type is not TaskType.INDUCTION]
    inductions = [i for i, e in enumerate(changed) if e.task.type is TaskType.INDUCTION]
    answered = [(i, n) for i in inductions for n in range(len(changed[i].answers))]
    proposals = round(share * len(proposed))
    programs = round((share * sum(e.calls for e in changed) - proposals) / (INPUTS - SHOWN))
    for i in rng.sample(proposed, proposals):
        program = f"{ENDLESS}\n_number = {i}\n"
        changed[i] = Episode(dataclasses.replace(changed[i].task, program=program), proposes=True)
    for i, n in rng.sample(answered, programs):
        answers = list(changed[i].answers)
        answers[n] = f"{ENDLESS}\n_number = {i}, {n}\n"
        changed[i] = dataclasses.replace(changed[i], answers=tuple(answers))
    return changed


async def _material(row: Row, executor: Executor) -> Material | None:
    own, others = row.inputs[0], tuple(_mutants(row.inputs[0], random.Random(row.program)))
    first = await executor.validate(Validate(row.program, (own,)))
    if first.status != Status.OK or not others:
        return None
    task = Task(TaskType.ABDUCTION, row.program, (own,), first.outputs, key="")
    judged = list(zip(others, (await executor.verify(Verify(task, others))).verdicts, strict=True))
    inputs = (own, *[text for text, verdict in judged if verdict.status == Status.OK])
    wrong = [text for text, v in judged if not v.correct and v.status in (Status.OK, Status.ERROR)]
    every = await executor.validate(Validate(row.program, inputs))
    if every.status != Status.OK:
        return None
    by_value = dict(zip(every.input_keys, zip(inputs, every.outputs, strict=True), strict=True))
    pairs = [pair for pair in by_value.values() if len(pair[1]) <= _MAX_OUTPUT][:INPUTS]
    if len(pairs) < INPUTS or pairs[0][1] != first.outputs[0] or len(wrong) < SAMPLES:
        return None
    given, outputs = zip(*pairs, strict=True)
    return Material(row.program, given, outputs, tuple(wrong[:SAMPLES]))


def _answer(task: Task, material: Material, n: int, right: bool) -> str:
    match task.type:
        case TaskType.DEDUCTION:
            return task.outputs[0] + " " * n if right else f"({task.outputs[0]}, {n})"
        case TaskType.ABDUCTION:
            return f"*[{task.inputs[0]}, {n}][:-1]" if right else material.wrong[n]
        case TaskType.INDUCTION:
            program = f"{task.program}\n_answer = {n}\n"
            return program if right else f"{program}_f = f\ndef f(*given):\n    return _f(*given), {n}\n"
        case TaskType.ERROR:
            raise ValueError("the step of the paper has none")


def _mutants(text: str, rng: random.Random) -> Iterator[str]:
    """Argument lists that differ from `text` in one number or string; none for one with names or stars."""
    seen = {text}
    for _ in range(_MUTANTS):
        call = ast.parse(f"f({text})", mode="eval").body
        assert isinstance(call, ast.Call)
        constants = [n for n in ast.walk(call) if isinstance(n, ast.Constant) and type(n.value) in (int, str)]
        if not constants or call.keywords or any(isinstance(node, ast.Starred) for node in call.args):
            return
        constant = rng.choice(constants)
        constant.value = _other(constant.value, rng)
        mutant = ", ".join([ast.unparse(node) for node in call.args])
        if mutant not in seen:
            seen.add(mutant)
            yield mutant


def _other(value: object, rng: random.Random) -> int | str:
    if isinstance(value, int):
        return value + rng.choice((-2, -1, 1, 2, 3))
    text, place = str(value), rng.randint(0, len(str(value)))
    return text[:place] + (rng.choice(string.ascii_letters) if rng.random() < 0.5 else "") + text[place + 1 :]
