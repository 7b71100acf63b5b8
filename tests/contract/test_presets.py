"""Every preset loads, hangs together, and asks of the generators only what they accept."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.catalogue import dataset, dataset_names
from configs.hub import UNPINNED
from configs.load import FOLDER, load_machine, load_recipe, machine_names, preset_names, preset_summary
from configs.names import is_generated, procedural_families, procedural_settings, verifier_names
from configs.schema import Recipe, stage_inputs
from configs.settings.common import TaskSource
from configs.settings.corpus import CorpusStage
from configs.settings.evaluation import EvaluateStage, ReleaseStage
from configs.settings.reinforcement import RlStage
from configs.strict_yaml import read_mapping
from corpora.licences import normalise_licence
from derivatives.planning.amounts import Known
from derivatives.planning.devices import device_of
from derivatives.planning.predict import predict, prepare
from derivatives.planning.shape import shape_of
from flows.plan import make_plan
from flows.store import Store
from verifiers.tasks import load_tasks

OWN_BASE = [
    "coder/smoke",
    "coder/tiny",
    "coder/tiny-packages",
    "math/smoke",
    "math/tiny",
    "math/tiny-controls",
    "math/tiny-gsm8k",
    "math/tiny-tools",
    "reasoning/smoke",
    "reasoning/tiny",
]
STAGES = ["corpus", "pretrain", "examples", "sft", "problems", "rl", "evaluate", "release"]
MORE = {
    "asked",
    "candidates",
    "control",
    "dpo",
    "examples_broad",
    "known",
    "pretrain_repositories",
    "problems_math_code",
    "rehearsal",
    "repositories",
    "rl_control_format",
    "rl_control_random",
    "rl_control_sft",
    "rl_math_code",
    "sft_broad",
    "steps",
    "without_tools",
}
"""Stages that some presets have besides."""
PROFILES = {
    "0.5b": "one-gpu", "1.5b": "one-gpu", "3b": "eight-gpu", "7b": "eight-gpu", "14b": "eight-h200",
    "32b": "four-node", "72b": "eight-node-server", "1.5b-lora": "one-small-gpu", "7b-lora": "one-small-gpu",
}  # fmt: skip
"""Sizes of real bases, and the machine profile that each is made for."""
REAL_BASE = [f"math/{size}" for size in PROFILES]
"""After Qwen2.5-Math."""
OTHER_REAL_BASE = [f"{family}/{size}" for family in ("coder", "reasoning") for size in PROFILES]
WITHOUT_PRETRAINING = {
    "math/tiny-tools", "math/1.5b-lora", "math/7b-lora", "coder/1.5b-lora", "coder/7b-lora",
    *(f"reasoning/{size}" for size in PROFILES),
}  # fmt: skip
"""They begin with demonstrations."""
REPLAYED = ("reasoning/smoke", "reasoning/tiny")
"""They have a corpus, but no pretraining: supervised fine-tuning goes back to it."""


def sources(recipe: Recipe) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for stage in recipe.stages:
        if isinstance(stage, CorpusStage):
            found += [(stage.id, source) for source in (*stage.sources, *stage.decontaminate)]
        if isinstance(stage, EvaluateStage):
            found += [(stage.id, source) for source in (*stage.tasks, *stage.few_shot_tasks, *stage.heldout_text)]
    return found


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_under_its_own_name_and_says_what_it_is(name: str) -> None:
    recipe = load_recipe(name)
    own = read_mapping(FOLDER / f"{name}.yaml")
    assert recipe.name == name
    assert {"title", "description", "status"} <= own.keys()
    assert len(recipe.title) <= 100
    assert preset_summary(name)["title"] == recipe.title
    expected = STAGES[2:] if name in WITHOUT_PRETRAINING else STAGES
    expected = [STAGES[0], *STAGES[2:]] if name in REPLAYED else expected
    assert [stage.id for stage in recipe.stages if stage.id not in MORE] == expected
    for index, stage in enumerate(recipe.stages):
        earlier = {other.id for other in recipe.stages[:index]}
        assert set(stage_inputs(recipe, stage)) <= earlier | {"base"}


@pytest.mark.parametrize("name", preset_names())
def test_what_a_preset_measures_is_cleaned_out_of_all_it_trains_on(name: str) -> None:
    recipe = load_recipe(name)
    asked = recipe.stage("evaluate").tasks
    assert asked
    # Generated sets of other domains are held out by the hash of their questions; those of other people are looked for.
    kept = [task for task in recipe.stage("evaluate").kept_tasks if task.name in dataset_names()]
    for stage in recipe.stages:
        if isinstance(stage, CorpusStage):
            cleaned = {(task.name, task.split) for task in stage.decontaminate}
            assert {(task.name, task.split) for task in kept} <= cleaned
            assert set(map(str, asked)) <= set(map(str, stage.decontaminate))
            assert all(source.split == "train" for source in stage.sources)
    assert all(task.split in ("heldout", "test") for task in asked)


@pytest.mark.parametrize("name", OWN_BASE)
def test_a_preset_of_the_seedling_needs_no_network_beyond_its_named_data(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.base == "seedling"
    natural = {source.name for _, source in sources(recipe) if source.name in dataset_names()}  # type: ignore[attr-defined]
    assert natural == ({"gsm8k", "asdiv"} if name.endswith("gsm8k") else set())


@pytest.mark.parametrize(
    ("family", "rewards", "judge"),
    [
        ("math", ["math"], "puzzles"),
        ("coder", ["code"], "code_hidden"),
        ("reasoning", ["think_own", "think_own"], "counterpart"),
    ],
)
@pytest.mark.parametrize("size", ["smoke", "tiny"])
def test_the_reward_s_verifier_is_not_the_judge(family: str, size: str, rewards: list[str], judge: str) -> None:
    recipe = load_recipe(f"{family}/{size}")
    evaluate = recipe.stage("evaluate")
    assert isinstance(evaluate, EvaluateStage)
    assert [stage.verifier for stage in recipe.stages if isinstance(stage, RlStage)] == rewards
    judges = {evaluate.judge or source.verifier for source in evaluate.tasks if not source.name.startswith("fim/")}
    assert judges == {judge}  # gaps are judged by their own text, which no stage rewards


@pytest.mark.parametrize("name", ["coder/tiny", "math/tiny", "reasoning/tiny"])
def test_a_tiny_preset_is_released_only_for_a_gain_over_the_base_and_over_sft(name: str) -> None:
    release = load_recipe(name).stage("release")
    assert isinstance(release, ReleaseStage)
    gains = {gate.against: gate.min_gain for gate in release.gates if gate.metric == "pass@1"}
    assert gains.pop("rl_math_code", -0.02) == -0.02  # what the first RL stage gained may not be lost in the second
    assert gains.keys() == {"base", "sft"} and min(gains.values()) >= 0


@pytest.mark.parametrize("name", ["coder/tiny", "math/tiny", "reasoning/tiny"])
def test_a_tiny_preset_asks_for_what_rl_trained_on_and_for_one_family_that_nothing_was_trained_on(name: str) -> None:
    recipe = load_recipe(name)
    corpora = [stage for stage in recipe.stages if isinstance(stage, CorpusStage)]
    evaluate = recipe.stage("evaluate")
    asked = {task.name: task.params for task in evaluate.tasks}
    trained = {source.name for stage in corpora for source in stage.sources}
    assert len({name for name in asked if not name.startswith("fim/")} - trained) == 1
    asked |= {task.name: task.params for task in evaluate.kept_tasks}
    rewarded = {name for stage in recipe.stages if isinstance(stage, RlStage) for name in stage.data}
    problems = [source for stage in corpora if stage.id in rewarded for source in stage.sources]
    for name in {source.name for source in problems}:
        assert asked[name] in [source.params for source in problems if source.name == name]
    assert 1500 <= sum(task.count or 0 for task in recipe.stage("evaluate").tasks) <= 2000


def test_the_cold_start_of_reasoning_thinks_and_only_the_preset_of_tools_uses_any() -> None:
    for name in OWN_BASE:
        styles = {
            source.style
            for stage in load_recipe(name).stages
            if isinstance(stage, CorpusStage) and stage.output == "examples"
            for source in stage.sources
        }
        first = "think" if name.startswith("reasoning/") else "plain"
        assert styles == ({first, "tools"} if name.endswith("-tools") else {first}), name


@pytest.mark.parametrize("family", ["coder", "math", "reasoning"])
def test_smoke_has_every_stage_of_tiny_at_a_smaller_size(family: str) -> None:
    tiny, smoke = load_recipe(f"{family}/tiny"), load_recipe(f"{family}/smoke")
    assert [stage.id for stage in smoke.stages] == [stage.id for stage in tiny.stages]
    large, small = tiny.stage("evaluate"), smoke.stage("evaluate")
    assert isinstance(large, EvaluateStage) and isinstance(small, EvaluateStage)
    assert sum(task.count or 0 for task in small.tasks) * 20 < sum(task.count or 0 for task in large.tasks)


@pytest.mark.parametrize("name", ["math/0.5b", "math/1.5b", "math/3b", "math/7b"])
def test_a_preset_of_the_published_recipe_keeps_its_figures_and_names_sources(name: str) -> None:
    recipe = load_recipe(name)
    sft, rl = recipe.stage("sft"), recipe.stage("rl")
    assert (sft.epochs, sft.max_length, sft.learning_rate, sft.batch_examples) == (3, 4096, 2e-5, 128)
    assert sft.learning_rate * sft.min_lr_fraction == pytest.approx(7e-7)
    assert (rl.group_size, rl.prompts_per_step * rl.group_size, rl.learning_rate, rl.kl_coefficient) == (
        32,
        4096,
        1e-5,
        1e-3,
    )
    assert rl.prompts_per_step * rl.group_size // rl.updates_per_step == 512
    assert recipe.status == "validated only"
    assert recipe.expected and all("arXiv:" in figure.source and 0 < figure.value < 1 for figure in recipe.expected)


def test_the_largest_math_preset_has_the_papers_figures_for_its_size() -> None:
    recipe = load_recipe("math/72b")
    sft, rl = recipe.stage("sft"), recipe.stage("rl")
    assert (sft.batch_examples, sft.learning_rate) == (256, 5e-6)
    assert (rl.prompts_per_step * rl.group_size, rl.learning_rate) == (2048, 5e-6)
    assert rl.prompts_per_step * rl.group_size // rl.updates_per_step == 512


@pytest.mark.parametrize("name", [*REAL_BASE, *OTHER_REAL_BASE])
def test_a_preset_of_real_size_fits_on_the_profile_that_it_is_made_for_and_says_so(name: str) -> None:
    size = name.partition("/")[2]
    text = (FOLDER / f"{name}.yaml").read_text()
    recipe, machine = load_recipe(name), load_machine(PROFILES[size])
    assert f"(profile {PROFILES[size]})" in text or size in ("0.5b", "7b")
    assert recipe.expected and all(figure.source and 0 < figure.value < 1 for figure in recipe.expected)
    shape = shape_of(recipe.base, None)
    known = Known({stage.id: stage for stage in recipe.stages}, {}, lambda given: len(given) // 4)
    for stage in recipe.stages:
        if stage.kind in ("corpus", "release"):
            continue
        line = predict(prepare(stage, shape, device_of(machine.for_kind(stage.kind)), known), None)
        assert line.memory is not None and line.refusal == "", (stage.id, line.refusal, line.remedies)


@pytest.mark.parametrize("name", [f"coder/{size}" for size in PROFILES if not size.endswith("-lora")])
def test_a_coder_of_real_size_reads_code_text_and_mathematics_as_published_files_first_then_repositories(
    name: str,
) -> None:
    recipe = load_recipe(name)
    files, repositories = recipe.stage("corpus"), recipe.stage("repositories")
    assert isinstance(files, CorpusStage) and isinstance(repositories, CorpusStage)
    for stage, level, length in ((files, "file", 8192), (repositories, "repository", 32768)):
        assert {source.name: source.weight for source in stage.sources} == {
            "stack_v3": 70, "fineweb_edu": 20, "finemath": 10}
        code = stage.sources[0]
        assert (code.level, code.licences, code.fim and code.fim.rate) == (level, ("permissive",), 0.5)
        assert stage.sequence_length == length
    trained = [stage.id for stage in recipe.stages if not isinstance(stage, CorpusStage)]
    assert trained[:7] == ["pretrain", "pretrain_repositories", "sft_broad", "sft", "candidates", "dpo", "rl"]
    for stage in recipe.stages:
        if isinstance(stage, CorpusStage):
            assert {"humaneval", "mbpp", "gsm8k"} <= {one.name for one in stage.decontaminate}
    assert recipe.stage("rl").verifier == recipe.stage("candidates").verifier == "code"
    evaluate = recipe.stage("evaluate")
    judged = {source.name: source.verifier for source in evaluate.tasks}
    assert judged.pop("fim/python_stdlib") is None and set(judged.values()) == {"code_hidden"}
    assert {"humaneval", "mbpp"} <= judged.keys() and evaluate.models == ("base", "sft", "dpo", "rl")
    assert {source.name for source in evaluate.kept_tasks} == {"gsm8k", "math500", "ifeval"}


@pytest.mark.parametrize("name", OTHER_REAL_BASE)
def test_a_preset_of_real_size_can_be_planned_without_a_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plan = make_plan(load_recipe(name), Store(str(tmp_path / "store")))
    assert len({planned.digest for planned in plan.stages}) == len(plan.stages)
    for planned in plan.stages:
        for where, facts in planned.ingredients["outside"].items():
            pinned = [one.get("revision") for one in facts.get("splits", {}).values()]
            assert UNPINNED not in pinned, (planned.stage.id, where)


def test_the_reasoning_preset_of_real_size_keeps_the_published_cold_start() -> None:
    recipe = load_recipe("reasoning/7b")
    sft = recipe.stage("sft")
    assert (sft.epochs, sft.learning_rate, sft.batch_examples, sft.max_length) == (5, 4e-5, 128, 32768)
    assert (sft.min_lr_fraction, sft.warmup_fraction, sft.max_grad_norm) == (0.1, 0.03, 0.2)
    assert (sft.context.length, sft.context.rope_base) == (32768, 300_000)
    assert [stage.verifier for stage in recipe.stages if isinstance(stage, RlStage)] == ["think_own", "think_own"]
    assert {source.verifier for source in recipe.stage("evaluate").tasks} == {"math_verify"}


def test_code_is_cut_for_fill_in_the_middle_and_read_by_repository_in_every_coder() -> None:
    for name in preset_names():
        if name.startswith("coder/") and name not in WITHOUT_PRETRAINING:
            recipe = load_recipe(name)
            code = [source for one in ("corpus", "repositories") for source in recipe.stage(one).sources
                    if source.name.startswith(("python_", "stack"))]
            assert {source.level for source in code} == {"file", "repository"}
            assert all(source.fim is not None and source.licences == ("permissive",) for source in code)


@pytest.mark.parametrize("name", preset_names())
def test_the_generators_accept_every_procedural_setting_of_a_preset(name: str) -> None:
    gym = pytest.importorskip("reasoning_gym")
    seen = set()
    for _, source in sources(load_recipe(name)):
        family, params = source.name.partition("/")[2], source.params  # type: ignore[attr-defined]
        if source.name.startswith("reasoning_gym/") and (family, str(params)) not in seen:  # type: ignore[attr-defined]
            seen.add((family, str(params)))
            assert gym.create_dataset(family, size=2, seed=1, **params)[1]["answer"].strip()


@pytest.mark.parametrize("name", ["coder/smoke", "coder/tiny"])
def test_function_tasks_of_a_preset_can_be_drawn(name: str) -> None:
    for _, source in sources(load_recipe(name)):
        if source.name.startswith("functions/"):  # type: ignore[attr-defined]
            few = TaskSource(name=source.name, count=2, split=source.split, params=source.params)  # type: ignore[attr-defined]
            assert len(load_tasks(few)) == 2


def test_the_families_and_settings_read_from_sources_are_the_generators_own() -> None:
    gym = pytest.importorskip("reasoning_gym")
    import dataclasses

    from reasoning_gym.factory import DATASETS

    assert gym and set(procedural_families()) == set(DATASETS)
    for family, (_, settings) in DATASETS.items():
        own = {field.name for field in dataclasses.fields(settings)} - {"seed", "size"}
        assert own == set(procedural_settings(family)), family


def test_the_built_in_verifiers_are_known_by_name() -> None:
    assert {"code", "code_hidden", "exact", "format", "math", "puzzles", "think_math", "think_puzzles"} <= set(
        verifier_names()
    )


@pytest.mark.parametrize("name", machine_names())
def test_every_machine_loads_under_its_own_name(name: str) -> None:
    machine = load_machine(name)
    assert machine.name == name
    assert (machine.num_processes > 1) == bool(machine.launcher)


@pytest.mark.slow
def test_accelerate_understands_the_launcher_of_eight_gpus() -> None:
    from accelerate.commands.launch import launch_command_parser

    words = list(load_machine("eight-gpu").launcher)
    assert words[:3] == ["{python}", "-m", "accelerate.commands.launch"]
    given = launch_command_parser().parse_args([*words[3:], "python", "-m", "derivatives.sft", "STAGE.json", "OUT"])
    assert (given.num_processes, given.use_fsdp, given.fsdp_version, given.no_python) == (8, True, "2", True)
    assert given.training_script == "python"
    assert given.training_script_args == ["-m", "derivatives.sft", "STAGE.json", "OUT"]


def test_training_sets_state_a_licence_and_have_what_their_stage_needs() -> None:
    for name in (*REAL_BASE, *OTHER_REAL_BASE):
        for stage in load_recipe(name).stages:
            if not isinstance(stage, CorpusStage):
                continue
            for source in stage.sources:
                if is_generated(source.name):
                    continue
                entry = dataset(source.name)
                assert entry.revision != UNPINNED and normalise_licence(entry.licence), source.name
                columns = dataset(source.name).columns.keys()
                needed = {
                    "tokens": [{"text"}, {"question", "solution"}],
                    "examples": [{"question", "solution"}],
                    "problems": [{"question", "answer"}],
                }[stage.output]
                judged = stage.output == "problems" and entry.is_task_set  # by tests or constraints
                assert judged or any(want <= columns for want in needed), (stage.id, source.name)
