"""Packed against unpacked: equal log-probs, loss and gradient of one batch, at ZeRO stage 0.

In float32 they may differ by the order in which floats are added. In bfloat16 both round, so each is held against
float32 without packing: what packing adds to that error must be little. `python -m azr.experiments.gpu.check_packing`
"""

from __future__ import annotations

import sys

import numpy as np

from azr.experiments.gpu.claims import Record, Request, main
from azr.experiments.gpu.rank import Found, difference, trained
from azr.experiments.gpu.settings import settings

FLOAT32 = 2e-4  # attention kernels differ
WORSE = 1.5  # times the error that bfloat16 has without packing
FLOOR = 1e-3


def check(record: Record, request: Request) -> None:
    """Packed rows give the log-probs, loss and gradient of rows by themselves."""
    dtypes = ("float32", "bfloat16") if request.on_gpu else ("float32",)
    found = {(dtype, packing): _run(request, dtype, packing) for dtype in dtypes for packing in (False, True)}
    reference = found["float32", False]
    for dtype in dtypes:
        plain, packed = found[dtype, False], found[dtype, True]
        for what, error in _errors(packed, reference).items():
            allowed = FLOAT32 if dtype == "float32" else max(FLOOR, WORSE * _errors(plain, reference)[what])
            record.claim(f"{dtype}, packed: {what}", error <= allowed, f"error {error:.2e}, allowed {allowed:.2e}")
            if dtype != "float32":
                record.figure(f"{dtype}, unpacked: {what}, error", _errors(plain, reference)[what])


def _run(request: Request, dtype: str, packing: bool) -> Found:
    model = request.model("0.5b", dtype="float32")
    more = (f"model.dtype={dtype}", f"learner.packing={str(packing).lower()}", "learner.zero_stage=0")
    return trained(request, f"packing-{dtype}-{packing}", settings(request, model, *more), steps=0)


def _errors(found: Found, reference: Found) -> dict[str, float]:
    """Of log-probs the root mean square, in nats; of the loss, which is near 0, absolute; of the gradient relative."""
    gap = float(np.sqrt(np.mean(np.square(found.scores - reference.scores, dtype=np.float64))))
    return {
        "log-probs": gap if np.isfinite(gap) else float("inf"),
        "loss": abs(found.loss - reference.loss),
        "gradient": difference(found.samples, reference.samples),
    }


if __name__ == "__main__":
    sys.exit(main("packing", check))
