"""Runs TRL's GRPOTrainer on one piece of work, in one or more ways, and writes when its steps ended.

    PYTHON trl_worker.py WORK.json RESULT.json

PYTHON is that of the environment scripts/peers makes: this file is a program of that environment, not a module of
ours, and imports nothing of ours. WORK.json is azr.experiments.peers.Work; RESULT.json is a list with an object for
each of its variants: `ends` (seconds of a monotonic clock), `sequences` of a step, `tokens` of a mean answer. Run by
torch.distributed.run on several processes, the batch is divided among them and the first one writes.

A reward is 1 if the text in the answer's tags is that of the row, else 0: the comparison of two strings.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class Ends(TrainerCallback):  # type: ignore[misc]
    def __init__(self) -> None:
        self.at: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.at.append(time.monotonic())


class Reward:
    """Counts what passes by."""

    __name__ = "reward"

    def __init__(self) -> None:
        self.sequences = self.tokens = 0

    def __call__(
        self, completions: list[str], completion_ids: list[list[int]], answer: list[str], **kwargs: Any
    ) -> list[float]:
        self.sequences += len(completions)
        self.tokens += sum(len(ids) for ids in completion_ids)
        given = (text.partition("<answer>")[2].partition("</answer>")[0] for text in completions)
        return [float(text == right) for text, right in zip(given, answer, strict=True)]


def text(row: dict[str, Any], tokenizer: Any) -> str:
    """The prompt as TRL must be given it for the very tokens that our own actors send to their engine."""
    for prompt in (row["prompt"], f"{tokenizer.bos_token}{row['prompt']}"):
        if tokenizer(text=[prompt])["input_ids"][0] == row["tokens"]:
            return str(prompt)
    raise SystemExit(f"no text gives the tokens of this prompt: {row['prompt']!r}")


def measure(work: dict[str, Any], variant: dict[str, int]) -> dict[str, Any]:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    tokenizer = AutoTokenizer.from_pretrained(work["model"], padding_side="left")
    data = Dataset.from_list([{"prompt": text(row, tokenizer), "answer": row["answer"]} for row in work["rows"]])
    ends, reward = Ends(), Reward()
    parts = work["sequences"] // (processes * variant["rows"])
    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=variant["rows"],
            gradient_accumulation_steps=parts,
            steps_per_generation=parts * variant["ahead"],
            num_generations=work["samples"],
            max_completion_length=work["max_tokens"],
            max_steps=work["steps"],
            learning_rate=work["lr"],
            adam_beta1=work["betas"][0],
            adam_beta2=work["betas"][1],
            weight_decay=work["weight_decay"],
            max_grad_norm=work["grad_clip"],
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            seed=work["seed"],
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **({"ddp_backend": "gloo"} if processes > 1 else {}),
        )
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(work["model"], dtype=torch.float32),
            reward_funcs=reward,
            args=settings,
            train_dataset=data,
            processing_class=tokenizer,
            callbacks=[ends],
        )
        torch.set_num_threads(variant["threads"])
        trainer.train()
    return {"ends": ends.at, "sequences": work["sequences"], "tokens": reward.tokens / reward.sequences}


if __name__ == "__main__":
    work = json.loads(Path(sys.argv[1]).read_text())
    results = [measure(work, variant) for variant in work["variants"]]
    if int(os.environ.get("RANK", "0")) == 0:
        Path(sys.argv[2]).write_text(json.dumps(results))
