"""The report of a corpus as one self-contained page, OUT/report.html: no script, no library, nothing fetched.

    python -m corpora.page OUT/      draws the page of a finished corpus stage again

It shows what `data/report.json` holds (the funnel of every source with each reason, packing and the truncation ledger,
copied repositories, duplicates, contamination, licences, redactions, lengths, languages), samples of what was dropped
and kept, and `timings.json`. Documents are data: their text is escaped, and control and direction characters are
written out.
"""

from __future__ import annotations

import argparse
import json
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from configs.stage import write_text_atomic
from corpora.contamination.injection import MUST_FIND
from corpora.page_style import STYLE, TEMPLATE

DROPPED_SHOWN = 6
"""Samples of each reason."""
KEPT_SHOWN = 50
CLUSTERS_SHOWN = 10
MEMBERS_SHOWN = 8
BARS_SHOWN = 15
TEXT_SHOWN = 2000
_BAR_WIDTH, _LABEL_WIDTH, _ROW = 320, 220, 20


def write_page(out: Path) -> None:
    """Draw OUT/report.html from the files of a finished corpus stage."""
    data = out / "data"
    report = json.loads((data / "report.json").read_text(encoding="utf-8"))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)
    environment.filters.update(text=visible, number=number, percent=percent, size=size)
    page = environment.from_string(TEMPLATE).render(
        style=Markup(STYLE), report=report, sources=_sources(report), totals=_totals(report),
        truncated=_truncated(report), repositories=_repositories(data),
        left_out={name: one["left_out_tokens"] for name, one in report.get("truncation", {}).items()},
        stage=_read(out / "stage.json"), timings=_read(out / "timings.json"),
        samples=_dropped_samples(data), kept=_kept_samples(data), clusters=_clusters(data),
        reasons=bars(Counter(report["dropped"])), languages=_languages(report), lengths=_lengths(report),
        self_test=_self_test(report), speed=_speed(_read(out / "timings.json"), report))
    write_text_atomic(out / "report.html", page)


def _sources(report: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Sources by name, in the recipe's order: the file's own is that of the alphabet."""
    return [(name, report["sources"][name]) for name in report["source_names"]]


def _totals(report: Mapping[str, Any]) -> dict[str, int]:
    """Documents and bytes of all sources together."""
    every = report["sources"].values()
    return {"read": sum(one["read"] for one in every), "clean": sum(one["clean"] for one in every),
            "dropped": sum(sum(one["dropped"].values()) for one in every),
            "read_bytes": sum(one["funnel"][0]["bytes"] for one in every),
            "clean_bytes": sum(one["clean_bytes"] for one in every)}


def _truncated(report: Mapping[str, Any]) -> list[tuple[str, dict[str, int]]]:
    """The ledger of those sources of which anything was split, cut off or left out, in the recipe's order."""
    ledger = report.get("truncation", {})
    return [(name, ledger[name]) for name in report["source_names"] if any(ledger.get(name, {}).values())]


def bars(counts: Mapping[str, int], unit: str = "") -> Markup:
    """A bar for each of the largest counts, as a drawing; the rest as one more. Empty for nothing."""
    ranked = sorted(((name, count) for name, count in counts.items() if count), key=lambda one: (-one[1], one[0]))
    if not ranked:
        return Markup("")
    rest = sum(count for _, count in ranked[BARS_SHOWN:])
    shown = ranked[:BARS_SHOWN] + ([(f"{len(ranked) - BARS_SHOWN} others", rest)] if rest else [])
    return _drawing(shown, sum(counts.values()), unit)


def _drawing(shown: list[tuple[str, int]], total: int, unit: str = "") -> Markup:
    most = max(count for _, count in shown)
    parts = []
    for i, (name, count) in enumerate(shown):
        y = i * _ROW
        figure = f"{size(count) if unit == 'bytes' else number(count)} ({percent(count / total)})"
        parts.append(Markup(
            '<text x="{}" y="{}" text-anchor="end">{}</text><rect x="{}" y="{}" width="{:.1f}" height="13"/>'
            '<text class="figure" x="{:.1f}" y="{}">{}</text>').format(
                _LABEL_WIDTH - 8, y + 14, visible(name)[:28], _LABEL_WIDTH, y + 4, max(_BAR_WIDTH * count / most, 1),
                _LABEL_WIDTH + max(_BAR_WIDTH * count / most, 1) + 6, y + 14, figure))
    width, height = _LABEL_WIDTH + _BAR_WIDTH + 130, len(shown) * _ROW + 6
    return Markup('<svg class="bars" viewBox="0 0 {} {}" style="max-width: {}px" role="img" aria-label="{}">{}</svg>'
                  ).format(width, height, width, "; ".join(f"{name}: {count}" for name, count in shown),
                           Markup("").join(parts))


def _languages(report: Mapping[str, Any]) -> Markup:
    return bars(sum((Counter(one["languages"]) for one in report["sources"].values()), Counter()), "bytes")


def _lengths(report: Mapping[str, Any]) -> Markup:
    """Documents by their tokens, in powers of two, short ones first."""
    counts: Counter[int] = Counter()
    for one in report["sources"].values():
        counts.update({int(power): count for power, count in one["lengths"].items()})
    if not counts:
        return Markup("")
    powers = range(min(counts), max(counts) + 1)
    return _drawing([(f"{number(2**power)} to {number(2**(power + 1) - 1)}", counts[power]) for power in powers],
                    sum(counts.values()))


def _self_test(report: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any], bool]]:
    """Group, disguise, rate, and whether it must be found and was not."""
    recall = report["contamination"].get("self_test", {}).get("recall", {})
    return [(group, kind, rate, kind in MUST_FIND and rate["found"] < rate["trials"])
            for group, kinds in recall.items() for kind, rate in kinds.items()]


def _speed(timings: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, float]:
    seconds = timings.get("seconds") or 0
    processor = (timings.get("processor_seconds") or 0) + (timings.get("processor_seconds_of_workers") or 0)
    if not seconds or not processor:
        return {}
    return {"tokens": report["tokens"] / seconds, "wall": timings["bytes_read"] / 1e6 / seconds,
            "processor": timings["bytes_read"] / 1e6 / processor}


def _dropped_samples(data: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Source -> reason -> the first drops."""
    found: defaultdict[str, defaultdict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for line in _lines(data / "dropped.jsonl"):
        shown = found[line["source"]][line["reason"]]
        if len(shown) < DROPPED_SHOWN:
            details = {key: value for key, value in line.items()
                       if key not in ("id", "source", "reason", "path", "text")}
            shown.append({**line, "details": details})
    return {source: dict(sorted(reasons.items())) for source, reasons in found.items()}


def _kept_samples(data: Path) -> dict[str, list[dict[str, Any]]]:
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in _lines(data / "kept.jsonl"):
        if len(found[line["source"]]) < KEPT_SHOWN:
            found[line["source"]].append(line)
    return dict(found)


def _repositories(data: Path) -> list[dict[str, Any]]:
    """The kept repositories with the most copies, each with its first ones."""
    found = [{**line, "size": len(line["copies"]), "copies": line["copies"][:MEMBERS_SHOWN]}
             for line in _lines(data / "repositories.jsonl")]
    return sorted(found, key=lambda one: (-one["size"], one["repository"]))[:CLUSTERS_SHOWN]


def _clusters(data: Path) -> list[dict[str, Any]]:
    """The largest clusters, each with its first members."""
    largest: list[dict[str, Any]] = []
    for line in _lines(data / "clusters.jsonl"):
        largest.append({**line, "members": line["members"][:MEMBERS_SHOWN]})
        if len(largest) >= 10 * CLUSTERS_SHOWN:
            largest = _first(largest)
    return _first(largest)


def _first(clusters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(clusters, key=lambda one: (-one["size"], one["cluster"]))[:CLUSTERS_SHOWN]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def visible(value: Any) -> str:
    """Text cut to a readable length, with control and direction characters written out instead of obeyed.

    >>> visible("a\\x07b")
    'a\\\\x07b'
    """
    text = str(value)
    cut = text[:TEXT_SHOWN] + (" ..." if len(text) > TEXT_SHOWN else "")
    return "".join(one if one in "\n\t" or unicodedata.category(one) not in ("Cc", "Cf", "Cs")
                   else one.encode("unicode_escape").decode("ascii") for one in cut)


def number(value: float) -> str:
    """A count with separators.

    >>> number(12345)
    '12,345'
    """
    return f"{value:,.0f}"


def percent(share: float) -> str:
    """A share as a percentage, small ones with more digits.

    >>> percent(0.5), percent(0.0004)
    ('50.0%', '0.04%')
    """
    return f"{100 * share:.1f}%" if share == 0 or abs(share) >= 0.01 else f"{100 * share:.2g}%"


def size(num_bytes: float) -> str:
    """Bytes in a fitting unit.

    >>> size(1234567)
    '1.2 MB'
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes:.0f} B"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT/", help="folder of a finished corpus stage")
    folder = parser.parse_args().out
    if not (folder / "data" / "report.json").is_file():
        print(f"error: {folder} holds no data/report.json; give the folder of a finished corpus stage", file=sys.stderr)
        sys.exit(2)
    write_page(folder)
