"""The small language that the base model is pre-trained on: straight-line arithmetic on one digit.

A program is one to a few statements in single-assignment form, each a fresh variable computed from the one
before:

    def f(a):
     b=(a+7)%10
     c=max(b,3)
     return c

Fresh names let a small model find the right line by its variable; with one reused name it does not learn to.
Programs are run by the interpreter below, never by Python, so model text can be judged here without a
sandbox. Programs are functions of one digit, so ten outputs say all about one.

Held-out programs are those of two statements or more whose text falls in one of eight hash classes; no text to
train on contains one. The few programs of one statement are the words of the language and not held out.

Sums and differences are drawn most: a chain of them is again one sum or difference, which keeps a good part of
induction within reach of so small a model.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

DIGITS = range(10)
STANDARD = (0, 1, 1)  # of held-out programs: weights of 1, 2, … statements
HARDER = (0, 0, 0, 1, 1)
_NAMES = "abcdefgh"


@dataclass(frozen=True, slots=True)
class Operation:
    """`template` has the fields v (variable) and c (constant); `weight` is its share among random statements."""

    template: str
    apply: Callable[[int, int], int]
    constants: tuple[int, ...]
    weight: int


_OPERATIONS = (
    Operation("({v}+{c})%10", lambda v, c: (v + c) % 10, tuple(range(1, 10)), 7),
    Operation("({c}-{v})%10", lambda v, c: (c - v) % 10, tuple(range(1, 10)), 6),
    Operation("({v}*{c})%10", lambda v, c: (v * c) % 10, (2, 3, 7), 3),
    Operation("max({v},{c})", max, tuple(range(1, 7)), 2),
    Operation("min({v},{c})", min, tuple(range(3, 9)), 2),
)
_WEIGHTS = tuple(operation.weight for operation in _OPERATIONS)


@dataclass(frozen=True, slots=True)
class Program:
    """Statement i assigns variable i + 1 from variable i; `statements` pairs an operation with its constant."""

    statements: tuple[tuple[Operation, int], ...]

    @property
    def text(self) -> str:
        lines = (
            f" {_NAMES[i + 1]}={operation.template.format(v=_NAMES[i], c=constant)}\n"
            for i, (operation, constant) in enumerate(self.statements)
        )
        return f"def f(a):\n{''.join(lines)} return {_NAMES[len(self.statements)]}"

    def run(self, value: int) -> tuple[int, ...]:
        """Values of all variables, the input first and the output last."""
        states = [value]
        for operation, constant in self.statements:
            states.append(operation.apply(states[-1], constant))
        return tuple(states)

    def output(self, value: int) -> int:
        return self.run(value)[-1]

    @property
    def outputs(self) -> tuple[int, ...]:
        """On every digit."""
        return tuple(map(self.output, DIGITS))

    @property
    def degenerate(self) -> bool:
        """Constant, or the identity: such proposals are invalid in a run."""
        return len(set(self.outputs)) == 1 or self.outputs == tuple(DIGITS)


def random_program(rng: random.Random, length: int) -> Program:
    operations = rng.choices(_OPERATIONS, _WEIGHTS, k=length)
    return Program(tuple((operation, rng.choice(operation.constants)) for operation in operations))


def draw(rng: random.Random, *, held_out: bool, lengths: Sequence[float] = (1, 1, 1)) -> Program:
    """A random program on the asked side of the split, not degenerate; `lengths` weighs 1, 2, … statements.

    ValueError for a held-out program of one statement.
    """
    if held_out and lengths[0]:
        raise ValueError("programs of one statement are not held out")
    (length,) = rng.choices(range(1, len(lengths) + 1), lengths)
    while True:
        program = random_program(rng, length)
        if is_held_out(program.text) is held_out and not program.degenerate:
            return program


def simplest(program: Program) -> Program:
    """The first program of one or two statements that does the same and is not held out, or else `program`."""
    return _short_programs().get(program.outputs, program)


@cache
def _short_programs() -> dict[tuple[int, ...], Program]:
    statements = [(operation, constant) for operation in _OPERATIONS for constant in operation.constants]
    found: dict[tuple[int, ...], Program] = {}
    for length in (1, 2):
        for chosen in product(statements, repeat=length):
            program = Program(chosen)
            if not is_held_out(program.text):
                found.setdefault(program.outputs, program)
    return found


def is_held_out(text: str) -> bool:
    several = text.count("\n") > 2
    return several and hashlib.md5(text.encode(), usedforsecurity=False).digest()[0] % 8 == 0


def parse(text: str) -> Program | None:
    """The program whose text this is, character by character; None for any other text.

    Constants may be any digit, also where random programs use only some.
    """
    head, *body = text.split("\n")
    if head != "def f(a):" or not 1 < len(body) <= len(_NAMES):
        return None
    found = [_statement(line) for line in body[:-1]]
    statements = tuple(statement for statement in found if statement is not None)
    program = Program(statements)
    return program if len(statements) == len(found) and program.text == text else None


def variables(values: tuple[int, ...], start: int = 0) -> list[tuple[str, int]]:
    """Names with `values`, of the variables from number `start` on."""
    return [(_NAMES[start + i], value) for i, value in enumerate(values)]


def _pattern(operation: Operation) -> re.Pattern[str]:
    template = re.escape(operation.template.format(v="V", c="C"))
    return re.compile(" [a-z]=" + template.replace("V", "[a-z]").replace("C", "([0-9])"))


_PATTERNS = tuple((operation, _pattern(operation)) for operation in _OPERATIONS)


def _statement(line: str) -> tuple[Operation, int] | None:
    for operation, pattern in _PATTERNS:
        if match := pattern.fullmatch(line):
            return operation, int(match.group(1))
    return None
