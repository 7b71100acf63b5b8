"""The Prefect flow: a recipe's stages, one task each, in order. Nothing else happens here.

Tasks are called, not submitted, so that they run in the main thread, where a cancellation reaches them. What
Prefect does around a stage may fail (its server may be lost); the stage's own outcome stands, and the rest of
the run goes on without Prefect.
"""

from __future__ import annotations

import logging
import os
from contextvars import ContextVar
from typing import Annotated, Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.blocks.system import Secret
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.exceptions import FailedRun, Pause
from prefect.states import Cancelled, Completed, Failed
from pydantic import Field

from configs.errors import UserError
from configs.load import machine_names, preset_names
from configs.names import unknown, verifier_names
from flows import approval, automations, handover, leaderboard
from flows.board import Board, artifact_key
from flows.link import CHECKPOINTED, current_flow_run, open_link
from flows.pause import Stopped, Suspended
from flows.plan import PlannedStage
from flows.preview import preview
from flows.session import Request, conduct, prepare, results
from flows.stages import GatesRefused, Session, StageFailed, run_stage
from flows.store import Artifact, Store

PREPARED: ContextVar[Session | None] = ContextVar("prepared", default=None)
"""A session that the calling process has prepared already (`derive math`); a served run prepares its own."""

AUTO = "auto"
"""The form's word for no machine profile; an empty choice looks like a broken list."""
PRESETS = "preset's"
"""The form's word for the verifiers that the preset names."""
RUN, ASK, DRY_RUN = "run", "ask before release", "dry run"
MODES = (RUN, ASK, DRY_RUN)
TOKEN, TOKEN_BLOCK = "HF_TOKEN", "hub-token"
"""Variable and Secret block of the hub's token: parameters are shown to everybody who sees a run."""
FIELD_OF_OPTION = {"--set": "overrides", "--until": "stages"}
"""How a message of the command line names a field of the form."""


def verifier_choices() -> list[str]:
    """What the form offers: the names of installed verifiers, read without importing them."""
    return [PRESETS, *verifier_names()]


VERIFIERS = verifier_choices()
"""`flows/catalogue.py` renews them, in place, for the annotation below holds this very list."""

# Prefect takes a field's title from nowhere else than here.
Preset = Annotated[str, Field(json_schema_extra={"title": "Preset", "enum": preset_names()})]
Base = Annotated[str, Field(json_schema_extra={"title": "Base"})]
Stages = Annotated[list[str], Field(json_schema_extra={"title": "Stages"})]
BudgetText = Annotated[str, Field(json_schema_extra={"title": "Budget"})]
Overrides = Annotated[list[str], Field(json_schema_extra={"title": "Overrides"})]
VerifierName = Annotated[str, Field(json_schema_extra={"title": "Verifier", "enum": VERIFIERS})]
MachineName = Annotated[str, Field(json_schema_extra={"title": "Machine", "enum": [AUTO, *machine_names()]})]
Mode = Annotated[str, Field(json_schema_extra={"title": "Mode", "enum": list(MODES)})]


@flow(name="derive", description="From a base checkpoint to a released derivative.")
def derive(
    preset: Preset = "math/tiny",
    base: Base = "",
    stages: Stages = [],  # noqa: B006 - Prefect copies it
    budget: BudgetText = "",
    overrides: Overrides = [],  # noqa: B006
    verifier: VerifierName = PRESETS,
    machine: MachineName = AUTO,
    mode: Mode = RUN,
) -> State[Any]:
    """Build one preset. Finished stages are reused, an interrupted one is resumed.

    Prefect's form takes its explanations from here.

    Args:
        preset: What to build; each is described on its deployment's page.
        base: Checkpoint to start from: seedling, a local folder or a hub id. Empty takes the preset's.
        stages: Stages to build, with what they need; empty builds all.
        budget: Total of all training stages, such as 5e6 tokens, 200 steps or 2 hours; each gets as many times longer
            or shorter. Empty takes the preset's.
        overrides: One STAGE.field=value each, such as rl.learning_rate=1e-5 or seed=3.
        verifier: What rewards every rl stage; what the release is judged by stays the preset's.
        machine: Launch profile: how it runs, never what it computes. auto takes the one that fits this machine.
        mode: run; ask before release pauses with the evaluation's table until somebody resumes the run with a yes;
            dry run builds nothing and shows what would run, what it takes and what differs from the preset.
    """
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
        logging.getLogger(name).addFilter(_tells_news)
    try:
        if mode not in MODES:  # the browser's check can be switched off
            raise unknown("mode", mode, "mode", MODES)
        asked = Request(
            preset,
            base.strip(),
            tuple(overrides),
            "" if machine == AUTO else machine,
            verifier="" if verifier == PRESETS else verifier,
            budget=budget,
            until=tuple(filter(None, map(str.strip, stages))),
        )
        session = PREPARED.get()
        if session is None:
            _take_token()
            handover.announce(Store(None), current_flow_run())
            session = prepare(asked)
        if mode == DRY_RUN:
            return _show_only(session, asked)
        link = open_link(session)
    except UserError as error:
        return _failed(error)
    board = Board(session)
    session.listeners.append(board)
    board.note(f"run {session.record['id']} on {session.machine.name}; store {session.store.root}")
    try:
        conduct(session, step=asking if mode == ASK else as_task)
        if link is not None:
            link.finish()
        _tell_released(session)
        return Completed(message=_outcome(session.record))
    except Suspended as suspended:
        raise Pause(state=State.model_validate(suspended.state)) from suspended
    except (UserError, StageFailed) as error:
        if link is not None:
            link.finish()
        return _failed(error)
    except BaseException:
        if link is not None and link.is_ending and link.has_deployment:  # else the state would be that of a crash
            return Cancelled(message="cancelled; Retry, or the same run again, resumes it")
        raise
    finally:
        if link is not None:
            link.close()
        board.conclude(session.record, results(session.record), leaderboard.rows(session.store))
        board.close()


def asking(session: Session, planned: PlannedStage) -> Artifact:
    """`as_task`, but a release that is still to be made is asked about first."""
    if planned.stage.kind == "release" and session.store.find(planned.digest) is None:
        approval.approve(session, planned)
    return as_task(session, planned)


def as_task(session: Session, planned: PlannedStage) -> Artifact:
    """Run one stage as a task named after it."""
    outcome: list[Artifact | BaseException] = []

    def work() -> State[Any]:
        try:
            artifact = run_stage(session, planned)
        except BaseException as error:  # raised below, once the task has its true state
            outcome.append(error)
            return _unfinished(error, (session.record["stages"] or [{}])[-1])
        outcome.append(artifact)
        entry = session.record["stages"][-1]
        name = "Reused" if entry["reused"] else "Completed"
        return Completed(name=name, message=f"{artifact.digest[:12]} in {artifact.folder}")

    if session.prefect_alive():
        try:
            named = task(name=planned.stage.kind, task_run_name=planned.stage.id, cache_policy=NO_CACHE)
            named(work)(return_state=True)
        except Pause:  # Prefect's own look at a pause, at the edges of a task
            if not outcome:
                session.hold(session, Stopped(planned.stage.id, None))
        except Exception as error:
            session.prefect_alive = lambda: False
            session.note(f"Prefect was lost ({type(error).__name__}); the run goes on without it")
    if not outcome:
        return run_stage(session, planned)
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _show_only(session: Session, asked: Request) -> State[Any]:
    """A dry run: one page, nothing built."""
    key = artifact_key("dry-run", session.plan.recipe.name)
    create_markdown_artifact(markdown=preview(session, asked), key=key, description=asked.command)
    return Completed(name="DryRun", message="nothing was built; the page is under Artifacts")


def _take_token() -> None:
    """Put the hub's token of the Secret block, if there is one, into the environment, which stages inherit."""
    if os.environ.get(TOKEN):
        return
    try:
        os.environ[TOKEN] = str(Secret.load(TOKEN_BLOCK).get())  # type: ignore[union-attr]
    except Exception:  # there is none, or the server is away: public checkpoints need none, and others say so
        return


def _failed(error: Exception) -> State[Any]:
    """The reason as the run's state and, with its line breaks, in its log."""
    text = str(error)
    for option, field in FIELD_OF_OPTION.items():
        if text.startswith((f"{option}:", f"{option} ")):
            text = field + text.removeprefix(option)
    get_run_logger().error("%s", text)
    return Failed(name=_failed_name(error), message=text)


def _tell_released(session: Session) -> None:
    """What automations wait for; only of a release that this run has made."""
    made = [entry for entry in session.record["stages"] if entry["kind"] == "release" and not entry["reused"]]
    if not made:
        return
    try:
        automations.emit_released(session.record)
    except Exception as error:  # the release stands
        session.note(f"Prefect was not told of the release ({type(error).__name__})")


def _failed_name(error: BaseException) -> str:
    return "GateFailed" if isinstance(error, GatesRefused) else "Failed"


def _unfinished(error: BaseException, entry: dict[str, Any]) -> State[Any]:
    """The state of a task whose stage was not built."""
    if isinstance(error, Exception) and not isinstance(error, Suspended):
        return Failed(name=_failed_name(error), message=str(error))
    step = entry.get("checkpoint")
    if step is None:
        return Cancelled(message="ended without a checkpoint; it begins again")
    return Cancelled(name=CHECKPOINTED, message=f"step {step}; it goes on from there")


def _tells_news(record: logging.LogRecord) -> bool:
    """False for what Prefect adds when a state was returned as failed: its own engine's traceback, or an empty one."""
    return not (record.exc_info and (record.exc_info[1] is None or isinstance(record.exc_info[1], FailedRun)))


def _outcome(record: dict[str, Any]) -> str:
    return f"released to {record['release']}" if record["release"] else "all stages are done"
