"""The small language that the base model is pre-trained on: straight-line arithmetic on one digit.

A program is one to a few statements in single-assignment form, each a fresh variable computed from the one
before:

    def f(a):
     b=(a+7)%10
     c=max(b,3)
     return c

Fresh names let a small model find the right line by its variable; with one reused name it does not learn to.
Programs are run by the interpreter below, never by Python, so model text can be judged here without a
sandbox. Held-out programs are those whose text falls in one of eight hash classes; no text to train on
contains one.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

DIGITS = range(10)
_NAMES = "abcdefgh"


@dataclass(frozen=True, slots=True)
class Operation:
    """`template` has the fields v (variable) and c (constant); `weight` is its share among random statements."""

    template: str
    apply: Callable[[int, int], int]
    constants: tuple[int, ...]
    weight: int


_OPERATIONS = (
    Operation("({v}+{c})%10", lambda v, c: (v + c) % 10, tuple(range(1, 10)), 6),
    Operation("({c}-{v})%10", lambda v, c: (c - v) % 10, tuple(range(1, 10)), 5),
    Operation("({v}*{c})%10", lambda v, c: (v * c) % 10, (2, 3, 7), 3),
    Operation("max({v},{c})", max, tuple(range(1, 7)), 3),
    Operation("min({v},{c})", min, tuple(range(3, 9)), 3),
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


def random_program(rng: random.Random, shortest: int = 1, longest: int = 3) -> Program:
    operations = rng.choices(_OPERATIONS, _WEIGHTS, k=rng.randint(shortest, longest))
    return Program(tuple((operation, rng.choice(operation.constants)) for operation in operations))


def draw(rng: random.Random, *, held_out: bool, shortest: int = 1, longest: int = 3) -> Program:
    """A random program on the asked side of the split."""
    while True:
        program = random_program(rng, shortest, longest)
        if is_held_out(program.text) is held_out:
            return program


def is_held_out(text: str) -> bool:
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()[0] % 8 == 0


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


def variables(values: tuple[int, ...], start: int = 0) -> list[str]:
    """`name=value` lines, for values of the variables from number `start` on."""
    return [f"{_NAMES[start + i]}={value}" for i, value in enumerate(values)]


def _pattern(operation: Operation) -> re.Pattern[str]:
    template = re.escape(operation.template.format(v="V", c="C"))
    return re.compile(" [a-z]=" + template.replace("V", "[a-z]").replace("C", "([0-9])"))


_PATTERNS = tuple((operation, _pattern(operation)) for operation in _OPERATIONS)


def _statement(line: str) -> tuple[Operation, int] | None:
    for operation, pattern in _PATTERNS:
        if match := pattern.fullmatch(line):
            return operation, int(match.group(1))
    return None
