"""What every verifier of ours must do: gold answers right, near misses wrong, hostile and huge text survived.

A task is judged by a verifier's own rules, whatever is wrong with the completion; where the task itself is faulty there
is no verdict, whatever is right with the completion.
"""

import pytest

from verifiers.api import Outcome, Task, Verdict, Verifier
from verifiers.composite import Composite
from verifiers.exact import ExactVerifier
from verifiers.format import FormatVerifier
from verifiers.math import MathVerifier
from verifiers.registry import BUILT_IN, identity, load_verifier

LEGS = {"family": "leg_counting"}
PETS = "Which of them barks?\nA) the cat\nB) the dog\nC) the carp"
DOUBLE = {
    "kind": "calls",
    "entry_point": "double",
    "calls": [{"args": [3], "expected": 6}, {"args": [-2], "expected": -4}],
}
HIDDEN = {**DOUBLE, "hidden_calls": [{"args": [0], "expected": 0}, {"args": [50], "expected": 100}]}
REVERSE = {
    "kind": "script",
    "entry_point": "flip",
    "prompt": "def flip(text):\n",
    "test": "def check(candidate):\n    assert candidate('ab') == 'ba'\n    assert candidate('') == ''\n",
}
ADD = {"kind": "stdio", "cases": [{"stdin": "2 3\n", "stdout": "5\n"}, {"stdin": "-1 1\n", "stdout": "0\n"}]}
DOUBLED = "def double(n):\n    return n + n"
NO_DOUBLES = [  # programs that are nearly right, and what is no program
    "def double(n):\n    return 2.0 * n",
    "def double(n):\n    return str(2 * n)",
    "def double(n):\n    return abs(2 * n)",
    "def double(n):\n    print(2 * n)",
    "def double(n):\n    return {3: 6}[n]",
    "def Double(n):\n    return 2 * n",
    "def double(n, m):\n    return 2 * n",
    "def double(n):\n    return True",
    "def double(n):\n    raise SystemExit(0)",
    "def double(n):\n    return 2 * n\ndel double",
    "def double(n):\n    return 2 *",
    "def double(n)\n    return 2 * n",
    "```python\ndef double(n):\n",
    "\\boxed{6}",
    "Multiply it by two.",
    "",
]
PAIR = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "tags": {"type": "array", "items": {"type": "string"}}},
    "required": ["n", "tags"],
    "additionalProperties": False,
}
CONSTRAINTS = {
    "instruction_id_list": ["keywords:existence", "punctuation:no_comma", "startend:end_checker"],
    "kwargs": [{"keywords": ["zebra"]}, {}, {"end_phrase": "That is all."}],
}
CASES: dict[str, list[tuple[Task, list[str], list[str]]]] = {
    "math": [
        (
            Task("1", "", "42"),
            ["\\boxed{42}", "answer: 42.0", "#### 42"],
            ["\\boxed{24}", "\\boxed{-42}", "\\boxed{42%}", "\\boxed{40+2}", ""],
        ),
        (
            Task("2", "", "\\frac{\\pi}{2}"),
            ["\\boxed{\\pi/2}"],
            ["\\boxed{1.5708}", "\\boxed{\\pi}", "\\boxed{\\frac{2}{\\pi}}"],
        ),
    ],
    "format": [
        (Task("1", "", ""), ["<think>a</think>b"], ["a", "<think>a", "<think></think>b", "<think>a</think>", ""]),
    ],
    "puzzles": [
        (
            Task("1", "", "42", "puzzles", LEGS),
            ["\\boxed{42}", "It has 42 legs."],
            ["\\boxed{24}", "\\boxed{42 or 43}", "\\boxed{40+2}", ""],
        ),
    ],
    "exact": [
        (
            Task("1", "", "17, 4"),
            ["\\boxed{17, 4}", "\\boxed{3} or rather \\boxed{ 17,  4 }", "<think>a</think>\\boxed{17, 4}"],
            [
                "\\boxed{17,4}",
                "\\boxed{4, 17}",
                "\\boxed{17, 4",
                "17, 4",
                "\\boxed{17, 4}\\boxed{}",
                "boxed{17, 4}",
                "<think>\\boxed{17, 4}</think>",
                "",
            ],
        ),
        (Task("2", "", "Red"), ["\\boxed{red}", "\\boxed{RED}"], ["\\boxed{reds}", "\\boxed{{red}}", "\\boxed{re d}"]),
    ],
    "choice": [
        (
            Task("1", PETS, "B"),
            [
                "\\boxed{B}",
                "The answer is (B).",
                "B",
                "b)",
                "Answer: B) the dog",
                "\\boxed{the dog}",
                "\u7b54\u6848\uff1aB",
                "<think>Not A, not C.</think>**B**",
            ],
            [
                "\\boxed{A}",
                "A or B",
                "B, C",
                "\\boxed{D}",
                "The answer is not B",
                "B) the cat",
                "a dog",
                "\\boxed{",
                "<think>B</think>A",
                "",
            ],
        ),
        (
            Task("2", "Which are prime?", "A, C", "choice", {"choices": ["two", "four", "five"]}),
            ["A and C", "\\boxed{C, A}", "The answers are A, C"],
            ["A", "A, B, C", "B", "two", "A, C or B"],
        ),
    ],
    "code": [
        (
            Task("1", "", "", "code", DOUBLE),
            [
                DOUBLED,
                f"Here it is:\n```python\n{DOUBLED}\n```\nDone.",
                "double = lambda n: n * 2",
                f"<think>{DOUBLED}</think>\n```\n{DOUBLED}\n```",
            ],
            NO_DOUBLES,
        ),
        (
            Task("2", "", "", "code", REVERSE),
            ["    return text[::-1]", "def flip(text):\n    return ''.join(reversed(text))"],
            ["    return text", "    return text[::-1] or None", "    return list(text[::-1])", "  return (", ""],
        ),
        (
            Task("3", "", "", "code", ADD),
            ["print(sum(map(int, input().split())))", "a, b = input().split()\nprint(int(a) + int(b))"],
            [
                "print(5)",
                "print(sum(map(int, input().split())) + 0.0)",
                "print('5', end='0')",
                "a, b = input().split()\nprint(a + b)",
                "print(sum(map(int, input().split())))\nexit(1)",
                "print(",
                "",
            ],
        ),
    ],
    "code_hidden": [
        (
            Task("1", "", "", "code", HIDDEN),
            [DOUBLED, "double = lambda n: n * 2"],
            [
                *NO_DOUBLES,
                "def double(n):\n    return {3: 6, -2: -4}.get(n, 1)",
                "def double(n):\n    return 6 if n == 3 else -4",
            ],
        ),
    ],
    "instructions": [
        (
            Task("1", "", "", "instructions", CONSTRAINTS),
            ["A zebra has stripes. That is all.", "<think>a, b</think>Zebra! That is all."],
            [
                "A zebra has stripes, all over. That is all.",
                "A horse has none. That is all.",
                "A zebra has stripes. That is it.",
                "A zebra has stripes.\nThat is all.\nBye!",
                "That is all.",
                "",
            ],
        ),
    ],
    "instructions_loose": [
        (
            Task("1", "", "", "instructions", CONSTRAINTS),
            [
                "A zebra has stripes. That is all.",
                "Sure, here:\nZebra. That is all.",
                "*Zebra.* That is all.*",
                "A zebra has stripes.\nThat is all.\nBye!",
            ],
            [
                "A zebra\nhas stripes, all over.\nThat is all.",
                "A horse has none. That is all.",
                "A zebra has stripes. That is it.",
                "",
            ],
        ),
    ],
    "json_schema": [
        (
            Task("1", "", '{"n": 42, "tags": ["a", "b"]}', "json_schema", {"schema": PAIR}),
            [
                '{"n": 42, "tags": ["a", "b"]}',
                'So:\n```json\n{"tags": ["a", "b"], "n": 42.0}\n```',
                '<think>{}</think>{"n": 4.2e1, "tags": ["\\u0061", "b"]}',
            ],
            [
                '{"n": 24, "tags": ["a", "b"]}',
                '{"n": 42, "tags": ["b", "a"]}',
                '{"n": "42", "tags": ["a", "b"]}',
                '{"n": 42, "tags": ["a", "b"], "m": 0}',
                '{"n": 42, "n": 42, "tags": ["a", "b"]}',
                '{"n": 42, "tags": ["a", "b"]} ok',
                '```json\n{"n": 42, "tags": ["a", "b"]}',
                '<think>{"n": 42, "tags": ["a", "b"]}</think>',
                "",
            ],
        ),
        (
            Task("2", "", "", "json_schema", {"schema": PAIR}),
            ['{"n": 0, "tags": []}'],
            ['{"n": true, "tags": []}', '{"n": 0.5, "tags": []}', '{"n": 0}', "[]", "NaN"],
        ),
    ],
    "table": [
        (
            Task("1", "", "city,people\nOslo,717710\nBergen,25%", "table"),
            [
                "city,people\nOslo,717710\nBergen,25%",
                "| People | City |\n|---|---|\n| 717,710 | Oslo |\n| 0.25 | Bergen |",
                '```json\n[{"city": "Oslo", "people": 717710}, {"city": "Bergen", "people": 0.25}]\n```',
            ],
            [
                "city,people\nBergen,25%\nOslo,717710",
                "city,people\nOslo,717710\nBergen,25",
                "city,people\nOslo,717710",
                "city\nOslo\nBergen",
                "city,people\nOslo,717,710\nBergen,25%",
                "",
            ],
        ),
    ],
    "think_math": [
        (
            Task("1", "", "42"),
            ["<think>6 * 7</think>\\boxed{42}", "<think>Not \\boxed{41}.</think>The answer is 42."],
            [
                "\\boxed{42}",
                "<think>6 * 7</think>\\boxed{24}",
                "<think>\\boxed{42}</think>",
                "<think>\\boxed{42}",
                "<think> </think>\\boxed{42}",
                "<think>a</think><think>b</think>\\boxed{42}",
                "Well. <think>a</think>\\boxed{42}",
                "",
            ],
        ),
    ],
    "think_puzzles": [
        (
            Task("1", "", "42", "puzzles", LEGS),
            ["<think>4 * 10 + 2</think>\\boxed{42}", "<think>a</think>It has 42 legs."],
            [
                "\\boxed{42}",
                "<think>a</think>\\boxed{24}",
                "<think>\\boxed{42}</think>",
                "<think></think>\\boxed{42}",
                "<think>a</think>\\boxed{42 or 43}",
                "</think>\\boxed{42}<think>",
                "",
            ],
        ),
    ],
    "think_own": [
        (
            Task("1", "", "42"),
            ["<think>6 * 7</think>\\boxed{42}", "<think>Not \\boxed{41}.</think>The answer is 42."],
            [
                "\\boxed{42}",
                "<think>6 * 7</think>\\boxed{24}",
                "<think>\\boxed{42}</think>",
                "<think></think>\\boxed{42}",
                "",
            ],
        ),
        (
            Task("2", "", "", "instructions", CONSTRAINTS),
            ["<think>zebra, no comma</think>A zebra has stripes. That is all."],
            ["A zebra has stripes. That is all.", "<think>a</think>A zebra, striped. That is all.", "<think>a</think>"],
        ),
        (
            Task("3", "", "42", "puzzles", LEGS),
            ["<think>a</think>It has 42 legs."],
            ["It has 42 legs.", "<think>a</think>It has 24 legs.", "</think>\\boxed{42}<think>"],
        ),
    ],
    "counterpart": [
        (
            Task("1", "", "42"),
            ["\\boxed{42}", "<think>6 * 7</think>\\boxed{42}"],
            ["42", "\\boxed{42.0}", "<think>\\boxed{42}</think>", "\\boxed{24}", ""],
        ),
        (
            Task("2", "", "", "instructions", {"patterns": [".*lamp.*", "[^A-Z]*"]}),
            ["a lamp", "<think>The lamp</think>\na lamp\n", "lamps\nand lamps"],
            ["a Lamp", "a light", "<think>a lamp</think>", "<think>a lamp", "</think>", ""],
        ),
    ],
    "fim": [
        (
            Task("1", "", "    return 2 * n", "fim", {"cut": "line"}),
            ["return 2 * n", "\n    return 2 * n\nprint(2)", "    return 2 * n<|endoftext|>x"],
            ["", "return 2*n", "x\nreturn 2 * n", "<|endoftext|>return 2 * n", "return 2 * n  # twice"],
        ),
        (
            Task("2", "", "a = 1\nb = 2\n", "fim", {"cut": "span"}),
            ["a = 1\nb = 2", " a = 1\nb = 2\n"],
            ["a = 1", "a = 1\nb = 2\nc = 3", "a = 1\n b = 2"],
        ),
    ],
    "composite": [
        (
            Task("1", "", "42"),
            ["<think>a</think>\\boxed{42}"],
            [
                "<think>a</think>\\boxed{42.0}",
                "<think>a</think>42",
                "\\boxed{42}",
                "<think>a</think>\\boxed{43}",
                "<think>\\boxed{42}</think>\\boxed{",
                "",
            ],
        ),
    ],
}
OURS: dict[str, Verifier] = {  # not in the registry
    "composite": Composite(
        "composite",
        decides=[MathVerifier(), ExactVerifier()],
        gates=[FormatVerifier()],
        weights={"math": 3, "exact": 1},
        ceiling=0.4,
    ),
}
FAULTY: dict[str, list[tuple[Task, str]]] = {
    "math": [
        (Task("1", "", " "), "empty_gold"),
        (Task("1", "", "1", metadata={"extraction": ["box"]}), "unknown_extraction"),
    ],
    "exact": [(Task("1", "", "\n"), "empty_gold")],
    "choice": [
        (Task("1", PETS, "yes"), "gold_is_no_choice"),
        (Task("1", PETS, ""), "empty_gold"),
        (Task("1", PETS, "B", metadata={"choices": 3}), "choices_unreadable"),
    ],
    "puzzles": [(Task("1", "", "42", metadata={"family": "none_such"}), "unknown_family")],
    "instructions": [
        (Task("1", "", ""), "no_instructions"),
        (Task("1", "", "", metadata={"instruction_id_list": ["a:b"], "kwargs": [{}]}), "unknown_instruction"),
    ],
    "instructions_loose": [(Task("1", "", "", metadata={**CONSTRAINTS, "kwargs": []}), "kwargs_do_not_match")],
    "code": [
        (Task("1", "", ""), "gold_unreadable: kind"),
        (Task("1", "", "", metadata={**DOUBLE, "calls": []}), "gold_unreadable: calls"),
        (Task("1", "", "", metadata={**REVERSE, "test": ""}), "gold_unreadable: test"),
    ],
    "code_hidden": [(Task("1", "", "", metadata=DOUBLE), "gold_unreadable: hidden_calls")],
    "json_schema": [
        (Task("1", "", ""), "no_schema"),
        (Task("1", "", "{", metadata={"schema": PAIR}), "gold_unreadable: not_json"),
        (Task("1", "", "{}", metadata={"schema": PAIR}), "gold_fails_schema"),
        (Task("1", "", "[]", metadata={"order": "any"}), "order_unreadable"),
        (Task("1", "", "", metadata={"schema": {"type": "number", "minimum": "0"}}), "schema_unreadable: minimum"),
        (Task("1", "", "", metadata={"schema": {"pattern": "("}}), "schema_unreadable: pattern"),
        (Task("1", "", "", metadata={"schema": {"$ref": "#/$defs/none"}}), "schema_unreadable: $ref"),
        (Task("1", "", "", metadata={"schema": {"$ref": "https://example.com/schema"}}), "schema_unreadable: $ref"),
    ],
    "table": [
        (Task("1", "", ""), "gold_unreadable: no_table"),
        (Task("1", "", "a,b\n1"), "gold_unreadable: ragged_row: 1"),
        (Task("1", "", "a,b\n1,2", metadata={"rows": "any"}), "setting_unreadable: rows"),
    ],
    "think_math": [(Task("1", "", ""), "math:empty_gold")],
    "think_puzzles": [(Task("1", "", "42"), "puzzles:unknown_family")],
    "think_own": [
        (Task("1", "", ""), "own:empty_gold"),
        (Task("1", "", "42", "exact"), "own:no_part_for_verifier: exact"),
        (Task("1", "", "", "code", {"kind": "calls"}), "own:gold_unreadable"),
    ],
    "counterpart": [
        (Task("1", "", ""), "empty_gold"),
        (Task("1", "", "a,b", "table"), "no_part_for_verifier: table"),
        (Task("1", "", "", "instructions", CONSTRAINTS), "gold_unreadable: patterns: missing"),
        (Task("1", "", "", "instructions", {"patterns": ["("]}), "gold_unreadable: patterns"),
    ],
    "fim": [
        (Task("1", "", " ", "fim", {"cut": "line"}), "empty_gold"),
        (Task("1", "", "x", "fim", {"cut": "word"}), "gold_unreadable: cut"),
    ],
    "composite": [(Task("1", "", ""), "math:empty_gold")],
}
"""Tasks that nothing can be judged by, and how the reason begins. `format` needs nothing of a task."""
HUGE = [
    "x " * 2_500_000,
    "\\boxed{" * 800_000,
    "<think>" * 800_000,
    "answer: 1, " * 500_000,
    "\n" * 5_000_000,
    "def f():\n" * 500_000,
]
HOSTILE = [
    "",
    " ",
    "\x00",
    "\ud800",
    "\\boxed{",
    "\\boxed{}",
    "}" * 1_000,
    "\\boxed{" * 10_000,
    "\\boxed{1}" * 10_000,
    "\\boxed{" + "9" * 1_000_000 + "}",
    "\\boxed{9^9^9^9^9}",
    "\\boxed{((9!)!)!}",
    "\\boxed{" + "(" * 9_999 + ")" * 9_999 + "}",
    "\\boxed{NaN}",
    "\\boxed{inf}",
    "\\boxed{oo}",
    "\\boxed{\u0664\u0662}",
    "\\boxed{\uff14\uff12}",
    "\\boxed{1/0}",
    "\\boxed{0^{-1}}",
    "\\boxed{5 or 6}",
    "\\boxed{x=5=6=5}",
    "\\boxed{__import__('os').system('false')}",
    "\\boxed{\\frac}",
    "\\boxed{\\sqrt}",
    "\\boxed{\\log_1 5}",
    "\\boxed{\\tan(\\pi/2)}",
    "\\boxed{" + "\\frac{1}{" * 300 + "1" + "}" * 300 + "}",
    "answer is " * 5_000,
    "<think>" * 5_000,
    "</think>" * 5_000,
    "\\boxed{" + ",".join("1234567890") * 500 + "}",
    "\\boxed{1e999999999}",
    "\\boxed{" + "\\pm" * 500 + "1}",
    "\\boxed{" + "1=" * 500 + "1}",
    "\\boxed{|||||||x|||||||}",
    "\\boxed{\\begin{pmatrix}\\end{pmatrix}}",
]


def verifier_of(name: str) -> Verifier:
    return OURS[name] if name in OURS else load_verifier(name)


def test_every_verifier_of_ours_has_cases() -> None:
    assert set(CASES) == {*BUILT_IN, *OURS}
    assert set(FAULTY) == set(CASES) - {"format"}


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_verifier_keeps_the_protocol(name: str) -> None:
    verifier = verifier_of(name)
    assert isinstance(verifier, Verifier) and verifier.name == name and verifier.version
    if name not in OURS:
        assert identity(name) == {"name": name, "version": verifier.version, "source": identity(name)["source"]}


@pytest.mark.parametrize("name", sorted(CASES))
def test_gold_answers_score_one_and_near_misses_do_not(name: str) -> None:
    verifier = verifier_of(name)
    for task, right, wrong in CASES[name]:
        for completion in right:
            verdict = verifier.judge(task, completion)
            assert (verdict.outcome, verdict.score) == (Outcome.CORRECT, 1.0), (completion, verdict)
        for completion in wrong:
            verdict = verifier.judge(task, completion)
            assert verdict.outcome is Outcome.INCORRECT and verdict.score < 1.0, (completion, verdict)
            assert verdict.reason, completion


@pytest.mark.parametrize("name", sorted(CASES))
def test_hostile_completions_are_incorrect_and_raise_nothing(name: str) -> None:
    verifier = verifier_of(name)
    for task, _, _ in CASES[name]:
        for completion in HOSTILE:
            verdict = verifier.judge(task, completion)
            assert isinstance(verdict, Verdict)
            assert verdict.outcome is Outcome.INCORRECT, (completion[:60], verdict)


@pytest.mark.parametrize("name", sorted(CASES))
def test_huge_completions_are_incorrect_and_raise_nothing(name: str) -> None:
    verifier = verifier_of(name)
    task, right, _ = CASES[name][0]
    for completion in HUGE:
        assert verifier.judge(task, completion).outcome is Outcome.INCORRECT, completion[:20]
    behind = verifier.judge(
        task, HUGE[0] + "\n" + right[0]
    )  # a right answer may be out of sight, but is no fault of ours
    assert behind.outcome in (Outcome.CORRECT, Outcome.INCORRECT)


@pytest.mark.parametrize("name", sorted(FAULTY))
def test_a_faulty_task_gets_no_verdict_whatever_the_completion_is(name: str) -> None:
    verifier = verifier_of(name)
    good, right, wrong = CASES[name][0]
    for task, reason in FAULTY[name]:
        for completion in [*right[:2], *wrong[:2], "\ud800", "\\boxed{" * 100, "x" * 4_100_000]:
            verdict = verifier.judge(task, completion)
            assert (verdict.outcome, verdict.score) == (Outcome.NO_VERDICT, 0.0), (completion[:60], verdict)
            assert verdict.reason.startswith(reason), verdict.reason
    assert verifier.judge(good, right[0]).outcome is Outcome.CORRECT  # nothing is kept from the tasks before


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_same_completion_gets_the_same_verdict(name: str) -> None:
    verifier = verifier_of(name)
    pairs = [(task, completion) for task, right, wrong in CASES[name] for completion in right + wrong]
    first = [verifier.judge(*pair) for pair in pairs]
    assert [verifier.judge(*pair) for pair in reversed(pairs)] == first[::-1]
