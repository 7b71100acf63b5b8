"""A person's yes before a release: the run pauses with the evaluation's table, and goes on as the form is answered.

Nothing holds the device meanwhile: the stages before are done and stored. A run that is not answered in time, or whose
server is lost, ends unreleased; run again, or retried, it reuses everything and asks at once, whatever was answered.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from prefect import get_run_logger, pause_flow_run
from prefect.exceptions import FlowPauseTimeout
from prefect.input import RunInput
from pydantic import Field

from configs.errors import UserError
from flows.board import result_rows
from flows.plan import PlannedStage
from flows.session import results
from flows.stages import Session
from flows.terminal import metrics_text

PATIENCE_S = 7 * 24 * 3600
POLL_S = 5


class Approval(RunInput):
    """What the pause's dialog asks."""

    release: bool = Field(default=False, title="Release", description="Off ends the run without a release.")
    note: str = Field(default="", title="Note", description="Recorded in the run: who decided, and why.")


def approve(session: Session, planned: PlannedStage) -> None:
    """Ask, and record the answer. Only in a flow, for a release that is still to be made.

    Raises:
        UserError: It was declined, or nobody answered.
    """
    # By itself Prefect counts a process's questions: a retried run's first would be taken for the one before, and for
    # answered.
    key = f"{planned.stage.id}-{secrets.token_hex(8)}"
    asked = Approval.with_initial_data(description=question(session, planned))
    get_run_logger().info("%s: waits for approval (Resume, on this run's page)", planned.stage.id)
    session.asks = True
    session.wait_for(f"{planned.stage.id} waits for approval (Resume, on this run's page)")
    try:
        answer = pause_flow_run(wait_for_input=asked, timeout=PATIENCE_S, poll_interval=POLL_S, key=key)
    except FlowPauseTimeout as error:
        raise UserError(f"{planned.stage.id}: nobody approved the release within a week; run again to be asked again") \
            from error  # fmt: skip
    finally:
        session.wait_for("")
        session.asks = False
    session.record["approval"] = {"released": answer.release, "note": answer.note}
    if not answer.release:
        why = f": {answer.note}" if answer.note else ""
        raise UserError(f"{planned.stage.id}: the release was declined{why}; the stages before it are kept")


def question(session: Session, planned: PlannedStage) -> str:
    """Markdown of the dialog: the evaluation's table."""
    lines = [f"**{session.record['recipe']}**: release `{planned.stage.id}`?", ""]
    found = results(session.record)
    rows: list[Mapping[str, Any]] = list(result_rows(found)) if found else []
    if rows:
        lines += [f"| {' | '.join(rows[0])} |", "|---" * len(rows[0]) + "|"]
        lines += [f"| {' | '.join(row.values())} |" for row in rows]
    for entry in session.record["stages"]:
        if entry["kind"] in ("sft", "rl", "dpo", "pretrain"):
            lines += ["", f"{entry['id']}: {metrics_text(entry['metrics'], ', ') or 'done'}"]
    lines += ["", "*Release* off ends the run without one. The gates of the recipe apply in either case."]
    return "\n".join(lines)
