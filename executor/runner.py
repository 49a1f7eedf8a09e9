"""What a forked child does with its jobs: rebuild the code, run every input in a fresh namespace, tell of each.

Runs untrusted code, in a process that has nothing left but one pipe. Whatever it writes is a claim of that code: the
checker decides what it means. One item per input, written at once, so that a child that dies has told of all before.
After running out of memory it stops, since what follows would run in a crippled process.

Programs that share a child are confined (executor/confined.py): they are given no more built-ins than those may use,
and their namespaces are cleared behind them.

Any other program that gets at the generator of `random`, which the policy makes hard (`NormalDist.samples` is the legal
way), finds it as the fork server seeded it, with a constant of the side: it draws the same in every life of the
executor, and on the other side something else.
"""

from __future__ import annotations

import builtins
import importlib
import marshal
import os
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from executor import confined, frames, policy
from executor.values import NotAValue, canonical

# Modules that the library itself imports late; behind the sandbox there is no file to import them from.
_LATE = (
    "encodings.ascii", "encodings.cp1252", "encodings.idna", "encodings.latin_1",
    "encodings.shift_jis", "encodings.utf_16", "encodings.utf_16_le", "encodings.utf_32",
    "encodings.utf_8_sig", "encodings.unicode_escape", "encodings.raw_unicode_escape",
    "encodings.hex_codec", "encodings.rot_13", "encodings.punycode", "stringprep",
)  # fmt: skip
_DETAIL = 200  # bytes of an error's name that are reported
_MEMORY = frames.pack([(frames.MEMORY, b"")])  # ready-made: there may be no room to make it
_READY = 20  # namespaces made before the fork
_SEED = hash("seed")  # fixed as the hash seed is; of this word, the sides' first draws lie on either side of the middle


class _Discard:
    """Standard output of a program: nobody reads it."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


def _import(
    name: str,
    globals: Mapping[str, object] | None = None,
    locals: Mapping[str, object] | None = None,
    fromlist: Sequence[str] = (),
    level: int = 0,
    real: Callable[..., Any] = builtins.__import__,
) -> Any:
    if level == 0 and name in policy.MODULES:
        return real(name, globals, locals, fromlist, 0)
    raise ImportError(f"module not allowed: {name}")


_BUILTINS = {name: value for name, value in vars(builtins).items() if name not in ("open", "input", "breakpoint")}
_BUILTINS["__import__"] = _import
_CONFINED = {"__import__": _import} | {name: _BUILTINS[name] for name in confined.BUILTINS}
_spaces: list[dict[str, Any]] = []


def prepare() -> None:
    """Import all that programs may import, seed what they may draw from, and silence the standard streams. Once, in
    the fork server."""
    for name in (*sorted(policy.MODULES), *_LATE):
        importlib.import_module(name)
    random.seed(_SEED)  # children inherit it, for nothing; seeding there would touch some fifty pages of each
    os.register_at_fork(after_in_child=lambda: random.seed(_SEED))  # where Python forks, its library seeds at random
    sys.stdout = sys.stderr = _Discard()
    sys.setrecursionlimit(1000)
    _spaces.extend(_space() for _ in range(_READY))


def run(items: Sequence[bytes], descriptor: int, output_limit: int) -> None:
    """Run marshalled code, the first of `items`, on each of the marshalled input expressions behind it; or several
    confined programs, each with its inputs, an empty item before each program."""
    shared, first = not items[0], True
    code: Any = None
    for item in items:
        try:
            if not item:
                code = None
                continue
            if code is None:
                code = marshal.loads(item)
                continue
            space = {"__builtins__": _CONFINED, "__name__": "program"} if shared else _fresh()
            status, data = _call(code, marshal.loads(item), space, output_limit, first)
            first = False
            reply = status.to_bytes(1, "little") + len(data).to_bytes(4, "little") + data  # as frames.pack, cheaper
            if shared:
                space.clear()  # else functions and the globals they hold would keep each other
        except MemoryError:
            frames.write(descriptor, _MEMORY)
            return
        frames.write(descriptor, reply)


def _fresh() -> dict[str, Any]:
    return _spaces.pop() if _spaces else _space()


def _space() -> dict[str, Any]:
    """A fresh namespace. Made in a child, the references to all builtins cost a page copied for nearly each."""
    return {"__builtins__": _BUILTINS.copy(), "__name__": "program"}


def _call(code: Any, expression: Any, space: dict[str, Any], output_limit: int, first: bool) -> frames.Item:
    """One input, the `first` of its child or not: its arguments, so that their failure is theirs; then the program."""
    try:
        exec(code, space)  # noqa: S102 - running it is this process's only purpose
        try:
            space[policy.ARGUMENTS] = _arguments
            arguments, named = eval(expression, space)  # noqa: S307 - likewise
        except BaseException as error:  # a program may raise anything
            if isinstance(error, MemoryError) and not first:
                raise  # others may have used it up
            return frames.INPUT, _name(error)
        result = space[policy.ENTRY](*arguments, **named)
        try:
            text = canonical(result).encode("utf-8", "surrogatepass")
        except NotAValue as error:
            return frames.UNSERIALISABLE, str(error).encode("utf-8", "replace")[:_DETAIL]
        except ValueError:
            return frames.TOO_BIG, b"an int of too many digits"
        return (frames.OK, text) if len(text) <= output_limit else (frames.TOO_BIG, b"%d bytes" % len(text))
    except MemoryError:
        raise
    except SystemExit:
        return frames.EXIT, b""
    except BaseException as error:  # noqa: BLE001 - a program may raise anything
        return frames.ERROR, _name(error)


def _arguments(*arguments: object, **named: object) -> tuple[tuple[object, ...], dict[str, object]]:
    return arguments, named


def _name(error: BaseException) -> bytes:
    return type(error).__name__.encode("utf-8", "replace")[:_DETAIL]
