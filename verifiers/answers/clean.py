"""One spelling for answers that differ only in typesetting.

`clean` removes what LaTeX and Unicode add to the look of an answer (math delimiters, spacing commands, `\\left`,
`\\dfrac`, the true minus sign) and keeps everything that carries meaning. `same_text` is the fallback comparison of
answers that nothing else can read.

What this does not do: it does not fold characters wholesale (NFKC would turn a superscript two into the digit 2), so
digits of other scripts stay what they are and match no ASCII digit.
"""

from __future__ import annotations

import re

_CHARACTERS = str.maketrans({
    "\u2212": "-", "\u2013": "-", "\u2010": "-", "\u2011": "-", "\ufe63": "-", "\uff0d": "-",
    "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u200b": "", "\ufeff": "",
    "\u00d7": "*", "\u00b7": "*", "\u22c5": "*", "\u2217": "*", "\u00f7": "/", "\u2044": "/", "\u2215": "/",
    "\u03c0": "\\pi ", "\u221e": "\\infty ", "\u221a": "\\sqrt ", "\u2264": "\\le ", "\u2265": "\\ge ",
    "\u2260": "\\ne ", "\u222a": "\\cup ", "\u2229": "\\cap ", "\u2208": "\\in ", "\u00b1": "\\pm ",
    "\u00b0": "\\degree ",
    "\u00b2": "^2", "\u00b3": "^3", "\u2074": "^4", "\u00b9": "^1", "\u2070": "^0",
    "\u00bd": "\\frac{1}{2}", "\u00bc": "\\frac{1}{4}", "\u00be": "\\frac{3}{4}",
    "\u2153": "\\frac{1}{3}", "\u2154": "\\frac{2}{3}",
    "\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'", "\uff0c": ",", "\u3001": ",", "\uff1a": ":",
    "\uff08": "(", "\uff09": ")", "\u3002": ".", "\uff1b": ";", "\u2248": "\\approx ", "\u2205": "\\emptyset ",
    "\u211d": "\\mathbb{R}", "\u2124": "\\mathbb{Z}", "\u2115": "\\mathbb{N}", "\u2223": "|", "\u2261": "\\equiv ",
    "\u22ef": "\\cdots ", "\u2026": "\\ldots ", "\u2216": "\\setminus ", "\u00a2": " cents", "\u2032": "'",
    "\x0c": "\\f", "\x08": "\\b",  # `\\frac` and `\\binom` after somebody's string literal took the backslash
    **{chr(0x3B1 + place): f"\\{name} " for place, name in enumerate((
        "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu",
        "nu", "xi"))},
    **{chr(0x3C1 + place): f"\\{name} " for place, name in enumerate((
        "rho", "varsigma", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"))},
    "\u0394": "\\Delta ", "\u03a9": "\\Omega ", "\u03a3": "\\Sigma ", "\u03a6": "\\Phi ",
})
_NO_SPACE = re.compile(r"(?<=,)\s*\\!\s*(?=[0-9]{3})|(?<!\\)\\!")
_GROUPED = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:\\,\s?[0-9]{3})+(?![0-9])")
"""Thousands parted by thin spaces, as in `12\\,500`."""
_LOST_BACKSLASH = re.compile(r"\t(?=(?:ext|imes|frac|heta|an)(?![a-z]))")
_CIRCLED = re.compile(r"[\u2460-\u2473](?:[\s,;]*[\u2460-\u2473])*")
_IN_DOLLARS = re.compile(r"\$((?:[^$\\]|\\.)+)\$", re.DOTALL)
_WRAPPERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("`", "`"), ('"', '"'))
_DRESSED = re.compile(
    r"\\(?:(?:text)?color\s*\{[^{}]*\}|(?:underline|fbox|boxed|boldsymbol|bm|math(?:rm|bf|it|sf)|text(?:rm|bf|it)?|mbox|bf|rm)"
    r"(?![A-Za-z]))\s*(?=\{)")
_ALIGNED = re.compile(r"\\begin\{(aligned|align\*?|gathered|split|equation\*?)\}((?:(?!\\\\).)*)\\end\{\1\}", re.DOTALL)
_DROPPED = re.compile(
    r"(?<!\\)\\(?:left|right|bigl|bigr|Bigl|Bigr|bigg|Bigg|big|Big|displaystyle|textstyle|limits|nolimits)(?![A-Za-z])"
    r"|\\(?:rm|bf|it)(?=\s+[A-Za-z])"
    r"|(?<!\\)\\(?:,|;|!|:|>|\ |quad(?![A-Za-z])|qquad(?![A-Za-z]))|~"
)
_TEXT = re.compile(
    r"\\(?:text(?:rm|bf|it|sf|normal)?|math(?:rm|bf|it)|mbox|hbox|operatorname|boldsymbol|rm|bf)(?![A-Za-z])\s*"
    r"\{([^{}]*)\}")
_SPELLINGS = (
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\^\s*\{?\s*\\(?:circ|degree)(?![A-Za-z])\s*\}?|\\degree(?![A-Za-z])"), " degrees "),
    (re.compile(r"\\(?:leq|leqslant)(?![A-Za-z])"), r"\\le"),
    (re.compile(r"\\(?:geq|geqslant)(?![A-Za-z])"), r"\\ge"),
    (re.compile(r"\\neq(?![A-Za-z])"), r"\\ne"),
    (re.compile(r"\\(?:cdot|times|ast)(?![A-Za-z])"), "*"),
    (re.compile(r"\\div(?![A-Za-z])"), "/"),
    (re.compile(r"\\(?:lg)(?![A-Za-z])"), r"\\log_{10}"),
    (re.compile(r"\\varnothing(?![A-Za-z])"), r"\\emptyset "),
    (re.compile(r"\\(?:dots|dotsc|dotsb|dotsm|ldots|cdots)(?![A-Za-z])"), r"\\cdots "),
    (re.compile(r"\\[hv]?phantom\s*(?:\{[^{}]*\}|[^\\{}])"), ""),
    (re.compile(r"\\mid(?![A-Za-z])"), "|"),
    (re.compile(r"\\(?:infin|infty)(?![A-Za-z])"), r"\\infty"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\\$"), "$"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"(^|[(,\[])\s*\+\s*\\infty(?![a-z])"), r"\1\\infty"),
)
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_RARE = (
    (re.compile(r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\lparen(?![A-Za-z])"), "("),
    (re.compile(r"\\rparen(?![A-Za-z])"), ")"),
    (re.compile(r"\\(big)(?=c[au]p(?![A-Za-z]))"), r"\\"),
)
"""Spellings that a quick look for a word of each leaves out of most answers."""
_ARTICLE = re.compile(r"\A(?:the|an|a) (?=[a-z]{2})")
_SPACES = re.compile(r"\s+")
_FREE_SPACES = re.compile(r"(?<![0-9])\s+|\s+(?![0-9])")
"""Spaces that separate no two digits."""


def clean(text: str) -> str:
    """The answer without typesetting. Idempotent on its own output for the forms it knows."""
    if text.isascii() and text.isalnum():
        return text
    if not text.isascii() and _CIRCLED.fullmatch(text.strip()):
        return ", ".join(str(ord(sign) - 0x245F) for sign in text if "\u2460" <= sign <= "\u2473")
    if "\t" in text:
        text = _LOST_BACKSLASH.sub(r"\\t", text)
    text = text.translate(_CHARACTERS).strip()
    if "\\$" in text and (enclosed := _IN_DOLLARS.fullmatch(text)) is not None:
        text = enclosed[1].strip()
    text = unwrap(text)
    if text[:1] == "\\":
        text = undressed(text)
    if text.count("$") > 1 and text.count("$") % 2 == 0 and "\\$" not in text:
        text = text.replace("$", "")  # each element of a list in math delimiters of its own
    if "\\" in text or "~" in text or "{,}" in text:
        text = _NO_SPACE.sub("", text)
        if "\\," in text:
            text = _GROUPED.sub(lambda match: re.sub(r"\\,\s?", "", match[0]), text)
        text = _DROPPED.sub(" ", text)
        if "\\over" in text or "\\bigc" in text or "paren" in text:
            for pattern, spelling in _RARE:
                text = pattern.sub(spelling, text)
        for pattern, spelling in _SPELLINGS:
            text = pattern.sub(spelling, text)
        for _ in range(3):  # nested \text{\textbf{...}} deeper than this does not occur
            text = _TEXT.sub(r" \1 ", text)
    text = unwrap(_SPACES.sub(" ", text).strip())
    while text.endswith((".", ",", ";")) and not text.endswith("..."):
        text = text[:-1].rstrip()
    return unwrap(text)


def undressed(text: str) -> str:
    """Without a colour, a typeface, an underline, a frame or an environment of one line around the whole of it."""
    aligned = _ALIGNED.fullmatch(text)
    if aligned is not None:
        return aligned[2].replace("&", "").strip()
    dress = _DRESSED.match(text)
    if dress is None or not text.endswith("}"):
        return text
    depth = 0
    for match in _BRACE.finditer(text, dress.end()):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if not depth:
            return text[dress.end() + 1: -1].strip() if match.end() == len(text) else text
    return text


def unwrap(text: str) -> str:
    """Without the math delimiters, quotation marks or emphasis that enclose the whole of it."""
    for _ in range(4):
        for opening, closing in _WRAPPERS:
            if not text.startswith(opening) or not text.endswith(closing):
                continue
            inner = text[len(opening): len(text) - len(closing)]
            if len(text) > len(opening) + len(closing) and opening not in inner and closing not in inner:
                text = inner.strip()
                break
        else:
            return text
    return text


def same_text(gold: str, answer: str) -> bool:
    """Equal as text: case counts only for single letters, an article before words and spaces do not."""
    return _folded(gold) == _folded(answer)


def _folded(text: str) -> str:
    text = clean(text)
    compact = _FREE_SPACES.sub("", text)
    if len(compact) == 3 and compact[0] == "(" and compact[2] == ")" and compact[1].isalpha():
        compact = compact[1]  # a choice letter, written (B) or B
    if len(compact) == 1:
        return compact
    if "\\" in compact or "=" in compact or any(character.isdigit() for character in compact):
        return compact
    return _ARTICLE.sub("", _SPACES.sub(" ", text).strip("\"' ").casefold())
