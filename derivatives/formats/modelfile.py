"""An Ollama Modelfile for a release's GGUF file: its chat format, stop tokens, system prompt, and greedy drawing.

Ollama does not read the chat template in the file. Its own (Go's text/template) is written out here: ChatML, with what
the release's template puts behind `<|im_start|>assistant` (nothing, or an opened `<think>`). `{{ .Thinking }}` is left
out on purpose: Ollama would take thoughts out of the answers of a model whose template names it, and these releases
were trained and judged with `<think>` in the text. Temperature 0 and no repeat penalty are as evaluated; Ollama's own
defaults (0.8 and 1.1) change what a model answers, and a penalty on repeated tokens spoils arithmetic.

Not covered: tools in Ollama's own format.
"""

from __future__ import annotations

import re
from pathlib import Path

from configs.errors import UserError
from configs.stage import write_text_atomic
from derivatives.export import END_OF_TEXT, END_OF_TURN, START_OF_TURN
from derivatives.formats.weights import config_of

MAX_CONTEXT = 32_768
"""Positions that Ollama is told to make room for: a cache of longer contexts would not fit most machines."""
QUESTION = "What is it?"


def write_modelfile(release: Path, gguf_file: Path) -> Path:
    """Write it beside a GGUF file: as `Modelfile`, or as `NAME.Modelfile` where that is there and is of another file.

    Raises:
        UserError: As `modelfile`.
    """
    text = modelfile(release, gguf_file.name)
    path = gguf_file.with_name("Modelfile")
    if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(_from(gguf_file.name)):
        path = gguf_file.with_suffix(".Modelfile")
    write_text_atomic(path, text)
    return path


def modelfile(release: Path, gguf_name: str) -> str:
    """Its text, for a GGUF file of this name in the same folder.

    Raises:
        UserError: The release's chat format is not ChatML, or its system prompt cannot be written in a Modelfile.
    """
    system, opening = default_system(release), opening_of(release)
    for text in (system or "", opening):
        if '"""' in text or "{{" in text:
            raise UserError('release: its chat template holds """ or {{, which a Modelfile cannot; write it by hand')
    positions = int(config_of(release).get("max_position_embeddings") or 0)
    lines = [
        _from(gguf_name).rstrip(),
        'TEMPLATE """{{- if .System }}<|im_start|>system',
        "{{ .System }}<|im_end|>",
        "{{ end }}{{- range .Messages }}{{- if ne .Role \"system\" }}<|im_start|>{{ .Role }}",
        "{{ .Content }}<|im_end|>",
        "{{ end }}{{- end }}<|im_start|>assistant",
        f'{opening}"""',
        *([f'SYSTEM """{system}"""'] if system else []),
        f'PARAMETER stop "{END_OF_TURN}"',
        f'PARAMETER stop "{END_OF_TEXT}"',
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        *([f"PARAMETER num_ctx {min(positions, MAX_CONTEXT)}"] if positions else []),
    ]
    return "\n".join(lines) + "\n"


def _from(gguf_name: str) -> str:
    return f"FROM ./{gguf_name}\n"


def default_system(release: Path) -> str | None:
    """What the chat template puts before conversations that bring no system prompt; None where it puts nothing."""
    text = _rendered(release, add_generation_prompt=False)
    found = re.match(r"<\|im_start\|>system\n(.*?)<\|im_end\|>\n<\|im_start\|>user", text, re.DOTALL)
    return found[1] if found else None


def opening_of(release: Path) -> str:
    """What the chat template puts behind the line that opens the assistant's turn, such as `<think>` and a line break.

    Raises:
        UserError: It is not ChatML.
    """
    text = _rendered(release, add_generation_prompt=True)
    asked = f"{START_OF_TURN}user\n{QUESTION}{END_OF_TURN}\n{START_OF_TURN}assistant\n"
    if asked not in text:
        raise UserError(f"release: its chat template does not render ChatML ({text[:80]!r}); a Modelfile for another "
                        "format has to be written by hand")  # fmt: skip
    return text.partition(asked)[2]


def _rendered(release: Path, add_generation_prompt: bool) -> str:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(release, local_files_only=True)
    asked = [{"role": "user", "content": QUESTION}]
    return str(tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=add_generation_prompt))
