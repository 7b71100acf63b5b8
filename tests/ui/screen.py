"""A person at Prefect's page: opens a deployment, fills its form, looks at a run. Every step leaves a screenshot.

What is waited for is a condition, with a limit that a busy machine can keep; elements are found by role and label.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import Locator, Page, expect

LIMIT_MS = 240_000
SETTLE_MS = 10_000
LOAD_MS = 30_000
GRAPH_MS = 4_000
"""What a run's graph needs to be drawn."""
SLOW_FRAMES = """
const draw = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (step) => setTimeout(() => draw(step), 250);
window.cancelAnimationFrame = (timer) => clearTimeout(timer);
document.addEventListener("DOMContentLoaded", () => {
  document.head.appendChild(document.createElement("style")).textContent = "canvas { pointer-events: none }";
});
"""
"""Prefect's page of a run draws its graph anew for every frame: without a GPU that takes two cores, and clicks wait.
Until it has drawn, its canvas also lies over the buttons."""
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")


class Screen:
    """One page of a browser on a served address."""

    def __init__(self, page: Page, address: str, shots: Path) -> None:
        self.page = page
        self.address = address
        self._shots = shots
        page.set_default_timeout(LIMIT_MS)
        page.add_init_script(SLOW_FRAMES)
        expect.set_options(timeout=LIMIT_MS)
        shots.mkdir(parents=True, exist_ok=True)

    def shot(self, name: str, part: Locator | None = None) -> None:
        """Keep what is seen as NAME.png, once the grey bars are gone that stand where something is being loaded."""
        with contextlib.suppress(AssertionError):  # part of a page may wait for what has not happened yet
            expect(self.page.locator("[data-slot=skeleton], .animate-pulse")).to_have_count(0, timeout=SETTLE_MS)
        if self.page.locator("canvas").count():
            self.page.wait_for_timeout(GRAPH_MS)
        (part or self.page).screenshot(path=self._shots / f"{name}.png", animations="disabled")

    def go(self, path: str) -> None:
        """Open a path of the second version of the page."""
        self.page.goto(f"{self.address}/v2/{path}")

    def leave(self) -> None:
        """Look at nothing while something is waited for."""
        self.page.goto("about:blank")

    def ask(self, path: str, body: Any = None) -> Any:
        """What the server says; a body makes it a POST. It answers 503 while another writer holds the database."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address}/api/{path}", data, {"content-type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for attempt in range(20):
            try:
                with opener.open(request, timeout=60) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code != 503 or attempt == 19:
                    raise
                time.sleep(1)
        raise AssertionError("unreachable")

    def until(self, condition: Callable[[], Any], what: str, limit_s: float = LIMIT_MS / 1000) -> Any:
        """Wait for something that the page does not tell by itself; returns what it was."""
        deadline = time.monotonic() + limit_s
        while not (found := condition()):
            assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what}"
            self.page.wait_for_timeout(200)
        return found

    def open_deployment(self, name: str) -> None:
        """From the list of deployments to the page of one."""

        def opened() -> bool:  # the list is drawn anew when deployments change, and a click on the old one is lost
            self.go("deployments")
            self.page.get_by_placeholder("Search deployments").fill(name)
            with contextlib.suppress(PlaywrightError):
                self.page.get_by_role("link", name=name, exact=True).first.click(timeout=LOAD_MS)
                self.page.get_by_role("tab", name="Description").wait_for(timeout=LOAD_MS)
            return self.page.get_by_role("tab", name="Description").is_visible()

        self.until(opened, f"the page of the deployment {name}")

    def open_form(self, name: str) -> None:
        """From the list of deployments to the form of one."""
        self.open_deployment(name)
        self.page.get_by_role("button", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Custom run").click()
        self.page.get_by_role("heading", name="Parameters").wait_for()

    def choose(self, field: str, value: str) -> None:
        """Take one of a field's choices."""
        self.page.get_by_role("button", name=f"Select {field}").click()
        self.page.get_by_role("option", name=value, exact=True).click()
        expect(self.page.get_by_role("button", name=f"Select {field}")).to_have_text(value)

    def choices(self, field: str) -> list[str]:
        """What a field offers."""
        self.page.get_by_role("button", name=f"Select {field}").click()
        self.page.get_by_role("option").first.wait_for()
        found = self.page.get_by_role("option").all_inner_texts()
        self.page.keyboard.press("Escape")
        return [text.strip() for text in found]

    def write(self, field: str, text: str) -> None:
        """Type into a field; required ones have no `(Optional)` behind their title."""
        self.page.get_by_role("textbox", name=re.compile(rf"^{field}( \(Optional\))?$")).fill(text)

    def add(self, field: str, *items: str) -> None:
        """Add items to a field that is a list."""
        label = self.page.get_by_text(f"{field} (Optional)", exact=True)
        group = label.locator("xpath=ancestor::*[.//button[normalize-space()='Add item']][1]")
        for number, item in enumerate(items):
            group.get_by_role("button", name="Add item").click()
            group.get_by_role("textbox").nth(number).fill(item)

    def submit(self) -> str:
        """Start the run; returns its id. As a person would, it clicks again after a 503.

        Leaves an empty page: a run's own page draws its graph all the time, which costs a core without a GPU.
        """
        for _ in range(10):
            with self.page.expect_response(lambda answer: answer.url.endswith("/create_flow_run")) as sent:
                self.page.get_by_role("button", name="Submit").click()
            if sent.value.status != 503:
                break
        assert sent.value.ok, sent.value.text()
        run = str(sent.value.json()["id"])
        self.leave()
        return run

    def state(self, run: str) -> dict[str, Any]:
        """A run's state: its `type`, `name` and `message`."""
        found = self.ask(f"flow_runs/{run}")["state"]
        assert isinstance(found, dict)
        return found

    def await_end(self, run: str, limit_s: float = LIMIT_MS / 1000) -> dict[str, Any]:
        """Wait for a run to be over."""

        def ended() -> dict[str, Any] | None:
            state = self.state(run)
            return state if state["type"] in ENDED else None

        return dict(self.until(ended, f"the end of run {run}", limit_s))

    def open_run(self, run: str, tab: str = "") -> None:
        """A run's page, and one of its tabs."""
        self.go(f"runs/flow-run/{run}")
        self.page.get_by_role("tab", name="Logs").wait_for()
        if tab:
            self.page.get_by_role("tab", name=tab).click()

    def menu(self, entry: str) -> None:
        """Take an entry of the open run's menu."""
        item = self.page.get_by_role("menuitem", name=entry, exact=True)

        def opened() -> bool:  # the page closes a menu when it draws a new state
            self.page.keyboard.press("Escape")
            with contextlib.suppress(AssertionError, PlaywrightError):
                self.page.get_by_role("button", name="Open menu").first.click(timeout=LOAD_MS)
                expect(item).to_be_visible(timeout=SETTLE_MS / 2)
            return item.is_visible()

        self.until(opened, f"the menu's entry {entry}", 90)
        item.click()

    def confirm(self, word: str) -> None:
        """Answer the dialog that asks once more; again where it stays, as it does when the server answers 503."""
        dialog = self.page.get_by_role("alertdialog").or_(self.page.get_by_role("dialog"))
        button = dialog.get_by_role("button", name=re.compile(f"^{word}")).last

        def answered() -> bool:
            with contextlib.suppress(PlaywrightError):  # it may close under the click
                button.click(timeout=SETTLE_MS)
                dialog.wait_for(state="hidden", timeout=SETTLE_MS)
            return dialog.count() == 0

        self.until(answered, f"the end of the dialog that asks whether to {word}", 120)

    def artifacts(self, run: str) -> list[dict[str, Any]]:
        """Those of a run, the newest first."""
        asked = {"sort": "CREATED_DESC", "limit": 200, "artifacts": {"flow_run_id": {"any_": [run]}}}
        return list(self.ask("artifacts/filter", asked))

    def artifact(self, key: str, run: str) -> dict[str, Any] | None:
        """The newest artifact of a run whose key begins so."""
        return next((one for one in self.artifacts(run) if (one["key"] or "").startswith(key)), None)

    def await_artifact(self, run: str, key: str) -> dict[str, Any]:
        """Wait for an artifact of a run that goes on."""

        def found() -> dict[str, Any] | None:
            state = self.state(run)
            assert state["type"] not in ENDED, f"{key} never came: {state['name']}: {state['message']}"
            return self.artifact(key, run)

        return dict(self.until(found, f"the artifact {key}"))
