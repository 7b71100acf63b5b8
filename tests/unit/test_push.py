"""A push: what the dry run says, what is refused, and the upload to a hub on loopback. No other host is contacted."""

from __future__ import annotations

import doctest
import hashlib
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from configs.errors import EXIT_RETRY, EXIT_USER_ERROR, UserError
from derivatives.formats.record import HEADING
from flows.cli import main
from flows.push import EXPORTED, gates_of, plan, without_paths
from tests.fake_hub import TOKEN, Hub, fake_hub

ROOT = Path(__file__).resolve().parents[2]
CARD = """---
license: apache-2.0
base_model: Qwen/Qwen2.5-0.5B
pipeline_tag: text-generation
library_name: transformers
tags:
- derivative-factory
---

# A model

## Gates

All held; otherwise nothing would have been released.

| metric | against | measured | required |
| --- | --- | --- | --- |
| pass@1 | base | +0.200 [+0.180, +0.220] | more than +0.050 |

## Lineage
"""
REPOSITORY = "someone/my-model"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """The files of a release, with weights of a few kilobytes."""
    folder = tmp_path / "stage" / "release"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    for name in ("config.json", "tokenizer.json", "evaluation.json"):
        (folder / name).write_text("{}\n")
    line = {"stages": [{"id": "rl", "folder": "/data/derive/ab/abcd"}], "command": "derive run /home/someone/mine.yaml"}
    (folder / "lineage.json").write_text(json.dumps(line))
    return folder


@pytest.fixture(autouse=True)
def no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither token nor endpoint of whoever runs the tests."""
    from huggingface_hub import constants

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))


def test_the_dry_run_lists_what_would_be_sent_and_sends_nothing(
    release: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        assert main(["release", "push", str(release.parent), REPOSITORY, "--private", "--revision", "v1"]) == 0
        assert hub.requests == []
    said = capsys.readouterr().out
    digest = hashlib.sha256((release / "model.safetensors").read_bytes()).hexdigest()
    assert f"10,240 bytes  {digest[:16]}  model.safetensors" in said
    assert "licence apache-2.0, base model Qwen/Qwen2.5-0.5B" in said and "branch v1" in said
    assert "made private where it is missing" in said
    assert "gates: 1 held, by the card" in said and "token: $HF_TOKEN" in said and TOKEN not in said
    assert "lineage.json  (without this machine's paths)" in said and "dry run" in said


def test_paths_of_the_machine_stay_here(release: Path) -> None:
    (lineage,) = (item for item in plan(release, REPOSITORY).items if item.name == "lineage.json")
    assert isinstance(lineage.source, bytes)
    assert json.loads(lineage.source) == {"stages": [{"id": "rl"}], "command": "derive run mine.yaml"}
    assert lineage.sha256 == hashlib.sha256(lineage.source).hexdigest()
    kept = {"id": "Qwen/Qwen2.5-0.5B", "url": "https://example.org/a/b", "share": "1/2/3", "text": "<p>x</p>/y"}
    assert without_paths(kept) == kept
    hidden = {"machine": {"host": "workstation-7", "num_cores": 2}, "/home/someone/a.jsonl": 1,
              "overrides": ["sft.data=[/home/someone/a.jsonl,~/more/b.jsonl]", "x={path: /home/x/c}", "p:/mnt/d/e"]}
    assert without_paths(hidden) == {"machine": {"num_cores": 2}, "a.jsonl": 1,
                                     "overrides": ["sft.data=[a.jsonl,b.jsonl]", "x={path: c}", "p:e"]}  # fmt: skip
    card = release / "README.md"
    card.write_text(card.read_text() + "\n```\nderive run /home/someone/mine.yaml\n```\n")
    (note,) = plan(release, REPOSITORY).notes
    assert note == "README.md names what look like folders of a machine: /home/someone/mine.yaml"


def test_a_release_whose_base_is_none_of_a_hub_can_be_pushed(
    release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the card of a release of the seedling is: it names no base model."""
    card = release / "README.md"
    card.write_text(card.read_text().replace("base_model: Qwen/Qwen2.5-0.5B\n", ""))
    assert plan(release, REPOSITORY).notes == ("the card names no base model: the base is none of a hub",)
    assert main(["release", "push", str(release), REPOSITORY]) == 0
    assert "base model none" in capsys.readouterr().out


def test_the_card_of_an_export_says_whose_gates_it_shows_and_what_was_loosened(release: Path) -> None:
    assert HEADING in EXPORTED
    card = release / "README.md"
    card.write_text(card.read_text() + f"{EXPORTED}\nThe same to 95%. **The limit was loosened by hand: pass@1.**\n")
    assert plan(release, REPOSITORY).notes == (
        "these are weights of fewer bits: the gates are those of the release that they were made from",
        "The limit was loosened by hand: pass@1.",
    )


@pytest.mark.parametrize("content", ["[]", "1", "{", '{"released": null}', '{"gates": [3]}'])
def test_what_lies_beside_a_release_and_is_no_ones_metrics_says_nothing(release: Path, content: str) -> None:
    (release.parent / "metrics.json").write_text(content)
    assert gates_of(release) == "1 held, by the card"


def test_gates_are_read_from_the_stage_and_else_from_the_card(release: Path) -> None:
    beside = release.parent / "metrics.json"
    beside.write_text(json.dumps({"released": True, "gates": [{"passed": True}, {"passed": True}]}))
    assert gates_of(release) == "2 held, by metrics.json of the release stage"
    for found in ({"released": False}, {"released": True, "gates": [{"passed": False}]}):
        beside.write_text(json.dumps(found))
        with pytest.raises(UserError, match="says that its gates did not hold"):
            plan(release, REPOSITORY)
    beside.unlink()
    looser = "**The recipe allows more to be lost than the default does**: kept: less than 15 points.\n\n## Lineage"
    (release / "README.md").write_text(CARD.replace("## Lineage", looser))
    assert "the card's gates: The recipe allows more to be lost" in plan(release, REPOSITORY).notes[0]
    (release / "README.md").write_text(CARD.replace("## Gates", "## Other"))
    with pytest.raises(UserError, match="shows no gates that held"):
        plan(release, REPOSITORY)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (".env", "A=1", "is no file of a release"),
        ("optimizer.pt", "x", "is no file of a release"),
        ("notes.txt", "x", "is no file of a release"),
        ("evaluation.json", f'{{"note": "hf_{"a" * 34}"}}', "line 1 of evaluation.json holds .* a Hugging Face token"),
        ("evaluation.json", '\n"-----BEGIN RSA PRIVATE KEY-----"', "line 2 of evaluation.json .* a private key"),
        ("lineage.json", "no json", "is no JSON"),
        ("README.md", "# no front matter\n## Gates\nAll held.\n", "has no front matter"),
        ("README.md", CARD.replace("license: apache-2.0\n", ""), "lacks license"),
        ("README.md", CARD.replace("tags:\n- derivative-factory\n", "tags: []\n"), "lacks tags"),
    ],
)
def test_what_should_not_be_sent_is_refused_and_a_secret_not_repeated(
    release: Path, name: str, content: str, said: str
) -> None:
    (release / name).write_text(content)
    with pytest.raises(UserError, match=said) as refused:
        plan(release, REPOSITORY)
    assert "aaaa" not in str(refused.value)


def test_a_long_word_with_hyphens_is_no_key(release: Path) -> None:
    (release / "evaluation.json").write_text('{"note": "task-specific-and-otherwise-rather-long-hyphenated-words"}')
    assert plan(release, REPOSITORY)
    (release / "evaluation.json").write_text(f'{{"note": "x=sk-{"a1" * 20}"}}')
    with pytest.raises(UserError, match="an API key"):
        plan(release, REPOSITORY)


def test_links_folders_missing_files_and_large_ones_are_refused(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (release / "LICENSE").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="LICENSE is no file of a release"):
        plan(release, REPOSITORY)
    (release / "LICENSE").unlink()
    (release / "more").mkdir()
    (release / "more" / "config.json").touch()
    with pytest.raises(UserError, match=r"more/config\.json is no file of a release"):
        plan(release, REPOSITORY)
    (release / "more" / "config.json").unlink()
    monkeypatch.setattr("flows.push.MAX_FILE_BYTES", 10_000)
    with pytest.raises(UserError, match="model.safetensors has .* a hub takes"):
        plan(release, REPOSITORY)
    (release / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no \*\.safetensors"):
        plan(release, REPOSITORY)
    with pytest.raises(UserError, match="has no README.md, config.json"):
        plan(tmp_path, REPOSITORY)


def test_weights_that_are_not_all_there_are_not_sent(release: Path) -> None:
    index = release / "model.safetensors.index.json"
    for named, said in (
        ({"a": "model.safetensors", "b": "model-2.safetensors"}, "model-2.safetensors is missing"),
        ({"a": "model-2.safetensors"}, "model-2.safetensors, model.safetensors is missing"),
    ):
        index.write_text(json.dumps({"weight_map": named}))
        with pytest.raises(UserError, match=said):
            plan(release, REPOSITORY)
    index.write_text("[]")
    with pytest.raises(UserError, match="index.json cannot be read"):
        plan(release, REPOSITORY)
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors"}}))
    assert index.name in {item.name for item in plan(release, REPOSITORY).items}
    index.unlink()
    (release / "model-2.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="index.json is missing"):
        plan(release, REPOSITORY)


@pytest.mark.parametrize("name", ["my-model", "a/b/c", "someone/", "-a/b", "a/b c", "a/b..c"])
def test_a_repository_is_an_owner_and_a_name(release: Path, name: str) -> None:
    with pytest.raises(UserError, match="OWNER/NAME"):
        plan(release, name)


def push(release: Path, hub: Hub, *more: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as huggingface_hub reads its environment when it is imported."""
    environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": token,
                   "HF_HOME": str(release.parent / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}  # fmt: skip
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-m", "flows.cli", "release", "push", str(release), REPOSITORY, "--really", *more]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_push_makes_the_repository_and_one_commit_with_every_file(release: Path) -> None:
    with fake_hub() as hub:
        done = push(release, hub, "--private", "--revision", "v1")
        assert done.returncode == 0, done.stderr
        assert f"pushed: {hub.address}/{REPOSITORY}" in done.stdout and TOKEN not in done.stdout + done.stderr
        assert hub.repositories[REPOSITORY]["visibility"] == "private"
        there = hub.branches[REPOSITORY]
        assert there["main"] == {} and there["v1"].keys() == {path.name for path in release.iterdir()}
        assert there["v1"]["model.safetensors"] == (release / "model.safetensors").read_bytes()
        assert b"/data/derive" not in there["v1"]["lineage.json"]
        assert sum("/commit/" in request for request in hub.requests) == 1


def test_what_should_be_private_is_not_sent_to_a_repository_that_is_public(release: Path) -> None:
    with fake_hub() as hub:
        assert push(release, hub).returncode == 0
        sent = len(hub.uploads)
        (release / "model.safetensors").write_bytes(b"other" * 5000)
        refused = push(release, hub, "--private")
        assert refused.returncode == EXIT_USER_ERROR, refused.stderr
        assert f"--private: {REPOSITORY} was there before and is public" in refused.stderr
        assert len(hub.uploads) == sent and hub.branches[REPOSITORY]["main"]["model.safetensors"][:5] != b"other"


@pytest.mark.slow
def test_after_a_break_the_same_command_goes_on_and_sends_nothing_twice(release: Path) -> None:
    (release / "model-2.safetensors").write_bytes(b"second" * 5000)
    named = {"a": "model.safetensors", "b": "model-2.safetensors"}
    (release / "model.safetensors.index.json").write_text(json.dumps({"weight_map": named}))
    with fake_hub() as hub:
        hub.refuse = 500
        broken = push(release, hub)
        assert broken.returncode == EXIT_RETRY, broken.stderr
        assert "Run the same command again: what arrived whole is not sent again" in broken.stderr
        assert "is there, without these files" in broken.stderr
        assert hub.branches[REPOSITORY]["main"] == {} and len(hub.uploads) == 2
        hub.refuse = 0
        assert push(release, hub).returncode == 0
        assert len(hub.uploads) == 2, "large files were there already"
        assert hub.branches[REPOSITORY]["main"].keys() == {path.name for path in release.iterdir()}


@pytest.mark.slow
def test_a_connection_that_breaks_in_the_middle_of_a_file_is_made_again(release: Path) -> None:
    with fake_hub() as hub:
        hub.break_uploads = 1
        done = push(release, hub)
        assert done.returncode in (0, EXIT_RETRY), done.stderr
        if done.returncode:
            assert "broke off" in done.stderr and hub.branches[REPOSITORY]["main"] == {}
            assert push(release, hub).returncode == 0
        assert hub.branches[REPOSITORY]["main"]["model.safetensors"] == (release / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_token_without_rights_is_told_in_one_line(release: Path) -> None:
    with fake_hub() as hub:
        refused = push(release, hub, token="another-token")
        assert refused.returncode == EXIT_USER_ERROR
        assert "answers 401" in refused.stderr and "nothing was made or sent" in refused.stderr
        assert "another-token" not in refused.stderr and refused.stderr.count("\n") == 1
        hub.refuse = 403
        refused = push(release, hub)
        assert refused.returncode == EXIT_USER_ERROR and "answers 403" in refused.stderr


def test_without_a_token_nothing_is_contacted(
    release: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        assert main(["release", "push", str(release), REPOSITORY, "--really"]) == EXIT_USER_ERROR
        assert "no token" in capsys.readouterr().err
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        assert main(["release", "push", str(release), REPOSITORY, "--really"]) == EXIT_USER_ERROR
        assert "$HF_HUB_OFFLINE is set" in capsys.readouterr().err
        assert hub.requests == []


def test_the_examples_in_docstrings_hold() -> None:
    modules = [import_module(name) for name in ("configs.paths", "flows.push", "derivatives.formats.record")]
    found = [doctest.testmod(module) for module in modules]
    assert [(one.attempted > 0, one.failed) for one in found] == [(True, 0)] * 3
