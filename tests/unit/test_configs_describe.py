"""`derive show`: a resolved recipe as YAML, and every field in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.describe import MODELS, FieldRow, field_table, recipe_as_yaml
from configs.errors import UserError
from configs.load import load_recipe


def test_a_resolved_recipe_reads_back_as_the_same_recipe(tmp_path: Path) -> None:
    recipe = load_recipe("math/smoke", ["rl.system=Put it in \\boxed{}.", "release.name='1e5'"])
    path = tmp_path / "resolved.yaml"
    path.write_text(recipe_as_yaml(recipe), encoding="utf-8")
    assert load_recipe(str(path)) == recipe


def test_a_stage_reads_from_its_id_over_its_own_fields_to_the_shared_ones() -> None:
    text = recipe_as_yaml(load_recipe("math/tiny"))
    stage = text[text.index("  - id: rl\n") : text.index("  - id: evaluate\n")]
    keys = [line.strip("- ").split(":")[0] for line in stage.splitlines() if line[:5].strip(" -") and line[4] != " "]
    assert keys[:4] == ["id", "kind", "model", "data"]
    assert keys.index("steps") < keys.index("learning_rate")


def test_a_field_s_row_has_type_limits_default_and_words() -> None:
    rows = {row.field: row for row in field_table("rl")}
    assert rows["steps"] == FieldRow(
        "steps", "whole number > 0", "required", "Optimizer phases: one rollout batch each."
    )
    assert (rows["group_size"].type, rows["group_size"].default) == ("whole number >= 2", "8")
    assert (rows["loss"].type, rows["loss"].default) == (
        "grpo | dapo | dr_grpo | gspo | cispo | rloo", "grpo",
    )  # fmt: skip
    assert (rows["model"].type, rows["model"].default) == ("text, or empty", "empty")
    assert (rows["sampling"].type, rows["sampling"].default) == ("sampling", "its own defaults")
    assert (rows["data"].type, rows["clip_low"].type) == ("list of text", "number >= 0 <= 1, or empty")
    assert rows["curriculum"] == FieldRow("curriculum", "true | false", "true", rows["curriculum"].description)


def test_every_field_of_every_block_says_what_it_does() -> None:
    silent = [
        (kind, row.field)
        for kind in MODELS
        for row in field_table(kind)
        if not row.description.endswith((".", ")")) and row.field != "kind"
    ]
    assert silent == []


def test_an_unknown_block_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"fields: 'evalute' is no kind of block; did you mean 'evaluate'\?"):
        field_table("evalute")
