"""What everything round an engine costs: tokens/s of a run without a learner over those of vLLM alone.

`azr bench --only engine,loop` compares with the engine as actors have it; this goes one layer below, and can make all
answers equally long:

    python -m tests.benchmarks.engine_in_loop [--answers 160] [--rounds 3] [--steps 60] [--json OUT] [key=value ...]

In the loop: `azr train tiny.yaml learner.kind=none`, with leases, executor, intake and their processes. Raw: vLLM's
LLMEngine with the same settings, in one thread that submits and collects, on the prompts of that run in the order of
their leases, with as many groups open as the run had episodes on average and as many samples of each prompt. Both have
the cores of this process. Rounds alternate, and the ratio is within a round.

`--answers N`: every answer has N tokens, by a copy of the model whose stop token is one that is never sampled; a
proposal that does not stop is never valid, so tasks are asked of the identity alone, and an answer is verified only
where its text holds answer tags. 0: the answers of the preset, which stop.

Tokens/s are of requests that completed after the first fifth of the time. `running`: sequences in the engine, with
those that wait for a place, on average over that time; `open`: groups under way; of the loop also where the actor's
time went.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from actors.engine import environment
from azr import base
from azr.bench.loop import SKIPPED, Rate, of_run
from azr.bench.prompts import Prompts, recorded
from common.config import Config, load
from common.types import Int32Array

_NEVER = 0  # the padding token


def unstoppable(model: Path, folder: Path) -> Path:
    """A copy of a tiny base model that does not know its stop token."""
    shutil.copytree(model, folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": _NEVER}))
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def in_the_loop(folder: Path, settings: Sequence[str]) -> Rate:
    """Of a run whose folder is `folder`."""
    words = [
        f"run.folder={folder.parent}",
        f"run.name={folder.name}",
        "learner.kind=none",
        "logging.keep_discarded=true",
    ]
    words += ["eval.tasks=0", "eval.harder=0", "logging.view=plain", "logging.wandb=disabled"]
    _child("azr.cli", "train", "tiny.yaml", *words, *settings)
    return of_run(folder)


class Raw:
    """An engine and nothing else. To be made in a process of its own, with the environment of an engine."""

    def __init__(self, config: Config) -> None:
        import torch

        from actors import vllm_compat as compat

        torch.set_num_threads(config.engine.threads)
        self._compat, self._config = compat, config
        self._llm = compat.in_process_engine(compat.engine_args(config.engine, config.model, in_process=True))
        self._stop = compat.stop_tokens(self._llm.vllm_config)
        self._ids = itertools.count()
        self._open: dict[str, list[Any]] = {}  # request → [what its prompt still misses, the prompts after it]

    def rate(self, groups: Sequence[Prompts], open_groups: int, temperature: float = 1.0) -> Rate:
        """With `open_groups` under way, at least one."""
        endless = itertools.cycle(groups)
        self._submit(iter([groups[0][0]]), temperature)  # as an actor does: the first request is slow
        while self._open:
            self._step(endless, temperature, more=False)
        began = time.perf_counter()
        for _ in range(open_groups):
            self._submit(iter(next(endless)), temperature)
        done, tokens, moments = 0, [0], [(began, len(self._open))]
        while done < len(groups):
            ended, found = self._step(endless, temperature)
            done += ended
            tokens.append(found)
            moments.append((time.perf_counter(), len(self._open)))
        first = began + SKIPPED * (moments[-1][0] - began)
        kept = [i for i, (at, _) in enumerate(moments) if at >= first]
        seconds = moments[-1][0] - moments[kept[0]][0]
        area = sum((moments[i][0] - moments[i - 1][0]) * moments[i - 1][1] for i in kept[1:])
        return Rate(sum(tokens[i] for i in kept[1:]) / seconds, area / seconds, open_groups, {})

    def _step(self, groups: Iterator[Prompts], temperature: float, more: bool = True) -> tuple[int, int]:
        """Groups that ended, and tokens of requests that did."""
        ended = tokens = 0
        for output in self._llm.step():
            request = self._open.pop(output.request_id)
            request[0] -= 1
            tokens += len(output.outputs[0].token_ids)
            if not request[0] and not self._submit(request[1], temperature):
                ended += 1
                if more:
                    self._submit(iter(next(groups)), temperature)
        return ended, tokens

    def _submit(self, prompts: Iterator[tuple[Int32Array, int]], temperature: float) -> bool:
        """The next prompt of a group; False if it has none."""
        prompt, samples = next(prompts, (None, 0))
        if prompt is None:
            return False
        engine, request = self._config.engine, [samples, prompts]
        longest = min(engine.max_tokens, engine.max_model_len - len(prompt))
        for _ in range(samples):
            name = str(next(self._ids))
            parameters = self._compat.sampling(
                temperature=temperature, seed=int(name), max_tokens=longest, stop=self._stop
            )
            self._llm.add_request(name, self._compat.prompt_of(prompt, ""), parameters)
            self._open[name] = request
        return True


def _child(module: str, *words: str, **variables: str) -> str:
    """What a module said that was run to its end."""
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables})
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    parser.add_argument("--answers", type=int, default=160, metavar="N")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60, help="batches of a round")
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--raw", type=Path, metavar="RUN", help=argparse.SUPPRESS)
    parser.add_argument("--open", type=int, default=1, help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.raw:
        config = load(parsed.raw / "config.yaml")
        print(json.dumps(vars(Raw(config).rate(recorded(parsed.raw), parsed.open))))
        return
    found: list[tuple[Rate, Rate]] = []
    with tempfile.TemporaryDirectory(prefix="azr-bench-") as folder:
        settings = [f"learner.steps={parsed.steps}", *parsed.settings]
        if parsed.answers:
            model = unstoppable(Path(base.located(load("tiny.yaml").model).path), Path(folder) / "model")
            own = [f"model.path={model}", "model.build=false", f"engine.max_tokens={parsed.answers}", "seeds.tasks=0"]
            settings = [*own, *settings]
        print("in the loop, tokens/s  (running)   raw, tokens/s  (running)   open   ratio   actor's time in the loop")
        for number in range(parsed.rounds):
            run = Path(folder) / f"round-{number}"
            loop = in_the_loop(run, settings)
            alone = environment(load(run / "config.yaml").engine.threads)  # before torch is imported
            as_many = str(max(1, round(loop.open)))
            said = _child("tests.benchmarks.engine_in_loop", "--raw", str(run), "--open", as_many, **alone)
            raw = Rate(**json.loads(said.splitlines()[-1]))
            found.append((loop, raw))
            ratio = loop.tokens_per_second / raw.tokens_per_second
            states = ", ".join(f"{state} {share:.1%}" for state, share in loop.states.items() if share)
            print(
                f"{loop.tokens_per_second:21.0f}  {loop.running:9.1f}  {raw.tokens_per_second:14.0f}  "
                f"{raw.running:9.1f}  {raw.open:5.0f}  {ratio:6.3f}   {states}",
                flush=True,
            )
    ratios = [loop.tokens_per_second / raw.tokens_per_second for loop, raw in found]
    print(f"ratio: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")
    if parsed.json:
        rounds = [{"loop": vars(loop), "raw": vars(raw)} for loop, raw in found]
        parsed.json.write_text(json.dumps({"ratio": statistics.median(ratios), "rounds": rounds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
