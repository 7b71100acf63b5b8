"""`derive doctor`: what this machine has, and whether the factory works on it. Exit code 0 unless a check fails.

Each check says `ok`, `warn` (it works, with a drawback) or `fail` (runs will not work), and what to do about it.
The checks do the real thing in small: the seedling is loaded and its packed attention probed for leaks, a right and
a wrong answer are judged, a worker that stands still is killed, every artifact of the store is compared with its
manifest (names and sizes). A check that raises is a failed check, never a crash of the doctor.

It does not measure speed, does not look into other people's processes, and changes nothing.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from json import dumps
from pathlib import Path
from typing import Any, Literal

from configs.errors import UserError

State = Literal["ok", "warn", "fail"]

REQUIRED = {
    "torch": "2.11",
    "transformers": "5.17",
    "accelerate": "1.15",
    "prefect": "3.4",
    "pydantic": "2.10",
    "sympy": "1.13",
    "reasoning-gym": "0.1.20",
}
"""Oldest versions that work, as in pyproject.toml (a test compares the two)."""
OPTIONAL = ("flash-attn",)
LITTLE_DISK = 2e9
LITTLE_MEMORY = 3e9
"""Bytes below which math/tiny may not get through."""
HANG_DEADLINE_S = 1.0
LATEST_KILL_S = 30.0
MARKS = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]fail[/]"}


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    topic: str
    state: State
    detail: str
    remedy: str = ""


def main(json: bool = False, store: str = "") -> int:
    """Run all checks and print them as a table, or as JSON. Returns the exit code."""
    groups: list[tuple[str, Callable[[], list[Check]]]] = [
        ("versions", check_versions),
        ("packages", check_packages),
        ("device", check_devices),
        ("model", check_model),
        ("verifiers", check_verifiers),
        ("sandbox", check_sandbox),
        ("store", lambda: check_store(store)),
        ("data", check_data),
        ("prefect", lambda: check_prefect(store)),
    ]
    checks = [check for topic, examine in groups for check in guarded(topic, examine)]
    failed = any(check.state == "fail" for check in checks)
    if json:
        print(dumps({"ok": not failed, "checks": [asdict(check) for check in checks]}, indent=2))
    else:
        print_table(checks)
    return 1 if failed else 0


def guarded(topic: str, examine: Callable[[], list[Check]]) -> list[Check]:
    """The checks of one topic; whatever it raises is its failure."""
    try:
        return examine()
    except UserError as error:
        return [Check(topic, "fail", str(error), "do as the message says")]
    except Exception as error:
        return [
            Check(
                topic,
                "fail",
                f"{type(error).__name__}: {error}",
                "install the project again; if it stays, report it with this line",
            )
        ]


def print_table(checks: list[Check]) -> None:
    """The table for a terminal, with a last line that sums it up."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=True, header_style="bold", box=None, pad_edge=False)
    for title in ("", "what", "found"):
        table.add_column(title, overflow="fold")
    for check in checks:
        remedy = f"\n[bold]-> {escape(check.remedy)}[/]" if check.remedy else ""
        table.add_row(MARKS[check.state], check.topic, escape(check.detail) + remedy)
    console = Console()
    console.print(table)
    counts = {state: sum(check.state == state for check in checks) for state in ("ok", "warn", "fail")}
    console.print(", ".join(f"{count} {state}" for state, count in counts.items() if count))


def check_versions() -> list[Check]:
    """Python, the operating system, and the packages that results depend on."""
    from packaging.version import Version

    checks = []
    new_enough = sys.version_info >= (3, 11)
    checks.append(
        Check(
            "python",
            "ok" if new_enough else "fail",
            f"{platform.python_version()} on {platform.system()} {platform.machine()}",
            "" if new_enough else "use Python 3.11 or newer",
        )
    )
    if platform.system() != "Linux":
        checks.append(
            Check(
                "system",
                "fail",
                platform.system(),
                "use Linux; the supervisor and the verifier pool need its process control",
            )
        )
    for package, oldest in REQUIRED.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            checks.append(Check(package, "fail", "not installed", f"pip install '{package}>={oldest}'"))
            continue
        old = Version(found) < Version(oldest)
        checks.append(
            Check(
                package,
                "fail" if old else "ok",
                found + (f", older than {oldest}" if old else ""),
                f"pip install '{package}>={oldest}'" if old else "",
            )
        )
    for package in OPTIONAL:
        try:
            checks.append(Check(package, "ok", version(package)))
        except PackageNotFoundError:
            checks.append(Check(package, "ok", "not installed (optional; packed attention uses torch's own)"))
    return checks


def check_packages() -> list[Check]:
    """Whether the five packages come from one tree: PyPI has another `verifiers`."""
    from configs.tree import PACKAGES, check_one_tree

    return [Check("packages", "ok", f"{', '.join(PACKAGES)} from {check_one_tree()}")]


def check_devices() -> list[Check]:
    """Cores, memory, how fast bf16 will be, CUDA devices."""
    import torch

    cores = len(os.sched_getaffinity(0))
    checks = [Check("cores", "ok", f"{cores} usable, torch would use {torch.get_num_threads()} threads")]
    available, total = memory_bytes()
    short = available < LITTLE_MEMORY
    checks.append(
        Check(
            "memory",
            "warn" if short else "ok",
            f"{available / 1e9:.1f} of {total / 1e9:.1f} GB available",
            "free memory, or take smaller batches (--set STAGE.micro_batch_tokens=2048)" if short else "",
        )
    )
    flags = bf16_flags()
    if not torch.cuda.is_available():
        checks.append(
            Check(
                "bf16 on CPU",
                "ok" if flags else "warn",
                ", ".join(flags) or "no bf16 instructions",
                "" if flags else "bf16 is emulated and slow here; use --set STAGE.precision=fp32",
            )
        )
        checks.append(Check("cuda", "ok", "no device; runs use the cpu profile"))
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        old = facts.major < 8
        checks.append(
            Check(
                f"cuda:{index}",
                "warn" if old else "ok",
                f"{facts.name}, {facts.total_memory / 1e9:.0f} GB, sm_{facts.major}{facts.minor}",
                "older than Ampere: no bf16 in hardware; use --set STAGE.precision=fp32" if old else "",
            )
        )
    return checks


def memory_bytes() -> tuple[int, int]:
    """Available and total memory; a container's limit counts as the total."""
    facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    total, available = (1024 * int(facts[key].split()[0]) for key in ("MemTotal", "MemAvailable"))
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return available, total
    return min(available, limit - used), min(total, limit)


def bf16_flags() -> list[str]:
    """The processor's bf16 instructions, by the kernel's names."""
    known = ("avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16", "svebf16")
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        if line.startswith(("flags", "Features")):
            return [flag for flag in known if flag in line.split()]
    return []


def check_model() -> list[Check]:
    """The embedded base loads, and packed documents do not see one another in the attention chosen here."""
    import torch
    import transformers

    from derivatives.training import attention, model

    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)  # a busy machine makes threads wait for one another: 1 s becomes 30
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = Path(model.__file__).parent.parent / "seedling" / "checkpoint"
    loaded, tokenizer = model.load_model(folder, "bf16", device)
    num_parameters = sum(weight.numel() for weight in loaded.parameters())
    checks = [Check("seedling", "ok", f"{num_parameters / 1e6:.1f} million parameters, {len(tokenizer):,} tokens")]
    leak = attention.leak_probe(loaded)
    found = f"{attention.choose(device)} on {device}, leak between documents {leak:g}"
    checks.append(
        Check(
            "attention",
            "fail" if leak > 0 else "ok",
            found,
            "do not train here: install a torch or flash-attn that passes the probe" if leak > 0 else "",
        )
    )
    return checks


def check_verifiers() -> list[Check]:
    """Every registered verifier loads; the pool judges right and wrong, and kills a worker that stands still."""
    from verifiers import registry

    checks = []
    for name in registry.names():
        try:
            facts = registry.identity(name)
            checks.append(Check(f"verifier {name}", "ok", f"version {facts['version']}, source {facts['source'][:12]}"))
        except UserError as error:
            checks.append(
                Check(f"verifier {name}", "fail", str(error), "mend or uninstall the distribution that offers it")
            )
    return checks + guarded("verifier pool", check_pool)


def check_pool() -> list[Check]:
    """Judge a right and a wrong answer, then stop the worker with SIGSTOP: it must be replaced and the verdict come."""
    from verifiers.api import Outcome, Task
    from verifiers.pool import VerifierPool

    task = Task(id="doctor", prompt="What is 20 + 22?", answer="42", verifier="math")
    with VerifierPool(num_workers=1, deadline_s=HANG_DEADLINE_S) as pool:
        right, wrong = pool.judge([(task, "\\boxed{42}"), (task, "\\boxed{41}")])
        if (right.outcome, wrong.outcome) != (Outcome.CORRECT, Outcome.INCORRECT):
            found = f"42 was judged {right.outcome.value} ({right.reason}), 41 {wrong.outcome.value} ({wrong.reason})"
            return [Check("verifier pool", "fail", found, "reinstall sympy and the project")]
        stuck = pool.worker_pids()[0]
        began = time.monotonic()
        os.kill(stuck, signal.SIGSTOP)
        future = pool.submit(task, "\\boxed{42}")
        try:
            again = future.result(timeout=LATEST_KILL_S)
        except TimeoutError:
            return [
                Check(
                    "verifier pool",
                    "fail",
                    f"a worker that stands still was not killed within {LATEST_KILL_S:.0f} s",
                    "report it; a completion could hang a run here",
                )
            ]
        seconds = time.monotonic() - began
        replaced = stuck not in pool.worker_pids() and again.outcome is Outcome.CORRECT
    return [
        Check(
            "verifier pool",
            "ok" if replaced else "fail",
            "judges right and wrong; a worker that stood still was "
            f"{'' if replaced else 'not '}replaced ({seconds:.1f} s)",
            "" if replaced else "report it; a completion could hang a run here",
        )
    ]


def check_sandbox() -> list[Check]:
    """Layers of the sandbox in which code verifiers run programs, each tried from within. Only code presets need it."""
    from verifiers.sandbox import layers

    return [
        Check(
            f"sandbox: {layer.name}",
            "ok" if layer.in_force else "warn",
            layer.detail or ("in force" if layer.in_force else "not in force"),
            ""
            if layer.in_force
            else layer.remedy + ("; without it, no program is run" if layer.is_required else ""),
        )
        for layer in layers()
    ]


def check_store(root: str = "") -> list[Check]:
    """Where artifacts go, how much room there is, and whether those there are whole."""
    from flows.store import Store

    store = Store(root or None)
    existing = next(path for path in (store.root, *store.root.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    writable = os.access(existing, os.W_OK)
    checks = [
        Check(
            "store",
            "ok" if writable else "fail",
            f"{store.root}" + ("" if store.root.exists() else " (made by the first run)"),
            "" if writable else "give a folder that you may write with --store or DERIVE_STORE",
        ),
        Check(
            "disk",
            "warn" if free < LITTLE_DISK else "ok",
            f"{free / 1e9:.1f} GB free",
            "free space, or put the store elsewhere with DERIVE_STORE" if free < LITTLE_DISK else "",
        ),
    ]
    # A partial folder that holds a manifest is only being moved into place, and one that is locked is at work.
    folders = [
        path.parent for path in store.root.glob("[0-9a-f][0-9a-f]/*/manifest.json") if "." not in path.parent.name
    ]
    problems = [problem for folder in folders for problem in store.problems(folder)]
    begun = len(list(store.partials()))
    checks.append(
        Check(
            "artifacts",
            "warn" if problems else "ok",
            f"{len(folders)} published, {begun} begun"
            + (f"; {len(problems)} damaged, first: {problems[0]}" if problems else ""),
            "run the recipe again: a damaged stage is put aside and built anew" if problems else "",
        )
    )
    return checks


def check_data() -> list[Check]:
    """The data mirror, and which named data sets it holds."""
    from configs import catalogue

    root = os.environ.get(catalogue.MIRROR_VARIABLE)
    if not root:
        return [
            Check(
                "data mirror",
                "ok",
                f"{catalogue.MIRROR_VARIABLE} is not set; named data sets come from the hub at first use",
            )
        ]
    if not Path(root).is_dir():
        return [
            Check(
                "data mirror",
                "fail",
                f"{catalogue.MIRROR_VARIABLE}={root} is no folder",
                f"set {catalogue.MIRROR_VARIABLE} to a folder with the mirror, or unset it to use the hub",
            )
        ]
    found: list[str] = []
    missing: list[str] = []
    for name in catalogue.dataset_names():
        splits = [split for split in catalogue.dataset(name).splits if catalogue.mirror_path(name, split) is not None]
        (found if splits else missing).append(f"{name} ({', '.join(splits)})" if splits else name)
    rest = f"; from the hub: {', '.join(missing)}" if missing else ""
    return [
        Check(
            "data mirror",
            "ok" if found else "warn",
            f"{root}: {', '.join(found) or 'no named data set'}{rest}",
            "" if found else "see docs/presets.md for the mirror's layout",
        )
    ]


def check_prefect(root: str = "") -> list[Check]:
    """Whether a Prefect server answers; a run works without one."""
    from flows import server
    from flows.store import Store

    given: str | None = os.environ.get("PREFECT_API_URL")
    url: Any = given or recorded_server(Store(root or None).root / "prefect")
    if url and server.healthy(str(url)):
        return [Check("prefect server", "ok", f"{url} answers")]
    if given:
        return [
            Check(
                "prefect server",
                "warn",
                f"PREFECT_API_URL={given} does not answer; runs go on without it",
                "start that server, or unset PREFECT_API_URL",
            )
        ]
    return [
        Check("prefect server", "ok", "none is running; each run brings its own, `derive up` starts one that stays")
    ]


def recorded_server(home: Path) -> str | None:
    """URL of the store's long-lived server, as `derive up` wrote it."""
    from flows import server

    return server.recorded(home)
