"""The driver of `make bench-verifiers`: which rows run, what it prints, and its exit status."""

import json
import sys
from pathlib import Path

import pytest

from tests.benchmarks import bench_verifiers, verifier_rows
from tests.benchmarks.verifier_rows import ROWS, Bench, Line, Skipped


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bench_verifiers.py", *arguments])
    return bench_verifiers.main()


def test_a_quick_run_measures_what_needs_no_data_and_skips_the_rest_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DERIVE_DATA", raising=False)
    out = tmp_path / "new" / "figures.json"
    rows = "known,hard-pairs,fuzzed-answers"
    assert run(monkeypatch, "--quick", "--no-peers", "--rows", rows, "--out", str(out)) == 0
    said = capsys.readouterr().out
    assert "[2/3] hard-pairs ... skipped: DERIVE_DATA is not set" in said
    assert "| four known false positives: accepted | math-verify: not measured (--no-peers) | 0 | none | yes |" in said
    assert "no crash, no hang, no verdict out of contract" in said and "peer left out: math-verify: --no-peers" in said
    report = json.loads(out.read_text())
    assert report["quick"] and list(report["rows"]) == rows.split(",")
    assert report["rows"]["known"]["lines"][0]["details"]["ours"]["rows"] == 4
    assert sum(found["count"] for found in report["rows"]["fuzzed-answers"]["lines"][0]["details"]["found"]) == 2_000


def test_a_row_that_falls_short_is_measured_and_one_that_breaks_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def short(bench: Bench) -> list[Line]:
        return [Line("speed", "a|b", "1/s", "2/s", False)]

    def broken(bench: Bench) -> list[Line]:
        raise OSError("no space left")

    monkeypatch.setitem(ROWS, "known", short)
    monkeypatch.setitem(ROWS, "gsm8k", broken)
    assert run(monkeypatch, "--rows", "known") == 0
    assert "| speed | a\\|b | 1/s | 2/s | **no** |" in capsys.readouterr().out
    assert run(monkeypatch, "--rows", "gsm8k,known") == 1
    said = capsys.readouterr()
    assert "could not be run: gsm8k: OSError: no space left" in said.err and "| speed |" in said.out


def test_what_it_does_not_know_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "--rows", "hard-pears")
    assert stopped.value.code == 2 and "'hard-pears'; allowed: hard-pairs, gsm8k" in capsys.readouterr().err
    monkeypatch.setenv("DERIVE_DATA", str(tmp_path / "nowhere"))
    assert run(monkeypatch, "--rows", "known") == 2
    assert "is no folder" in capsys.readouterr().err


def test_a_case_that_breaks_the_contract_is_told_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(seed: int, count: int) -> verifier_rows.Fuzzed:
        raise verifier_rows.Broken(f"FUZZ_SEED={seed} FUZZ_CASE=3: raised")

    bench = Bench(quick=True, jobs=1, mirror=None, with_peers=False)
    monkeypatch.setattr(verifier_rows, "fuzz_answers", broken)
    monkeypatch.setattr(Bench, "spread", lambda bench, function, items: [function(item) for item in items])
    (line,) = verifier_rows.fuzzed_answers(bench)
    assert line.met is False and line.ours == "broken: FUZZ_SEED=1 FUZZ_CASE=3: raised"
    with pytest.raises(Skipped, match="DERIVE_DATA is not set"):
        bench.data()
