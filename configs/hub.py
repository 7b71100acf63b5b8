"""Rows of a data set streamed through the `datasets` library: from the hub at a commit, or from files of a mirror.

What is lost on the way is fetched again from the very row on: the library's own place in the stream is kept, so that
nothing comes twice and nothing is left out. Only when the attempts in a row are used up is it an error that the flow
may try again.

It does not cache: what is read twice is fetched twice. A mirror (`configs/catalogue.py`) is the cache.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import RetryableError, UserError

RETRY_DELAYS_S = (1.0, 5.0, 20.0, 60.0)
"""Pauses before the attempts at a row that was lost; a row that comes starts them anew."""
TIMEOUT_S = 10.0
UNPINNED = "unpinned"
BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".gz": "json", ".zst": "json"}
"""Ending of a mirror's file -> the library's reader for it."""
MESSAGE_CHARACTERS = 200


@dataclass(frozen=True)
class Stream:
    """One split to be read.

    Attributes:
        name: The data set's name, for messages.
        page: Its id on the hub.
        place: How a row is told of: `ID@COMMIT SPLIT`, or the files.
        remedy: What to do when it cannot be had.
        is_distant: Whether it comes over a network, so that what fails may come another time.
        open: Gives the library's streaming data set.
    """

    name: str
    page: str
    place: str
    remedy: str
    is_distant: bool
    open: Callable[[], Any]


def from_hub(name: str, page: str, subset: str | None, split: str, revision: str, remedy: str) -> Stream:
    """A split on the hub at one commit."""
    def load() -> Any:
        return _library(name, remedy).load_dataset(page, subset, split=split, revision=revision, streaming=True)

    return Stream(name, page, f"{page}@{revision[:8]} {split}", remedy, True, load)


def from_files(name: str, page: str, files: Sequence[Path]) -> Stream:
    """Files of one split, all of one kind, in the order given."""
    remedy = f"fetch {files[0].parent} again"
    kinds = {BUILDERS[path.suffix] for path in files}
    if len(kinds) > 1:
        raise UserError(f"data set {name}: {files[0].parent} holds both Parquet and JSON; keep one of the two")

    def load() -> Any:
        library = _library(name, remedy)
        return library.load_dataset(kinds.pop(), data_files=[str(path) for path in files], split="train",
                                    streaming=True)

    shown = str(files[0]) if len(files) == 1 else f"{files[0].parent}/*{files[0].suffix}"
    return Stream(name, page, shown, remedy, False, load)


def rows(stream: Stream) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row with its place, for messages.

    Raises:
        UserError: It cannot be opened (no such set, terms not accepted, no network), or its content is damaged.
        RetryableError: The connection was lost and did not come back.
    """
    try:
        source = stream.open()
        following = iter(source)
    except UserError:
        raise
    except Exception as error:  # not found, offline, refused, a script: a dozen types
        raise _cannot_open(stream, error) from error
    attempt = 0
    for index in itertools.count():
        while True:
            try:
                row = next(following)
                break
            except StopIteration:
                return
            except Exception as error:
                _raise_if_final(stream, error, index, attempt)
                time.sleep(RETRY_DELAYS_S[attempt])
                attempt += 1
                following = _resumed(source)
        attempt = 0
        yield f"{stream.place} row {index}", dict(row)


def _resumed(source: Any) -> Iterator[Any]:
    """The stream once more, from the row after the last that came."""
    source.load_state_dict(source.state_dict())
    return iter(source)


def _raise_if_final(stream: Stream, error: Exception, index: int, attempt: int) -> None:
    """Raises what an error means, unless it is a lost connection that is worth another attempt."""
    import httpx

    from_client = isinstance(error, httpx.HTTPError) or type(error).__module__.partition(".")[0] in CLIENTS
    if stream.is_distant and (from_client or isinstance(error, OSError)) and not _is_refused(error):
        if attempt < len(RETRY_DELAYS_S):
            return
        raise RetryableError(f"data set {stream.name}: {stream.place}: was lost at row {index} and did not come back "
                             f"in {attempt + 1} attempts ({_short(error)}); try again, or {stream.remedy}") from error
    if index == 0 and stream.is_distant:  # some sets are only fetched with their first row
        raise _cannot_open(stream, error) from error
    raise UserError(f"data set {stream.name}: {stream.place}: cannot be read after row {index} ({_short(error)}); it "
                    f"is cut short, damaged, or its rows are of several kinds: {stream.remedy}") from error


CLIENTS = ("aiohttp", "urllib3", "requests")
"""Packages that older or other file systems of the library fetch with; their errors are no OSError throughout."""
REFUSALS = ("Gated", "NotFound", "Offline", "Disabled")
"""Parts of the names of errors that no further attempt mends."""


def _is_refused(error: BaseException) -> bool:
    return any(part in type(one).__name__ for one in _causes(error) for part in REFUSALS)


def _cannot_open(stream: Stream, error: BaseException) -> UserError:
    chain = list(_causes(error))
    told = " ".join(str(one) for one in chain).lower()
    if any("Gated" in type(one).__name__ for one in chain) or "gated dataset" in told:
        return UserError(f"data set {stream.name}: {stream.page} asks you to accept its terms: log in at "
                         f"https://huggingface.co/datasets/{stream.page}, accept them, then run `hf auth login` here "
                         f"or set HF_TOKEN; or {stream.remedy}")
    if any("Offline" in type(one).__name__ for one in chain) or "offlinemodeisenabled" in told:
        return UserError(f"data set {stream.name}: {stream.page} was not fetched, as HF_HUB_OFFLINE is set; unset it, "
                         f"or {stream.remedy}")
    return UserError(f"data set {stream.name}: {stream.page} cannot be opened ({_short(error)}); {stream.remedy}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:MESSAGE_CHARACTERS]


def _library(name: str, remedy: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"data set {name}: the package `datasets` is not installed; pip install datasets, or "
                        f"{remedy}") from error
    from datasets.utils import logging
    from huggingface_hub.utils import logging as hub_logging

    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()  # two lines a retry otherwise; what came of them is told above
    return datasets


# Commits --------------------------------------------------------------------------------------------------------


def revisions_file() -> Path:
    """Where the commits of unpinned data sets are recorded at first use."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "derive" / "revisions.json"


def newest_revision(name: str, page: str, remedy: str, or_unpinned: bool = False) -> str:
    """The recorded commit of an unpinned data set, else the newest, which is recorded.

    Raises:
        UserError: Not recorded, and the hub cannot be asked (unless `or_unpinned`).
    """
    recorded = _recorded_revisions()
    if page in recorded:
        return recorded[page]
    try:
        from huggingface_hub import HfApi

        newest = HfApi().dataset_info(page, timeout=TIMEOUT_S).sha
    except Exception as error:  # the hub's client raises a dozen unrelated types when there is no network
        if or_unpinned:
            return UNPINNED
        raise UserError(f"data set {name}: {page} cannot be reached ({_short(error)}); {remedy}") from error
    if not newest:
        return UNPINNED
    from configs.stage import write_json_atomic

    write_json_atomic(revisions_file(), {**recorded, page: newest})
    return newest


def _recorded_revisions() -> dict[str, str]:
    path = revisions_file()
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); mend it or delete it") from error
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise UserError(f"{path}: is not a mapping of data set ids to commits; mend it or delete it")
    return value
