"""The base model's tokenizer: byte-level BPE trained on its own text, so that whole pieces of a line are one
token.

Any text can be encoded. Digits never merge with anything else. `<think>`, `</think>`, `<answer>` and
`</answer>` are ordinary single tokens; padding, end and begin are control tokens.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from azr.base.recipe import Recipe
from azr.base.text import Text

PAD, EOS, BOS = "<pad>", "<eos>", "<bos>"
MARKERS = ("<think>", "</think>", "<answer>", "</answer>")


def train(recipe: Recipe) -> Tokenizer:
    """Deterministic; stops short of the recipe's vocabulary when nothing is left to merge."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[0-9]{1,2}|\n?[^0-9\n]+|\n"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary - len(MARKERS),
        special_tokens=[PAD, EOS, BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_pieces(recipe), trainer)
    tokenizer.add_tokens([AddedToken(marker, normalized=False, special=False) for marker in MARKERS])
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Files that `AutoTokenizer.from_pretrained(folder)` loads."""
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        bos_token=BOS,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)


def _pieces(recipe: Recipe) -> Iterator[str]:
    yield from ["\n".join(str(value) for value in range(100))] * 20
    mix = recipe.mix
    even = dataclasses.replace(mix, lengths=(1,) * len(mix.lengths), first_thoughts=0.5)
    text = Text(even, random.Random("tokenizer"))
    for _ in range(recipe.vocabulary_examples):
        yield from re.split("|".join(MARKERS), "".join(text.example()))
