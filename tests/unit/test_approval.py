"""What a run says while a person is asked about its release, whatever the answer is."""

from __future__ import annotations

import contextlib
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.exceptions import FlowPauseTimeout

from configs.errors import UserError
from flows import approval


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        (SimpleNamespace(release=True, note="looks right"), ""),
        (SimpleNamespace(release=False, note="too early"), "^release: the release was declined: too early"),
        (FlowPauseTimeout(), "^release: nobody approved the release within a week"),
    ],
)
def test_the_board_says_that_it_waits_for_approval_and_no_longer_when_that_is_over(
    monkeypatch: pytest.MonkeyPatch, answer: Any, refused: str
) -> None:
    told: list[tuple[str, bool]] = []
    keys: list[str] = []
    session: Any = SimpleNamespace(record={"recipe": "math/tiny", "stages": []}, waiting="", asks=False)

    def wait_for(text: str) -> None:
        session.waiting = text
        told.append((text, session.asks))

    def asked(key: str, **_: Any) -> Any:
        keys.append(key)
        assert session.waiting == "release waits for approval (Resume, on this run's page)" and session.asks
        if isinstance(answer, Exception):
            raise answer
        return answer

    session.wait_for = wait_for
    monkeypatch.setattr(approval, "pause_flow_run", asked)
    monkeypatch.setattr(approval, "get_run_logger", lambda: logging.getLogger("test"))
    planned: Any = SimpleNamespace(stage=SimpleNamespace(id="release"))
    if refused:
        with pytest.raises(UserError, match=refused):
            approval.approve(session, planned)
    else:
        approval.approve(session, planned)
        assert session.record["approval"] == {"released": True, "note": "looks right"}
    # Prefect's own pause is the state of the flow run: nothing of ours may take its place at either moment.
    assert told == [("release waits for approval (Resume, on this run's page)", True), ("", True)]
    assert not session.asks
    with contextlib.suppress(UserError):
        approval.approve(session, planned)
    assert len(set(keys)) == 2  # Prefect would take an earlier answer for that of a question with the same key
