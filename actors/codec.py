"""Between text and token ids, with the tokenizer of a model folder.

Reads `tokenizer.json` directly (every model this project trains ships one), which spares an actor seconds of
imports. Invariants: a prompt is encoded once and starts with the model's BOS if it has one; text can never
turn into a control token (a program that contains "<eos>" is seven characters); sampled tokens are decoded,
never encoded again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from common.errors import PartFailed
from common.types import Int32Array

_CONTROL = ("bos_token", "eos_token", "pad_token")


class Codec:
    """Raises PartFailed("model", …) when the folder or its tokenizer is missing, unreadable or has no stop
    token.
    """

    def __init__(self, model_path: str | Path) -> None:
        folder = Path(model_path)
        if not folder.is_dir():
            raise PartFailed(
                "model",
                f"there is no model folder {folder}",
                hint=f"set model.path to a Hugging Face folder, or make the tiny base model: azr base --out {folder}",
            )
        text, _ = _read(folder / "tokenizer.json", needs="model")
        self._tokenizer = Tokenizer.from_str(text)
        self._tokenizer.encode_special_tokens = True
        _, config = _read(folder / "tokenizer_config.json", needs="eos_token")
        ids = {role: self._tokenizer.token_to_id(_name(config.get(role))) for role in _CONTROL}
        if ids["eos_token"] is None:
            raise PartFailed(
                "model",
                f"the eos_token of {folder / 'tokenizer_config.json'} is not in the tokenizer",
                hint="without a stop token no answer ends; copy both tokenizer files from one source",
            )
        self.stop_token_id: int = ids["eos_token"]
        self._prefix = [] if ids["bos_token"] is None else [ids["bos_token"]]
        self._silent = frozenset(i for i in ids.values() if i is not None)

    def encode(self, text: str) -> Int32Array:
        """Tokens of a prompt, int32 [T], BOS first where the model has one."""
        tokens = self._tokenizer.encode(text, add_special_tokens=False).ids
        return np.asarray(self._prefix + tokens, np.int32)

    def decode(self, tokens: Sequence[int] | Int32Array) -> str:
        """Text of sampled tokens, `<think>` and `<answer>` markers kept; BOS, EOS and padding leave no text."""
        kept = [int(token) for token in tokens if int(token) not in self._silent]
        return str(self._tokenizer.decode(kept, skip_special_tokens=False))


def _read(path: Path, needs: str) -> tuple[str, dict[str, Any]]:
    """Text and JSON object of a tokenizer file that must have the key `needs`."""
    hint = "copy tokenizer.json and tokenizer_config.json from where the model came from"
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except FileNotFoundError as error:
        raise PartFailed("model", f"{path.parent} has no tokenizer: {path.name} is missing", hint=hint) from error
    except ValueError as error:
        raise PartFailed("model", f"cannot read {path}: {error}", hint=hint) from error
    if not isinstance(content, dict) or not content.get(needs):
        raise PartFailed("model", f"{path} has no {needs}", hint=hint)
    return text, content


def _name(token: Any) -> str:
    """A token is written as its text, or as an object with its `content`, or is null."""
    return str(token.get("content", "") if isinstance(token, dict) else token or "")
