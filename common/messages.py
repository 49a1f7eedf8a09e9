"""Every message that crosses a socket, as frozen dataclasses; `MESSAGES` is the closed list the wire accepts.

A *request* gets exactly one reply (named in its docstring). A *notice* goes from the intake to a peer, unasked and
unacknowledged; whatever depends on one is confirmed by a request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from common import jobs, types
from common.gpu_load import GpuLoad
from common.push_span import PushSpan
from common.shipment import BY_HOST_MEMORY, Shipment
from common.types import Float32Array, Group, Int32Array, Lease, Share, Task, TaskType

# -- handshake ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """First frame of every connection → Welcome | RefusedHello."""

    schema: int
    run: str
    role: str  # actor | trainer
    index: int
    incarnation: int
    config_digest: str


@dataclass(frozen=True, slots=True)
class Welcome:
    """`credits`: requests the client may have unanswered at a time."""

    credits: int
    incarnation: int
    heartbeat: float  # seconds between pings; three missed ones mean the peer is gone


@dataclass(frozen=True, slots=True)
class RefusedHello:
    reason: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Client heartbeat → Pong."""


@dataclass(frozen=True, slots=True)
class Pong:
    pass


@dataclass(frozen=True, slots=True)
class Ack:
    """Done; where the request was about data, it survives the death of the process that took it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The handler could not serve the request; the client raises it as WireError."""

    reason: str


# -- actor → intake ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WantLeases:
    """Room for `capacity` more episodes → Leases, as soon as at least one can be granted. Long poll."""

    capacity: int


@dataclass(frozen=True, slots=True)
class Leases:
    leases: tuple[Lease, ...]


@dataclass(frozen=True, slots=True)
class Renew:
    """Episodes still under way → Ack. A lease not renewed in time is granted again."""

    leases: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Deliver:
    """A finished group → Ack, once it is journaled. Sent again until acknowledged; counted once."""

    group: Group


@dataclass(frozen=True, slots=True)
class AskNovelty:
    """What does the book say to this proposal? → Novelty. Lets an actor save the solves of a copy."""

    type: TaskType
    key: str
    program_key: str


@dataclass(frozen=True, slots=True)
class Novelty:
    """`status`: ok, known (environment.novelty) or heldout (a program that evaluation keeps for itself)."""

    status: str


@dataclass(frozen=True, slots=True)
class Report:
    """Where the time of a process went since its last report → Ack. Never needed for training."""

    part: str
    ledger: Mapping[str, float] = field(default_factory=dict)  # state → seconds, cumulative
    spans: tuple[tuple[str, float, float], ...] = ()  # (state, begin, end), seconds of the shared wall clock
    state: str = ""
    produced: tuple[tuple[float, int], ...] = ()  # (wall clock, tokens) of each completed request
    gpus: tuple[GpuLoad, ...] = ()
    pushes: tuple[PushSpan, ...] = ()
    cpu: Mapping[str, float] = field(default_factory=dict)  # CPU seconds since the first report
    costs: Mapping[str, float] = field(default_factory=dict)  # since the last report (actors/cost_sums.py)


# -- weights -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TensorMeta:
    name: str  # checkpoint name
    dtype: str  # "float32", "bfloat16"
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """Notice to an actor: join group `epoch` if new, receive `version` into the staging buffer → it sends Staged."""

    epoch: int
    version: int
    host: str
    port: int
    rank: int
    world: int
    tensors: tuple[TensorMeta, ...]
    checksum: str  # of the whole buffer; empty: not compared
    timeout: float
    shipment: Shipment = BY_HOST_MEMORY


@dataclass(frozen=True, slots=True)
class Staged:
    """→ Ack. `error` empty when the buffer holds `version` and its checksum agrees."""

    epoch: int
    version: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Commit:
    """Notice: load the staged `version` in a short pause, then score the probe → it sends Committed."""

    version: int
    probe: tuple[Int32Array, ...] = ()


@dataclass(frozen=True, slots=True)
class Committed:
    """→ Ack. `probe[i]` are log-probs of tokens 1… of probe sequence i under the new weights."""

    version: int
    probe: tuple[Float32Array, ...] = ()
    pause: float = 0.0  # seconds in which no token was produced
    load: float = 0.0
    checksum: str = ""  # of the weights in the engine, if engine.checksums
    error: str = ""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Notice: these leases can no longer meet the staleness bound; drop their episodes, deliver nothing."""

    leases: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """Notice: the run is over; finish nothing more."""

    reason: str


# -- trainer ↔ intake --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WantShare:
    """Rank `rank` is ready for step `step` → ShareReply. Long poll. `step` is the number of batches trained so far."""

    rank: int
    step: int


@dataclass(frozen=True, slots=True)
class ShareReply:
    """`share` None: the run is over. `save`: write a checkpoint after this step."""

    share: Share | None
    save: bool = False


@dataclass(frozen=True, slots=True)
class StepDone:
    """Rank 0 has trained the batch of `step` and holds a snapshot of version step + 1 → Ack."""

    step: int
    metrics: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, slots=True)
class CheckpointDone:
    """The checkpoint of `step` batches is durable at `path` (relative to the run folder) → Ack."""

    step: int
    path: str


@dataclass(frozen=True, slots=True)
class WantPush:
    """The publisher is idle → Push. Long poll."""


@dataclass(frozen=True, slots=True)
class Push:
    """Make `version` ready: snapshot, checksum, probe, an address for group `epoch` → the publisher sends Offer."""

    version: int
    epoch: int
    world: int
    stop: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """The snapshot is ready and rank 0 listens → Ack, and every member gets its Stage; then rank 0 broadcasts.
    → Declined if nobody waits for it: there will be no Stage."""

    version: int
    epoch: int
    host: str
    port: int
    tensors: tuple[TensorMeta, ...]
    checksum: str
    probe: tuple[Int32Array, ...]
    probe_logprobs: tuple[Float32Array, ...]
    shipment: Shipment = BY_HOST_MEMORY


@dataclass(frozen=True, slots=True)
class Declined:
    """This push is given up."""


@dataclass(frozen=True, slots=True)
class Published:
    """The broadcast returned (or failed with `error`) → Ack. Of the `whole` bytes of the version `sent` travelled."""

    version: int
    epoch: int
    error: str = ""
    seconds: float = 0.0
    sent: int = 0
    whole: int = 0


# -- analysis ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tasks:
    """Record for the analysis: what the proposers of the batch behind it were shown."""

    tasks: tuple[Task, ...]


# -- journal -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BatchFormed:
    """Journal record: these groups, in this order, are the batch of `step`."""

    step: int
    leases: tuple[int, ...]


MESSAGES: tuple[type, ...] = (
    Hello, Welcome, RefusedHello, Ping, Pong, Ack, Failed,
    WantLeases, Leases, Renew, Deliver, AskNovelty, Novelty, Report,
    Stage, Staged, Commit, Committed, Cancel, Stop,
    WantShare, ShareReply, StepDone, CheckpointDone, WantPush, Push, Offer, Declined, Published,
    BatchFormed, Tasks,
    jobs.Validate, jobs.Validation, jobs.Verify, jobs.Verdicts,
    types.Group, Share,
)  # fmt: skip
