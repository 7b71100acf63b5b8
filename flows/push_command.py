"""`derive release push RELEASE OWNER/NAME`: a dry run by default, an upload with `--really`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from configs.errors import EXIT_RETRY, RetryableError

HELP = """Upload a release folder to a model repository of the Hugging Face hub (or of $HF_ENDPOINT).

Without --really nothing is contacted or sent: it lists each file with size and digest, the licence, what the card's
front matter says to the hub, how the folder shows that its gates held, where the token would come from, and what would
be made. A push is refused where the gates did not hold, the card is missing or lacks what a hub reads, a file is no
part of a release (or a link, or larger than a hub takes), or a text holds what looks like a secret. lineage.json goes
without the paths of this machine. All files are one commit: the repository shows the whole release or none of it, and
the same command goes on after a break."""
EXAMPLES = """examples:
  derive release push RELEASE someone/my-math-model              what would happen
  derive release push RELEASE someone/my-math-model --private --really
  derive release push RELEASE-int4 someone/my-math-model-int4 --revision int4-group32 --really"""


def add_command(add: Callable[..., argparse.ArgumentParser], json_output: argparse.ArgumentParser) -> None:
    """The parser of `derive release push`."""
    top = add("release", "upload a release to a hub, after a dry run")
    top.epilog = EXAMPLES
    actions = top.add_subparsers(dest="action", metavar="ACTION", required=True)
    made = actions.add_parser(
        "push", help="upload a release folder; a dry run without --really", description=HELP, epilog=EXAMPLES,
        parents=[json_output], formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    made.add_argument("release", type=Path, metavar="RELEASE",
                      help="folder that a release stage, or `derive export --to int8 | int4`, wrote")  # fmt: skip
    made.add_argument("repository", metavar="OWNER/NAME", help="model repository; made where it is missing")
    made.add_argument("--private", action="store_true", help="make it private; a public one that exists is refused")
    made.add_argument("--revision", default="main", metavar="BRANCH", help="branch (default: %(default)s)")
    made.add_argument("--really", action="store_true", help="upload; without, nothing is contacted")


def run(given: argparse.Namespace) -> int:
    """`derive release push`; exit code 75 where it broke off and the same command goes on. Raises UserError."""
    try:
        return _run(given)
    except RetryableError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_RETRY


def _run(given: argparse.Namespace) -> int:
    from flows import push
    from flows.export_command import release_folder

    release = release_folder(given.release)
    planned = push.plan(release, given.repository, given.private, given.revision)
    if given.json:
        told = {
            "repository": planned.repository, "private": planned.private, "revision": planned.revision,
            "endpoint": planned.endpoint, "size_bytes": planned.size, "metadata": dict(planned.metadata),
            "gates": planned.gates, "token_from": planned.token, "notes": list(planned.notes),
            "files": [{"name": one.name, "size_bytes": one.size, "sha256": one.sha256} for one in planned.items],
        }  # fmt: skip
        address = push.push(planned) if given.really else None
        print(json.dumps({**told, "pushed": address}, indent=2, ensure_ascii=False))
        return 0
    kind = "private" if planned.private else "public"
    print(f"{release} -> {planned.repository} at {planned.endpoint}, branch {planned.revision}")
    print(f"the repository is made {kind} where it is missing")
    for item in planned.items:
        changed = "" if isinstance(item.source, Path) else "  (without this machine's paths)"
        print(f"  {item.size:>14,} bytes  {item.sha256[:16]}  {item.name}{changed}")
    print(f"{len(planned.items)} files, {planned.size / 1e6:.1f} MB, one commit")
    print(f"licence {planned.metadata['license']}, base model {planned.metadata.get('base_model', 'none')}, "
          f"{planned.metadata['pipeline_tag']}, tags {', '.join(map(str, planned.metadata['tags']))}")  # fmt: skip
    print(f"gates: {planned.gates}")
    print(f"token: {planned.token or 'none found; `hf auth login` or $HF_TOKEN'}")
    for note in planned.notes:
        print(f"note: {note}")
    if not given.really:
        print("dry run: nothing was contacted or sent; add --really to upload")
        return 0
    print(f"pushed: {push.push(planned)}")
    return 0
