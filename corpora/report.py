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
            count.name: {licence_text(count): 1} if count.source.licences is None else count.account.licences
            for count in counts if count.account.clean[0]})),
        "shortfalls": {count.name: count.shortfall for count in counts if count.shortfall},
        "contamination": {
            "checked": [benchmark.name for benchmark in index.benchmarks],
            "questions": {f"{one.name}/{one.split}": len(one.questions) for one in index.benchmarks},
            "ngram": stage.ngram,
            "subsequence": stage.subsequence,
            "overlap": overlap,
        },
    }


def licence_text(count: SourceCount) -> str:
    """Licence of a source: as it is stated, or, where its documents have several, the one that all of them ask for."""
    stated = sources.licence(count.source)
    held = {licence for licence, number in count.account.licences.items() if number}
    return stated if held <= {stated} else combine_data({count.name: count.account.licences}).name


def version(found: dict[str, Any]) -> str:
    """Package version, data set revision, or content hash of a source, out of its identity."""
    return str(found.get("version") or found.get("sha256") or json.dumps(found, sort_keys=True))
