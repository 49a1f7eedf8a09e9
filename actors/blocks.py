"""Fenced blocks in the answer of a language model, and what it writes instead of them.

    ```input
    1, [2, 3]
    ```

Invariants: any text is read, in time linear in its length; `read` finds what `write` wrote. Not guaranteed: bodies with
a line that begins or ends with a fence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

FENCE = "```"
_NAME = re.compile(r"[A-Za-z]\w*")
_ALIASES = {"py": "python", "python3": "python"}


def write(name: str, body: str) -> str:
    return f"{FENCE}{name}\n{body}\n{FENCE}"


def read(text: str) -> list[tuple[str, str]]:
    """(name, body) of every closed block, in order. The name is in lower case, and empty if there is none.

    A fence opens at the beginning of a line and closes at the beginning or end of one; one that opens before the last
    was closed takes its place.
    """
    found: list[tuple[str, str]] = []
    name: str | None = None
    body: list[str] = []
    for line in text.split("\n"):
        bare = line.strip()
        if bare.startswith(FENCE) and (name is None or bare != FENCE):
            head = bare.removeprefix(FENCE)
            if head.endswith(FENCE):
                found.append(_named(head.removesuffix(FENCE).strip(), alone=True))
                name = None
            else:
                name, first = _named(head, alone=False)
                body = [first] if first else []
        elif name is not None and bare.endswith(FENCE):
            body.append(line.rstrip().removesuffix(FENCE))
            found.append((name, "\n".join(body).strip("\n").rstrip()))
            name = None
        elif name is not None:
            body.append(line)
    return found


def first(text: str, name: str) -> str:
    """The body of the first block called `name`; empty if there is none."""
    return next((body for found, body in read(text) if found == name), "")


def last(text: str, name: str) -> str:
    """The body of the last block called `name`, or else of the last without a name; empty if there is none."""
    blocks = read(text)
    named, nameless = ([body for found, body in blocks if found == wanted] for wanted in (name, ""))
    return next((bodies[-1] for bodies in (named, nameless) if bodies), "")


def given(text: str, name: str) -> str:
    """What `text` gives as `name`, stripped; empty if nothing.

    Tried in the order of the official code of Absolute Zero: the last block; "# Name:", "name(…)", "<name>", "the name
    is …", of several matches the last. Then a block of any other name.
    """
    other = [body for _, body in read(text)]
    for found in ([last(text, name)], *_stand_ins(text, name), other):
        filled = [body.strip() for body in found if body.strip()]
        if filled:
            return filled[-1]
    return ""


def _named(head: str, *, alone: bool) -> tuple[str, str]:
    """Name and first text of a block whose first line is `head`; `alone`: a single word there is no name."""
    match = _NAME.match(head)
    word = match.group() if match else ""
    rest = head[len(word) :].strip()
    if alone and not rest:
        return "", word
    return _ALIASES.get(word.lower(), word.lower()), rest


def _stand_ins(text: str, name: str) -> Iterator[list[str]]:
    """In order of preference. What a pattern has begun with, it finds: nothing is searched twice."""
    comment, call, tag, sentence = _patterns(name)
    yield comment.findall(text)
    yield [rest.rpartition(")")[0] for rest in call.findall(text)]
    yield tag.findall(text)
    yield [rest.strip("`") for rest in sentence.findall(text)]


@cache
def _patterns(name: str) -> tuple[re.Pattern[str], ...]:
    patterns = (
        rf"#[ \t]*{name}:\s*(.+)",
        rf"\b{name}\((.*)",
        rf"<{name}>((?s:.*?))(?:</{name}>|(?=<{name}>)|\Z)",
        rf"\bthe {name} is:?\s*(.+?)\.?$",
    )
    return tuple(re.compile(pattern, re.IGNORECASE | re.MULTILINE) for pattern in patterns)
