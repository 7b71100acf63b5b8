"""One rank of a stage under Slurm: says in torch's words who it is, then becomes the stage command.

    srun --ntasks=32 --ntasks-per-node=8 python -m derivatives.training.slurm python -m derivatives.sft STAGE.json OUT/

srun starts it once per rank. The first node of the job is where ranks meet, at a port made of the job's number. For the
launcher of a machine profile of several machines (`configs/machines/four-node.yaml`); they must see one file system.
It imports only the standard library. Tried with a made-up environment of Slurm's alone, never on several machines.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

FIRST_PORT, NUM_PORTS = 20_000, 20_000
VARIABLES = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID", "WORLD_SIZE": "SLURM_NTASKS"}


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """What torch wants to know, from what Slurm says.

    Raises:
        KeyError: A variable of Slurm's is missing.
    """
    found = {name: given[theirs] for name, theirs in VARIABLES.items()}
    nodes = given.get("SLURM_STEP_NODELIST") or given["SLURM_JOB_NODELIST"]
    port = FIRST_PORT + int(given["SLURM_JOB_ID"]) % NUM_PORTS
    return {**found, "MASTER_ADDR": first_node(nodes), "MASTER_PORT": str(port)}


def first_node(nodes: str) -> str:
    """The first name of Slurm's list of nodes, such as `gpu[003-006,9],login`.

    >>> first_node("gpu[003-006,9],login"), first_node("alone"), first_node("rack2-n[7]")
    ('gpu003', 'alone', 'rack2-n7')
    """
    if "[" not in nodes.partition(",")[0]:
        return nodes.partition(",")[0]
    name, _, numbers = nodes.partition("[")
    inside, _, rest = numbers.partition("]")
    number = inside.partition(",")[0].partition("-")[0]
    return name + number + (rest.partition(",")[0])


def main(command: Sequence[str]) -> int:
    """Become the command; returns only with an error."""
    if not command:
        print("error: no command was given; write it after the module's name", file=sys.stderr)
        return 2
    try:
        told = environment(os.environ)
    except (KeyError, ValueError) as error:
        print(f"error: {error} is missing or no number; start this through srun inside of a Slurm job", file=sys.stderr)
        return 2
    os.environ.update(told)
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        print(f"error: {command[0]}: {error.strerror}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
