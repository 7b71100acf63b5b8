"""Verifiers in other tools: `derive verifiers export NAME --for trl|lm-eval|verl` writes a small module for one.

The module is one of the `for_*.py` of this folder with the verifier's name put in: what is written is what is tested
here. It imports `verifiers.export.bridge`, so this project (and, for a plugin, its distribution) must be importable
where the tool runs: installed, or on PYTHONPATH with pydantic, PyYAML and what the verifier itself imports.
"""

from __future__ import annotations

import re
from pathlib import Path

from configs.errors import UserError
from verifiers import registry

TOOLS = {"trl": "for_trl.py", "verl": "for_verl.py", "lm-eval": "for_lm_eval.py"}
"""Tools, and the module of each."""
TASK = """\
# The problems of a file, judged by the verifier {name}. Each line holds `question` and what the verifier needs.
task: {name}_judged
dataset_path: json
dataset_kwargs:
  data_files: {{test: problems.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{{gold} | default('')}}}}"
generation_kwargs: {{until: ["<|im_end|>"], do_sample: false, max_gen_toks: 512}}
filter_list:
  - name: judged
    filter:
      - {{function: custom, filter_fn: !function {module}.judge_all}}
process_results: !function {module}.process_results
metric_list:
  - {{metric: correct, aggregation: mean, higher_is_better: true}}
  - {{metric: no_verdict, aggregation: mean, higher_is_better: false}}
metadata: {{version: "{version}"}}
"""
USE = {
    "trl": "`from {module} import reward`, then `GRPOTrainer(..., reward_funcs=reward)`; the gold answer is the column "
    "`{gold}`.",
    "verl": "`reward.custom_reward_function.path={module}.py reward.custom_reward_function.name=compute_score`; the "
    "gold answer is `ground_truth`.",
    "lm-eval": "Name your problems under `data_files` in `{module}.yaml`, then `lm-eval run --include_path . --tasks "
    "{name}_judged ...`; the gold answer is the key `{gold}`.",
}
README = """\
Verifier {name} {version} (source {source}) for {tool}.
{use}
Install derivative-factory{plugin} where {tool} runs; another version there judges by its own rules.
"""


def write(name: str, tool: str, out: Path, gold: str = "answer", partial_credit: bool = False) -> list[Path]:
    """Write the module (for lm-eval with its task) and a README into a folder; returns the files.

    Args:
        name: Verifier.
        tool: One of `TOOLS`.
        out: Folder; made when it is missing.
        gold: Field of the tool's data that holds the gold answer.
        partial_credit: Whether an incorrect completion is worth its score.

    Raises:
        UserError: The verifier is unknown or cannot be loaded, or a file is there already.
    """
    identity = registry.identity(name)
    if tool not in TOOLS:
        raise UserError(f"--for: {tool!r}; allowed: {', '.join(TOOLS)}")
    if not gold.isidentifier():
        raise UserError(f"--gold: {gold!r} is no name of a column; allowed: letters, digits and _, such as answer")
    module = f"{re.sub(r'[^a-zA-Z0-9]', '_', name)}_{tool.replace('-', '_')}"
    source = (Path(__file__).parent / TOOLS[tool]).read_text(encoding="utf-8")
    for constant, value in (("VERIFIER", name), ("GOLD", gold), ("PARTIAL_CREDIT", partial_credit)):
        shown = f'"{value}"' if isinstance(value, str) else repr(value)
        source, count = re.subn(rf"^{constant} = .*$", f"{constant} = {shown}", source, flags=re.MULTILINE)
        assert count == 1, f"{TOOLS[tool]} sets {constant} {count} times"
    source = re.sub(r"\bmath_(trl|verl)\b", module, source)
    plugin = "" if name in registry.BUILT_IN else " and the distribution that offers the verifier"
    about = {**identity, "source": identity["source"][:12], "tool": tool, "module": module, "gold": gold,
             "plugin": plugin}  # fmt: skip
    files = {f"{module}.py": source, "README.md": README.format(**about, use=USE[tool].format(**about))}
    if tool == "lm-eval":
        files[f"{module}.yaml"] = TASK.format(**about)
    there = [out / file for file in files if (out / file).exists()]
    if there:
        raise UserError(f"--out: {there[0]} exists; give another folder, or remove it")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (out / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out: {out}: {error.strerror}; give a folder that can be written") from error
    return [out / file for file in sorted(files)]
