"""Audits by a second verifier: a judge that can be fooled is found out in training, in evaluation and in the report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from configs.settings.evaluation import EvaluateStage
from configs.settings.reinforcement import Audit
from derivatives.evaluation import audit as evaluation_audit
from derivatives.evaluation.answers import Answer
from derivatives.evaluation.report import ModelAnswers
from derivatives.rollout.audit import Auditor
from derivatives.rollout.engine import Completion
from derivatives.rollout.judged import Judged
from flows.report import write_report
from verifiers import registry
from verifiers.api import Task, no_verdict
from verifiers.certify.card import Card, Finding
from verifiers.certify.checks import CHECK_NAMES
from verifiers.pool import VerifierPool

PLUGIN = '''
from verifiers.api import correct, incorrect

class Fooled:
    """Correct if the completion names the gold answer anywhere: naming every number pays."""
    name, version = "fooled", "1"

    def judge(self, task, completion):
        return correct(task.answer, "named") if task.answer in completion else incorrect("not_named")
'''
TASKS = [Task(f"t{number}", f"{number} + {number}?", str(2 * number), "fooled", source="sums") for number in range(8)]
HONEST = [f"\\boxed{{{2 * number if number < 4 else 99}}}" for number in range(8)]
HACKING = ["It is 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14."] * 8


@pytest.fixture(autouse=True)
def fooled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    info = tmp_path / "site" / "fooled-1.0.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site" / "fooled_verifier.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fooled\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[derivative_factory.verifiers]\nfooled = fooled_verifier:Fooled\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for cached in (registry.load_verifier, registry.identity):
        cached.cache_clear()
    yield
    for cached in (registry.load_verifier, registry.identity):
        cached.cache_clear()


def judged(texts: list[str]) -> list[Any]:
    with VerifierPool(1, verifier="fooled") as pool:
        return pool.judge(list(zip(TASKS, texts, strict=True)))


def answers(texts: list[str]) -> ModelAnswers:
    said = [
        Answer(text, verdict.extracted, verdict.outcome.value, verdict.reason, 5, False)
        for text, verdict in zip(texts, judged(texts), strict=True)
    ]
    return ModelAnswers("chat", said, [], {})


def test_an_evaluation_s_audit_shows_that_a_gain_is_not_confirmed() -> None:
    models = {"base": answers(HONEST), "rl": answers(HACKING)}
    places = evaluation_audit.chosen(TASKS, None, "exact", 1.0, seed=0)
    found = evaluation_audit.audit(TASKS, models, places, "exact", 0.95, 0, 1)
    base, hacking = found.figures["models"]["base"], found.figures["models"]["rl"]
    assert base["agreement"]["value"] == 1.0 and base["gap"]["value"] == 0.0 and base["kappa"] == 1.0
    assert hacking["agreement"]["value"] == 0.0 and hacking["gap"]["value"] == 1.0
    assert hacking["labels"] == [{"first": "correct", "second": "incorrect", "count": 8}]
    gain = found.figures["gains"]["rl"]
    assert (gain["judge"]["value"], gain["audit"]["value"], gain["problems"]) == (0.5, -0.5, 8)
    assert hacking["gap"]["low"] > 0.4 and {verdict.reason for verdict in found.verdicts["rl"].values()} == {"no_box"}


def test_the_same_problems_are_audited_for_every_model_and_no_answer_that_nobody_judged() -> None:
    places = evaluation_audit.chosen(TASKS, None, "exact", 0.5, seed=3)
    assert len(places) == 4 and places == sorted(places) == evaluation_audit.chosen(TASKS, None, "exact", 0.5, seed=3)
    assert evaluation_audit.chosen(TASKS, None, "exact", 0.01, seed=3) != []
    forged = answers(HONEST)
    greedy = [replace(one, outcome="incorrect", reason="forged_output") for one in forged.greedy]
    found = evaluation_audit.audit(TASKS, {"base": replace(forged, greedy=greedy)}, places, "exact", 0.95, 0, 1)
    assert found.figures["models"]["base"]["completions"] == 0 and found.figures["gains"] == {}


def test_an_auditor_that_knows_nothing_new_is_refused() -> None:
    with pytest.raises(UserError, match="audit: 'fooled' judges every problem of the evaluation already"):
        evaluation_audit.chosen(TASKS, None, "fooled", 1.0, seed=0)
    with pytest.raises(ValueError, match=r"e.audit: 'exact' is the judge; allowed: another verifier"):
        EvaluateStage(id="e", models=("base",), tasks=({"name": "x.jsonl"},), judge="exact", audit="exact")  # type: ignore[arg-type]


def training(out: Path, steps: int = 4) -> Auditor:
    """An auditor that has seen a policy turn from honest answers to naming every number."""
    out.mkdir(parents=True, exist_ok=True)
    with Auditor(Audit(verifier="exact", samples=8), seed=0) as auditor:
        lines = []
        for step in range(1, steps + 1):
            texts = HACKING[: 2 * step] + HONEST[2 * step :]
            group = [Judged(Completion([1], [-1.0], "stop", text), verdict) for text, verdict in
                     zip(texts, judged(texts), strict=True)]  # fmt: skip
            groups = auditor.judge(step, TASKS, [[one] for one in group])
            figures = auditor.note(step, groups, TASKS)
            auditor.write(out, "fooled")
            lines.append({"step": step, "total": steps, **{f"rl/{name}": value for name, value in figures.items()}})
    (out / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return auditor


def test_training_s_audit_is_written_with_agreement_and_what_the_two_disagree_on(tmp_path: Path) -> None:
    auditor = training(tmp_path / "rl")
    found = json.loads((tmp_path / "rl" / "audit.json").read_text())
    # Of 8 samples at steps 1 to 4, 2, 4, 6 and 8 are hacks; honest answers are judged alike.
    assert found["labels"] == [
        {"first": "correct", "second": "correct", "count": 2},
        {"first": "correct", "second": "incorrect", "count": 20},
        {"first": "incorrect", "second": "incorrect", "count": 10},
    ]
    assert found["agreement"]["value"] == 12 / 32 and found["gap"]["value"] == 20 / 32
    assert auditor.figures()["audit_agreement"] == 12 / 32
    assert [one["step"] for one in found["disagreements"]] == [3] * 4 + [4] * 8  # the latest ones
    last = found["disagreements"][-1]
    assert (last["prompt"], last["first"]["reason"], last["second"]["reason"]) == ("7 + 7?", "named", "no_box")


def test_a_resumed_audit_goes_on_with_the_same_counts(tmp_path: Path) -> None:
    whole = training(tmp_path / "a")
    reasons = json.loads((tmp_path / "a" / "audit.json").read_text())["reasons"]
    assert reasons == sorted(reasons, key=lambda one: (-one["count"], one["first"], one["second"]))
    resumed = Auditor(Audit(verifier="exact", samples=8), seed=0)
    resumed.restore(json.loads(json.dumps(whole.state())))
    resumed.write(tmp_path, "fooled")
    assert (tmp_path / "audit.json").read_bytes() == (tmp_path / "a" / "audit.json").read_bytes()
    other = Auditor(Audit(verifier="math", samples=8), seed=0)
    other.restore(whole.state())
    assert other.labels.total == 0 and other.disagreements == []
    older = {name: whole.state()[name] for name in ("verifier", "history", "alarms")}
    resumed.restore(older)
    assert resumed.labels.total == 0 and len(resumed.history) == 4


def test_a_second_verdict_that_is_missing_is_counted_apart() -> None:
    auditor = Auditor(Audit(verifier="exact"), seed=0)
    (verdict,) = judged([HACKING[0]] * 8)[:1]
    auditor.note(1, [[Judged(Completion([1], [-1.0], "stop", "x"), verdict, audit=no_verdict("away"))]])
    assert auditor.labels.judged == 0 and auditor.figures() == {"drift_alarms": []} and not auditor.disagreements


def test_the_report_shows_curves_agreement_disagreements_and_the_card(tmp_path: Path) -> None:
    rl, evaluated = tmp_path / "store" / "ab" / "ab1", tmp_path / "store" / "cd" / "cd1"
    training(rl)
    evaluated.mkdir(parents=True)
    models = {"base": answers(HONEST), "rl": answers(HACKING)}
    found = evaluation_audit.audit(TASKS, models, list(range(8)), "exact", 0.95, 0, 1)
    interval = {"value": 0.5, "low": 0.2, "high": 0.8, "correct": 4, "total": 8, "no_verdict": 0}
    results = {"models": {name: {"pass@1": interval} for name in models}, "judge": "fooled", "audit": found.figures}
    (evaluated / "results.json").write_text(json.dumps(results))
    lines = [
        {"model": "rl", "task": task.id, "prompt": task.prompt, "answer": task.answer, **answer.as_dict(),
         "audit": {"outcome": found.verdicts["rl"][place].outcome.value, "reason": "no_box", "extracted": None}}
        for place, (task, answer) in enumerate(zip(TASKS, models["rl"].greedy, strict=True))
    ]  # fmt: skip
    (evaluated / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = {"id": "r", "stages": [{"id": "train", "kind": "rl", "folder": str(rl)},
                                    {"id": "held out", "kind": "evaluate", "folder": str(evaluated)}]}  # fmt: skip
    page = write_report(record, tmp_path).read_text()
    assert "Audit of train by exact" in page and "Audit of held out by exact" in page
    assert "<b>gap</b>" in page and "gap: 0.25 at first, 1 at last" in page  # 2 of 8, then all
    assert "37.5 [22.9, 54.7]" in page and "+62.5 [" in page  # agreement and gap of training, with their intervals
    assert "Gain of rl on 8 audited problems, in points: +50.0 [" in page and ", -50.0 [" in page
    assert "step 4, fooled" in page and "step 4, exact" in page and "rl, exact" in page and "8 in all" in page


@pytest.mark.parametrize(
    ("identity", "status", "said"),
    [
        ({"version": "1"}, "passed", ">certified<"),
        ({"version": "1"}, "failed", ">not certified: 1 checks failed<"),
        ({"version": "2"}, "passed", ">certified in another version<"),
        (None, "passed", ">not certified<"),
    ],
)
def test_the_report_shows_the_card_of_the_verifier_that_audited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, identity: dict[str, str] | None, status: Any, said: str
) -> None:
    monkeypatch.setattr("verifiers.certify.card.PACKAGED", tmp_path / "none")
    rl = tmp_path / "store" / "ab" / "ab1"
    training(rl, 1)
    at_run = {"name": "exact", "version": "1", "source": "s"}
    (rl / "manifest.json").write_text(json.dumps({"ingredients": {"verifiers": {"exact": at_run}}}))
    if identity is not None:
        findings = [Finding(check, "passed", f"{check} <held>") for check in CHECK_NAMES[:-1]]
        findings.append(Finding(CHECK_NAMES[-1], status, "seen"))
        (tmp_path / "store" / "cards").mkdir()
        Card({**at_run, **identity}, {}, tuple(findings)).write(tmp_path / "store" / "cards" / "exact.json")
    page = write_report({"id": "r", "stages": [{"id": "train", "kind": "rl", "folder": str(rl)}]}, tmp_path).read_text()
    assert said in page
    assert ("&lt;held&gt;" in page) == (identity == {"version": "1"})
