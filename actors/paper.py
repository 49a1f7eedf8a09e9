"""The paper wording: natural language for pre-trained models, with the demands of Absolute Zero (arXiv 2505.03335,
appendix on prompts) in words of our own.

A prompt is a conversation that ends in `<think>`, so a response continues the thought:

    …</think>
    <answer>
    …
    </answer>

A proposal is read from named blocks (`blocks.py`) in any order, the first of each name, and of the inputs for a program
the last that are wanted, as in the official code; anything else between the tags is ignored, so a claimed output or a
comment does no harm. Answers are read more leniently. Neither is looked into: a program may define what it likes, an
input may take several lines.

What a program may use is stated here as text and enforced by the executor alone; tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Sequence

from actors import blocks, composite
from actors.environment import Answer
from actors.wording import IDENTITY, Proposal, read_tags
from common.types import Task, TaskType

MODULES = (
    "abc", "array", "bisect", "cmath", "collections", "collections.abc", "copy", "dataclasses",
    "decimal", "enum", "fractions", "functools", "heapq", "itertools", "json", "math", "numbers",
    "operator", "re", "statistics", "string", "textwrap", "types", "typing", "unicodedata",
)  # fmt: skip
BANNED = (
    "breakpoint", "compile", "eval", "exec", "exit", "globals", "hash", "help", "id", "input", "locals", "open",
    "quit", "vars",
)  # fmt: skip

_FRAME = """\
This is a conversation in which User sets a problem and Assistant works on it. Assistant thinks the problem through \
first and answers afterwards: the thoughts stand between <think> and </think>, the final answer follows them between \
<answer> and </answer>, and nothing stands outside these tags.
User: {request}
Assistant: <think>"""

_PROPOSE = {
    TaskType.DEDUCTION: """\
Invent a puzzle: a Python program and one input for it. A solver will be shown the program and the input and has to \
work out, without running anything, what the program returns.""",
    TaskType.ABDUCTION: """\
Invent a puzzle: a Python program and one input for it. A solver will be shown the program and the value that it \
returns for your input, and has to find an input, yours or another, for which it returns just that.""",
    TaskType.ERROR: """\
Invent a puzzle: a Python program and one input for it, on which the program may fail. A solver will be shown the \
program and the input and has to work out, without running anything, whether an exception is raised and of which \
class.""",
}
_RUNS = {
    TaskType.DEDUCTION: "and the program must run on the input",
    TaskType.ABDUCTION: "and the program must run on the input",
    TaskType.ERROR: "and on the input the program must either return or raise an exception, always the same one",
}
_PUZZLE = """\
Think of a test of intelligence: the solver should have to carry state through several transformations and reason in \
many steps. Data structures of your own (trees, heaps, graphs, queues), recursion, dynamic programming, backtracking \
or intricate control flow are all welcome.{novel}

{rules}

The input
- Exactly one, written as between the parentheses of a call: arguments separated by commas, strings in quotes.

Form of the answer
- Between <answer> and </answer>, one block of each of these kinds, {runs}:
```python
def f(numbers, word):
    ...
    return result
```
```input
[3, 1, 2], 'abc'
```

Plan first: what makes the puzzle hard{differs}? Then write it down.{references}"""
_NOVEL = " The idea has to be clearly different from the examples below, not one of them in disguise."

_COMPOSITE = """

This code stands before your program and is part of the puzzle; do not write it again:
{given}
Somewhere in `f`, each of these functions has to be called: {names}. The names stay theirs: do not define, assign or \
import anything called so, and give no parameter such a name."""

_RULES = f"""\
The program
- Its entry is a function named `f`, with at least one parameter, that returns a value. Helper functions, nested \
functions and classes are allowed.
- Imports and classes come first; the last thing is the return of `f`, with nothing after it.
- The same arguments always give the same result. Nothing random; no clock or date; no files, network or keyboard; \
no printing or logging; no state that outlives the call.
- It is done in a fraction of a second.
- What it returns is made of None, bool, int, float, complex, str, bytes, list, tuple, dict, set and frozenset only.
- It imports nothing but these modules: {", ".join(MODULES)}.
- It uses none of these names: {", ".join(BANNED)}."""

_WITHOUT = "\n- Not even its comments hold one of these words: {words}."

_PROPOSE_INPUTS = """\
Here is a Python program:
{program}

Write exactly {inputs} different inputs for it{message_too}. A solver will be shown some of your inputs with what the \
program returns for them{message_shown}, but not the program, and has to write a program that does the same, also on \
the inputs that were held back.

- Choose inputs that together show all that the program does: ordinary and unusual ones, different in kind and size. \
They should make the program hard to guess and yet possible to find.
- The program must run on every one of them.
- An input is written as between the parentheses of a call: arguments separated by commas, strings in quotes.
{message_rule}
Form of the answer: between <answer> and </answer>, {inputs} blocks `input`, such as
```input
[2, 7], 'left'
```
```input
[], 'right'
```
{message_form}
Plan first: what does the program do, and which inputs bring it out? Then write them down."""
_MESSAGE_RULE = """\
- The message is a hint in plain words or a riddle about what the program does. It must not contain the program.
"""
_MESSAGE_FORM = """\
and one block
```message
What is it that counts here?
```
"""

_DEDUCE = """\
Work out what this Python program returns.
{program}
It is called with
{given}

Go through it step by step. Answer with the returned value as Python writes it, strings in quotes, in a block:
```output
{{'total': 3}}
```"""

_NAME_ERROR = """\
Work out what happens when this Python program is called: it may raise an exception.
{program}
It is called with
{given}

Go through it step by step. Answer with the class name of the exception that comes out of the call, without its \
message, or with NoError if none does, in a block:
```error
KeyError
```"""

_ABDUCE = """\
Find an input for this Python program.
{program}
It has to return
{output}

There may be several inputs for which it does; any one will do. Answer with one, written as between the parentheses of \
a call (arguments separated by commas, strings in quotes), in a block:
```input
[3, 1, 2], 'abc'
```"""

_INDUCE = """\
Write the Python program that fits these examples of its inputs and outputs.{message}

{pairs}

It will be tested on inputs that are not shown, so find the general rule behind the examples rather than listing them.

{rules}

Answer with the whole program in a block:
```python
def f(...):
    ...
    return result
```"""

_VALUES = ("'Hello world'", "1", "{'a': 1, 'b': [2]}", "(1.5, 2.5)", "[[1, 0], [0, 1]]", "None")
_SOLUTION = {
    TaskType.DEDUCTION: "output",
    TaskType.ABDUCTION: "input",
    TaskType.INDUCTION: "python",
    TaskType.ERROR: "error",
}


class Paper:
    """Implements actors.wording.Wording."""

    def __init__(self, inputs: int = 6, message: bool = False, banned: Sequence[str] = ()) -> None:
        """`inputs` of an induction task; `message`: whether such a proposal has a message to the solver; `banned`:
        words that the program of an error task must not hold.
        """
        self._inputs, self._message, self._banned = inputs, message, banned

    def identity(self, task_type: TaskType) -> Proposal:
        """On 'Hello world', for induction also on values of other types."""
        if task_type is not TaskType.INDUCTION:
            return Proposal(IDENTITY, _VALUES[:1])
        more = tuple(str(number) for number in range(2, 2 + self._inputs))
        message = "What comes out is what went in." if self._message else ""
        return Proposal(IDENTITY, (*_VALUES, *more)[: self._inputs], message)

    def propose_prompt(self, task_type: TaskType, references: Sequence[Task], components: Sequence[str] = ()) -> str:
        if task_type is TaskType.INDUCTION:
            return self._propose_inputs(references[0].program)
        shown = "".join(f"\n\nExample {i}\n{_triplet(task)}" for i, task in enumerate(references, 1))
        without = self._banned if task_type is TaskType.ERROR else ()
        puzzle = _PUZZLE.format(
            rules=_RULES + (_WITHOUT.format(words=", ".join(without)) if without else ""),
            runs=_RUNS[task_type],
            novel=_NOVEL if shown else "",
            differs=" and new" if shown else "",
            references=shown + _components(components),
        )
        return _FRAME.format(request=f"{_PROPOSE[task_type]}\n\n{puzzle}")

    def read_proposal(self, task_type: TaskType, response: str) -> Proposal | None:
        answer = read_tags("<think>" + response)
        if not answer.well_formed:
            return None
        if task_type is TaskType.INDUCTION:
            inputs = tuple(body.strip() for name, body in blocks.read(answer.text) if name == "input")[-self._inputs :]
            message = blocks.first(answer.text, "message").strip() if self._message else ""
            return Proposal("", inputs, message) if inputs and all(inputs) and bool(message) == self._message else None
        program, given = blocks.first(answer.text, "python"), blocks.first(answer.text, "input").strip()
        return Proposal(program, (given,)) if program.strip() and given else None

    def solve_prompt(self, task: Task) -> str:
        program = blocks.write("python", task.program)
        match task.type:
            case TaskType.DEDUCTION:
                request = _DEDUCE.format(program=program, given=blocks.write("input", task.inputs[0]))
            case TaskType.ERROR:
                request = _NAME_ERROR.format(program=program, given=blocks.write("input", task.inputs[0]))
            case TaskType.ABDUCTION:
                request = _ABDUCE.format(program=program, output=blocks.write("output", task.outputs[0]))
            case TaskType.INDUCTION:
                request = self._induce(task)
        return _FRAME.format(request=request)

    def read_answer(self, task_type: TaskType, response: str) -> Answer:
        """The last block; where there is none, what stands for it in inputs and outputs, or else the whole answer."""
        answer = read_tags("<think>" + response)
        find = blocks.last if task_type is TaskType.INDUCTION else blocks.given
        return Answer(find(answer.text, _SOLUTION[task_type]) or answer.text, answer.well_formed)

    def write_proposal(self, task_type: TaskType, proposal: Proposal) -> str:
        parts = [blocks.write("python", proposal.program)] if task_type is not TaskType.INDUCTION else []
        parts += [blocks.write("input", given) for given in proposal.inputs]
        if task_type is TaskType.INDUCTION and self._message:
            parts.append(blocks.write("message", proposal.message))
        return _response("\n".join(parts), "")

    def write_solution(self, task_type: TaskType, text: str, thought: str = "") -> str:
        return _response(blocks.write(_SOLUTION[task_type], text), thought)

    def _propose_inputs(self, program: str) -> str:
        request = _PROPOSE_INPUTS.format(
            program=blocks.write("python", program),
            inputs=self._inputs,
            message_too=", and a message" if self._message else "",
            message_shown=", and the message" if self._message else "",
            message_rule=_MESSAGE_RULE if self._message else "",
            message_form=_MESSAGE_FORM if self._message else "",
        )
        return _FRAME.format(request=request)

    def _induce(self, task: Task) -> str:
        shown = zip(task.inputs[: task.shown], task.outputs[: task.shown], strict=True)
        pairs = [
            f"{blocks.write(f'input_{i}', given)}\n{blocks.write(f'output_{i}', output)}"
            for i, (given, output) in enumerate(shown)
        ]
        message = f" Its author says:\n{blocks.write('message', task.message)}" if task.message else ""
        return _INDUCE.format(message=message, pairs="\n\n".join(pairs), rules=_RULES)


def _triplet(task: Task) -> str:
    result = "error" if task.type is TaskType.ERROR else "output"
    fields = (("python", task.program), ("input", task.inputs[0]), (result, task.outputs[0]))
    return "\n".join(blocks.write(name, text) for name, text in fields)


def _components(texts: Sequence[str]) -> str:
    if not texts:
        return ""
    names = ", ".join(f"`{name}`" for name in composite.names(len(texts)))
    return _COMPOSITE.format(given=blocks.write("python", "\n\n".join(texts)), names=names)


def _response(answer: str, thought: str) -> str:
    return f"{thought}</think>\n<answer>\n{answer}\n</answer>"
