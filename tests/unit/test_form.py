"""The forms of Prefect's UI: eight fields, of plain types, each explained; and what the browser cannot check."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.utilities.callables import parameter_schema

from configs.load import load_machine, load_recipe, machine_names, preset_names
from configs.names import verifier_names
from configs.settings.machine import Machine
from flows import catalogue, certify_flow
from flows import derive as derive_flow
from flows.source import ROOT
from flows.store import Store

FORM = parameter_schema(derive_flow.derive).model_dump()
CERTIFY = parameter_schema(certify_flow.certify_verifier).model_dump()


def in_order(form: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return sorted(form["properties"].items(), key=lambda field: field[1]["position"])


def keys_of(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inside in value.items():
            yield key
            yield from keys_of(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from keys_of(inside)


def test_the_form_has_eight_fields_in_their_order() -> None:
    names = ["preset", "base", "stages", "budget", "overrides", "verifier", "machine", "mode"]
    assert [name for name, _ in in_order(FORM)] == names
    assert [field["title"] for _, field in in_order(FORM)] == [name.capitalize() for name in names]
    assert not FORM["required"]


@pytest.mark.parametrize("form", [FORM, CERTIFY])
def test_no_field_is_a_union_or_a_model_or_without_help(form: dict[str, Any]) -> None:
    assert not {"anyOf", "oneOf", "allOf", "$ref", "discriminator", "format"} & set(keys_of(form["properties"]))
    assert not form["definitions"]
    for name, field in in_order(form):
        assert field["type"] in ("string", "array"), name
        assert field["type"] == "string" or field["items"] == {"type": "string"}
        assert field["description"].rstrip().endswith("."), name


def test_choices_are_those_that_are_there_and_the_first_is_the_default() -> None:
    fields = FORM["properties"]
    assert fields["preset"]["enum"] == preset_names() and fields["preset"]["default"] in preset_names()
    assert fields["verifier"]["enum"] == ["preset's", *verifier_names()]
    assert fields["machine"]["enum"] == ["auto", *machine_names()]
    assert fields["mode"]["enum"] == ["run", "ask before release", "dry run"]
    for name in ("verifier", "machine", "mode"):
        assert fields[name]["default"] == fields[name]["enum"][0]
    assert CERTIFY["properties"]["verifier"]["enum"] == list(verifier_names())
    assert CERTIFY["required"] == ["verifier"]


def test_a_verifier_that_is_installed_later_is_among_the_choices_of_new_deployments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "acme_verifiers-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-verifiers\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[derivative_factory.verifiers]\nacme_sums = acme_verifiers:verify\n")
    store = Store(tmp_path / "store")
    before = catalogue.fingerprint(store)
    monkeypatch.syspath_prepend(tmp_path)
    assert catalogue.fingerprint(store) != before
    made = {one.name: one for one in catalogue.deployments(store)}
    assert sorted(made) == sorted([*(name.replace("/", "-") for name in preset_names()), certify_flow.NAME])
    for name, schema in ((one.name, parameter_schema(flow)) for one, flow in (
        (made["math-tiny"], derive_flow.derive), (made[certify_flow.NAME], certify_flow.certify_verifier)
    )):  # fmt: skip
        assert "acme_sums" in schema.model_dump()["properties"]["verifier"]["enum"], name
    monkeypatch.undo()
    catalogue.deployments(store)
    assert "acme_sums" not in derive_flow.VERIFIERS and "acme_sums" not in certify_flow.VERIFIERS


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mode": "Run"}, "mode: 'Run' is no mode; did you mean 'run'?; allowed: run, ask before release, dry run"),
        ({"mode": "dry_run"}, "mode: 'dry_run' is no mode; did you mean 'dry run'?"),
        ({"budget": "soon"}, "budget: soon is none; allowed: a number and tokens, steps, hours or minutes"),
        ({"verifier": "maths"}, "verifier: 'maths' is no verifier; did you mean 'math'?"),
        ({"stages": ["rk"]}, "stages: 'rk' is no stage of math/smoke; did you mean 'rl'?"),
        ({"overrides": ["rl.steps"]}, "overrides: 'rl.steps' is no override; write STAGE.field=value"),
        ({"overrides": ["rl.stpes=1"]}, "rl.stpes"),
        ({"preset": "math/tiniest"}, "preset: 'math/tiniest' is no preset; did you mean 'math/tiny'?"),
        ({"machine": "gpus"}, "machine: 'gpus' is no machine profile"),
        ({"base": "no such folder"}, "base: 'no such folder' is no folder; allowed: seedling, a checkpoint folder"),
    ],
)
def test_what_the_browser_cannot_check_ends_the_run_with_a_sentence_that_names_the_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], said: str
) -> None:
    monkeypatch.setenv("DERIVE_STORE", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "none")  # no server is asked for one
    errors: list[str] = []

    class Log:
        def error(self, form: str, text: str) -> None:
            errors.append(form % text)

    monkeypatch.setattr(derive_flow, "get_run_logger", Log)
    state = derive_flow.derive.fn(**{"preset": "math/smoke", "machine": "cpu", **given})
    assert state.is_failed() and state.message is not None and state.message.startswith(said)
    assert errors == [state.message] and "\n" not in state.message
    assert not list(tmp_path.glob("runs/*"))


def test_a_token_is_taken_from_the_environment_or_a_secret_block_and_never_from_the_form(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = {derive_flow.TOKEN_BLOCK: "hf_abc"}

    class Block:
        def __init__(self, value: str) -> None:
            self.value = value

        def get(self) -> str:
            return self.value

    monkeypatch.setattr(derive_flow.Secret, "load", lambda name: Block(kept[name]))
    monkeypatch.setenv("HF_TOKEN", "hf_own")
    derive_flow._take_token()
    assert os.environ["HF_TOKEN"] == "hf_own"
    monkeypatch.setenv("HF_TOKEN", "")
    derive_flow._take_token()
    assert os.environ["HF_TOKEN"] == "hf_abc"
    monkeypatch.delenv("HF_TOKEN")
    kept.clear()
    derive_flow._take_token()
    assert "HF_TOKEN" not in os.environ
    assert not [name for name in FORM["properties"] if "token" in name or "key" in name or "secret" in name]


def test_the_deployment_for_a_worker_fits_the_form() -> None:
    deployed = {one["name"]: one for one in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}
    assert sorted(deployed) == [certify_flow.NAME, "derive"]
    for name, form in (("derive", FORM), (certify_flow.NAME, CERTIFY)):
        one = deployed[name]
        assert set(one.get("parameters", {})) <= set(form["properties"])
        for field, value in one.get("parameters", {}).items():
            assert value in form["properties"][field].get("enum", [value])
        file, _, function = one["entrypoint"].partition(":")
        module = {"flows/derive.py": derive_flow, "flows/certify_flow.py": certify_flow}[file]
        assert getattr(module, function).name == name


def test_a_deployments_page_says_what_is_read_under_which_licence_and_what_it_takes() -> None:
    page = catalogue.describe(load_recipe("math/7b"))
    assert "| finemath | ODC-By-1.0 | corpus |" in page and "| gsm8k | MIT | examples, problems |" in page
    assert "| eight-gpu | 8 x H100 | " in page and "- not on one-gpu: pretrain: needs " in page
    assert "Not yet released from this store." in page and "`derive run math/7b`" in page
    last = {"model": "rl", "pass@1": "50.0% [40.0, 60.0]", "base": "20.0% [10.0, 30.0]", "time": "8 min", "run": "r1",
            "gain over base": "+30.0 points [+20.0, +40.0]"}  # fmt: skip
    assert (
        "Last release: rl at 50.0% [40.0, 60.0] where the base has 20.0% [10.0, 30.0] (gain +30.0 points "
        "[+20.0, +40.0]), in 8 min, run `r1`."
    ) in catalogue.describe(load_recipe("math/tiny"), last)


def test_a_preset_is_tagged_by_family_size_and_status() -> None:
    assert catalogue.tags(load_recipe("math/tiny-tools")) == ["math", "tiny", "preset released"]
    assert catalogue.tags(load_recipe("math/7b")) == ["math", "7b", "preset validated only"]


def test_what_a_profile_takes_is_what_a_plan_says_of_it() -> None:
    small = Machine(name="small", device="cuda", gpu="A10")
    assert catalogue.takes(load_recipe("math/7b"), small).refusal.startswith("pretrain: needs ")
    real = catalogue.takes(load_recipe("math/0.5b"), load_machine("one-gpu"))
    assert real.devices == "1 x H100" and float(real.device_hours) > 0 and " of 80 GB (" in real.memory
    tiny = catalogue.takes(load_recipe("math/tiny"), load_machine("one-gpu"))
    assert tiny.time == "not predicted at this size" and tiny.device_hours == ""
    unknown = catalogue.takes(load_recipe("math/tiny", base="someone/model"), load_machine("cpu"))
    assert unknown.refusal.startswith("the base's shape is not known: ")
    assert catalogue.takes(load_recipe("math/tiny"), load_machine("cpu")).time == "a dry run tells"
