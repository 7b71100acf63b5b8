"""A plain function as a verifier: `verify(completion, task)`, with no import of ours.

    def verify(completion, task):
        return completion.strip() == task.answer

What it may return: `True` or `False`; a number in [0, 1] (1 is correct, less is incorrect with partial credit); a
mapping of a verdict's fields (`correct` or `outcome`, `score`, `extracted`, `reason`); or a `Verdict`. Anything else
(None, NaN, 1.3, a text, a key that is no field) is the author's fault and never the completion's: no verdict, with a
reason that says what came back.

`accept` tells the kinds of targets apart, by signature alone: whatever takes exactly two arguments is a plain
verifier (a function, a lambda, a `functools.partial`, an object with `__call__`); a class or a function that takes none
is called once and gives the verifier. Further arguments must have defaults. A target that could be either, or is
asynchronous, is refused.

A plain verifier's name is its entry point's, its version the distribution's. What its module calls `warm_up` (a
function without arguments) is called before any clock starts.
"""

from __future__ import annotations

import inspect
import numbers
import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from configs.errors import UserError
from verifiers.api import Outcome, Task, Verdict, Verifier, no_verdict

FIELDS = ("outcome", "correct", "score", "extracted", "reason")
"""Keys of a mapping that a plain verifier may return."""
MAX_SHOWN = 60
"""Characters of a wrong return value that a reason quotes."""
MAX_REASON = 200
"""A longer reason is cut: reasons are counted and stored for every completion."""
HOW = "see verifiers/README.md"

PlainFunction = Callable[[str, Task], Any]


class PlainVerifier:
    """A plain function with the members of a verifier.

    Attributes:
        name: The entry point's name.
        version: The distribution's version.
        description: First sentence of what the author wrote about it.
        function: The author's `verify(completion, task)`.
        warm_up: The module's own, or None.
    """

    def __init__(
        self,
        name: str,
        version: str,
        function: PlainFunction,
        description: str = "",
        warm_up: Callable[[], object] | None = None,
    ) -> None:
        self.name, self.version, self.function = name, version, function
        self.description, self.warm_up = description, warm_up

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion. What the function raises is passed on."""
        return verdict_of(self.function(completion, task))


def accept(name: str, version: str, target: Any, module: ModuleType) -> Verifier:
    """The verifier that an entry point's object is or makes.

    Args:
        name: The entry point's name.
        version: Version of its distribution, for a plain function.
        target: The object that the entry point names.
        module: Its module, for `warm_up` and the description.

    Raises:
        UserError: the object is neither a plain verifier nor makes one; says what it is and what is allowed.
    """
    if not callable(target):
        raise UserError(f"verifier: {name!r} is {_a(target)}; allowed: a function verify(completion, task), or a class "
                        f"without arguments that has name, version and judge(task, completion); {HOW}")
    if num_arguments(name, target) == 2:
        warm_up = getattr(module, "warm_up", None)
        return PlainVerifier(name, version, target, description(target, module), warm_up if callable(warm_up) else None)
    made = target()
    if isinstance(made, type) or not isinstance(made, Verifier):
        raise UserError(f"verifier: {name!r} gives {_a(made)}, which lacks name, version or judge(task, completion); "
                        f"allowed: a function verify(completion, task), or what makes a verifier; {HOW}")
    return made


def num_arguments(name: str, target: Callable[..., Any]) -> int:
    """How many arguments a target takes: 2 for a plain verifier, 0 for what makes one.

    Raises:
        UserError: any other signature, one that leaves it open, or an asynchronous function.
    """
    called = () if isinstance(target, type) else (target, type(target).__call__)
    if any(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in called):
        raise UserError(f"verifier: {name!r} is asynchronous; allowed: a plain `def verify(completion, task)`; workers "
                        "judge one completion at a time, so wait inside it")
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        parameters = None
    if parameters is not None:
        required = [each for each in parameters if each.default is each.empty and each.kind not in _MANY]
        open_ended = any(each.kind in _MANY for each in parameters)
        by_place = all(each.kind is not each.KEYWORD_ONLY for each in required)
        if len(required) == 2 and by_place and not isinstance(target, type):
            if required[0].name == "task" or required[1].name == "completion":
                raise UserError(f"verifier: {name!r} takes ({required[0].name}, {required[1].name}); allowed: "
                                "(completion, task), in this order; change the order in the function")
            return 2
        if not required and (isinstance(target, type) or not open_ended):
            return 0
    shown = "a signature that cannot be read" if parameters is None else f"takes {inspect.signature(target)}"
    raise UserError(f"verifier: {name!r} {'is of' if parameters is None else ''} {shown}; allowed: exactly two "
                    "required arguments (completion, task) for a plain verifier, none for a class or a function that "
                    f"makes a verifier; give the others defaults (a decorator needs functools.wraps); {HOW}")


def verdict_of(returned: Any) -> Verdict:
    """The verdict that a plain verifier's return value stands for.

    >>> verdict_of(True).outcome.value, verdict_of(0.25).score, verdict_of({"correct": False, "reason": "odd"}).reason
    ('correct', 0.25, 'odd')
    >>> verdict_of(None).reason
    'verify_returned: None'
    """
    if isinstance(returned, Verdict):
        return returned
    if isinstance(returned, Mapping):
        return _of_fields(returned)
    score = _number(returned)
    if score is None:
        return _fault(_shown(returned))
    if isinstance(returned, bool):
        return _made(score == 1.0, score, None, "accepted" if returned else "refused")
    return _made(score == 1.0, score, None, "accepted" if score == 1.0 else "partial" if score else "refused")


def description(target: Any, module: ModuleType | None = None) -> str:
    """The first sentence of what is written about a target, else about its module; empty where nothing is."""
    for each in (target, module):
        own = None if each is None or not hasattr(each, "__name__") else each.__doc__  # not that of an object's class
        if own:
            paragraph = " ".join(inspect.cleandoc(own).split("\n\n")[0].split())
            return re.split(r"(?<=[.!?])\s", paragraph, maxsplit=1)[0]
    return ""


_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _of_fields(fields: Mapping[Any, Any]) -> Verdict:
    if unknown := [key for key in fields if key not in FIELDS]:
        return _fault(f"a mapping with the key {_shown(unknown[0])}")
    told, said = fields.get("outcome"), fields.get("correct")
    if "outcome" in fields and "correct" in fields:
        return _fault("a mapping with both outcome and correct")
    extracted, reason = fields.get("extracted"), fields.get("reason", "")
    if not (extracted is None or isinstance(extracted, str)):
        return _fault(f"extracted {_shown(extracted)}")
    if not isinstance(reason, str):
        return _fault(f"reason {_shown(reason)}")
    if "outcome" in fields:
        if told not in tuple(Outcome):
            return _fault(f"outcome {_shown(told)}")
        if told == Outcome.NO_VERDICT:
            given = fields.get("score", 0)
            return no_verdict(reason[:MAX_REASON]) if _number(given) == 0.0 else _fault("a score with no_verdict")
        right: bool | None = told == Outcome.CORRECT
    elif "correct" in fields:
        yes = _number(said)
        if yes not in (0.0, 1.0):
            return _fault(f"correct {_shown(said)}")
        right = yes == 1.0
    else:
        right = None
    if "score" in fields:
        score = _number(fields["score"])
        if score is None:
            return _fault(f"score {_shown(fields['score'])}")
        if right is not None and right != (score == 1.0):
            return _fault(f"score {_shown(fields['score'])} with {'correct' if right else 'incorrect'}")
    elif right is None:
        return _fault("a mapping without outcome, correct and score")
    else:
        score = float(right)
    return _made(score == 1.0, score, extracted, reason)


def _made(right: bool, score: float, extracted: str | None, reason: str) -> Verdict:
    return Verdict(Outcome.CORRECT if right else Outcome.INCORRECT, score, extracted, reason[:MAX_REASON])


def _number(value: Any) -> float | None:
    """A truth value or a number in [0, 1] as a float, numpy's too; None for anything else."""
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = value.item()
    if not isinstance(value, (int, float, numbers.Real)):
        return None
    comparable: Any = value
    return float(value) if 0 <= comparable <= 1 else None  # NaN is in no interval


def _fault(what: str) -> Verdict:
    return no_verdict(f"verify_returned: {what}")


def _shown(value: Any) -> str:
    """A value for a reason: numbers and names as they are, of texts and other things their kind."""
    if value is None or isinstance(value, (bool, int, float)):
        text = repr(value) if not isinstance(value, int) or abs(value) < 10**MAX_SHOWN else "a huge int"
    elif isinstance(value, str):
        text = repr(value) if len(value) <= MAX_SHOWN and value.isidentifier() else "a text"
    else:
        text = _a(value)
    return text[:MAX_SHOWN]


def _a(value: Any) -> str:
    return f"a {type(value).__name__}"
