"""The run board's page: what it tells, what it makes of hostile text, and its bounds."""

from __future__ import annotations

import base64
import doctest
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from flows import board_end, board_facts, board_page, markdown
from flows.board_facts import Curves, Rollout, Rollouts
from flows.board_page import MAX_BYTES, Expected, Row, Run, page, status_line
from flows.charts import panels
from flows.markdown import cell, fenced, inline

NOW = 1_800_000_000.0
PROMPT = "Add 2 and 3."
HOSTILE = [
    "</details></div><script>alert(1)</script>\n```\n# owned\n[x](javascript:alert(1)) ![p](http://evil.example/a.png)",
    "````\n~~~\n" + "`" * 40 + "\n<img src=x onerror=alert(1)>\n```mermaid\nflowchart LR\n```",
    "a | b |\n|---|---|\n| c | d |\r\n\t\x00\x1b[31m\u202eabc\u2066\ud800\u200b",
    "> quote\n\n---\n\n    code\n\n- list\n\n1. one\n\n[ref]: http://evil.example",
    "`",
    "``` ",
    "\\` \\",
]


def rollout(**given: str) -> Rollout:
    plain = {"step": "7", "task": "t", "prompt": PROMPT, "answer": "5", "completion": "2 + 3 = 5", "outcome": "correct",
             "reason": "same_number", "extracted": "5"}  # fmt: skip
    return Rollout(**{**plain, **given})


def running(tmp_path: Path, *latest: Rollout, lines: int = 60) -> Run:
    log = tmp_path / "progress.jsonl"
    fixed = {"rl/mfu": 0.31, "rl/peak_memory_gb": 4.25, "rl/lr": 1e-5, "total": 200}
    log.write_text("".join(json.dumps({
        "step": step, "seconds": 10.0 * step, "rl/reward": step / 100, "rl/length": 50.0 + step % 7,
        "rl/entropy": 1 / step, "rl/tokens_per_s": 900.0 + step, **fixed,
    }) + "\n" for step in range(1, lines + 1)))  # fmt: skip
    rl = Row("rl", "rl", "c" * 64, "running", NOW - 600.0, line={"step": 60, "total": 200, "seconds": 600.0}, seen=NOW)
    rl.curves, rl.rollouts = Curves(log), Rollouts(tmp_path / "rollouts.jsonl", latest)
    while rl.curves.look():
        pass
    rows = [
        Row("corpus", "corpus", "a" * 64, "reused", seconds=5.7, built_by="20260101-101010-math-tiny-ab12"),
        Row("sft", "sft", "b" * 64, "completed", seconds=38.0, reads=("base", "corpus")),
        rl,
        Row("evaluate", "evaluate", "d" * 64, expected=Expected(120.0, "as in earlier runs")),
    ]
    return Run("math/tiny", "20260102-101010-math-tiny-cd34", "seedling", "cpu", "/store", "derive run math/tiny",
               NOW - 900.0, rows=rows, memory=(8e9, 32e9))  # fmt: skip


def test_the_page_tells_what_runs_how_far_it_is_and_when_all_is_over(tmp_path: Path) -> None:
    text = page(running(tmp_path, rollout()), NOW)
    # 60 of 200 steps in 600 s: 10 s a step, 140 steps are 1,400 s; with the evaluation 1,520 s.
    assert "**30%**, step 60 of 200, 10 min so far, about 23 min left" in text
    assert "The whole run: 15 min so far, about **25 min** left, until 08:25 UTC (as in earlier runs)." in text
    assert "↺ corpus → ✔ sft → ▶ **rl** → · evaluate" in text
    assert "| ↺ | corpus | corpus | reused from 20260101-101010 | 5.7 s | `aaaaaaaaaaaa` |" in text
    assert "| ▶ | **rl** | rl | **running** 30% | 10 min | `cccccccccccc` |" in text
    assert "| · | evaluate | evaluate |  | ≈ 2 min | `dddddddddddd` |" in text
    assert "| tokens/s | MFU | peak memory | learning rate | host memory |" in text
    assert "| 960 | 31.0% | 4.2 GB | 1e-05 | 8.0 of 32 GB |" in text
    assert "**✔ correct**, reason `same_number`, read `5`, expected `5`" in text and "[Add 2 and 3.]" in text
    assert status_line(running(tmp_path), NOW) == "math/tiny: rl 30%, about 25 min left"


def test_a_stage_whose_time_nobody_knows_makes_the_runs_a_lower_bound(tmp_path: Path) -> None:
    run = running(tmp_path)
    run.rows[3].expected = None
    assert "15 min so far, at least 23 min left." in page(run, NOW)
    run.rows[2].line = {}
    run.rows[2].expected = Expected(700.0, "by `derive plan`")
    assert "**rl**, 10 min so far, about 2 min left (by `derive plan`)" in page(run, NOW)
    # What the stage says itself counts.
    run.rows[2].line = {"step": 60, "total": 200, "seconds": 600.0, "rl/eta_s": 3600.0}
    assert "about 1 h 00 min left" in page(run, NOW)


def test_a_board_of_an_earlier_run_is_linked_where_there_is_one(tmp_path: Path) -> None:
    run = running(tmp_path)
    run.links = {"20260101-101010-math-tiny-ab12": "/v2/artifacts/artifact/x"}
    assert "reused from [20260101-101010](/v2/artifacts/artifact/x)" in page(run, NOW)


def test_what_is_waited_for_and_alarms_stand_before_the_curves(tmp_path: Path) -> None:
    run = running(tmp_path)
    run.waits = "rl waits for gpu0 behind run 7"
    run.rows[2].waits = "waiting: no verdict for 31 s; awaited: *t1*"
    run.rows[2].alarms = ["08:00 UTC: drift alarm, step 40: it rose"]
    text = page(run, NOW)
    assert text.index("**rl waits for gpu0 behind run 7**") < text.index("**rl** waiting\\: no verdict for 31 s")
    assert "awaited\\: \\*t1\\*" in text
    assert text.index("⚠ **rl** 08\\:00 UTC\\: drift alarm\\, step 40") < text.index("data:image/svg+xml")


def test_the_curves_are_one_picture_with_a_panel_for_each(tmp_path: Path) -> None:
    image = re.search(r"!\[([^]]*)\]\(data:image/svg\+xml;base64,([^)]+)\)", page(running(tmp_path), NOW))
    assert image is not None
    told = ["reward 0.01 to 0.6", "completion length 51 to 54", "entropy 1 to 0.0167", "tokens/s 901 to 960"]
    assert image[1] == "; ".join(told)
    picture = ElementTree.fromstring(base64.b64decode(image[2]))
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    names = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text") if text.get("class") == "n"]
    assert names == ["reward", "completion length", "entropy", "tokens/s"]


def test_panels_place_a_straight_line_from_corner_to_corner() -> None:
    svg = panels([("loss", [(0, 0.0), (5, 5.0), (10, 10.0)])])
    # From the left edge of the axes to the right one, from the bottom to the top, and the middle between.
    line = re.search(r'points="([\d.]+),([\d.]+) ([\d.]+),([\d.]+) ([\d.]+),([\d.]+)"', svg)
    assert line is not None
    x0, y0, x1, y1, x2, y2 = map(float, line.groups())
    assert (x1, y1) == ((x0 + x2) / 2, (y0 + y2) / 2) and x0 < x2 and y0 > y2
    assert panels([("loss", [(1, float("nan")), (2, 1.0)])]) == "" and panels([]) == ""
    assert "<b>" not in panels([("<b>", [(0, 0.0), (1, 1.0)])])


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_completions_reasons_and_answers_stay_text(tmp_path: Path, text: str) -> None:
    calm = outline(page(running(tmp_path, rollout()), NOW))
    hostile = rollout(completion=text, reason=text, extracted=text, answer=text, prompt=text, outcome="incorrect")
    drawn = page(running(tmp_path, hostile), NOW)
    drawn.encode("utf-8")  # half a surrogate pair could not be sent
    parts = outline(drawn)
    # No heading, table, image, link, block or HTML more than with a harmless completion; only texts differ.
    without_code = [part for part in parts if part != "code_inline"]
    assert without_code == [part for part in calm if part != "code_inline"]
    assert not re.search(r"[\x00-\x08\x1b\u202e\u2066\u200b]", drawn)


def outline(text: str) -> list[str]:
    """Kinds of the page's parts in order, texts left out, as CommonMark with tables reads it."""
    found = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        found.append(token.type)
        found += [f"inline {child.type}" for child in token.children or [] if child.type not in ("text", "code_inline")]
    return [part for part in found if part not in ("inline", "inline softbreak")]


def test_code_holds_any_text_of_backticks_and_a_cell_any_pipe() -> None:
    reader = MarkdownIt("commonmark").enable("table")
    for text in (*HOSTILE, "a`b", "`a`", "```", "a ``b`` c"):
        plain = " ".join(markdown.visible(" ".join(text.split()), keep="").split())
        line = reader.parse(f"x {inline(text, 1000)} y")[1].children or []
        (token,) = (token for token in line if token.type != "text")
        assert (token.type, " ".join(token.content.split())) == ("code_inline", plain)
        row = reader.parse(f"|a|b|\n|-|-|\n|{cell(text, 1000)}|z|")
        assert [token.type for token in row].count("td_open") == 2
        (block,) = reader.parse(fenced(text, 1000, 0))
        assert block.type == "fence" and block.info == "text"


def test_long_texts_are_cut_in_the_middle_and_say_how_much_is_missing() -> None:
    shown = fenced("a" * 400 + "b" * 2_000_000 + "c" * 400, 300, 300)
    assert "(2,000,200 characters left out)" in shown and len(shown) < 800
    assert max(len(line) for line in shown.splitlines()) == markdown.MAX_LINE
    assert "(5,000 line breaks)" in fenced("x" + "\n" * 5000 + "y", 6000, 0)
    assert "(61 lines left out)" in fenced("\n".join(f"{n}" for n in range(101)))


def test_the_page_is_bounded_whatever_it_is_given(tmp_path: Path) -> None:
    long = [rollout(completion="é" * 10**6, reason="r" * 10**5, extracted="`" * 10**5, prompt="p" * 10**6)] * 4
    run = running(tmp_path, *long, lines=5000)
    run.rows[2].alarms = ["x" * 10**5] * 100
    run.waits = run.rows[2].waits = "y" * 10**5
    run.command = "derive " * 10**5
    assert len(page(run, NOW).encode()) < MAX_BYTES
    run.rows = [run.rows[2]] * 40  # as many pictures as would make ten times the bound
    text = page(run, NOW)
    assert len(text.encode()) < MAX_BYTES and "Left out for want of room: " in text


RESULTS: dict[str, Any] = {
    "models": {
        "base": {"pass@1": {"value": 0.2, "low": 0.1, "high": 0.3, "no_verdict": 0, "total": 40}, "pass@k": None},
        "rl": {"pass@1": {"value": 0.5, "low": 0.4, "high": 0.6, "no_verdict": 2, "total": 40}, "pass@k": None},
    },
    "gains": {"rl": {"pass@1": {"value": 0.3, "low": 0.2, "high": 0.4}}},
    "confidence": 0.95,
    "floor": {"value": 0.078},
}


def over(tmp_path: Path, **record: Any) -> Run:
    run = running(tmp_path, rollout())
    run.status = record.get("status", "completed")
    run.record = {"seconds": 61.0, "stages": [], "release": None, "report": "/store/runs/r/report.html", **record}
    run.rows[2].state, run.rows[2].reads = "completed", ("sft", "corpus")
    run.rows[3].state, run.rows[3].reads = "completed", ("base", "sft", "rl")
    return run


def test_at_its_end_the_page_is_the_summary(tmp_path: Path) -> None:
    gate = {"metric": "pass@1", "against": "base", "gain": 0.3, "low": 0.2, "high": 0.4, "required": 0.1}
    stages = [{"id": "release", "kind": "release", "metrics": {"gates": [{**gate, "passed": True}]}}]
    kept = {"metric": "bits_per_byte rise", "tasks": "python", "against": "base", "default": -0.01, "passed": True,
            "measured": "+8.7%", "requirement": "rise by at most +12.0%, looser than the default +1.0%"}  # fmt: skip
    stages[0]["metrics"]["gates"].append(kept)  # type: ignore[index]
    run = over(tmp_path, release="/store/ab/abc/release", stages=stages)
    run.results, run.card = RESULTS, "/v2/artifacts/artifact/card"
    text = page(run, NOW)
    assert text.startswith("# ✔ math/tiny: completed in 1 min 01 s\n")
    assert "| rl | 50.0% [40.0, 60.0] | +30.0 points [+20.0, +40.0] | - | 2 of 40 |" in text
    assert "The best constant answer reaches 7.8%." in text
    assert "| pass@1 | base | +30.0 points [+20.0, +40.0] | +10.0 points | ✔ passed |" in text
    margin = "(must rise by at most +12.0%, looser than the default +1.0%)"
    assert f"| bits_per_byte rise of python | base | +8.7% | {margin} | ✔ passed |" in text
    assert "Released ([model card](/v2/artifacts/artifact/card)) to:" in text and "/store/ab/abc/release" in text
    assert "derive run math/tiny" in text and "**rl**\n\n![reward" in text
    assert "Latest completions of rl, step 7" in text
    edges = re.findall(r"^  (\w+) --> (\w+)$", text, re.MULTILINE)
    assert edges == [
        ("base", "s_sft"), ("s_corpus", "s_sft"), ("s_sft", "s_rl"), ("s_corpus", "s_rl"), ("s_rl", "s_evaluate")
    ]  # fmt: skip
    assert "left" not in status_line(run, NOW) and len(text.encode()) < MAX_BYTES


def test_a_failed_run_says_why_in_its_first_lines(tmp_path: Path) -> None:
    error = "rl: the disk is full; free space there.\nEnd of /store/x/stage.log:\n    ```\n    # not a title"
    run = over(tmp_path, status="failed", error=error)
    run.rows[2].state = "failed"
    text = page(run, NOW)
    assert text.startswith("# ✖ math/tiny: failed in rl in 1 min 01 s\n")
    assert text.index("**rl\\: the disk is full\\; free space there\\.**") < 200
    assert "heading_open" in outline(text) and outline(text).count("heading_open") == 3  # title, Stages, completions


def test_the_examples_in_docstrings_hold() -> None:
    modules = (markdown, board_page, board_facts, board_end)
    assert [doctest.testmod(module).failed for module in modules] == [0, 0, 0, 0]
