"""The loss on each source of the training data, as training goes on: which part of a mixture is learned, which is not.

The corpus names the source of every document (`sources.npy`, `corpora/product.py`). Every `evaluate_every` steps the
documents of the step to come are looked at before they are trained on, up to `SOURCE_TOKENS` of each source, and their
mean cross-entropy, as it is trained on, is recorded as `loss_of/SOURCE` (nats a token). In the first epoch that is the
loss on text that was never seen; later, or where a corpus repeats a source, it is not. A source that the next step
holds nothing of has no figure then. Nothing is drawn and no weight is changed; the cost is one pass without gradients.

Held-out text of a source is measured by `heldout_text` (`in_loop.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from derivatives.losses.cross_entropy import chunked_cross_entropy
from derivatives.training.batch import PackedBatch, Row, num_trained, pack_share
from derivatives.training.loop import Trainer
from derivatives.training.model import head_weight

SOURCE_TOKENS = 16_384
"""Tokens of each source that are looked at: its mean loss to about a hundredth of a nat."""


def measure_sources(
    trainer: Trainer, next_documents: Callable[[], Sequence[int]], row_of: Callable[[int], Row],
    source_of: Callable[[int], str],
) -> dict[str, float]:
    """The mean loss of each source on the documents of the next step; every rank must call it.

    Args:
        trainer: The run.
        next_documents: Numbers of the documents that come next.
        row_of: A document as a row.
        source_of: The name of a document's source.
    """
    held: dict[str, list[Row]] = {}
    sizes: dict[str, int] = {}
    for number in next_documents():
        name = source_of(number)
        if sizes.get(name, 0) < SOURCE_TOKENS:
            row = row_of(number)
            held.setdefault(name, []).append(row)
            sizes[name] = sizes.get(name, 0) + len(row.ids)
    ranks = trainer.ranks

    def nats(hidden_TE: Tensor, batch: PackedBatch) -> Tensor:
        loss: Tensor = chunked_cross_entropy(hidden_TE, head_weight(trainer.model), batch.targets_T, batch.weights_T)
        return loss

    found = {}
    for name, rows in sorted(held.items()):
        trained = num_trained(rows)
        if not trained:
            continue
        share = pack_share(rows, trainer.stage.micro_batch_tokens, ranks.data_rank, ranks.num_data)
        own = sum(float(trainer.look(batch, nats)) for batch in share)
        found[f"loss_of/{name}"] = sum(value for (value,) in ranks.gather_shares([own])) / trained
    return found
