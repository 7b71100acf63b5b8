"""Plug-ins as strangers write them: plain functions, cases beside them, and whatever goes wrong with one alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from configs.errors import UserError
from flows.cli import main
from verifiers import registry
from verifiers.api import Outcome, Task
from verifiers.cases import cases_path, read_cases
from verifiers.plain import PlainVerifier
from verifiers.pool import VerifierPool

PLAIN = '''"""Judges the length."""
def verify(completion, task):
    """Correct if it is as long as the answer says. Not longer."""
    return len(completion) == int(task.answer)
'''
HOSTILE = {
    "raises": ("raise RuntimeError('no\\nway')", "verify", r"cannot be loaded: RuntimeError: no way; mend or"),
    "exits": ("import sys; sys.exit(3)", "verify", r"cannot be loaded: SystemExit: 3; mend"),
    "ends": ("class End(BaseException): pass\nraise End()", "verify", r"cannot be loaded: End; mend"),
    "missing": (PLAIN, "verfy", r"has no 'verfy'; did you mean 'verify'\?; mend or uninstall .*missing-plugin 1.2\)"),
    "deeper": (PLAIN, "verify.inner", r"has no 'verify.inner'"),
    "broken": ("def verify(completion, task)\n    return 1", "verify", r"cannot be loaded: SyntaxError"),
    "needs": ("import no_such_library", "verify", r"ModuleNotFoundError: No module named 'no_such_library'"),
    "nothing": (PLAIN, "", r"names a module and nothing in it; allowed: \"nothing_plugin:verify\""),
    "number": ("verify = 5", "verify", r"'number' is a int; allowed: a function verify"),
}

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a plug-in of one module, with the metadata that pip would write."""
    known = set(sys.modules)

    def made(name: str, source: str, attribute: str = "verify", distribution: str = "") -> None:
        module = f"{name}_plugin"
        (tmp_path / f"{module}.py").write_text(source)
        folder = tmp_path / f"{distribution or module}-1.2.dist-info"
        folder.mkdir()
        title = (distribution or module).replace("_", "-")
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {title}\nVersion: 1.2\n")
        value = f"{module}:{attribute}" if attribute else module
        (folder / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{name} = {value}\n")

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    yield made
    for module in set(sys.modules) - known:
        if module.endswith("_plugin"):
            del sys.modules[module]
    registry.load_verifier.cache_clear()
    registry.identity.cache_clear()


def test_a_plain_function_is_a_verifier_named_by_its_entry_point(install: Install) -> None:
    install("length", PLAIN)
    verifier = registry.load_verifier("length")
    assert isinstance(verifier, PlainVerifier)
    assert (verifier.name, verifier.version) == ("length", "1.2")
    assert verifier.description == "Correct if it is as long as the answer says."
    identity = registry.identity("length")
    assert (identity["name"], identity["version"], len(identity["source"])) == ("length", "1.2", 64)
    assert registry.target_of("length").origin == "length-plugin 1.2"
    with VerifierPool(1, verifier="length") as pool:
        pairs = [(Task("1", "", "2"), "ab"), (Task("2", "", "2"), "a"), (Task("3", "", "x"), "")]
        right, wrong, fault = pool.judge(pairs)
    assert (right.outcome, wrong.outcome, fault.outcome) == (Outcome.CORRECT, Outcome.INCORRECT, Outcome.NO_VERDICT)
    assert fault.reason.startswith("verifier_fault: ValueError: invalid literal")


def now(name: str) -> str:
    """The source digest of a verifier as it lies there at this moment."""
    registry.identity.cache_clear()
    return registry.identity(name)["source"]


def test_the_identity_follows_the_plug_ins_code_and_what_it_uses_of_ours(install: Install, tmp_path: Path) -> None:
    install("length", PLAIN)
    first = registry.identity("length")["source"]
    target = registry.target_of("length")
    path = tmp_path / "length_plugin.py"
    path.write_text(f"# another comment\n{PLAIN}".replace("Not longer.", "Or else."))
    assert now("length") == first
    path.write_text(PLAIN.replace("==", ">="))
    assert now("length") != first
    path.write_text(f"from verifiers.answers.extract import extract\n{PLAIN}")
    used = now("length")
    path.write_text(f"from other.answers.extract import extract\n{PLAIN}")
    alone = registry.source_digest(target.module, {"length_plugin"})
    path.write_text(f"from verifiers.answers.extract import extract\n{PLAIN}")
    assert registry.source_digest(target.module, {"length_plugin"}) not in (used, alone)


def test_modules_beside_it_of_the_same_distribution_count_too(install: Install, tmp_path: Path) -> None:
    install("length", f"from length_tables import LIMIT\n{PLAIN}")
    (tmp_path / "length_tables.py").write_text("LIMIT = 1\n")
    target = registry.target_of("length")
    alone = now("length")
    (tmp_path / "length_plugin-1.2.dist-info" / "top_level.txt").write_text("length_plugin\nlength_tables\n")
    both = registry.source_digest(target.module, registry.target_of("length").packages)
    (tmp_path / "length_tables.py").write_text("LIMIT = 2\n")
    assert len({alone, both, registry.source_digest(target.module, registry.target_of("length").packages)}) == 3


def test_cases_lie_beside_the_module_and_are_found_without_importing_it(install: Install, tmp_path: Path) -> None:
    install("raises", "raise RuntimeError")
    assert cases_path("raises") is None
    (tmp_path / "cases.jsonl").write_text('{"completion": "a", "expect": "correct"}\n')
    assert cases_path("raises") == tmp_path / "cases.jsonl"
    (tmp_path / "cases").mkdir()
    (tmp_path / "cases" / "raises.jsonl").write_text('{"completion": "b", "expect": "correct"}\n')
    found = cases_path("raises")
    assert found is not None and read_cases(found)[0].completion == "b" and "raises_plugin" not in sys.modules


@pytest.mark.parametrize("name", HOSTILE)
def test_a_plug_in_that_cannot_be_used_says_why_and_whose_it_is(install: Install, name: str) -> None:
    source, attribute, message = HOSTILE[name]
    install(name, source, attribute)
    with pytest.raises(UserError, match=message) as caught:
        registry.load_verifier(name)
    assert "\n" not in str(caught.value)
    registry.check_name(name)  # it is there, though
    assert registry.load_verifier("math").name == "math"


def test_all_of_them_are_listed_with_their_fault_beside_those_that_work(
        install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    for name, (source, attribute, _) in HOSTILE.items():
        install(name, source, attribute)
    install("length", f"print('hello')\n{PLAIN}")
    install("math", PLAIN, distribution="rival")
    assert main(["verifiers", "list", "--json"]) == 0
    printed = capsys.readouterr()
    rows = {row["name"]: row for row in json.loads(printed.out)}  # what a plug-in prints is not in it
    assert "hello" in printed.err
    assert {name for name, row in rows.items() if row["fault"]} == {*HOSTILE, "math"}
    assert rows["length"] == {**rows["length"], "version": "1.2", "origin": "length-plugin 1.2", "fault": "",
                              "about": "it is as long as the answer says"}
    assert "offered by both verifiers.math:MathVerifier (built in) and math_plugin:verify (rival 1.2)" in (
        rows["math"]["fault"])
    assert rows["format"]["origin"] == "built in" and len(rows["format"]["source"]) == 64
    assert main(["verifiers", "list"]) == 0
    assert "cannot be used: 'exits' (exits_plugin:verify)" in " ".join(capsys.readouterr().out.split())


def test_in_a_worker_a_plug_in_that_exits_or_prints_is_a_fault_or_none(install: Install) -> None:
    install("exits", "import sys; sys.exit(3)")
    install("prints", f"print('at import')\n{PLAIN.replace('    return', '    print(completion); return')}")
    with VerifierPool(1) as pool:
        gone = pool.submit(Task("1", "", "1", "exits"), "a").result()
        heard = pool.submit(Task("2", "", "1", "prints"), "a").result()
    assert gone.outcome is Outcome.NO_VERDICT and "SystemExit: 3" in gone.reason
    assert heard.outcome is Outcome.CORRECT


def test_a_name_that_is_a_path_is_refused(install: Install, tmp_path: Path) -> None:
    install("length", PLAIN)
    points = tmp_path / "length_plugin-1.2.dist-info" / "entry_points.txt"
    points.write_text(points.read_text().replace("length =", "../length ="))
    assert "../length" in registry.names()
    with pytest.raises(UserError, match=r"'../length' \(length-plugin 1.2\) is no name; allowed: letters, digits"):
        cases_path("../length")


def test_a_name_that_two_offer_is_refused_alone(install: Install) -> None:
    install("math", PLAIN, distribution="rival")
    assert "math" in registry.names() and registry.identity("format")
    for asked in (registry.check_name, registry.load_verifier, registry.identity, cases_path):
        with pytest.raises(UserError, match="'math' is offered by both .*; rename the entry point of one, or"):
            asked("math")


def test_another_function_of_the_module_and_a_file_beside_it_are_another_verifier(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    lenient = PLAIN + "def lenient(completion, task):\n    return True\n"
    install("swapped", lenient)
    registry.identity.cache_clear()
    before = registry.identity("swapped")["source"]
    points = tmp_path / "swapped_plugin-1.2.dist-info" / "entry_points.txt"
    points.write_text(points.read_text().replace(":verify", ":lenient"))
    registry.identity.cache_clear()
    registry.load_verifier.cache_clear()
    assert registry.identity("swapped")["source"] != before

    package = tmp_path / "worded_plugin"
    package.mkdir()
    (package / "__init__.py").write_text(PLAIN)
    (package / "words.txt").write_text("one\n")
    (package / "cases.jsonl").write_text("{}\n")
    folder = tmp_path / "worded_plugin-1.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: worded-plugin\nVersion: 1.2\n")
    (folder / "entry_points.txt").write_text(f"[{registry.GROUP}]\nworded = worded_plugin:verify\n")

    def source() -> str:
        registry.identity.cache_clear()
        return registry.identity("worded")["source"]

    first = source()
    (package / "cases.jsonl").write_text("{}\n{}\n")
    assert source() == first
    (package / "words.txt").write_text("two\n")
    assert source() != first
