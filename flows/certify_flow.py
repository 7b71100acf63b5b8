"""The flow behind the form `certify-verifier`: an installed verifier, its cases, and the card that comes of them.

What is certified is what is installed: a verifier is written in its author's own package (`verifiers/README.md`), and
appears among the choices of a running `derive up` within a minute of `pip install`. Code is never pasted into a form.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from configs.errors import UserError
from configs.names import check_verifier, verifier_names
from flows.board import artifact_key
from flows.certify_command import certify

if TYPE_CHECKING:
    from verifiers.certify.card import Card

NAME = "certify-verifier"
VERIFIERS = list(verifier_names())
"""The form's choices; `flows/catalogue.py` renews them, in place, for the annotation below holds this very list."""
MAX_PASTED = 400_000
"""Characters; Prefect takes no more than 512 kB of parameters. A file may be longer."""
PAGE = """Certifies an installed verifier: its contract, its cases, attacks on it, its latency, its source. The card is
an artifact of the run, and what `rl` asks for before it rewards by the verifier; the newest one counts.

A case is a line of JSON:

```
{"completion": "The sum is \\\\boxed{12}.", "answer": "12", "expect": "correct"}
{"completion": "The sum is \\\\boxed{13}.", "answer": "12", "expect": "incorrect", "why": "one too many"}
```

Leave both fields of cases empty to take the cases that come with the verifier. A newly installed verifier is among the
choices within a minute.

The same in a terminal: `derive verifiers certify NAME`."""

Verifier = Annotated[str, Field(json_schema_extra={"title": "Verifier", "enum": VERIFIERS})]
CasesFile = Annotated[str, Field(json_schema_extra={"title": "Cases file"})]
CasesText = Annotated[str, Field(json_schema_extra={"title": "Cases"})]


@flow(name=NAME, description="Certify an installed verifier and show its card.")
def certify_verifier(verifier: Verifier, cases_file: CasesFile = "", cases: CasesText = "") -> State[Any]:
    """Certify one verifier.

    Args:
        verifier: An installed verifier; a new one appears within a minute of its installation.
        cases_file: Path of a JSONL file with one case a line. Empty takes what is pasted below, or else the cases that
            come with the verifier.
        cases: Pasted cases, one JSON object a line with completion, answer and expect (correct or incorrect).
    """
    with tempfile.TemporaryDirectory(prefix="derive-cases-") as folder:
        try:
            check_verifier("verifier", verifier)
            card = certify(verifier, _cases(cases_file.strip(), cases, Path(folder)), progress=get_run_logger().info)
        except UserError as error:
            text = str(error).replace(f"{folder}/", "")  # `cases:3: not JSON`: the field and the line
            get_run_logger().error("%s", text)
            return Failed(message=text)
    _publish(card)
    if not card.certified:
        told = "; ".join(f"{finding.check}: {finding.sentence}" for finding in card.failed) or "not all checks were run"
        get_run_logger().error("%s is not certified: %s", verifier, told)
        return Failed(name="NotCertified", message=f"{verifier} is not certified: {told}")
    return Completed(name="Certified", message=f"{verifier} is certified: card {card.digest[:12]}")


def _cases(given: str, pasted: str, folder: Path) -> Path | None:
    """The file with the cases; None where those of the verifier are to be taken.

    Raises:
        UserError: Both were given, or the file is none, or too much was pasted.
    """
    if not pasted.strip():
        path = Path(given).expanduser() if given else None
        if path is not None and ("\0" in given or not path.is_file()):
            raise UserError(f"cases_file: {given!r} is no file on the machine that runs this; allowed: the path of a "
                            "JSONL file; correct it, or paste the cases")
        return path
    if given:
        raise UserError(f"cases: lines were pasted and cases_file names {given!r}; allowed: one of the two; clear one")
    if len(pasted) > MAX_PASTED:
        raise UserError(f"cases: {len(pasted):,} characters were pasted; allowed: {MAX_PASTED:,}; put them into a file")
    path = folder / "cases"  # messages name the file: they shall name the field
    path.write_text(pasted.strip() + "\n", encoding="utf-8", errors="surrogatepass")
    return path


def _publish(card: Card) -> None:
    """The card as a table and as a page."""
    from verifiers.certify.markdown import card_markdown

    told = "certified" if card.certified else "not certified"
    told = f"{card.name}: {told}"
    create_table_artifact(table=card.rows(), key=artifact_key("card", card.name, "checks"), description=told)
    create_markdown_artifact(markdown=card_markdown(card), key=artifact_key("card", card.name), description=told)
