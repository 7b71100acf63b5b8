"""Why a stage's command ended, as its log tells it: the cause and the remedy, each a few words.

    cause_of(lines, exit_code, stage) -> Cause or None

The table is read from top to bottom and the first entry that fits counts, so what stands above is more telling than
what stands below: a rank that was killed for memory makes the others complain of a lost connection. Within an entry the
last line of the log that fits is told. A remedy names fields as `--set` takes them, and what they are now.

Not here: causes that a stage finds out itself (a full disk, a loss that is not finite, a verifier that fails too often)
end it with exit code 2 and their own sentence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from configs.errors import printable
from configs.schema import Stage

KILLED = 128 + 9
MAX_TOLD = 160
"""Characters of a log's line that are told."""
ERROR_LINE = re.compile(r"(?:\[rank\d+\]: )?(?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit)\b(?:: |$)")
"""How a traceback ends."""


@dataclass(frozen=True)
class Cause:
    """What went wrong and what to change, without full stops."""

    text: str
    remedy: str


@dataclass(frozen=True)
class Known:
    """An entry of the table: what a line of the log looks like, and what is told.

    Attributes:
        pattern: Searched in each line.
        text: The cause; with `{told}`, what the pattern's group `told` matched.
        remedy: What to change; with `{stage}`, the stage's id, and `{smaller}`, what makes this stage take less memory.
    """

    pattern: re.Pattern[str]
    text: str
    remedy: str


MEMORY_FIELDS = ("micro_batch_tokens", "batch_problems", "group_size", "sampling.max_new_tokens")
"""Settings that a stage's need of memory grows with, the first one most."""


def _known(pattern: str, text: str, remedy: str) -> Known:
    return Known(re.compile(pattern), text, remedy)


TABLE = (
    _known(r"^retry: (?P<told>.+)", "tried as often as is allowed: {told}", "see to that"),
    _known(
        r"CUDA out of memory\.?(?: (?P<told>Tried to allocate [\d.]+ \w+))?",
        "the GPU's memory is full ({told})",
        "{smaller}, or take a machine with more memory: `derive plan` says what fits",
    ),
    _known(
        r"(?P<told>(?:CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|cudaErrorMemoryAllocation))",
        "the GPU's memory is full ({told})",
        "{smaller}, or see with nvidia-smi who else holds memory",
    ),
    _known(
        r"(?P<told>No space left on device|Disk quota exceeded|ENOSPC)",
        "the disk is full ({told})",
        "free space there (`derive gc` shows what may go)",
    ),
    _known(
        r"rank (?P<told>\d+ of \d+) was killed by signal 9",
        "rank {told} was killed by signal 9, mostly because the host's memory was full",
        "{smaller} or the machine profile's num_processes, or free memory",
    ),
    _known(
        r"(?P<told>DefaultCPUAllocator: can't allocate memory|std::bad_alloc|Cannot allocate memory)|MemoryError",
        "the host's memory is full ({told})",
        "free memory, or {smaller}",
    ),
    _known(
        r"Bus error|unable to (?:open|write to|allocate) .*shared memory|insufficient shared memory",
        "shared memory (/dev/shm) is full",
        "give the container more of it (--shm-size)",
    ),
    _known(
        r"(?P<told>EADDRINUSE|[Aa]ddress already in use)",
        "a port is taken ({told})",
        "end what listens there, or set another: MASTER_PORT for ranks, rollout.port in the machine profile for vLLM",
    ),
    _known(
        r"(?P<told>Watchdog caught collective operation timeout|NCCL (?:communicator was aborted|timeout)|"
        r"Timed out waiting \d+ms for (?:recv|send)|wait timeout after \d+ms|"
        r"(?:gloo|Gloo).{0,80}(?:[Tt]imed out|timeout)|Connection closed by peer|ncclRemoteError|"
        r"another rank ended or did not answer)",
        "ranks lost one another ({told})",
        "look for the first rank that ended in the log; where none did, raise DERIVE_RANK_TIMEOUT_S, and run with "
        "NCCL_DEBUG=INFO",
    ),
    _known(
        r"(?P<told>no kernel image is available|CUDA driver version is insufficient|"
        r"Found no NVIDIA driver|No CUDA GPUs are available|Torch not compiled with CUDA enabled)",
        "torch finds no GPU that it can use ({told})",
        "run `derive doctor`, or choose a machine profile of this machine",
    ),
    _known(
        r"(?P<told>CUDA error: [\w -]+)",
        "the GPU failed ({told})",
        "see `dmesg` and nvidia-smi for a device that is broken; CUDA_LAUNCH_BLOCKING=1 shows the line",
    ),
    _known(
        r"(?P<told>No module named '[^']+'|ImportError: cannot import name .+|undefined symbol: \S+)",
        "a package is missing or does not fit ({told})",
        "install it in the environment of the run (`derive doctor` lists what is wanted)",
    ),
    _known(
        r"FileNotFoundError: (?:\[Errno 2\] )?(?P<told>.+)",
        "a file is missing ({told})",
        "bring it back, or let the stage that made it be built again (delete its folder, or run `derive verify`)",
    ),
    _known(
        r"PermissionError: (?:\[Errno \d+\] )?(?P<told>.+)",
        "a file may not be read or written ({told})",
        "give this user the right to it",
    ),
    _known(
        r"(?P<told>Too many open files)",
        "the limit of open files was reached ({told})",
        "raise it (`ulimit -n 65536`)",
    ),
    _known(
        r"(?P<told>(?:HTTPError|ConnectionError|LocalEntryNotFoundError|OfflineModeIsEnabled|"
        r"Temporary failure in name resolution|Name or service not known|No address associated|"
        r"Max retries exceeded)[^\n]*)",
        "something could not be fetched from the network ({told})",
        "see that the hub can be reached, or set DERIVE_DATA to a mirror of the data",
    ),
)


def cause_of(lines: Sequence[str], exit_code: int, stage: Stage) -> Cause | None:
    """The cause that the end of a stage's log names; None where it names none that is known.

    Args:
        lines: The last lines of the log.
        exit_code: Of the command; 128 and the signal's number where one killed it.
        stage: Whose command it was.
    """
    for known in TABLE:
        for line in reversed(lines):
            found = known.pattern.search(line)
            if found:
                told = printable(" ".join((found.groupdict().get("told") or found[0]).split()), MAX_TOLD)
                remedy = known.remedy.format(stage=stage.id, smaller=smaller(stage))
                return Cause(known.text.format(told=told.rstrip(" .")), remedy)
    if exit_code == KILLED:
        text = "it was killed by signal 9, mostly because the host's memory was full (see dmesg)"
        return Cause(text, f"free memory, or {smaller(stage)}")
    raised = last_error(lines)
    return Cause(raised, "mend the cause") if raised else None


def smaller(stage: Stage) -> str:
    """What to lower so that a stage takes less memory, with the values of now."""
    named = []
    for field in MEMORY_FIELDS:
        value: Any = stage
        for name in field.split("."):
            value = getattr(value, name, None)
        if value is not None:
            named.append(f"{stage.id}.{field} ({value} now)")
    return f"lower {' or '.join(named)}" if named else "lower corpora.workers in the machine profile"


def last_error(lines: Sequence[str]) -> str:
    """The last line of a log that ends a traceback: the error's name and words; empty where there is none."""
    for line in reversed(lines):
        if ERROR_LINE.match(line):
            return printable(" ".join(line.split()), MAX_TOLD)
    return ""
