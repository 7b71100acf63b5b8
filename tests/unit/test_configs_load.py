"""Presets: extends, set, overrides, and the one line that every mistake ends in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs import load
from configs.errors import UserError
from configs.load import load_machine, load_recipe, preset_names, preset_summary
from configs.schema import Recipe, stage_inputs

MINIMAL = """
stages:
  - {id: problems, kind: corpus, output: problems, sources: [{name: gsm8k}]}
  - {id: rl, kind: rl, data: [problems], steps: 4, learning_rate: 1e-4}
"""


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def complaint(preset: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(preset, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_user_s_file_needs_no_more_than_its_stages(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, "mine.yaml", MINIMAL))
    assert (recipe.name, recipe.title, recipe.status, recipe.base) == ("mine", "mine", "validated only", "seedling")
    assert [stage.id for stage in recipe.stages] == ["problems", "rl"]


def test_a_child_replaces_top_level_keys_and_then_sets_single_values(tmp_path: Path) -> None:
    write(
        tmp_path,
        "parent.yaml",
        MINIMAL + "seed: 1\nbase: somewhere\nstatus: released\nname: old\n"
        "expected: [{metric: m, value: 1.0, source: s}]\n",
    )
    changes = "set: {rl.steps: 9, rl.sampling.max_new_tokens: 3}\n"
    child = write(tmp_path, "child.yaml", "extends: parent.yaml\nseed: 2\n" + changes)
    recipe = load_recipe(child)
    rl = recipe.stage("rl")
    assert (recipe.seed, recipe.base, rl.steps, rl.sampling.max_new_tokens) == (2, "somewhere", 9, 3)
    # what describes the parent alone does not pass to the child
    assert (recipe.name, recipe.status, recipe.expected) == ("child", "validated only", ())


def test_a_star_on_an_empty_list_says_so_rather_than_setting_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "extends: math/tiny\nset: {release.gates: []}\n")
    assert "gates is empty" in complaint(path, "release.gates[*].min_gain=0")


def test_overrides_come_after_set_and_in_order(tmp_path: Path) -> None:
    child = write(tmp_path, "child.yaml", MINIMAL + "set: {rl.steps: 9}\n")
    assert load_recipe(child).stage("rl").steps == 9
    assert load_recipe(child, ["rl.steps=10", "rl.steps=11"]).stage("rl").steps == 11
    assert load_recipe(child, ["stages.rl.steps=12", "seed=3"]).seed == 3


def test_a_star_sets_every_item_of_a_list() -> None:
    recipe = load_recipe("math/tiny", ["evaluate.tasks[*].count=5", "evaluate.tasks[1].count=7"])
    assert [task.count for task in recipe.stage("evaluate").tasks] == [5, 7, 5, 5, 5, 5]


def test_same_as_follows_overrides_so_that_what_is_asked_is_what_is_cleaned_away() -> None:
    recipe = load_recipe("math/tiny", ["evaluate.tasks[*].count=5", "evaluate.tasks[*].seed=99"])
    asked = recipe.stage("evaluate").tasks
    for stage_id in ("corpus", "examples", "problems"):
        assert recipe.stage(stage_id).decontaminate == asked


def test_same_as_inside_a_list_adds_the_items_of_a_list() -> None:
    recipe = load_recipe("reasoning/7b")
    evaluate = recipe.stage("evaluate")
    assert recipe.stage("problems").decontaminate == (*evaluate.tasks, *evaluate.kept_tasks)


def test_same_as_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    text = MINIMAL.replace("steps: 4", "steps: {same_as: rl.stops}")
    assert complaint(write(tmp_path, "a.yaml", text)).startswith(
        "rl.steps.same_as: 'rl.stops' leads nowhere ('stops'"
    )
    text = MINIMAL.replace("steps: 4", "steps: {same_as: rl}")
    assert "holds a same_as itself" in complaint(write(tmp_path, "b.yaml", text))
    text = MINIMAL.replace("steps: 4", "steps: {same_as: lr.steps}")
    assert "did you mean 'rl'?" in complaint(write(tmp_path, "c.yaml", text))


def test_another_base_forgets_the_commit_of_the_first(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", MINIMAL + "base: org/model\nbase_revision: abc\n")
    assert load_recipe(path).base_revision == "abc"
    assert (load_recipe(path, base="other/model").base, load_recipe(path, base="other/model").base_revision) == (
        "other/model",
        None,
    )


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("rl.stpes=3", ["rl.stpes: 3 ", "did you mean 'steps'?", "allowed: "]),
        ("rll.steps=3", ["rll.steps: 'rll' is no stage", "did you mean 'rl'?", "allowed: corpus, pretrain"]),
        ("sede=3", ["sede: 'sede' is no stage of this preset, nor a field", "did you mean 'seed'?"]),
        ("seed=-1", ["seed: -1 ", "greater than or equal to 0"]),
        ("rl.steps=many", ["rl.steps: 'many' ", "a valid integer", "Optimizer phases"]),
        ("rl.steps='8'", ["rl.steps: '8' ", "a valid integer"]),
        ("rl.steps=true", ["rl.steps: True ", "a valid integer"]),
        ("rl.steps=2.5", ["rl.steps: 2.5 ", "integer"]),
        ("rl.learning_rate=.inf", ["--set rl.learning_rate:1: ", "not a finite number"]),
        ("rl.learning_rate=0", ["rl.learning_rate: 0 ", "greater than 0"]),
        ("rl.sampling.top_p=2", ["rl.sampling.top_p: 2 ", "less than or equal to 1"]),
        ("rl.sampling.temperature=0", ["rl.sampling.temperature: 0 ", "nothing to learn", "allowed: above 0"]),
        ("rl.sampling.top_p=0.9", ["rl.sampling.top_p: 0.9 draws from another", "allowed in RL: 1"]),
        ("rl.sampling.min_p=0.1", ["rl.sampling.min_p: 0.1 draws from another", "set rl.sampling.min_p=0"]),
        ("rl.overlong_buffer=8", ["rl.overlong_buffer: 8 was given with truncated wrong", "set rl.truncated=shaped"]),
        ("rl.sampling.top_k=5", ["rl.sampling.top_k: 5 draws from another", "set rl.sampling.top_k=0"]),
        ("rl.sampling.tmperature=1", ["rl.sampling.tmperature: ", "did you mean 'temperature'?"]),
        ("rl.loss=grppo", ["rl.loss: 'grppo' ", "did you mean 'grpo'?", "'dapo'"]),
        ("rl.verifier=mth", ["rl.verifier: 'mth' is no verifier", "did you mean 'math'?", "math_verify"]),
        ("evaluate.judge=puzzle", ["evaluate.judge: 'puzzle' is no verifier", "did you mean 'puzzles'?"]),
        ("rl.data=[problem]", ["rl.data: 'problem' names no earlier corpus", "did you mean 'problems'?"]),
        (
            "sft.data=[problems]",
            ["sft.data: 'problems' names no earlier corpus with output examples", "allowed: examples"],
        ),
        ("sft.model=rl", ["sft.model: 'rl' names no earlier stage with a model", "allowed: base, pretrain"]),
        ("release.evaluation=evaluat", ["release.evaluation: 'evaluat' ", "did you mean 'evaluate'?"]),
        (
            "release.gates[1].against=stf",
            ["release.gates[1].against: 'stf' ", "did you mean 'sft'?", "base, sft, rl"],
        ),
        ("evaluate.models=[base, sft]", ["evaluate.models: 'rl' is missing", "add rl to evaluate.models"]),
        ("evaluate.models=[sft, rl]", ["evaluate.models: 'base' is missing", "add base to evaluate.models"]),
        (
            "evaluate.heldout_text=[]",
            ["release.keep.bits_per_byte: 0.03 is required of what evaluate does not measure", "evaluate.heldout_text"],
        ),
        (
            "evaluate.tasks[0].name=reasoning_gym/chain_sun",
            ["evaluate.tasks[0].name: ", "'reasoning_gym/chain_sum'?"],
        ),
        ("evaluate.tasks[0].name=gsm8", ["evaluate.tasks[0].name: 'gsm8' is no task set", "'gsm8k'?"]),
        ("evaluate.tasks[0].name=finemath", ["evaluate.tasks[0].name: 'finemath' is no task set"]),
        ("corpus.sources[0].name=python_stdlb", ["corpus.sources[0].name: ", "'python_stdlib'?"]),
        ("corpus.sources[0].split=test", ["corpus.sources[0].split: 'test' ", "train, heldout, all"]),
        ("evaluate.tasks[1].params.max_term=3", ["evaluate.tasks[1].params.max_term: ", "did you mean 'max_terms'?"]),
        ("evaluate.tasks[0].split=test", ["evaluate.tasks[0].split: 'test' ", "allowed: train, heldout, all"]),
        ("evaluate.tasks[0].count=null", ["evaluate.tasks[0].count: empty ", "evaluate.tasks[0].count=200"]),
        ("evaluate.tasks[9].count=3", ["evaluate.tasks[9].count: [9] is past the end", "[0] to [5]"]),
        ("evaluate.tasks=[]", ["evaluate.tasks: [] ", "at least 1 item"]),
        ("corpus.decontaminate[0].count=1", ["corpus.decontaminate[0].count: ", "not a list"]),
        ("corpus.kind=corups", ["corpus.kind: 'corups' is no stage kind", "did you mean 'corpus'?"]),
        ("rl.steps.x=3", ["rl.steps.x: steps holds '90'", "allowed: steps itself"]),
        ("rl[0].steps=3", ["rl[0].steps: a stage is no list"]),
        ("stages[0].id=x", ["stages[0].id: "]),
        ("corpus.sources[0][1]=x", ["corpus.sources[0][1]: ", "not a list"]),
        ("evaluate.few_shot_tasks[*].count=3", ["few_shot_tasks is not a list in this preset", "[...]"]),
        ('evaluate.tasks[0].params={"a\\nb": 1}', ["evaluate.tasks[0].params.'a\\nb': "]),
        ('rl.sampling={"a\\nb": 1}', ["rl.sampling.'a\\nb': 1 was given"]),
        ('rl.id="r\\nl"', ["'r\\nl'.id: "]),
        ("rl=3", ["rl: names a whole stage"]),
        ("rl.steps", ["--set: 'rl.steps' is no override", "e.g. rl.steps=8"]),
        ("=3", ["--set: '=3' is no override"]),
        ("rl..steps=3", ["'rl..steps' is no path"]),
        ("name=[", ["--set name:", "not valid YAML"]),
    ],
)
def test_a_wrong_override_names_path_value_choices_and_the_nearest_name(override: str, parts: list[str]) -> None:
    message = complaint("math/tiny", override)
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize(
    ("stages", "parts"),
    [
        ("stages: [{id: a}]", ["a.kind: is missing", "corpus, pretrain"]),
        ("stages: [{kind: corpus, output: tokens, sources: [{name: gsm8k}]}]", ["stages[0].id: is missing"]),
        ("stages: [3]", ["stages[0]"]),
        ("stages: 3", ["stages: 3 "]),
        ("seed: 1", ["stages: is missing"]),
        (
            "stages: [{id: seed, kind: corpus, output: tokens, sources: [{name: gsm8k}]}]",
            ["seed.id: 'seed' is the name of"],
        ),
        (
            "stages: [{id: base, kind: corpus, output: tokens, sources: [{name: gsm8k}]}]",
            ["base.id: 'base' is the name of"],
        ),
        (
            "stages:\n" + "  - {id: a, kind: corpus, output: tokens, sources: [{name: gsm8k}]}\n" * 2,
            ["a.id: 'a' is used twice"],
        ),
        ("stages: [{id: A, kind: corpus, output: tokens, sources: [{name: gsm8k}]}]", ["A.id: 'A' ", "pattern"]),
        (
            "stages: [{id: a, kind: corpus, output: tokens, sources: [{name: gsm8k, params: {x: 1}}]}]",
            ["a.sources[0].params: {'x': 1} was given to 'gsm8k', which takes none"],
        ),
        (
            "stages: [{id: a, kind: corpus, output: problems, sources: [{name: asdiv}]}]",
            ["a.sources[0].split: 'train' ", "test"],
        ),
        ("extends: math/tyni", ["extends: 'math/tyni' is no preset", "did you mean 'math/tiny'?"]),
        ("extends: 3", ["extends: 3 is not text"]),
        ("extends: math/tiny\nset: [1]", ["set: '[1]' is not a mapping"]),
        ("extends: math/tiny\nadd: [1]", ["add: '[1]' is not a mapping to lists", "write `add: {sft: ["]),
        ("extends: math/tiny\nadd: {sft: {id: more}}", ["is not a mapping to lists"]),
        ("extends: math/tiny\nadd: {stf: []}", ["add: 'stf' is no stage", "did you mean 'sft'?"]),
        ("name: a\nadd: {sft: []}", ["add: 'sft' is no stage", "allowed: none"]),
        ("extends: math/tiny\ndrop: corpus", ["drop: 'corpus' is not a list", "write `drop: [corpus, pretrain]`"]),
        ("extends: math/tiny\ndrop: [corpsu]", ["drop: 'corpsu' is no stage", "did you mean 'corpus'?"]),
        ("extends: math/tiny\ndrop: [corpus]", ["pretrain", "'corpus'"]),
        ("extends: math/tiny\nadd: {sft: [3]}", ["stages"]),
        ("extends: absent.yaml", ["absent.yaml: cannot be read"]),
        ("", ["the file is empty"]),
        ("# nothing\n", ["the file is empty"]),
        ("- 1\n", ["holds a list"]),
        ("a: 1\nb: 2\na: 3\n", [":3: not valid YAML: the key 'a' is given twice"]),
        ("a: &x 1\nb: *x\n", [":1: not valid YAML: anchors and aliases"]),
        ("a: !!python/name:os.system 1\n", [":1: not valid YAML: the tag"]),
        ("1: 2\n", ["the key '1' is not text"]),
        ("a: [\n", ["not valid YAML"]),
        ("a: \x00\n", ["not valid YAML"]),
        ("a: " + "[" * 5000, ["nested more than 50 levels"]),
    ],
)
def test_a_wrong_file_names_the_field_or_the_line(tmp_path: Path, stages: str, parts: list[str]) -> None:
    message = complaint(write(tmp_path, "wrong.yaml", stages))
    assert [part for part in parts if part not in message] == []


def test_unknown_presets_and_unreadable_files_are_named(tmp_path: Path) -> None:
    assert "did you mean 'math/tiny'?" in complaint("math/tyni")
    for name in ("machines/cpu", "shared/math", "", "../configs/math/tiny", "math/tiny\0"):
        assert "is no preset" in complaint(name)
    assert "cannot be read (No such file or directory)" in complaint(str(tmp_path / "absent.yaml"))
    (tmp_path / "folder.yaml").mkdir()
    assert "cannot be read (Is a directory)" in complaint(str(tmp_path / "folder.yaml"))
    (tmp_path / "latin.yaml").write_bytes(b"title: caf\xe9\n")
    assert "not a UTF-8 text file (byte 10)" in complaint(str(tmp_path / "latin.yaml"))


def test_a_loss_without_a_ratio_allows_one_update_a_step() -> None:
    assert load_recipe("math/tiny", ["rl.loss=rloo"]).stage("rl").loss == "rloo"
    with pytest.raises(UserError, match=r"rl.updates_per_step: 2 was given, but rloo has no ratio.*; allowed: 1"):
        load_recipe("math/tiny", ["rl.loss=rloo", "rl.updates_per_step=2"])


def test_added_stages_follow_the_one_named_and_can_be_set(tmp_path: Path) -> None:
    more = "{id: more, kind: sft, data: [examples], epochs: 2, batch_examples: 8, max_length: 64, learning_rate: 1e-4}"
    path = write(tmp_path, "a.yaml", f"extends: math/tiny\nadd: {{sft: [{more}]}}\nset: {{more.epochs: 3}}\n")
    stages = {stage.id: stage for stage in load_recipe(str(path)).stages}
    order = list(stages)
    assert order.index("more") == order.index("sft") + 1
    assert stages["more"].epochs == 3


def test_the_control_experiment_shares_all_but_the_controls_with_math_tiny() -> None:
    tiny, control = ({s.id: s for s in load_recipe(name).stages} for name in ("math/tiny", "math/tiny-controls"))
    assert set(control) - set(tiny) == {"rl_control_random", "rl_control_format", "rl_control_sft"}
    shared = [name for name in tiny if name not in ("evaluate", "release")]
    assert {name: control[name] for name in shared} == {name: tiny[name] for name in shared}
    assert control["rl_control_sft"].model == "sft" and control["release"].model == "rl"
    assert control["rl_control_sft"].data == control["sft"].data


def test_extends_in_a_circle_is_shown_as_the_chain(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "extends: b.yaml\n")
    write(tmp_path, "b.yaml", "extends: sub/../a.yaml\n")
    (tmp_path / "sub").mkdir()
    message = complaint(str(tmp_path / "a.yaml"))
    assert f"{tmp_path / 'a.yaml'} -> {tmp_path / 'b.yaml'} -> {tmp_path / 'a.yaml'} goes in a circle" in message


def test_a_summary_lists_stages_and_status() -> None:
    summary = preset_summary("math/tiny")
    assert summary["stages"][0] == {"id": "corpus", "kind": "corpus"}
    assert summary["base"] == "seedling"
    assert json.loads(json.dumps(summary)) == summary


def test_presets_come_without_machines_and_shared_parts() -> None:
    assert {"math/tiny", "math/smoke", "math/tiny-gsm8k", "math/0.5b", "math/7b"} <= set(preset_names())
    assert not [name for name in preset_names() if name.startswith(("machines/", "shared/"))]


def test_machines_load_by_name_or_path_and_name_what_is_wrong(tmp_path: Path) -> None:
    assert load_machine("cpu").device == "cpu"
    assert load_machine("eight-gpu").num_processes == 8
    own = write(tmp_path, "wide.yaml", "num_threads: 16\n")
    assert (load_machine(own).name, load_machine(own).num_threads) == ("wide", 16)
    allowed = "allowed: cpu, eight-gpu, eight-gpu-tensor, eight-h200"
    with pytest.raises(UserError, match=f"machine: 'gpu' is no machine profile; .*{allowed}"):
        load_machine("gpu")
    wrong = write(tmp_path, "wrong.yaml", "num_thread: 16\n")
    with pytest.raises(UserError, match=r"num_thread: 16 was given.*did you mean 'num_threads'\?"):
        load_machine(wrong)


def test_the_default_machine_is_asked_for_by_variable_then_by_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(load.MACHINE_VARIABLE, raising=False)
    monkeypatch.setattr(load, "FIRST_GPU", tmp_path / "nvidia0")
    assert load.default_machine_name() == "cpu"
    (tmp_path / "nvidia0").touch()
    assert load.default_machine_name() == "one-gpu"
    monkeypatch.setenv(load.MACHINE_VARIABLE, "eight-gpu")
    assert load.default_machine_name() == "eight-gpu"


def test_the_inputs_of_a_stage_are_what_it_reads() -> None:
    recipe = load_recipe("math/tiny")
    assert {stage.id: stage_inputs(recipe, stage) for stage in recipe.stages} == {
        "corpus": ("base",),
        "pretrain": ("base", "corpus"),
        "examples": ("base",),
        "known": (),
        "rehearsal": ("base", "known"),
        "sft": ("pretrain", "examples", "rehearsal", "corpus"),
        "problems": (),
        "rl": ("sft", "problems"),
        "evaluate": ("base", "sft", "rl"),
        "release": ("rl", "base", "evaluate"),
    }


def test_a_recipe_is_frozen() -> None:
    recipe = load_recipe("math/tiny")
    assert isinstance(recipe, Recipe)
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


def test_a_mistake_in_what_is_copied_is_named_at_the_original() -> None:
    assert complaint("math/tiny", "evaluate.tasks[0].count=0").startswith("evaluate.tasks[0].count: 0 was given")
    assert complaint("math/tiny", "evaluate.tasks[0].cuont=1").startswith("evaluate.tasks[0].cuont: 1 was given")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rl.length_stages=[64,32]", "rl.length_stages: .64, 32. before sampling.max_new_tokens .* does not grow"),
        ("rl.fork_every=7", "rl.fork_every: 7 is no multiple of checkpoint_every"),
        ("rl.more_rewards=[{verifier: math}]", "rl.more_rewards: math beside verifier math; allowed: each .* once"),
        ("rl.more_rewards=[{verifier: mat}]", "rl.more_rewards.0..verifier: 'mat' .*did you mean 'math'"),
        ("rl.audit={verifier: math}", "rl.audit.verifier: 'math' gives the reward; allowed: another one"),
        ("rl.audit={verifier: exat}", "rl.audit.verifier: 'exat' .*did you mean 'exact'"),
        ("rl.audit={verifier: exact, max_gap: 0}", "rl.audit.max_gap: 0"),
    ],
)
def test_settings_of_rl_that_cannot_be_are_refused(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe("math/tiny", [override])


def test_retiring_needs_the_curriculum() -> None:
    with pytest.raises(UserError, match="rl.retire_after: 2 was given with curriculum off"):
        load_recipe("math/tiny", ["rl.retire_after=2", "rl.curriculum=false"])


def test_stages_of_the_parent_can_be_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "extends: math/tiny\ndrop: [corpus, pretrain]\nset: {sft.replay: null}\n")
    ids = [stage.id for stage in load_recipe(str(path)).stages]
    whole = [stage.id for stage in load_recipe("math/tiny").stages]
    assert ids == [name for name in whole if name not in ("corpus", "pretrain")]
    assert load_recipe(str(path)).stage("sft").model is None
