"""Which verifiers there are: the entry-point group `derivative_factory.verifiers`, and the ones built in.

A plugin is any installed distribution with an entry point in that group, whose value names a function
`verify(completion, task)`, or a class that is constructed without arguments (see `verifiers/README.md`). The built-in
ones are known here too, so that a plain checkout on PYTHONPATH works without installation.

A plugin that cannot be imported, whatever it does instead (`sys.exit` too), is a UserError of whoever asks for it by
name, and of nobody else; what it prints at import goes to stderr.

`identity(name)` is what a run's lineage records of a verifier: name, version, and a digest of its source. The digest
covers the meaning (`configs/syntax.py`) of its module and of everything that it imports, in turn, from its own
distribution and from this folder, so that it changes when judging may change, and not with a comment or another Python.
Third-party libraries are not covered; a verifier whose judgement depends on one names that library's version in its own
`version`.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from configs.errors import UserError
from configs.syntax import canonical, imports_of, parse
from verifiers.api import Verifier
from verifiers.plain import accept

GROUP = "derivative_factory.verifiers"
OWN_PACKAGE = "verifiers"
CASES_FILE = "cases.jsonl"
"""As in `verifiers/cases.py`, which imports this module."""
BUILT_IN_ORIGIN = "built in"
_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
BUILT_IN = {
    "math": "verifiers.math:MathVerifier",
    "format": "verifiers.format:FormatVerifier",
    "choice": "verifiers.choice:ChoiceVerifier",
    "code": "verifiers.code:CodeVerifier",
    "code_hidden": "verifiers.code_hidden:CodeHiddenVerifier",
    "counterpart": "verifiers.counterpart:counterpart",
    "exact": "verifiers.exact:ExactVerifier",
    "fim": "verifiers.fim:FimVerifier",
    "instructions": "verifiers.instructions:StrictInstructions",
    "instructions_loose": "verifiers.instructions:LooseInstructions",
    "json_schema": "verifiers.json_schema:JsonSchemaVerifier",
    "puzzles": "verifiers.puzzles:PuzzleVerifier",
    "table": "verifiers.table:TableVerifier",
    "think_math": "verifiers.think_math:think_math",
    "think_own": "verifiers.think_own:think_own",
    "think_puzzles": "verifiers.think_puzzles:think_puzzles",
}
OPTIONAL = {"math_verify": "verifiers.math_verify:MathVerifyVerifier"}
"""Built in as well, but of no use without a package of an extra, so without a card: judges, no rewards."""
CONTROLS = {
    "control_random": "verifiers.control_arms:Coin",
    "control_box": "verifiers.control_arms:Box",
    "control_program": "verifiers.control_arms:Program",
}
"""Rewards of control arms, which know no right answer: found by name, and in no list."""


@dataclass(frozen=True)
class Target:
    """Where a verifier comes from.

    Attributes:
        name: Registry name.
        value: `module:attribute`.
        point: The entry point; None for one that is built in.
    """

    name: str
    value: str
    point: EntryPoint | None = None

    @property
    def module(self) -> str:
        """Name of the module."""
        return self.value.partition(":")[0].strip()

    @property
    def attribute(self) -> str:
        """Name in the module, with dots where it is inside something; extras, which mean nothing here, left out."""
        return self.value.partition(":")[2].partition("[")[0].strip()

    @property
    def version(self) -> str:
        """Version of the distribution; "0" where it has none."""
        return str(getattr(self.point and self.point.dist, "version", None) or "0")

    @property
    def origin(self) -> str:
        """`built in`, or the distribution's name and version."""
        if self.point is None:
            return BUILT_IN_ORIGIN
        return f"{getattr(self.point.dist, 'name', None) or 'an unnamed distribution'} {self.version}"

    @property
    def packages(self) -> set[str]:
        """Top-level packages whose source is the verifier's own."""
        dist = self.point.dist if self.point is not None else None
        listed = (dist.read_text("top_level.txt") or "").split() if dist else []
        # Not every builder writes that file.
        files = (dist.files or []) if dist else []
        inside = {path.parts[0].partition(".")[0] for path in files if path.suffix == ".py"}
        return {self.module.partition(".")[0], OWN_PACKAGE, *listed, *filter(str.isidentifier, inside)}


def names() -> list[str]:
    """Names of all verifiers that are built in or installed, sorted; whether each can be loaded is not asked."""
    return sorted(name for name in _targets() if name not in CONTROLS)


def check_name(name: str) -> None:
    """Raises UserError when there is no such verifier (the nearest is named) or more than one. Imports nothing."""
    target_of(name)


def target_of(name: str) -> Target:
    """Where a verifier comes from. Raises UserError when there is none, or more than one. Imports nothing."""
    targets = _targets()
    if name not in targets:
        near = difflib.get_close_matches(name, names(), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"verifier: {name!r} is not known; allowed: {', '.join(names())}{hint}")
    first, *others = targets[name]
    if not _NAME.fullmatch(name):  # files are named by it
        raise UserError(f"verifier: {name!r} ({first.origin}) is no name; allowed: letters, digits, _, - and .; rename "
                        "the entry point")
    if others:
        both = " and ".join(f"{each.value} ({each.origin})" for each in (first, others[0]))
        raise UserError(f"verifier: the name {name!r} is offered by both {both}; rename the entry point of one, or "
                        "uninstall it")
    return first


def origins(name: str) -> str:
    """Where all verifiers of this name come from, for messages and tables. Raises KeyError when there is none."""
    return ", ".join(target.origin for target in _targets()[name])


@functools.cache
def load_verifier(name: str) -> Verifier:
    """The verifier with this name, a plain function as an object like any other.

    Raises:
        UserError: there is none or more than one, it cannot be imported, or what is named is no verifier.
    """
    target = target_of(name)
    mend = f"mend or uninstall the distribution that offers it ({target.origin})"
    if not target.attribute:
        raise UserError(f"verifier: {name!r} ({target.value}) names a module and nothing in it; allowed: "
                        f"\"{target.module}:verify\"; {mend}")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout may be a caller's JSON
            module = importlib.import_module(target.module)
            found: object = module
            for part in target.attribute.split("."):
                if not hasattr(found, part):
                    near = difflib.get_close_matches(part, dir(found), 1)
                    raise UserError(f"verifier: {name!r} ({target.value}): {target.module} has no {target.attribute!r}"
                                    f"{f'; did you mean {near[0]!r}?' if near else ''}; {mend}")
                found = getattr(found, part)
            return accept(name, target.version, found, module)
    except (UserError, KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # `sys.exit` at import too
        told = " ".join(f"{type(error).__name__}: {error}".split())[:300].removesuffix(":")
        raise UserError(f"verifier: {name!r} ({target.value}) cannot be loaded: {told}; {mend}") from error


@functools.cache
def identity(name: str) -> dict[str, str]:
    """Name, version and source digest of a verifier, for the lineage of whatever it judged."""
    verifier, target = load_verifier(name), target_of(name)
    digest = hashlib.sha256(f"{target.value}\0".encode())  # another function of a module is another verifier
    digest.update(source_digest(target.module, target.packages).encode())
    if target.point is not None:
        digest.update(_beside(target.module))
    return {"name": name, "version": str(verifier.version), "source": digest.hexdigest()}


def _beside(module_name: str) -> bytes:
    """Digest of what lies beside a plugin's module and may decide as well: word lists, rubrics, compiled modules."""
    path = module_file(module_name)
    digest = hashlib.sha256()
    if path is None or "." not in module_name and path.name != "__init__.py":
        return digest.digest()  # a module that stands alone; what is beside it belongs to others
    for file in sorted(path.parent.rglob("*")):
        inside = file.relative_to(path.parent)
        is_case = inside.name == CASES_FILE or inside.parts[0] == "cases"
        if file.is_file() and file.suffix not in (".py", ".pyc", ".md") and not is_case:
            digest.update(f"{inside.as_posix()}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\0".encode())
    return digest.digest()


def source_digest(module_name: str, packages: Iterable[str] = ()) -> str:
    """Digest of a module's meaning: its own and that of all modules that it imports from some packages, in turn.

    Args:
        module_name: The module.
        packages: Top-level packages besides the module's own. Nothing is imported.
    """
    inside = {module_name.partition(".")[0], *packages}
    pending, meanings = [module_name], dict[str, str]()
    while pending:
        current = pending.pop()
        path = None if current in meanings else module_file(current)
        if path is None:
            continue
        tree = parse(path.read_bytes())
        meanings[current] = canonical(tree)
        parents = [current.rsplit(".", count)[0] for count in range(1, current.count(".") + 1)]
        imported = imports_of(tree, current, path.name == "__init__.py")
        pending += [each for each in (*parents, *imported) if each.partition(".")[0] in inside]
    digest = hashlib.sha256()
    for current in sorted(meanings):
        digest.update(f"{current}\0{meanings[current]}\0".encode())
    return digest.hexdigest()


def module_folder(name: str) -> Path | None:
    """The folder of a verifier's module, found without importing it; None where it is not on the path."""
    path = module_file(target_of(name).module)
    return None if path is None else path.parent


def module_file(module_name: str) -> Path | None:
    """Where a module's source lies; None for what is no module (an imported name) or has no source. Imports nothing."""
    parts = module_name.split(".")
    try:
        spec: ModuleSpec | None = importlib.util.find_spec(parts[0])
    except (ImportError, ValueError):
        return None
    for count in range(2, len(parts) + 1):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join(parts[:count]), list(spec.submodule_search_locations))
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def _targets() -> dict[str, list[Target]]:
    """Each name's targets, of which there should be one."""
    ours = {**BUILT_IN, **OPTIONAL, **CONTROLS}
    targets = {name: [Target(name, value)] for name, value in ours.items()}
    for point in entry_points(group=GROUP):
        known = targets.setdefault(point.name, [])
        if all(each.value != point.value for each in known):
            known.append(Target(point.name, point.value, point))
    return targets
