"""The process that reads untrusted text for the shard: parses, applies the policy, compiles, canonicalises, digests.

Run as a script; control socket on fd 0. It is locked in like a child and never runs what it reads. Request: items
(frames.PROGRAM | EXPRESSION | VALUE | COMPOSITE, UTF-8 text). Reply: one item each: frames.OK or CONFINED and key +
payload, or another status and why. Payload: marshalled code of a program or an input expression, canonical text of a
value; a composite has neither key nor payload. The first reply, unasked, is as a zygote's.

A hostile text may crash or stall this process; the shard then starts another.
"""

from __future__ import annotations

import ast
import gc
import importlib
import marshal
import sys
import warnings
from collections.abc import Sequence

from common.errors import SandboxUnavailable
from executor import composition, confined, frames, keys, policy, sandbox, seccomp, values

CONTROL = 0
MEMORY = 1 << 30
_DETAIL = 200
_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def program(text: str, apply_policy: bool) -> frames.Item:
    """Key of the normal form + marshalled module code. SyntaxError, ValueError or PolicyError if it is not taken."""
    if apply_policy:
        policy.check_size(text)
    tree = ast.parse(text)
    nodes = policy.check_tree(tree) if apply_policy else list(ast.walk(tree))
    code = compile(tree, "<program>", "exec", dont_inherit=True)
    if apply_policy:
        policy.check_program(code)
    return _kind(apply_policy and confined.program(nodes)), keys.digest(normal_form(nodes)) + marshal.dumps(code)


def expression(text: str, apply_policy: bool) -> frames.Item:
    """Key of the argument values (of the text where they are no literals) + marshalled code that yields them."""
    tree = ast.parse(f"{policy.ENTRY}({text}\n)", mode="eval")  # a comment may end it
    call = tree.body
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise SyntaxError("not one argument list")
    nodes = policy.check_tree(tree) if apply_policy else []
    try:
        named = {k.arg: values.literal(k.value) for k in call.keywords}
        key = keys.key((tuple([values.literal(a) for a in call.args]), named))
    except values.NotAValue:
        key = keys.digest(text.strip().encode("utf-8", "surrogatepass"))
    call.func.id = policy.ARGUMENTS
    code = compile(tree, "<input>", "eval", dont_inherit=True)
    if apply_policy:
        policy.check_expression(code)
    nodes = [node for node in nodes if node is not call.func]
    return _kind(apply_policy and confined.expression(nodes)), key + marshal.dumps(code)


def value(text: str) -> bytes:
    """Key + canonical text of a literal."""
    found = values.parse(text)
    return keys.key(found) + values.canonical(found).encode("utf-8", "surrogatepass")


def composite(text: str, apply_policy: bool) -> frames.Item:
    """Of the names in the first line: does the program part behind it call all, and bind none?"""
    names, _, own = text.partition("\n")
    tree = ast.parse(own)
    if apply_policy:
        policy.check_tree(tree)
    composition.check(tree, names.split())
    return frames.OK, b""


def normal_form(nodes: Sequence[ast.AST]) -> bytes:
    """Of a syntax tree, parents first: equal for programs that differ in spacing, comments and docstrings only."""
    parts: list[str] = []
    passed_over: set[int] = set()
    for node in nodes:
        if id(node) in passed_over:
            continue
        parts.append(type(node).__name__)
        for field in node._fields:
            value = getattr(node, field, None)
            if isinstance(value, list):
                if field == "body" and isinstance(node, _WITH_DOCSTRING):
                    passed_over |= set(map(id, _docstring(value)))
                    value = [part for part in value if id(part) not in passed_over]
                parts.append(str(len(value)))
                parts += [repr(part) for part in value if not isinstance(part, ast.AST)]
            elif not isinstance(value, ast.AST):
                parts.append(repr(value))
    return "\n".join(parts).encode("utf-8", "surrogatepass")


def _docstring(body: Sequence[ast.AST]) -> list[ast.AST]:
    """Its nodes, if there is one; or the `pass` that may stand in its place."""
    match body:
        case [ast.Expr(value=ast.Constant(value=str()) as text) as statement, *_]:
            return [statement, text]
        case [ast.Pass() as statement]:
            return [statement]
    return []


def _kind(is_confined: bool) -> int:
    return frames.CONFINED if is_confined else frames.OK


def answer(item: frames.Item, apply_policy: bool) -> frames.Item:
    """One question; every failure of the text is a status."""
    kind, data = item
    refused = frames.INPUT if kind == frames.EXPRESSION else frames.SYNTAX
    try:
        text = data.decode("utf-8", "surrogatepass")
        if kind == frames.PROGRAM:
            return program(text, apply_policy)
        if kind == frames.EXPRESSION:
            return expression(text, apply_policy)
        if kind == frames.COMPOSITE:
            return composite(text, apply_policy)
        return frames.OK, value(text)
    except policy.PolicyError as error:
        return frames.POLICY, _detail(error)
    except composition.CompositionError as error:
        return frames.COMPOSITION, _detail(error)
    except SyntaxError as error:
        return refused, _detail(error.msg)
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return refused, _detail(error)


def _detail(why: object) -> bytes:
    return (str(why) or type(why).__name__).encode("utf-8", "replace")[:_DETAIL]


def main(apply_policy: str) -> None:
    for late in ("unicodedata", "encodings.idna"):  # named characters in source need the first
        importlib.import_module(late)
    warnings.simplefilter("ignore")
    answer((frames.PROGRAM, b"def f(): return -1"), True)  # whatever the library imports on first use, it does here
    try:
        only = seccomp.execution_filter(sandbox.machine(), write_to=CONTROL, read_from=CONTROL)
        filter_ = sandbox.Filter(only)
        landlock = sandbox.confine(MEMORY)
        gc.freeze()
        filter_.install()
    except SandboxUnavailable as error:
        frames.send(CONTROL, frames.UNAVAILABLE + str(error).encode())
        return
    frames.send(CONTROL, frames.HELLO.pack(landlock, False))
    while True:
        try:
            request = frames.receive(CONTROL)
        except EOFError:
            return
        frames.send(CONTROL, frames.pack(answer(item, bool(apply_policy)) for item in frames.unpack(request)))


if __name__ == "__main__":
    main(*sys.argv[1:])
