"""Runs a prepared session for the command line: the display, Prefect if it can be had, and the exit code."""

from __future__ import annotations

import signal
import sys

from rich.console import Console

from configs.errors import EXIT_USER_ERROR, UserError
from flows.server import Server
from flows.session import conduct
from flows.stages import Session, StageFailed
from flows.terminal import show

FLUSH_LIMIT_S = 5.0


def launch(session: Session, with_prefect: bool = True) -> int:
    """Run to the end. Returns 0, 1 after a crash, 2 after a user's error, 130 or 143 after an interrupt."""
    console = Console(stderr=True)
    listener, context = show(console, session.plan)
    session.listeners.append(listener)
    try:
        with context:
            _run(session, with_prefect)
    except (UserError, StageFailed) as error:
        session.failure = session.failure or error  # told below, after the display has closed
    except BaseException as error:
        if session.record["status"] != "cancelled":
            raise
        interrupted = isinstance(error, KeyboardInterrupt) and type(error) is KeyboardInterrupt
        print("cancelled; run the same command again to resume", file=sys.stderr)
        return 128 + (signal.SIGINT if interrupted else signal.SIGTERM)
    if session.failure is not None:
        print(f"error: {session.failure}", file=sys.stderr)
        return EXIT_USER_ERROR if isinstance(session.failure, UserError) else 1
    return 0


def _run(session: Session, with_prefect: bool) -> None:
    if with_prefect:
        server = Server(session.store.root)
        try:
            # A run that builds nothing has nothing to watch: a server is used if one runs, not started for it.
            server.start(may_start=any(planned.artifact is None for planned in session.plan.stages))
            if (server.url is not None or server.expected) and _through_prefect(session, server):
                return
        finally:
            server.close()
    conduct(session)


def _through_prefect(session: Session, server: Server) -> bool:
    """Run as a flow. False when Prefect could not even begin."""
    try:
        from flows.derive import PREPARED, PRESETS, derive
    except ImportError as error:
        session.note(f"Prefect cannot be loaded ({error}); the run goes on without it")
        return False
    if not server.ready():
        session.note("no Prefect server answers; the run goes on without it")
        return False
    session.prefect_alive = server.alive
    token = PREPARED.set(session)
    try:
        named = derive.with_options(flow_run_name=session.record["id"])
        named(
            preset=session.record["preset"],
            base=session.record["base"],
            budget=(session.record.get("budget") or {}).get("text", ""),
            overrides=session.record["overrides"],
            verifier=session.record.get("verifier") or PRESETS,
            machine=session.machine.name,
            return_state=True,
        )
    except Exception as error:  # Prefect's own: what a stage raised is in session.failure
        session.note(f"Prefect was lost ({type(error).__name__}: {str(error)[:200]})")
    finally:
        PREPARED.reset(token)
        if server.alive():
            _flush()
    return bool(session.record["status"] != "running")


def _flush() -> None:
    """Send what Prefect's background threads still hold (task states, logs), before the server goes."""
    try:
        from prefect.events.worker import EventsWorker
        from prefect.logging.handlers import APILogWorker

        for service in (EventsWorker, APILogWorker):
            service.drain_all(timeout=FLUSH_LIMIT_S)
    except Exception as error:  # only the UI's history is at stake
        print(f"note: Prefect's last messages were not sent ({type(error).__name__})", file=sys.stderr)
