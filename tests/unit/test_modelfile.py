"""An Ollama Modelfile: what its template makes of a conversation is what the release's own template makes of it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from configs.errors import UserError
from derivatives.export import CHATML, chat_template_with
from derivatives.formats.modelfile import default_system, opening_of, write_modelfile
from tests.training_fixtures import write_tokenizer

SYSTEM = "Answer in one word."
THINKING = CHATML.replace("<|im_start|>assistant\\n' }}", "<|im_start|>assistant\\n<think>\\n' }}")
CONVERSATIONS = [
    [{"role": "user", "content": "2 + 2?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}],
    [
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "<think>\nTwo and two.\n</think>\n\n\\boxed{4}"},
        {"role": "user", "content": "  And\n\n3 + 3? "},
    ],
]


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return folder


def release(tokenizer_folder: Path, folder: Path, template: str, positions: int = 2048) -> Path:
    """A folder with a tokenizer, this chat template, and the config that says how many positions there are."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "max_position_embeddings": positions}))
    return folder


def go_template(source: str, system: str, messages: list[dict[str, str]]) -> str:
    """The part of Go's text/template that the file uses: `if`, `ne`, `range`, fields, and `{{-`, which trims what is
    white before it."""
    parts = [part for part in re.split(r"(\s*\{\{-.*?\}\}|\{\{.*?\}\})", source, flags=re.DOTALL) if part]

    def run(place: int, scope: dict[str, Any], silent: bool) -> tuple[str, int]:
        out = ""
        while place < len(parts):
            part = parts[place]
            word = part.strip()[2:-2].strip("- ") if part.strip().startswith("{{") else None
            if word is None:
                out += part
            elif word == "end":
                return ("" if silent else out), place + 1
            elif word.startswith("if "):
                held = scope[".System"] if word == "if .System" else scope[".Role"] != "system"
                inner, place = run(place + 1, scope, not held)
                out += inner
                continue
            elif word == "range .Messages":
                after = place + 1
                for message in scope[".Messages"]:
                    own = {".Role": message["role"], ".Content": message["content"]}
                    inner, after = run(place + 1, {**scope, **own}, False)
                    out += inner
                place = after
                continue
            else:
                out += scope[word]
            place += 1
        return out, place

    return run(0, {".System": system, ".Messages": messages}, False)[0]


@pytest.mark.parametrize("messages", CONVERSATIONS)
@pytest.mark.parametrize("template", [CHATML, chat_template_with(CHATML, SYSTEM), THINKING])
def test_ollama_renders_what_the_release_renders(
    tokenizer_folder: Path, tmp_path: Path, template: str, messages: list[dict[str, str]]
) -> None:
    folder = release(tokenizer_folder, tmp_path / "release", template)
    text = write_modelfile(folder, tmp_path / "m.gguf").read_text()
    source = re.search(r'^TEMPLATE """(.*?)"""$', text, re.MULTILINE | re.DOTALL)
    standing = re.search(r'^SYSTEM """(.*?)"""$', text, re.MULTILINE | re.DOTALL)
    assert source is not None
    # Ollama's rule: the conversation's own system messages, else the Modelfile's SYSTEM.
    own = [one["content"] for one in messages if one["role"] == "system"]
    system = own[0] if own else (standing[1] if standing else "")
    rendered = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    assert go_template(source[1], system, messages) == rendered


@pytest.mark.parametrize("messages", CONVERSATIONS)
def test_qwens_own_template_is_rendered_as_it_stands(
    data_mirror: Path, tmp_path: Path, messages: list[dict[str, str]]
) -> None:
    settings = json.loads((data_mirror / "qwen2.5-tokenizer" / "tokenizer_config.json").read_text())
    folder = tmp_path / "release"
    shutil.copytree(data_mirror / "qwen2.5-tokenizer", folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    assert "chat_template" in settings
    text = write_modelfile(folder, tmp_path / "m.gguf").read_text()
    source = re.search(r'^TEMPLATE """(.*?)"""$', text, re.MULTILINE | re.DOTALL)
    standing = re.search(r'^SYSTEM """(.*?)"""$', text, re.MULTILINE | re.DOTALL)
    assert source is not None and standing is not None and standing[1] == default_system(folder)
    own = [one["content"] for one in messages if one["role"] == "system"]
    rendered = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    assert go_template(source[1], own[0] if own else standing[1], messages) == rendered


def test_it_draws_greedily_without_a_repeat_penalty_and_stops_where_turns_end(
    tokenizer_folder: Path, tmp_path: Path
) -> None:
    folder = release(tokenizer_folder, tmp_path / "release", CHATML, positions=131_072)
    lines = write_modelfile(folder, tmp_path / "m.gguf").read_text().splitlines()
    assert lines[0] == "FROM ./m.gguf"
    assert [line for line in lines if line.startswith("PARAMETER")] == [
        'PARAMETER stop "<|im_end|>"',
        'PARAMETER stop "<|endoftext|>"',
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        "PARAMETER num_ctx 32768",
    ]
    assert not any(".Thinking" in line for line in lines), "thoughts stay in the text"


def test_system_prompt_and_opening_are_found(tokenizer_folder: Path, tmp_path: Path) -> None:
    plain = release(tokenizer_folder, tmp_path / "plain", CHATML)
    thinking = release(tokenizer_folder, tmp_path / "thinking", chat_template_with(THINKING, SYSTEM))
    assert (default_system(plain), opening_of(plain)) == (None, "")
    assert (default_system(thinking), opening_of(thinking)) == (SYSTEM, "<think>\n")


def test_what_a_modelfile_cannot_say_is_refused(tokenizer_folder: Path, tmp_path: Path) -> None:
    quoted = release(tokenizer_folder, tmp_path / "quoted", chat_template_with(CHATML, 'Say """ often'))
    with pytest.raises(UserError, match="holds"):
        write_modelfile(quoted, tmp_path / "m.gguf")
    other = release(tokenizer_folder, tmp_path / "other", "{% for m in messages %}[{{ m['content'] }}]{% endfor %}")
    with pytest.raises(UserError, match="does not render ChatML"):
        write_modelfile(other, tmp_path / "m.gguf")
    assert not (tmp_path / "Modelfile").exists()


def test_each_file_of_a_folder_keeps_its_own(tokenizer_folder: Path, tmp_path: Path) -> None:
    folder = release(tokenizer_folder, tmp_path / "release", CHATML)
    first = write_modelfile(folder, tmp_path / "a.gguf")
    second = write_modelfile(folder, tmp_path / "b.gguf")
    assert (first.name, second.name) == ("Modelfile", "b.Modelfile")
    assert [path.read_text().splitlines()[0] for path in (first, second)] == ["FROM ./a.gguf", "FROM ./b.gguf"]
    assert write_modelfile(folder, tmp_path / "a.gguf") == first
