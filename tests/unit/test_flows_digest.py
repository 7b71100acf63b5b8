"""What a digest is made of: code without its explanations, data by content, bases by what they compute."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.load import load_recipe
from configs.settings.evaluation import EvaluateStage
from flows.base import resolve_base
from flows.inputs import EXAMPLES, PROBLEMS, check_jsonl, outside_data
from flows.plan import input_names, make_plan, verifiers_of
from flows.source import closure, imports_of, meaning, module_path
from flows.store import Store
from tests.e2e.flow_fixtures import write_base


def test_comments_docstrings_layout_and_field_descriptions_do_not_count() -> None:
    before = 'def f(x):\n    """Old."""\n    return x+1  # why\nrate = Field(0.1, description="old", gt=0)\n'
    after = (
        'def f( x ):\n    """New and longer."""\n    # another reason\n    return (x + 1)\n'
        'rate = Field(0.1, description="new", gt=0)\n'
    )
    assert meaning(before) == meaning(after)
    assert meaning(before) != meaning(before.replace("x+1", "x+2"))
    assert meaning(before) != meaning(before.replace("gt=0", "gt=1"))


def test_imports_are_found_inside_functions_and_relative_ones_are_resolved() -> None:
    import ast

    tree = ast.parse("import a.b\ndef f():\n    from c import d\nfrom . import e\nfrom ..g import h\n")
    assert imports_of(tree, "p.q.r", is_package=False) == {"a.b", "c", "c.d", "p.q", "p.q.e", "p.g", "p.g.h"}


def test_the_closure_of_a_stage_holds_what_it_imports_and_never_the_flows() -> None:
    modules = closure("corpora.build")
    assert {"corpora.build", "corpora", "configs.stage", "configs.schema"} <= modules.keys()
    assert not [module for module in modules if module.startswith("flows")]
    assert all(module_path(module) is not None for module in modules)


def test_an_unknown_stage_module_is_named() -> None:
    with pytest.raises(UserError, match="the module derivatives.nowhere is not in"):
        closure("derivatives.nowhere")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "problems.jsonl is empty; give a JSONL file with 'prompt' and 'answer' in each line"),
        (
            '{"prompt": "1", "answer": "2"}\n{"prompt": "1", "ans',
            r"problems.jsonl:2: not JSON at column 17 .*may be cut short; allowed: one whole JSON object a line",
        ),
        (
            '{"prompt": "1"}\n',
            r"problems.jsonl:1: the line has \['prompt'\]; allowed: 'prompt' and 'answer'; add what is missing",
        ),
        ("[1]\n", "problems.jsonl:1: holds a list; allowed: one JSON object a line"),
    ],
)
def test_a_broken_data_file_is_told_with_file_line_and_remedy(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        check_jsonl(path, PROBLEMS, "rl.data[0]")


def test_a_file_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"prompt": "\xff", "answer": "2"}\n')
    with pytest.raises(UserError, match="x.jsonl:1: byte 13 of the line is not UTF-8; allowed: UTF-8 text; convert"):
        check_jsonl(tmp_path / "x.jsonl", PROBLEMS, "rl.data[0]")


def test_a_data_file_may_have_either_set_of_keys_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    turn = {"role": "assistant", "content": "b"}
    path.write_text(json.dumps({"messages": [turn]}) + "\n\n" + json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    assert len(check_jsonl(path, EXAMPLES, "sft.data[0]")) == 64


def test_a_base_is_known_by_what_transformers_reads(tmp_path: Path) -> None:
    model = write_base(tmp_path / "model")
    (model / "README.md").write_text("card")
    store = Store(tmp_path / "store")
    direct = resolve_base(str(model), None, store, download=False)
    assert direct.identity["files"].keys() == {"config.json", "model.safetensors", "tokenizer.json"}
    assert (
        resolve_base(str(tmp_path), None, store, download=False).path == model
    )  # a training stage's folder holds model/


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "is no folder; allowed: seedling, a checkpoint folder, or a hub id"),
        ("", "is no folder|no config.json"),
        ("EMPTY", "has no config.json; give the folder of a Hugging Face checkpoint"),
        ("WEIGHTLESS", "holds no weights"),
    ],
)
def test_a_base_that_is_no_checkpoint_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "WEIGHTLESS").mkdir()
    (tmp_path / "WEIGHTLESS" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=message):
        resolve_base(name, None, Store(tmp_path / "store"), download=False)


def test_a_hub_base_is_planned_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    base = resolve_base("Qwen/no-such-model-anywhere", "abc", Store(tmp_path / "store"), download=False)
    assert base.path is None and base.identity == {"hub": "Qwen/no-such-model-anywhere", "revision": "abc"}


def test_every_stage_of_the_tiny_preset_has_its_own_digest_and_evaluate_reads_all_corpora(tmp_path: Path) -> None:
    recipe = load_recipe("math/tiny")
    plan = make_plan(recipe, Store(tmp_path / "store"))
    assert len({planned.digest for planned in plan.stages}) == len(recipe.stages)
    corpora = {stage.id for stage in recipe.stages if stage.kind == "corpus"}
    assert corpora <= set(input_names(recipe, recipe.stage("evaluate")))
    assert not (tmp_path / "store").exists()


def test_a_base_whose_files_are_damaged_is_told_without_loading_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")

    def complaint_after(name: str, content: bytes | None) -> str:
        folder = write_base(tmp_path / "base")
        path = folder / name
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        with pytest.raises(UserError) as error:
            resolve_base(str(folder), None, store, download=False)
        return str(error.value)

    whole = (write_base(tmp_path / "base") / "model.safetensors").read_bytes()
    assert f"has {len(whole) - 1} bytes where its header states {len(whole)}" in complaint_after(
        "model.safetensors", whole[:-1]
    )
    assert "is no safetensors file (its header is cut short)" in complaint_after("model.safetensors", whole[:20])
    assert "is no safetensors file" in complaint_after("model.safetensors", b"")
    assert "config.json is not JSON" in complaint_after("config.json", b"{")
    assert "config.json holds a list; allowed: a JSON object" in complaint_after("config.json", b"[]")
    assert "tokenizer.json is not JSON" in complaint_after("tokenizer.json", b"\xff")
    assert "has no tokenizer.json" in complaint_after("tokenizer.json", None)


def test_kept_tasks_are_judged_by_their_own_verifiers_and_the_digest_knows_them(tmp_path: Path) -> None:
    line = {"prompt": "1 + 1?", "answer": "2", "verifier": "exact"}
    (tmp_path / "kept.jsonl").write_text(json.dumps(line) + "\n")
    given = {"id": "evaluate", "models": ["base"], "judge": "math",
             "tasks": [{"name": "reasoning_gym/gcd", "split": "heldout", "count": 2}]}  # fmt: skip
    plain = EvaluateStage.model_validate(given)
    assert verifiers_of(plain) == ["math"] and "kept_tasks[0]" not in outside_data(plain)
    kept = EvaluateStage.model_validate(
        {**given, "audit": "exact", "kept_tasks": [{"name": str(tmp_path / "kept.jsonl"), "split": "all"}]}
    )
    assert verifiers_of(kept)[:2] == ["math", "exact"] and {"code", "puzzles"} < set(verifiers_of(kept))
    before = outside_data(kept)["kept_tasks[0]"]
    (tmp_path / "kept.jsonl").write_text(json.dumps({**line, "answer": "3"}) + "\n")
    assert outside_data(kept)["kept_tasks[0]"] != before
