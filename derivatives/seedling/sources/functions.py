"""Generated Python functions: what it should do, the function, and calls with their results.

Every task, wording and body is ours; the results are computed by running the functions themselves. A
document holds several functions in one style, so that a shown example comes to mean something.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from .words import words_of

NAMES = words_of("solve answer compute apply convert f g func run make result work transform process evaluate calc")
LETTERS = words_of("apple river stone cloud table green light banana window garden silver letter market yellow")


@dataclass(frozen=True)
class Form:
    """A kind of function: its parameters by kind, what it does in words, and its body.

    `{k}` stands for a small number. `n, m` are integers, `s, t` texts, `xs, ys` lists of integers.
    """

    parameters: tuple[str, ...]
    words: tuple[str, ...]
    bodies: tuple[str, ...]


def _form(parameters: str, words: str, *bodies: str) -> Form:
    return Form(tuple(parameters.split()), tuple(words.split(" / ")), bodies)


FORMS = [
    _form("n m", "the sum of n and m / n plus m / both numbers added", "return n + m"),
    _form("n m", "the difference of n and m / n minus m", "return n - m"),
    _form("n m", "the product of n and m / n times m", "return n * m"),
    _form("n m", "the larger of n and m / the maximum of n and m", "return max(n, m)", "return n if n > m else m"),
    _form("n m", "the smaller of n and m / the minimum of n and m", "return min(n, m)", "return n if n < m else m"),
    _form("n m", "the distance between n and m", "return abs(n - m)"),
    _form("n", "n plus {k} / n increased by {k}", "return n + {k}"),
    _form("n", "n minus {k} / n lowered by {k}", "return n - {k}"),
    _form("n", "{k} times n / n multiplied by {k}", "return n * {k}", "return {k} * n"),
    _form("n", "the square of n / n squared", "return n * n", "return n ** 2"),
    _form("n", "the rest of n divided by {k} / n modulo {k}", "return n % {k}"),
    _form("n", "how often {k} fits into n / n divided by {k}, rounded down", "return n // {k}"),
    _form("n", "whether n is even", "return n % 2 == 0"),
    _form("n", "whether n is odd", "return n % 2 == 1"),
    _form("n", "whether n is greater than {k}", "return n > {k}"),
    _form("n", "whether n can be divided by {k}", "return n % {k} == 0"),
    _form("n", "the sum of the numbers from 1 to n", "return sum(range(1, n + 1))", "return n * (n + 1) // 2",
          "total = 0\nfor i in range(1, n + 1):\n    total += i\nreturn total"),
    _form("n", "the digits of n added up / the sum of the digits of n", "return sum(int(d) for d in str(n))"),
    _form("n", "the number of digits of n", "return len(str(n))"),
    _form("n", "a list of the numbers from 0 below n", "return list(range(n))"),
    _form("n m", "n times m plus {k}", "return n * m + {k}"),
    _form("n m", "the sum of n and m, times {k}", "return (n + m) * {k}"),
    _form("s", "the length of s / how many characters s has", "return len(s)"),
    _form("s", "s in capital letters / s in upper case", "return s.upper()"),
    _form("s", "s backwards / s reversed", "return s[::-1]", 'return "".join(reversed(s))'),
    _form("s", "the first letter of s", "return s[0]"),
    _form("s", "the last letter of s", "return s[-1]"),
    _form("s", "s without its first letter", "return s[1:]"),
    _form("s", "s without its last letter", "return s[:-1]"),
    _form("s", "the first {k} letters of s", "return s[:{k}]"),
    _form("s", "s written {k} times / s repeated {k} times", "return s * {k}"),
    _form("s", "how many vowels s has / the number of vowels in s", 'return sum(c in "aeiou" for c in s)',
          'count = 0\nfor c in s:\n    if c in "aeiou":\n        count += 1\nreturn count'),
    _form("s", "whether s reads the same backwards", "return s == s[::-1]"),
    _form("s t", "s and t joined / s followed by t", "return s + t"),
    _form("s t", "s and t with a space between", 'return s + " " + t'),
    _form("s t", "the longer of s and t", "return s if len(s) >= len(t) else t"),
    _form("s t", "whether s and t are equally long", "return len(s) == len(t)"),
    _form("xs", "the sum of xs / all numbers of xs added", "return sum(xs)",
          "total = 0\nfor x in xs:\n    total += x\nreturn total"),
    _form("xs", "the largest number of xs / the maximum of xs", "return max(xs)"),
    _form("xs", "the smallest number of xs / the minimum of xs", "return min(xs)"),
    _form("xs", "the number of items in xs / the length of xs", "return len(xs)"),
    _form("xs", "the first item of xs", "return xs[0]"),
    _form("xs", "the last item of xs", "return xs[-1]"),
    _form("xs", "xs sorted / xs in rising order", "return sorted(xs)"),
    _form("xs", "xs sorted from large to small", "return sorted(xs, reverse=True)"),
    _form("xs", "xs backwards / xs reversed", "return xs[::-1]", "return list(reversed(xs))"),
    _form("xs", "each number of xs times {k}", "return [x * {k} for x in xs]",
          "out = []\nfor x in xs:\n    out.append(x * {k})\nreturn out"),
    _form("xs", "each number of xs plus {k}", "return [x + {k} for x in xs]"),
    _form("xs", "the squares of xs", "return [x * x for x in xs]"),
    _form("xs", "the numbers of xs greater than {k}", "return [x for x in xs if x > {k}]",
          "out = []\nfor x in xs:\n    if x > {k}:\n        out.append(x)\nreturn out"),
    _form("xs", "the numbers of xs less than {k}", "return [x for x in xs if x < {k}]"),
    _form("xs", "the even numbers of xs", "return [x for x in xs if x % 2 == 0]"),
    _form("xs", "the odd numbers of xs", "return [x for x in xs if x % 2 == 1]"),
    _form("xs", "how many numbers of xs are even", "return sum(x % 2 == 0 for x in xs)"),
    _form("xs", "the sum of the even numbers of xs", "return sum(x for x in xs if x % 2 == 0)"),
    _form("xs", "how often {k} is in xs", "return xs.count({k})"),
    _form("xs", "whether {k} is in xs", "return {k} in xs"),
    _form("xs", "xs without its first item", "return xs[1:]"),
    _form("xs", "the first {k} items of xs", "return xs[:{k}]"),
    _form("xs ys", "xs followed by ys", "return xs + ys"),
    _form("xs ys", "the sum of all numbers of xs and ys", "return sum(xs) + sum(ys)"),
    _form("xs n", "each number of xs plus n", "return [x + n for x in xs]"),
    _form("xs n", "how often n is in xs", "return xs.count(n)"),
    _form("xs n", "whether n is in xs", "return n in xs"),
    _form("s n", "the letter of s at index n modulo its length", "return s[n % len(s)]"),
    _form("s n", "the first n letters of s", "return s[:n]"),
]  # fmt: skip
RENAMED = {  # No name of one parameter is another's, or a variable of a body.
    "n": words_of("n a num number value k"),
    "m": words_of("m b y other second"),
    "s": words_of("s text word string"),
    "t": words_of("t other ending second"),
    "xs": words_of("xs numbers items values nums"),
    "ys": words_of("ys others more rest"),
}


@dataclass(frozen=True)
class Function:
    name: str
    parameters: tuple[str, ...]
    words: str
    body: str
    calls: tuple[tuple[str, str], ...]
    """Arguments and result, as Python writes them."""

    @property
    def source(self) -> str:
        lines = "\n".join("    " + line for line in self.body.splitlines())
        return f"def {self.name}({', '.join(self.parameters)}):\n{lines}"


def _argument(rng: Random, parameter: str) -> Any:
    if parameter in ("n", "m"):
        return rng.randint(0, 20)
    if parameter in ("s", "t"):
        return rng.choice(LETTERS)
    return [rng.randint(0, 12) for _ in range(rng.randint(2, 5))]


@cache
def _compiled(parameters: tuple[str, ...], body: str) -> Callable[..., Any]:
    """The function of one of our own bodies."""
    lines = "\n".join("    " + line for line in body.splitlines())
    space: dict[str, Any] = {}
    exec(f"def made({', '.join(parameters)}):\n{lines}", space)  # noqa: S102 - text of this file alone.
    made: Callable[..., Any] = space["made"]
    return made


def _rename(text: str, names: dict[str, str]) -> str:
    """Whole words replaced.

    >>> _rename("return n + min(n, m)", {"n": "a", "m": "b"})
    'return a + min(a, b)'
    """
    out, word = [], ""
    for character in text + " ":
        if character.isalnum() or character == "_":
            word += character
            continue
        out += [names.get(word, word), character]
        word = ""
    return "".join(out)[:-1]


def function(rng: Random) -> Function:
    form = rng.choice(FORMS)
    k = str(rng.randint(2, 9))
    body = rng.choice(form.bodies).replace("{k}", k)
    made, calls = _compiled(form.parameters, body), []
    for _ in range(rng.randint(1, 3)):
        arguments = [_argument(rng, parameter) for parameter in form.parameters]
        calls.append((", ".join(map(repr, arguments)), repr(made(*arguments))))
    names = {
        parameter: parameter if rng.random() < 0.4 else rng.choice(RENAMED[parameter]) for parameter in form.parameters
    }
    return Function(
        rng.choice(NAMES),
        tuple(names[parameter] for parameter in form.parameters),
        _rename(rng.choice(form.words).replace("{k}", k), names),
        _rename(body, names),
        tuple(calls),
    )


def _asserts(made: Function) -> str:
    return "\n".join(f"assert {made.name}({arguments}) == {result}" for arguments, result in made.calls)


def _docstring(made: Function) -> str:
    head, body = made.source.split("\n", 1)
    return f'{head}\n    """Return {made.words}."""\n{body}\n\n\n{_asserts(made)}'


def _comment(made: Function) -> str:
    return f"# {made.words[0].upper()}{made.words[1:]}.\n{made.source}\n\n\n{_asserts(made)}"


def _session(made: Function) -> str:
    shown = "\n".join(f">>> {made.name}({arguments})\n{result}" for arguments, result in made.calls)
    return f"Return {made.words}.\n\n{made.source}\n\n{shown}"


def _fenced(made: Function) -> str:
    signature = f"{made.name}({', '.join(made.parameters)})"
    return f"Task: a function `{signature}` that returns {made.words}.\n```python\n{made.source}\n```"


def _chat(made: Function) -> str:
    signature = f"{made.name}({', '.join(made.parameters)})"
    asked = f"In Python, make {signature} give back {made.words}."
    reply = f"```python\n{made.source}\n```"
    return f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n{reply}<|im_end|>"


STYLES = [(3, _docstring), (2, _comment), (2, _session), (2, _fenced), (1, _chat)]


def document(rng: Random) -> str:
    """Two to six functions in one style."""
    write = rng.choices([style for _, style in STYLES], weights=[weight for weight, _ in STYLES])[0]
    return "\n\n\n".join(write(function(rng)) for _ in range(rng.randint(2, 6)))
