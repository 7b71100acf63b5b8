"""The fill-in-the-middle verifier: the completion is the text that stood in the gap, but for space around it.

Which part of a completion is compared, the task's metadata say (`cut`):

- `line`: its first line that is not empty. As in Qwen2.5-Coder's script for single lines of HumanEval-FIM, which passes
  over one empty line; here it may be several.
- `span`: all of it. A model that has learnt to fill gaps ends by itself; of one that does not, nothing is right here.

In both, a completion ends where it spells a token that ends a text or begins another file. Space around both texts is
stripped, so that indentation before the first line does not count; within a text every character does.

    task = Task("1", "", "    return 2 * n", "fim", {"form": "fim", "cut": "line"})

Sources: arXiv:2409.12186 (exact match on single lines); Bavarian et al. 2022, arXiv:2207.14255 (the settings, judged
there by tests). What this does not do: it runs nothing and knows no equivalence; another name is another text.
"""

from __future__ import annotations

from verifiers.api import Task, Verdict, correct, incorrect, no_verdict

ENDS = ("<|endoftext|>", "<|im_end|>", "<|fim_pad|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>",
        "<|file_sep|>", "<|repo_name|>")  # fmt: skip
LINE, SPAN = "line", "span"
SHOWN = 500
"""Characters of the filled text that are kept in a verdict."""


class FimVerifier:
    """Correct if the completion fills the gap with the text that stood there."""

    name = "fim"
    version = "1"

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion by the task's middle."""
        gold, cut = task.answer.strip(), task.metadata.get("cut", SPAN)
        if not gold:
            return no_verdict("empty_gold")
        if cut not in (LINE, SPAN):
            return no_verdict(f"gold_unreadable: cut: {cut!r:.60}; allowed: {LINE}, {SPAN}")
        found = filled(completion, str(cut))
        if not found:
            return incorrect("nothing_filled", "")
        return correct(found[:SHOWN], "same_text") if found == gold else incorrect("other_text", found[:SHOWN])


def filled(completion: str, cut: str) -> str:
    """What a completion puts into the gap, stripped.

    >>> filled("\\n    return 1\\nprint(2)", "line"), filled("return 1\\n<|endoftext|>x", "span")
    ('return 1', 'return 1')
    """
    text = completion
    for mark in ENDS:
        text = text.partition(mark)[0]
    text = text.strip()
    return text.partition("\n")[0].rstrip() if cut == LINE else text
