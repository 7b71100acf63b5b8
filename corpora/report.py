"""What a corpus stage says about its product: `data/report.json`.

`funnel` follows each source's documents step by step; `lengths` counts documents by the binary logarithm of their
tokens, rounded down; `licence_of_data` is what the data alone ask of a model (`corpora/licences.py`): the base's
licence counts as well.

`documents` and `tokens` count what was written (a repeated document counts each time); `read`, `clean` and `dropped`
count what came before: read = clean + dropped, for every source. Shares are in tokens, for output problems in
documents (nothing is tokenised there, and `tokens` is 0).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from configs.settings.corpus import CorpusSource, CorpusStage
from corpora import sources
from corpora.account import Account
from corpora.decontaminate import Decontaminator
from corpora.dropped import DropLog
from corpora.licences import combine_data


@dataclass(frozen=True)
class SourceCount:
    """One source, from reading to the mixture.

    Attributes:
        name: Its name in the report; a second draw from one source is `NAME#2`.
        identity: What its documents depend on (`sources.identity`).
        account: What became of its documents.
        written: Records written to the product, repeats and pieces of long documents included.
        distinct: Documents that these belong to.
        tokens: Tokens in these records.
        passes: Passes begun over the source.
        shortfall: Tokens of its part of the budget that it could not give.
        read_whole: Whether it was read to its end; reading stops when the mixture has enough.
        clean_tokens: Tokens of all its clean records.
        distinct_tokens: Tokens of those that were written, each counted once; the rest is left out for the budget.
        most_repeats: Times that the record is in the product which is there most often.
    """

    name: str
    source: CorpusSource
    identity: dict[str, Any]
    account: Account
    written: int
    distinct: int
    tokens: int
    passes: int
    shortfall: int
    read_whole: bool
    clean_tokens: int
    distinct_tokens: int
    most_repeats: int


def build_report(stage: CorpusStage, counts: list[SourceCount], dropped: DropLog, index: Decontaminator,
                 overlap: int) -> dict[str, Any]:
    """The content of report.json."""
    in_tokens = stage.output != "problems"
    whole = sum(count.tokens if in_tokens else count.written for count in counts)
    weights = sum(source.weight for source in stage.sources)
    described = {}
    for count in counts:
        account, drops = count.account, dropped.by_reason(count.name)
        described[count.name] = {
            "documents": count.written, "distinct_documents": count.distinct, "tokens": count.tokens,
            "asked_weight": count.source.weight, "asked_share": round(count.source.weight / weights, 6),
            "achieved_share": round((count.tokens if in_tokens else count.written) / max(whole, 1), 6),
            "licence": licence_text(count), "version": version(count.identity),
            "read": account.clean[0] + sum(drops.values()), "read_whole": count.read_whole, "clean": account.clean[0],
            "dropped": drops, "passes": count.passes, "shortfall_tokens": count.shortfall,
            "max_epochs": count.source.max_epochs, "most_repeats": count.most_repeats,
            "epochs": round(count.tokens / max(count.clean_tokens, 1), 4),
            "funnel": account.funnel(dropped), "clean_bytes": account.clean[1],
            "licences": dict(account.licences), "languages": dict(account.languages),
            "lengths": {str(power): number for power, number in sorted(account.lengths.items())},
            "redactions": dict(account.redactions), "cuts": {name: n for name, n in account.cuts.items() if n},
        }
    return {
        "output": stage.output,
        "sources": described,
        "source_names": [count.name for count in counts],
        "share_of": "tokens" if in_tokens else "documents",
        "asked_tokens": stage.num_tokens,
        "documents": sum(count.written for count in counts),
        "tokens": sum(count.tokens for count in counts),
        "dropped": dropped.by_reason(),
        "licence_of_data": asdict(combine_data({
            count.name: {licence_text(count): 1} if count.source.licences is None else held_licences(count)
            for count in counts if count.account.clean[0]})),
        "shortfalls": {count.name: count.shortfall for count in counts if count.shortfall},
        "truncation": truncation(counts),
        "contamination": {
            "checked": [benchmark.name for benchmark in index.benchmarks],
            "questions": {f"{one.name}/{one.split}": len(one.questions) for one in index.benchmarks},
            "ngram": stage.ngram,
            "subsequence": stage.subsequence,
            "overlap": overlap,
        },
    }


def truncation(counts: list[SourceCount]) -> dict[str, Any]:
    """The ledger of what does not stand in the product as it stood in its document, by source.

    No token is cut off: a document longer than the sequence length goes on in further pieces (`split`, `pieces`, with
    the tokens of such documents), an example that is too long is dropped as `too_long`. `left_out_tokens` are clean and
    were not written because the part of the budget was full.
    """
    return {count.name: {
        "split": count.account.cuts["split"], "pieces": count.account.cuts["pieces"],
        "split_tokens": count.account.cuts["split_tokens"], "cut_off_tokens": 0,
        "left_out_tokens": count.clean_tokens - count.distinct_tokens} for count in counts}


def licence_text(count: SourceCount) -> str:
    """Licence of a source: as it is stated, or, where its documents have several, the one that all of them ask for."""
    stated = sources.licence(count.source)
    held = held_licences(count)
    return stated if {licence for licence, number in held.items() if number} <= {stated} else \
        combine_data({count.name: held}).name


def held_licences(count: SourceCount) -> dict[str, int]:
    """Licence -> clean documents; that of the collection they come from, if it has one of its own, counts as well."""
    held = dict(count.account.licences)
    collection = sources.collection_licence(count.source)
    if collection is not None and held:
        held[collection] = held.get(collection, 0) + count.account.clean[0]
    return held


def version(found: dict[str, Any]) -> str:
    """Package version, data set commit, or content hash of a source, out of its identity."""
    splits = found.get("splits")
    if isinstance(splits, dict):
        return ", ".join(f"{one['hub']}@{one['revision']} {name}" if "hub" in one else f"mirror {name} {one['sha256']}"
                         for name, one in splits.items())
    return str(found.get("version") or found.get("sha256") or json.dumps(found, sort_keys=True))
