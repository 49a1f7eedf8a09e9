"""What the text of a response shows: a thought, second thoughts, a plan written as comments in code.

Style of prompts does not matter: the thought may begin in the prompt or in the response, and may be missing. These are
surface signs in English; they say nothing about what was computed.
"""

from __future__ import annotations

import re

_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
_COMMENT_LINE = re.compile(r"^[ \t]*#.*\w", re.MULTILINE)
_REFLECTION = re.compile(
    r"\b(?:wait|hold on|hmm+|oops|actually|alternatively|(?:re|double)[- ]?check(?:s|ed|ing)?"
    r"|(?:check|try|think)(?: it| this| that)? again|let(?:'s| us| me) (?:check|try)"
    r"|re-?(?:consider|evaluat|examin|think|visit|trac|verif)(?:e|es|ed|ing|y|s)?|verif(?:y|ies|ied|ying)"
    r"|start over|second thoughts?|mistakes?|mistaken"
    r"|(?:not|isn't|wasn't) (?:right|correct)|(?:is|was|am|that's) wrong)\b",
    re.IGNORECASE,
)
PLAN = 2  # lines of comment that make a plan


def thought(text: str) -> str:
    """What stands before `</think>`, or before the answer where nothing ends the thought; empty if there is none."""
    inner, ended, _ = text.partition("</think>")
    if not ended:
        inner = text.rpartition("<answer>")[0] or ("" if "<answer>" in text else text)
    return inner.strip().removeprefix("<think>").strip()


def reflects(text: str) -> bool:
    """Whether it doubts, checks or begins again."""
    return _REFLECTION.search(text) is not None


def plans_in_comments(text: str, program: str = "") -> bool:
    """Whether code in the response, which is its fenced blocks or else `program`, has lines that are only comments."""
    code = "\n".join(_FENCE.findall(text)) or program
    return len(_COMMENT_LINE.findall(code)) >= PLAN
