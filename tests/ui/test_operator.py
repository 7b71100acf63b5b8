"""What an operator does at Prefect's page, done by a browser: forms, boards, cancel, pause, approval, certificates.

`make test-ui` runs it; no other command does. It needs a Chromium (`$CHROMIUM`, else /usr/bin/chromium) and the
package playwright, and is skipped with the reason where one is missing. The page is that of a real `derive up` on a
store of its own; stage commands are quick ones (`quick_stage.py`), but for one run of math/smoke. Screenshots are in
build/ui/.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.load import preset_names
from configs.names import verifier_names
from flows.supervisor import descendants
from tests.e2e.flow_fixtures import runs, until

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
from playwright.sync_api import expect, sync_playwright  # noqa: E402

from tests.ui.screen import Screen  # noqa: E402

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "build" / "ui"
CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
REAL = "math-smoke"
START_LIMIT_S = 240.0
LONG = "rl.steps=1500"
CHECKPOINTS = "*/*.partial/checkpoints/step-*"
"""Five minutes of quick steps: longer than anything that is done meanwhile."""

pytestmark = [
    pytest.mark.ui,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}: install chromium, or set CHROMIUM"),
]

PLUGIN = '''"""Sums."""

import re


def verify(completion, task):
    """Correct if the last whole number of the completion is the answer."""
    found = re.findall(r"(?<![0-9])-?[0-9]{1,18}(?![0-9])", completion[-4000:])
    return bool(found) and found[-1] == task.answer.strip()
'''
CASES = "\n".join(
    [f'{{"completion": "The sum is {n}", "answer": "{n}", "expect": "correct"}}' for n in range(11, 41)]
    + [f'{{"completion": "The sum is {n + 1}", "answer": "{n}", "expect": "incorrect"}}' for n in range(11, 41)]
)


def heed_interrupts() -> None:
    """A shell starts what runs in its background with Ctrl-C ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on the path of the served process, into which a plugin is installed later."""
    return tmp_path_factory.mktemp("plugins")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def served(store: Path, plugins: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`derive up` in a process of its own, and its address."""
    ours = ("PREFECT", "DERIVE_STORE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {"PYTHONPATH": str(plugins), "PREFECT_RUNNER_POLL_FREQUENCY": "2", "DERIVE_MACHINE": "cpu"}
    log = store / "up.log"
    words = [sys.executable, "-u", "-m", "tests.ui.serving", str(store), REAL]
    with log.open("wb") as file:
        process = subprocess.Popen(
            words, cwd=ROOT, env=environment, stdout=file, stderr=file, preexec_fn=heed_interrupts
        )
    try:
        until(lambda: "Prefect: " in log.read_text() or process.poll() is not None, START_LIMIT_S)
        assert "Prefect: " in log.read_text(), log.read_text()
        (address,) = re.findall(r"Prefect: (http://127\.0\.0\.1:\d+)/", log.read_text())
        yield process, address
    finally:
        family = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(90)
        finally:
            process.kill()
        assert until(lambda: not any(runs(pid) for pid in family), 30), "something outlived `derive up`"


@pytest.fixture(scope="module")
def screen(served: tuple[subprocess.Popen[bytes], str]) -> Iterator[Screen]:
    """A browser on the page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        try:
            yield Screen(browser.new_page(viewport={"width": 1280, "height": 1000}), served[1], SHOTS)
        finally:
            browser.close()


def newest(store: Path, mark: str) -> str:
    """The newest progress file of a finished stage that holds this."""
    files = sorted(store.glob("*/*/progress.jsonl"), key=lambda path: path.stat().st_mtime)
    return next(text for path in reversed(files) if mark in (text := path.read_text()) and path.parent.suffix == "")


def stage_processes(up: int) -> list[int]:
    """Processes below `derive up` that belong to stage commands: supervisors, stages, and what those started."""
    words = (b"quick_stage", b"supervisor.py", b"time.sleep(600)")
    found = []
    for pid in descendants(up):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if any(word in line for word in words) and b"prefect" not in line:
            found.append(pid)
    return found


def test_every_preset_is_a_deployment_with_a_page(screen: Screen) -> None:
    screen.go("deployments")
    expect(screen.page.get_by_text(f"{len(preset_names()) + 1} Deployments")).to_be_visible()
    screen.shot("01-deployments")
    screen.open_deployment("math-7b")
    screen.page.get_by_role("tab", name="Description").click()
    cell = screen.page.get_by_role("cell", name="ODC-By-1.0").first
    expect(cell).to_be_visible()
    screen.shot("02-description")


def test_a_bad_value_is_refused_within_seconds_by_a_sentence_that_names_the_field(screen: Screen) -> None:
    screen.open_form("math-tiny")
    screen.write("Budget", "5 parsecs")
    screen.shot("03-bad-value")
    run = screen.submit()
    state = screen.await_end(run)
    assert state["type"] == "FAILED"
    assert state["message"].startswith("budget: 5 parsecs is none; allowed: a number and tokens, steps, ")
    facts = screen.ask(f"flow_runs/{run}")
    assert facts["total_run_time"] < 30  # of the run, not of its waiting for a process

    def logged() -> bool:  # lines come a second after the state, and the page of an ended run does not look again
        screen.open_run(run, "Logs")
        sentence = screen.page.get_by_text("budget: 5 parsecs is none")
        sentence.or_(screen.page.get_by_text("not produce any logs")).first.wait_for()
        return sentence.first.is_visible()

    screen.until(logged, "the sentence among the run's lines")
    screen.shot("04-refused")


def test_a_dry_run_shows_the_budget_as_differences_and_builds_nothing(screen: Screen, store: Path) -> None:
    screen.open_form("math-tiny")
    screen.write("Budget", "100 steps")
    screen.choose("Verifier", "exact")
    screen.choose("Mode", "dry run")
    screen.shot("05-dry-run-form")
    run = screen.submit()
    assert screen.await_end(run)["name"] == "DryRun"
    found = screen.artifact("dry-run", run)
    assert found is not None
    assert "| `rl.verifier` | `\"math\"` | `\"exact\"` |" in found["data"]
    assert "| `rl.steps` | `90` | `34` |" in found["data"] and "--budget '100 steps'" in found["data"]
    screen.go(f"artifacts/artifact/{found['id']}")
    expect(screen.page.get_by_role("cell", name="rl.steps")).to_be_visible()
    screen.shot("06-dry-run")
    assert not list(store.glob("runs/*.json"))


def test_a_run_is_watched_on_its_board_and_ends_on_the_leaderboard(screen: Screen) -> None:
    screen.open_form("math-tiny")
    screen.add("Overrides", "rl.steps=60", "seed=3")
    screen.shot("07-form")
    run = screen.submit()
    board = screen.await_artifact(run, "board")
    screen.go(f"artifacts/artifact/{board['id']}")
    screen.page.get_by_role("heading", name=re.compile("math.tiny")).first.wait_for()
    text = screen.page.locator("main, body").last
    seen: list[str] = []

    def changed() -> bool:
        screen.page.reload()
        screen.page.get_by_role("heading", name=re.compile("math.tiny")).first.wait_for()
        now = text.inner_text()
        if not seen or now != seen[-1]:
            seen.append(now)
            screen.shot(f"08-board-{len(seen)}")
        return len(seen) >= 3

    screen.until(changed, "three states of the board")
    assert screen.await_end(run)["type"] == "COMPLETED"
    screen.page.reload()
    screen.page.get_by_role("heading", name=re.compile("math.tiny")).first.wait_for()
    screen.shot("09-board-at-the-end")
    screen.open_run(run, "Artifacts")
    screen.page.get_by_role("link", name=re.compile("^PROGRESS math-tiny-rl")).wait_for()
    screen.shot("10-artifacts")
    screen.go("artifacts/key/leaderboard")
    screen.page.get_by_role("main").get_by_role("link", name=re.compile("^[0-9a-f]{8}$")).first.click()  # the newest
    screen.page.get_by_role("cell", name="math/tiny").first.wait_for()
    screen.shot("11-leaderboard")
    screen.open_run(run)
    screen.shot("12-run")


def test_a_cancelled_run_leaves_no_process(screen: Screen, served: tuple[subprocess.Popen[bytes], str]) -> None:
    screen.open_form("math-tiny")
    screen.add("Overrides", LONG, "seed=4")
    run = screen.submit()
    screen.await_artifact(run, "math-tiny-rl")
    family = screen.until(lambda: stage_processes(served[0].pid), "the stage's processes")
    assert len(family) >= 2
    screen.open_run(run)
    screen.menu("Cancel")
    screen.shot("13-cancel")
    screen.confirm("Cancel Flow Run")
    screen.leave()
    began = time.monotonic()
    assert screen.await_end(run)["type"] == "CANCELLED"
    assert until(lambda: not any(runs(pid) for pid in family), 60), f"{time.monotonic() - began:.0f} s after the click"
    assert not stage_processes(served[0].pid)
    screen.open_run(run)
    screen.shot("14-cancelled")


def test_a_release_is_approved_in_a_dialog_with_the_evaluation(screen: Screen) -> None:
    screen.open_form("math-tiny")
    screen.add("Overrides", "rl.steps=5", "seed=5")
    screen.choose("Mode", "ask before release")
    run = screen.submit()
    screen.until(lambda: screen.state(run)["type"] == "PAUSED", "the question")
    screen.open_run(run)
    screen.menu("Resume")
    dialog = screen.page.get_by_role("dialog")
    expect(dialog.get_by_role("cell", name="50.0% [40.0, 60.0]").first).to_be_visible()
    dialog.get_by_role("switch", name="Release").click()
    dialog.get_by_role("textbox", name="Note").fill("looked at the samples")
    screen.shot("15-approval")
    screen.confirm("Resume")
    screen.leave()
    assert screen.await_end(run)["message"].startswith("released to ")
    screen.open_run(run)
    screen.shot("16-released")


def test_a_paused_run_frees_the_machine_and_goes_on_from_its_checkpoint(
    screen: Screen, served: tuple[subprocess.Popen[bytes], str], store: Path
) -> None:
    before = set(store.glob(CHECKPOINTS))  # of the runs that were cancelled
    screen.open_form("math-tiny")
    screen.add("Overrides", "rl.steps=600", "seed=7")
    run = screen.submit()
    screen.await_artifact(run, "math-tiny-rl")
    family = screen.until(lambda: stage_processes(served[0].pid), "the stage's processes")
    screen.open_run(run)
    screen.menu("Pause")
    screen.shot("17-pause")
    screen.confirm("Pause Flow Run")
    screen.leave()
    screen.until(lambda: not any(runs(pid) for pid in family), "the end of the stage's processes")
    (kept,) = set(store.glob(CHECKPOINTS)) - before
    step = int(kept.name.removeprefix("step-"))
    assert 0 < step < 600
    screen.until(lambda: screen.state(run)["type"] == "PAUSED", "the state of a paused run")
    screen.open_run(run)
    screen.shot("18-paused")
    screen.menu("Resume")
    screen.confirm("Resume")
    screen.leave()
    assert screen.await_end(run)["type"] == "COMPLETED"
    told = newest(store, '"total": 600')
    assert len(told.splitlines()) == 600  # each step once
    screen.open_run(run)
    screen.shot("19-went-on")


def install(plugins: Path) -> None:
    """What `pip install` leaves of a verifier's package."""
    (plugins / "acme_sums.py").write_text(PLUGIN)
    about = plugins / "acme_sums-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-sums\nVersion: 1.0\n")
    (about / "RECORD").write_text("acme_sums.py,,\n")
    (about / "entry_points.txt").write_text("[derivative_factory.verifiers]\nacme_sums = acme_sums:verify\n")


def test_an_installed_verifier_appears_is_certified_and_rewards_a_run(
    screen: Screen, plugins: Path, store: Path
) -> None:
    screen.open_form("certify-verifier")
    assert screen.choices("Verifier") == list(verifier_names())
    install(plugins)

    def offered() -> bool:
        screen.open_form("certify-verifier")
        return "acme_sums" in screen.choices("Verifier")

    screen.until(offered, "the new verifier among the choices")
    screen.choose("Verifier", "acme_sums")
    screen.shot("20-certify-form")
    screen.write("Cases", CASES)
    run = screen.submit()
    state = screen.await_end(run, 600)
    assert state["name"] == "Certified", state["message"]
    found = screen.artifact("card-acme-sums", run)
    assert found is not None and (store / "cards" / "acme_sums.json").is_file()
    card = next(one for one in screen.artifacts(run) if one["type"] == "markdown")
    screen.go(f"artifacts/artifact/{card['id']}")
    screen.page.get_by_role("cell", name="passed").first.wait_for()
    screen.shot("21-card")
    screen.open_form("math-tiny")
    assert screen.choices("Verifier") == ["preset's", *sorted([*verifier_names(), "acme_sums"])]
    screen.choose("Verifier", "acme_sums")
    screen.add("Overrides", "rl.steps=5", "seed=6")
    screen.shot("22-plugin")
    run = screen.submit()
    assert screen.await_end(run)["type"] == "COMPLETED"


def test_the_smallest_real_preset_is_built(screen: Screen, store: Path) -> None:
    screen.open_form(REAL)
    run = screen.submit()
    state = screen.await_end(run, 900)
    assert state["message"].startswith("released to "), state
    folder = Path(state["message"].removeprefix("released to "))
    assert (folder / "model.safetensors").is_file() and store in folder.parents
    board = screen.artifact("board", run)
    assert board is not None
    screen.go(f"artifacts/artifact/{board['id']}")
    screen.page.get_by_role("heading", name=re.compile("math.smoke")).first.wait_for()
    screen.shot("23-real-board")
    screen.open_deployment(REAL)
    screen.page.get_by_role("tab", name="Description").click()
    screen.until(lambda: "Last release: rl at" in screen.page.locator("body").inner_text() or screen.page.reload(),
                 "the release on the deployment's page", 60)  # fmt: skip
    screen.shot("24-last-release")
