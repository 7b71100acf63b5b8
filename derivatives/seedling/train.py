"""The seedling's pretraining loop: rows from the token stream, Muon and AdamW, warm-up, stable, linear decay.

Rows are short while the rate is stable and long while it decays, where the model learns positions further
out. A checkpoint holds weights, optimizer states and the number of tokens read, so a run that resumes reads
on in the stream and replays nothing. A run's folder can be copied and finished with fewer `--tokens`: that
is how snapshots are made.

Several worker processes share each step: one reads every n-th micro-batch, gradients are averaged among them,
and Muon, whose orthogonalisation costs as much as a tenth of the rest, updates every n-th matrix in each and
then exchanges them. One thread a worker beats several threads in one process, whose small products do not split.

Sources: Muon (Keller Jordan, https://kellerjordan.github.io/posts/muon/) with the update scale of
arXiv:2502.16982; warm-up, stable, decay from MiniCPM (arXiv:2404.06395).
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from math import log
from pathlib import Path
from random import Random

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing import spawn
from torch.optim import AdamW, Muon, Optimizer
from transformers import PreTrainedTokenizerFast

from .mixture import SOURCES, TokenStream, sample_documents
from .model import Seedling, Shape, export
from .tokenizer import save_tokenizer, train_tokenizer

TOKENS_PER_STEP = 16384
TOKENS_PER_MICRO_BATCH = 4096
STABLE_ROW_TOKENS, DECAY_ROW_TOKENS = 256, 512
MATRIX_LR, OTHER_LR = 6e-3, 3e-3
WEIGHT_DECAY = 0.05
WARMUP_STEPS = 100
DECAY_SHARE = 0.2
MAX_GRAD_NORM = 1.0
CHECKPOINT_STEPS = 100
PROGRESS_STEPS = 20
TOKENIZER_CHARS = 12_000_000
HELD_OUT_DOCUMENTS = 200


@dataclass
class Run:
    """What a checkpoint restores, and this process's place among the workers."""

    model: Seedling
    muon: Muon
    adamw: AdamW
    num_tokens: int = 0
    rank: int = 0
    num_workers: int = 1

    @property
    def optimizers(self) -> tuple[Optimizer, ...]:
        return self.muon, self.adamw

    @property
    def matrices(self) -> list[Tensor]:
        """What Muon updates; worker r updates every n-th of them, from the r-th on."""
        return self.muon.param_groups[0]["params"]  # type: ignore[no-any-return]


def new_run(seed: int, shape: Shape = Shape(), rank: int = 0, num_workers: int = 1) -> Run:  # noqa: B008 - frozen
    torch.manual_seed(seed)
    model = Seedling(shape)
    matrices = [p for name, p in model.named_parameters() if name.startswith("layers.") and p.ndim == 2]
    others = [p for name, p in model.named_parameters() if not (name.startswith("layers.") and p.ndim == 2)]
    muon = Muon(matrices, lr=MATRIX_LR, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw")
    adamw = AdamW(others, lr=OTHER_LR, betas=(0.9, 0.95), weight_decay=0.0)
    for optimizer in (muon, adamw):
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return Run(model, muon, adamw, rank=rank, num_workers=num_workers)


def rate(num_tokens: int, total_tokens: int) -> float:
    """Share of the peak learning rate: warm-up, stable, linear decay.

    >>> rate(0, 10_000_000) == 1 / WARMUP_STEPS, rate(5_000_000, 10_000_000), rate(9_000_000, 10_000_000)
    (True, 1.0, 0.5)
    """
    warm = (num_tokens // TOKENS_PER_STEP + 1) / WARMUP_STEPS
    left = (total_tokens - num_tokens) / (DECAY_SHARE * total_tokens)
    return max(0.0, min(1.0, warm, left))


def save_checkpoint(run: Run, path: Path) -> None:
    """Write the run's state; called by every worker, written by the first."""
    muon = run.muon.state_dict()
    if run.num_workers > 1:
        parts: list[dict[int, dict[str, Tensor]]] | None = [{}] * run.num_workers if run.rank == 0 else None
        owned = {index: muon["state"][index] for index in range(run.rank, len(run.matrices), run.num_workers)}
        dist.gather_object(owned, parts)
        muon["state"] = {index: state for part in parts or () for index, state in part.items()}
    if run.rank:
        return
    state = {
        "model": run.model.state_dict(),
        "optimizers": [muon, run.adamw.state_dict()],
        "num_tokens": run.num_tokens,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def load_checkpoint(run: Run, path: Path) -> None:
    state = torch.load(path, weights_only=True)
    run.model.load_state_dict(state["model"])
    for optimizer, values in zip(run.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(values)
    run.num_tokens = state["num_tokens"]


def micro_batches(stream: TokenStream, start: int, row_tokens: int) -> Iterator[Tensor]:
    """Rows of `row_tokens + 1` ids; each starts with the last id of the row before."""
    ids = torch.from_numpy(stream.read(start, TOKENS_PER_STEP + 1).astype("int64"))
    rows = ids.unfold(0, row_tokens + 1, row_tokens)
    yield from rows.split(TOKENS_PER_MICRO_BATCH // row_tokens)


def compiled_loss(model: Seedling) -> Callable[[Tensor], Tensor]:
    """The loss through `torch.compile`, or as it is where that does not work (no C++ compiler)."""
    compiled = torch.compile(model.loss, dynamic=False)
    try:
        num_rows = TOKENS_PER_MICRO_BATCH // STABLE_ROW_TOKENS
        compiled(torch.zeros(num_rows, STABLE_ROW_TOKENS + 1, dtype=torch.int64)).backward()
    except Exception as fault:  # noqa: BLE001 - a compiler can fail in any way; the plain path needs none.
        print(f"torch.compile does not work here ({type(fault).__name__}); going on without it", flush=True)
        return model.loss
    finally:
        model.zero_grad(set_to_none=True)
    return compiled


def train_step(run: Run, loss: Callable[[Tensor], Tensor], stream: TokenStream, total_tokens: int) -> float:
    """One optimizer step; returns the mean loss in nats per token."""
    share = rate(run.num_tokens, total_tokens)
    row_tokens = STABLE_ROW_TOKENS if run.num_tokens < (1 - DECAY_SHARE) * total_tokens else DECAY_ROW_TOKENS
    num_micro_batches, mean = TOKENS_PER_STEP // TOKENS_PER_MICRO_BATCH, torch.zeros(())
    for ids in islice(micro_batches(stream, run.num_tokens, row_tokens), run.rank, None, run.num_workers):
        value = loss(ids) / num_micro_batches
        value.backward()
        mean += value.detach()
    sum_over_workers(run, mean)
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), MAX_GRAD_NORM)
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * share
    for index, matrix in enumerate(run.matrices):
        if index % run.num_workers != run.rank:
            matrix.grad = None  # Another worker's.
    for optimizer in run.optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    exchange_matrices(run)
    run.num_tokens += TOKENS_PER_STEP
    return mean.item()


def sum_over_workers(run: Run, mean: Tensor) -> None:
    """Gradients and the loss, summed over the workers in place."""
    if run.num_workers == 1:
        return
    parts = [mean, *(parameter.grad for parameter in run.model.parameters() if parameter.grad is not None)]
    flat = torch.cat([part.flatten() for part in parts])
    dist.all_reduce(flat)
    for part, summed in zip(parts, flat.split([part.numel() for part in parts]), strict=True):
        part.copy_(summed.view_as(part))


@torch.no_grad()
def exchange_matrices(run: Run) -> None:
    """Every worker takes over the matrices that the others updated."""
    if run.num_workers == 1:
        return
    for rank in range(run.num_workers):
        owned = run.matrices[rank :: run.num_workers]
        flat = torch.cat([matrix.flatten() for matrix in owned])
        dist.broadcast(flat, src=rank)
        for matrix, updated in zip(owned, flat.split([m.numel() for m in owned]), strict=True):
            matrix.copy_(updated.view_as(matrix))


@torch.inference_mode()
def held_out_loss(model: Seedling, tokenizer: PreTrainedTokenizerFast) -> dict[str, dict[str, float]]:
    """Loss and bits per byte of each source on fresh documents (code: fresh windows, from the same files)."""
    results = {}
    for name, (_, make) in SOURCES.items():
        rng = Random(f"held-out/{name}")
        text = tokenizer.eos_token.join(make(rng) for _ in range(HELD_OUT_DOCUMENTS))
        ids = torch.tensor(tokenizer.backend_tokenizer.encode(text).ids)
        rows = ids.unfold(0, DECAY_ROW_TOKENS + 1, DECAY_ROW_TOKENS)
        nats = sum(model.loss(row[None]).item() for row in rows) / len(rows)
        num_bytes = len(text.replace(tokenizer.eos_token, "").encode())
        results[name] = {"loss": nats, "bits_per_byte": nats / log(2) * len(ids) / num_bytes}
    return results


def prepare_tokenizer(out: Path, seed: int) -> PreTrainedTokenizerFast:
    folder = out / "tokenizer"
    if not (folder / "tokenizer.json").exists():
        save_tokenizer(train_tokenizer(sample_documents(seed, TOKENIZER_CHARS)), folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def report(out: Path, record: dict[str, float | int]) -> None:
    with (out / "progress.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    print(
        f"{record['tokens'] / 1e6:8.2f}M of {record['total'] / 1e6:.1f}M tokens  loss {record['loss']:.4f}  "
        f"{record['tokens_per_s']:,.0f} tokens/s  {record['eta_s'] / 60:.1f} min left",
        flush=True,
    )


def pretrain(out: Path, total_tokens: int, seed: int, num_workers: int = 1) -> None:
    """Train to `total_tokens` and write `out/model`; goes on from `out/checkpoints` if there is one."""
    num_micro_batches = TOKENS_PER_STEP // TOKENS_PER_MICRO_BATCH
    if num_micro_batches % num_workers:
        raise ValueError(f"{num_workers} workers cannot share {num_micro_batches} micro-batches evenly")
    prepare_tokenizer(out, seed)
    if num_workers == 1:
        train(0, 1, out, total_tokens, seed)
        return
    meeting = out / f"workers-{os.getpid()}"
    try:
        spawn(worker, (num_workers, out, total_tokens, seed, meeting), nprocs=num_workers)
    finally:
        meeting.unlink(missing_ok=True)


def worker(rank: int, num_workers: int, out: Path, total_tokens: int, seed: int, meeting: Path) -> None:
    """One of several processes; they meet through a file and talk over loopback."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    dist.init_process_group("gloo", init_method=meeting.absolute().as_uri(), rank=rank, world_size=num_workers)
    try:
        train(rank, num_workers, out, total_tokens, seed)
    finally:
        dist.destroy_process_group()


def train(rank: int, num_workers: int, out: Path, total_tokens: int, seed: int) -> None:
    """The whole training in one worker; the first one reports, saves and exports."""
    tokenizer = prepare_tokenizer(out, seed)
    stream = TokenStream(out / "tokenizer" / "tokenizer.json", out / "data", seed, rank)
    run, checkpoint = new_run(seed, rank=rank, num_workers=num_workers), out / "checkpoints" / "latest.pt"
    if checkpoint.exists():
        load_checkpoint(run, checkpoint)
    loss = compiled_loss(run.model)
    losses, since, step = [], time.perf_counter(), run.num_tokens // TOKENS_PER_STEP
    seconds = 0.0
    while run.num_tokens < total_tokens:
        losses.append(train_step(run, loss, stream, total_tokens))
        step += 1
        if step % PROGRESS_STEPS == 0 or run.num_tokens >= total_tokens:
            elapsed, since = time.perf_counter() - since, time.perf_counter()
            seconds += elapsed
            speed = len(losses) * TOKENS_PER_STEP / elapsed
            record = {
                "step": step,
                "tokens": run.num_tokens,
                "total": total_tokens,
                "loss": sum(losses) / len(losses),
                "tokens_per_s": speed,
                "eta_s": (total_tokens - run.num_tokens) / speed,
                "seconds": seconds,
            }
            if rank == 0:
                report(out, record)
            losses = []
        if step % CHECKPOINT_STEPS == 0 or run.num_tokens >= total_tokens:
            save_checkpoint(run, checkpoint)
    stream.close()
    if rank:
        return
    export(run.model, tokenizer, out / "model")
    metrics = {"tokens": run.num_tokens, "held_out": held_out_loss(run.model, tokenizer)}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(json.dumps(metrics["held_out"], indent=2))
