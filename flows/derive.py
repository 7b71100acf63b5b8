"""The Prefect flow: a recipe's stages, one task each, in order. Nothing else happens here.

Tasks are called, not submitted, so that they run in the main thread, where a cancellation reaches them. What
Prefect does around a stage may fail (its server may be lost); the stage's own outcome stands, and the rest of
the run goes on without Prefect.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Annotated, Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.exceptions import FailedRun
from prefect.states import Completed, Failed
from pydantic import Field

from configs.errors import UserError
from configs.load import machine_names, preset_names
from flows import approval, leaderboard
from flows.board import Board, artifact_key
from flows.plan import PlannedStage
from flows.preview import preview
from flows.session import Request, conduct, prepare, results
from flows.stages import Session, StageFailed, run_stage
from flows.store import Artifact

PREPARED: ContextVar[Session | None] = ContextVar("prepared", default=None)
"""A session that the calling process has prepared already (`derive math`); a served run prepares its own."""

AUTO = "auto"
"""The form's word for no machine profile; an empty choice looks like a broken list."""

# Prefect takes a field's title from nowhere else than here.
Preset = Annotated[str, Field(json_schema_extra={"title": "Preset", "enum": preset_names()})]
Base = Annotated[str, Field(json_schema_extra={"title": "Base"})]
Stages = Annotated[list[str], Field(json_schema_extra={"title": "Stages"})]
Overrides = Annotated[list[str], Field(json_schema_extra={"title": "Overrides"})]
MachineName = Annotated[str, Field(json_schema_extra={"title": "Machine", "enum": [AUTO, *machine_names()]})]
Approve = Annotated[bool, Field(json_schema_extra={"title": "Ask before release"})]
DryRun = Annotated[bool, Field(json_schema_extra={"title": "Dry run"})]


@flow(name="derive", description="From a base checkpoint to a released derivative.")
def derive(
    preset: Preset = "math/tiny",
    base: Base = "",
    overrides: Overrides = [],  # noqa: B006 - Prefect copies it
    machine: MachineName = AUTO,
    stages: Stages = [],  # noqa: B006
    approve: Approve = False,
    dry_run: DryRun = False,
) -> State[Any]:
    """Build one preset. Finished stages are reused, an interrupted one is resumed.

    Prefect's form takes its explanations from here.

    Args:
        preset: What to build; each is described on its deployment's page.
        base: Checkpoint to start from: seedling, a local folder or a hub id. Empty takes the preset's.
        overrides: One STAGE.field=value each, such as rl.steps=200 or seed=3.
        machine: Launch profile: how it runs, never what it computes. auto takes the one that fits this machine.
        stages: Stages to build, with what they need; empty builds all.
        approve: Pause before the release, with the evaluation's table, until somebody resumes the run with a yes.
        dry_run: Build nothing; show what would run, what it takes and what differs from the preset.
    """
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
        logging.getLogger(name).addFilter(_tells_news)
    try:
        asked = Request(preset, base.strip(), tuple(overrides), "" if machine == AUTO else machine,
                        until=tuple(filter(None, map(str.strip, stages))))  # fmt: skip
        session = PREPARED.get() or prepare(asked)
        if dry_run:
            return _show_only(session, asked)
    except UserError as error:
        return _failed(error)
    board = Board(session.record["recipe"])
    session.listeners.append(board)
    board.note(f"run {session.record['id']} on {session.machine.name}; store {session.store.root}")
    try:
        conduct(session, step=asking if approve else as_task)
        return Completed(message=_outcome(session.record))
    except (UserError, StageFailed) as error:
        return _failed(error)
    finally:
        board.conclude(session.record, results(session.record), leaderboard.rows(session.store))
        board.close()


def asking(session: Session, planned: PlannedStage) -> Artifact:
    """`as_task`, but a release that is still to be made is asked about first."""
    if planned.stage.kind == "release" and session.store.find(planned.digest) is None:
        approval.approve(session, planned)
    return as_task(session, planned)


def as_task(session: Session, planned: PlannedStage) -> Artifact:
    """Run one stage as a task named after it."""
    outcome: list[Artifact | Exception] = []

    def work() -> State[Any]:
        try:
            artifact = run_stage(session, planned)
        except Exception as error:
            outcome.append(error)
            return Failed(message=str(error))
        outcome.append(artifact)
        entry = session.record["stages"][-1]
        name = "Reused" if entry["reused"] else "Completed"
        return Completed(name=name, message=f"{artifact.digest[:12]} in {artifact.folder}")

    if session.prefect_alive():
        try:
            named = task(name=planned.stage.kind, task_run_name=planned.stage.id, cache_policy=NO_CACHE)
            named(work)(return_state=True)
        except Exception as error:
            session.prefect_alive = lambda: False
            session.note(f"Prefect was lost ({type(error).__name__}); the run goes on without it")
    if not outcome:
        return run_stage(session, planned)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _show_only(session: Session, asked: Request) -> State[Any]:
    """A dry run: one page, nothing built."""
    key = artifact_key("dry-run", session.plan.recipe.name)
    create_markdown_artifact(markdown=preview(session, asked), key=key, description=asked.command)
    return Completed(name="DryRun", message="nothing was built; the page is under Artifacts")


def _failed(error: Exception) -> State[Any]:
    """The reason as the run's state and, with its line breaks, in its log."""
    get_run_logger().error("%s", error)
    return Failed(message=str(error))


def _tells_news(record: logging.LogRecord) -> bool:
    """False for what Prefect adds when a state was returned as failed: its own engine's traceback, or an empty one."""
    return not (record.exc_info and (record.exc_info[1] is None or isinstance(record.exc_info[1], FailedRun)))


def _outcome(record: dict[str, Any]) -> str:
    return f"released to {record['release']}" if record["release"] else "all stages are done"
