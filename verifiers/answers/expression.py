"""A safe reader of short mathematical expressions, in LaTeX or plain text, into a small tree.

Nothing is evaluated here and no other parser sees the text. The tree is made of nested tuples:
`("number", Fraction)`, `("name", str)`, `("add", a, b)`, `("multiply", a, b)`, `("divide", a, b)`, `("power", a, b)`,
`("negate", a)`, `("factorial", a)`, `("absolute", a)`, `("call", function, a)`, `("binomial", a, b)`,
`("log", base, a)`, `("floor", a)`, `("ceiling", a)`, and
`("dots",)` for an ellipsis.

Names are single letters, rows of capitals (`AB`), Greek commands, and a letter with a subscript (`a_1`) or an accent
(`\\vec{a}`). `i` is the imaginary unit, `e` Euler's number and `pi` the circle's, as answers use them; a degree is
pi/180. Tokens and depth are bounded: `TooComplex` beyond.

What this does not do: relations, sets, intervals and lists are taken apart one level up
(`verifiers.answers.equivalence`); integrals, sums, limits, matrices and words are unreadable (`Unreadable`), and
whoever calls falls back to text.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

Tree = tuple[Any, ...]

MAX_TOKENS = 600
MAX_DEPTH = 60
MAX_NUMERAL = 400
"""Characters of one numeral."""

FUNCTIONS = {
    "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc",
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "asin": "asin", "acos": "acos", "atan": "atan",
    "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "ln": "ln", "log": "log", "exp": "exp", "sqrt": "sqrt",
    "abs": "abs",
    "arcsec": "asec", "arccsc": "acsc", "arccot": "acot",
}
CONSTANTS = frozenset(("pi", "e", "i"))
ACCENTS = frozenset(("vec", "overrightarrow", "overline", "hat", "bar", "tilde", "mathcal", "mathbb"))
SHAPES = frozenset(("triangle", "angle", "odot", "square"))
DEGREE: Tree = ("divide", ("name", "pi"), ("number", Fraction(180)))
_GREEK = re.compile(
    "alpha|beta|gamma|delta|epsilon|varepsilon|zeta|eta|theta|vartheta|iota|kappa|lambda|mu|nu|xi|rho|sigma|tau|upsilon"
    "|phi|varphi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Upsilon|Phi|Psi|Omega|ell")
_TOKEN = re.compile(
    r"\s*(?:(?P<number>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
    r"|(?P<command>\\[A-Za-z]+)|(?P<word>[A-Za-z]+)|(?P<escaped>\\[{}|])|(?P<operator>\*\*|[-+*/^!()\[\]{}|_%]))"
)
_PROSE = frozenset((
    "or", "and", "if", "is", "of", "to", "in", "for", "by", "at", "no", "so", "we", "as", "it", "on", "be", "the",
    "all", "not", "any", "per"))
_NO_FACTORS = frozenset(("\\pm", "\\rfloor", "\\rceil", "\\degree"))
_PLAIN_WORDS = re.compile(
    r"arcsin|arccos|arctan|asin|acos|atan|sinh|cosh|tanh|sqrt|sin|cos|tan|cot|sec|csc|log|abs|exp|ln|pi|[A-Za-z]")


class Unreadable(ValueError):
    """The text is not an expression that this module knows."""


class TooComplex(Unreadable):
    """The text exceeds a bound of size or depth."""


def parse(text: str) -> Tree:
    """The tree of a whole expression (already cleaned). Raises Unreadable or TooComplex, nothing else."""
    parser = _Parser(_tokens(text))
    tree = parser.sum(0)
    if parser.position != len(parser.tokens):
        raise Unreadable(f"unexpected {parser.tokens[parser.position]!r}")
    return tree


def names_of(tree: Tree) -> set[str]:
    """The variables of a tree."""
    found: set[str] = set()
    pending = [tree]
    while pending:
        node = pending.pop()
        if node[0] == "name":
            found.add(node[1])
        elif node[0] != "number":
            pending += [child for child in node[1:] if isinstance(child, tuple)]
    return found - CONSTANTS


def renamed(tree: Tree, old: str, new: str) -> Tree:
    """The tree with one variable under another name."""
    if tree[0] == "number":
        return tree
    if tree[0] == "name":
        return ("name", new if tree[1] == old else tree[1])
    return (tree[0], *(renamed(child, old, new) if isinstance(child, tuple) else child for child in tree[1:]))


def _tokens(text: str) -> list[str]:
    if len(text) > MAX_TOKENS * 8:
        raise TooComplex("too long")
    tokens: list[str] = []
    position, text = 0, text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise Unreadable(f"unknown character {text[position]!r}")
        position = match.end()
        if match["word"]:
            tokens += _split_word(match["word"])
        elif match["number"]:
            if len(match["number"]) > MAX_NUMERAL:
                raise TooComplex("numeral too long")
            tokens.append(match["number"].replace(",", ""))
        elif match["command"]:
            tokens.append({"\\lvert": "|", "\\rvert": "|", "\\vert": "|", "\\lbrace": "(", "\\rbrace": ")"}.get(
                match["command"], match["command"]))
        elif match["escaped"]:
            raise Unreadable("a set is not an expression")
        else:
            tokens.append("^" if match["operator"] == "**" else match["operator"])
        if len(tokens) > MAX_TOKENS:
            raise TooComplex("too many tokens")
    if not tokens:
        raise Unreadable("empty")
    return tokens


def _split_word(word: str) -> list[str]:
    """`xy` is a product; `sin`, `pi` and the like are commands; a longer word of prose is unreadable."""
    if word.lower() in _PROSE:
        raise Unreadable(f"prose: {word!r}")
    if word in ("degree", "degrees"):
        return ["\\degree"]
    if len(word) > 1 and word.isupper():
        return [word]  # a segment or a row of letters, not their product
    parts = _PLAIN_WORDS.findall(word)
    if len(parts) > 4 or (len(parts) == len(word) > 3):
        raise Unreadable(f"prose: {word[:20]!r}")
    return [f"\\{part}" if len(part) > 1 else part for part in parts]


class _Parser:
    """Recursive descent over tokens; every method returns the tree of what it consumed."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.position = 0
        self.bars = 0  # absolute values that are open

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.peek()
        if not token or (expected and token != expected):
            raise Unreadable(f"expected {expected or 'more'!r}, got {token!r}")
        self.position += 1
        return token

    def sum(self, depth: int) -> Tree:
        if depth > MAX_DEPTH:
            raise TooComplex("too deep")
        tree = self.product(depth + 1)
        while self.peek() in ("+", "-"):
            kind = self.take()
            other = self.product(depth + 1)
            tree = ("add", tree, other if kind == "+" else ("negate", other))
        return tree

    def product(self, depth: int) -> Tree:
        tree = self.signed(depth)
        while True:
            token = self.peek()
            if token in ("*", "/"):
                self.take()
                tree = ("multiply" if token == "*" else "divide", tree, self.signed(depth))
            elif self.starts_factor(token):
                if token[0].isdigit() or token[0] == ".":
                    raise Unreadable("a numeral after a factor: x2 may be a power, 1 2 a slip")
                after_integer = tree[0] == "number" and tree[1].denominator == 1 and token == "\\frac"
                other = self.power(depth)
                mixed = after_integer and other[0] == "divide" and other[1][0] == other[2][0] == "number"
                tree = ("add" if mixed else "multiply", tree, other)
            else:
                return tree

    def signed(self, depth: int) -> Tree:
        sign = False
        while self.peek() in ("+", "-"):
            sign ^= self.take() == "-"
        tree = self.power(depth)
        return ("negate", tree) if sign else tree

    def starts_factor(self, token: str) -> bool:
        if token == "|":
            return self.bars == 0
        if not token or token in _NO_FACTORS:
            return False
        return token[0].isalnum() or token[0] in "(.[{\\"

    def power(self, depth: int) -> Tree:
        if depth > MAX_DEPTH:
            raise TooComplex("too deep")
        tree = self.postfix(self.atom(depth + 1))
        if self.peek() == "^":
            self.take()
            exponent = self.script(depth + 1)
            tree = self.postfix(("power", tree, exponent))
        return tree

    def postfix(self, tree: Tree) -> Tree:
        while self.peek() in ("!", "%", "\\degree"):
            token = self.take()
            if token == "!":
                tree = ("factorial", tree)
            else:
                tree = ("multiply", tree, DEGREE) if token != "%" else ("divide", tree, ("number", Fraction(100)))
        return tree

    def script(self, depth: int) -> Tree:
        """What stands in a superscript: a group, a signed number, or a right-associative power."""
        if self.peek() == "{":
            return self.group(depth)
        if self.peek() in ("-", "+"):
            return self.signed(depth)
        return self.power(depth)

    def group(self, depth: int) -> Tree:
        self.take("{")
        bars, self.bars = self.bars, 0
        tree = self.sum(depth + 1)
        self.bars = bars
        self.take("}")
        return tree

    def argument(self, depth: int) -> Tree:
        """The argument of a LaTeX command: a group or one token; `\\frac12` takes a single digit."""
        if self.peek() == "{":
            return self.group(depth)
        token = self.peek()
        if token.isdigit() and len(token) > 1:
            self.tokens[self.position: self.position + 1] = list(token)
        return self.atom(depth + 1)

    def atom(self, depth: int) -> Tree:
        if depth > MAX_DEPTH:
            raise TooComplex("too deep")
        token = self.peek()
        if token in ("(", "["):
            self.take()
            bars, self.bars = self.bars, 0
            tree = self.sum(depth + 1)
            self.bars = bars
            self.take(")" if token == "(" else "]")
            return tree
        if token == "{":
            return self.group(depth)
        if token == "|":
            self.take()
            self.bars += 1
            tree = self.sum(depth + 1)
            self.take("|")
            self.bars -= 1
            return ("absolute", tree)
        if token and (token[0].isdigit() or token[0] == "."):
            return ("number", _numeral(self.take()))
        if token.startswith("\\"):
            return self.command(self.take()[1:], depth)
        if token.isalpha():
            return self.name(self.take(), depth)
        raise Unreadable(f"unexpected {token!r}")

    def name(self, name: str, depth: int) -> Tree:
        if self.peek() != "_":
            return ("name", name)
        self.take()
        start = self.position
        if self.peek() == "{":
            self.group(depth)
        else:
            self.take()
        return ("name", f"{name}_{''.join(self.tokens[start:self.position]).strip('{}')}")

    def command(self, name: str, depth: int) -> Tree:
        if name == "frac":
            top = self.argument(depth)
            return ("divide", top, self.argument(depth))
        if name in ("binom", "dbinom", "tbinom"):
            top = self.argument(depth)
            return ("binomial", top, self.argument(depth))
        if name == "sqrt":
            return self.root(depth)
        if name in FUNCTIONS:
            return self.function(FUNCTIONS[name], depth)
        if name == "pi":
            return ("name", "pi")
        if name == "cdots":
            return ("dots",)
        if name in ("lfloor", "lceil"):
            tree = self.sum(depth + 1)
            self.take("\\r" + name[1:])
            return ("floor" if name == "lfloor" else "ceiling", tree)
        if name in ACCENTS and self.peek() == "{":
            start = self.position
            self.group(depth)
            return self.name(f"{name} {''.join(self.tokens[start:self.position])}", depth)
        if name in SHAPES and self.peek()[:1].isalpha():
            return ("name", f"{name} {self.take()}")
        if _GREEK.fullmatch(name):
            return self.name(name, depth)
        raise Unreadable(f"unknown command {name!r}")

    def root(self, depth: int) -> Tree:
        if self.peek() != "[":
            return ("call", "sqrt", self.argument(depth))
        self.take("[")
        degree = self.sum(depth + 1)
        self.take("]")
        return ("power", self.argument(depth), ("divide", ("number", Fraction(1)), degree))

    def function(self, function: str, depth: int) -> Tree:
        base: Tree | None = None
        exponent: Tree | None = None
        for _ in range(2):
            if self.peek() == "_" and function == "log" and base is None:
                self.take()
                base = self.argument(depth)
            elif self.peek() == "^" and exponent is None:
                self.take()
                exponent = self.script(depth + 1)
        inner = self.function_argument(depth)
        tree: Tree = ("log", base, inner) if base is not None else ("call", function, inner)
        if exponent is None:
            return tree
        if exponent in (("negate", ("number", Fraction(1))),):
            raise Unreadable("sin^-1 means two things")
        return ("power", tree, exponent)

    def function_argument(self, depth: int) -> Tree:
        """`sin(2x) y` applies to the bracket; `sin 2x` to the factors up to the next sign or function."""
        if self.peek() in ("(", "[", "{", "|"):
            return self.power(depth + 1)
        tree = self.signed(depth + 1)
        while self.starts_factor(self.peek()) and self.peek()[1:] not in FUNCTIONS and self.peek() not in ("(", "|"):
            tree = ("multiply", tree, self.power(depth + 1))
        return tree


def _numeral(text: str) -> Fraction:
    whole, _, fraction = text.partition(".")
    return Fraction(int((whole or "0") + fraction), 10 ** len(fraction))
