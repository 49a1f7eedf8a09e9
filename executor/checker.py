"""The process that reads untrusted text for the shard: parses, applies the policy, compiles, canonicalises, digests.

Run as a script; control socket on fd 0. It is confined like a child and never runs what it reads. Request: items
(frames.PROGRAM | EXPRESSION | VALUE, UTF-8 text). Reply: one item each: frames.OK and key + payload, or another
status and why. Payload: marshalled code of a program or an input expression, canonical text of a value. The first
reply, unasked, is as a zygote's.

A hostile text may crash or stall this process; the shard then starts another.
"""

from __future__ import annotations

import ast
import gc
import importlib
import marshal
import sys
import warnings

from common.errors import SandboxUnavailable
from executor import frames, keys, policy, sandbox, seccomp, values

CONTROL = 0
MEMORY = 1 << 30
_DETAIL = 200


def program(text: str, apply_policy: bool) -> bytes:
    """Key of the normal form + marshalled module code. SyntaxError, ValueError or PolicyError if it is not taken."""
    if apply_policy:
        policy.check_size(text)
    tree = ast.parse(text)
    if apply_policy:
        policy.check_tree(tree)
    code = compile(tree, "<program>", "exec", dont_inherit=True)
    if apply_policy:
        policy.check_program(code)
    return keys.digest(normal_form(tree).encode("utf-8", "surrogatepass")) + marshal.dumps(code)


def expression(text: str, apply_policy: bool) -> bytes:
    """Key of the argument values (of the text where they are no literals) + marshalled code that yields them."""
    tree = ast.parse(f"{policy.ENTRY}({text})", mode="eval")
    call = tree.body
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise SyntaxError("not one argument list")
    if apply_policy:
        policy.check_tree(tree)
    try:
        named = {k.arg: values.literal(k.value) for k in call.keywords}
        key = keys.key((tuple([values.literal(a) for a in call.args]), named))
    except values.NotAValue:
        key = keys.digest(text.strip().encode("utf-8", "surrogatepass"))
    call.func.id = policy.ARGUMENTS
    code = compile(tree, "<input>", "eval", dont_inherit=True)
    if apply_policy:
        policy.check_expression(code)
    return key + marshal.dumps(code)


def value(text: str) -> bytes:
    """Key + canonical text of a literal."""
    found = values.parse(text)
    return keys.key(found) + values.canonical(found).encode("utf-8", "surrogatepass")


def normal_form(tree: ast.Module) -> str:
    """The syntax tree as text, without docstrings: equal for programs that differ in spacing and comments only."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            match node.body[0]:
                case ast.Expr(value=ast.Constant(value=str())):
                    node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree, annotate_fields=False)


def answer(item: frames.Item, apply_policy: bool) -> frames.Item:
    """One question; every failure of the text is a status."""
    kind, data = item
    refused = frames.INPUT if kind == frames.EXPRESSION else frames.SYNTAX
    try:
        text = data.decode("utf-8", "surrogatepass")
        if kind == frames.PROGRAM:
            return frames.OK, program(text, apply_policy)
        if kind == frames.EXPRESSION:
            return frames.OK, expression(text, apply_policy)
        return frames.OK, value(text)
    except policy.PolicyError as error:
        return frames.POLICY, _detail(error)
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
