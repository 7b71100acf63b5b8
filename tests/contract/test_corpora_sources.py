"""Every source yields documents with all fields filled, the same ones each time, and says where they come from."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

import corpora
from configs.settings.corpus import CorpusSource
from corpora import sources
from corpora.document import Document
from corpora.dropped import DropLog
from corpora.order import in_split
from corpora.sources import python_packages, python_stdlib
from corpora.sources.sympy_examples import worked_examples

PROCEDURAL = {"name": "reasoning_gym/chain_sum", "count": 5, "params": {"max_terms": 3}}
OUTPUTS: list[tuple[dict[str, Any], str]] = [
    ({"name": "python_stdlib", "count": 5}, "tokens"),
    ({"name": "python_packages", "count": 5}, "tokens"),
    ({"name": "sympy_examples", "count": 5}, "tokens"),
    (PROCEDURAL, "tokens"), (PROCEDURAL, "examples"), (PROCEDURAL, "problems"),
]
NATURAL: list[tuple[dict[str, Any], str]] = [
    ({"name": "gsm8k", "count": 5}, "tokens"), ({"name": "gsm8k", "count": 5}, "examples"),
    ({"name": "gsm8k", "count": 5}, "problems"), ({"name": "math", "count": 5}, "problems"),
    ({"name": "mbpp", "count": 5}, "examples"),
]


def check_documents(given: dict[str, Any], output: str) -> list[Document]:
    source = CorpusSource(**given)
    sources.check("stage.sources[0]", source, output)
    documents = list(sources.open_source(source, output, DropLog()))
    assert documents == list(sources.open_source(source, output, DropLog()))
    assert len(documents) == source.count and len({one.id for one in documents}) == len(documents)
    for one in documents:
        assert one.source == source.name and one.licence and one.path and not Path(one.path).is_absolute()
        assert one.provenance["version"]
        assert bool(one.language) == source.name.startswith("python_"), one.path
        needed = {"tokens": (one.text,), "examples": (one.prompt, one.completion), "problems": (one.prompt, one.answer)}
        assert all(part.strip() for part in needed[output])
        assert output != "problems" or (one.verifier and json.dumps(one.metadata))
    assert sources.licence(source) in (documents[0].licence, "mixed")
    assert json.dumps(sources.identity(source))
    return documents


@pytest.mark.parametrize(("given", "output"), OUTPUTS)
def test_a_built_in_source_fills_all_fields(given: dict[str, Any], output: str) -> None:
    check_documents(given, output)


@pytest.mark.parametrize(("given", "output"), NATURAL)
def test_a_catalogue_source_fills_all_fields(given: dict[str, Any], output: str, data_mirror: Path) -> None:
    check_documents(given, output)


def test_the_users_file_fills_all_fields(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"text": "a", "prompt": "b", "completion": "c", "answer": "d"}\n')
    for output in ("tokens", "examples", "problems"):
        [document] = sources.open_source(CorpusSource(name=str(path)), output, DropLog())
        assert document.path == "mine.jsonl" and document.licence == "unknown"
    assert len(sources.identity(CorpusSource(name=str(path)))["sha256"]) == 64


def test_library_sources_hold_no_tests_and_the_held_out_part_is_apart() -> None:
    paths = python_stdlib.source_files(Path(sysconfig.get_path("stdlib")))
    parts = {split: {path for path in paths if in_split(path, split)} for split in ("train", "heldout", "all")}
    assert parts["train"] | parts["heldout"] == parts["all"] == set(paths)
    assert not parts["train"] & parts["heldout"] and len(parts["heldout"]) > 10
    assert "json/decoder.py" in paths
    assert not [path for path in paths if {"test", "tests", "site-packages"} & set(path.split("/"))]
    read = {one.path for one in sources.open_source(
        CorpusSource(name="python_stdlib", split="heldout"), "tokens", DropLog())}
    assert read == parts["heldout"]


def test_packages_are_repositories_with_the_licence_that_they_state() -> None:
    found = python_packages.distributions()
    licences = {name: python_packages.licence_of(found[name]) for name in ("numpy", "pydantic", "torch", "pyyaml")}
    assert licences["pydantic"] == licences["pyyaml"] == "mit" and None not in licences.values()
    files = dict(python_packages.source_files(found["pydantic"]))
    assert "pydantic/main.py" in files and not [path for path in files if ".dist-info" in path or ".." in path]
    [document] = sources.open_source(CorpusSource(name="python_packages", count=1, split="all"), "tokens", DropLog())
    assert document.id == f"{document.repository}/{document.path}" and document.repository in found


@pytest.mark.parametrize(("fields", "expected"), [
    ({"License-Expression": "MIT OR GPL-3.0-only", "License": "GPL"}, "mit"),
    ({"License-Expression": "LicenseRef-Company"}, "licenseref-company"),
    ({"Classifier": "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)"}, "mpl-2.0"),
    ({"Classifier": "License :: OSI Approved :: ISC License (ISCL)"}, "isc"),
    ({"Classifier": "Topic :: Scientific/Engineering", "License": "BSD-3-Clause AND MIT"}, "bsd-3-clause"),
    ({"License": f"Permission is hereby granted, free of charge, to any person obtaining a copy {'.' * 9}"}, "mit"),
    ({"License": "see the file"}, None),
])
def test_a_distributions_licence_is_read_from_its_metadata(
    tmp_path: Path, fields: dict[str, str], expected: str | None,
) -> None:
    folder = tmp_path / "one-1.0.dist-info"
    folder.mkdir()
    text = "".join(f"{key}: {value}\n" for key, value in {"Metadata-Version": "2.1", "Name": "one", **fields}.items())
    (folder / "METADATA").write_text(text)
    assert python_packages.licence_of(importlib.metadata.PathDistribution(folder)) == expected


def test_held_out_texts_can_be_had_as_plain_strings() -> None:
    held_out = list(sources.texts(CorpusSource(name="python_stdlib", split="heldout", count=3)))
    assert len(held_out) <= 3 and all(isinstance(one, str) and one.strip() for one in held_out)


def test_a_sympy_example_is_its_name_and_its_docstring() -> None:
    code = 'def double(x):\n    """Twice x.\n\n    >>> double(2)\n    4\n    """\n'
    code += 'def plain():\n    """No example."""\n'
    assert worked_examples(code, "core/two.py") == [
        ("sympy.core.two.double", "sympy.core.two.double\n\nTwice x.\n\n>>> double(2)\n4\n")]


@pytest.mark.skipif(importlib.util.find_spec("sympy") is None, reason="sympy is not installed")
def test_reading_sympys_examples_imports_neither_sympy_nor_torch() -> None:
    code = ("import sys; from configs.settings.corpus import CorpusSource; from corpora import build, sources\n"
            "next(sources.texts(CorpusSource(name='sympy_examples')))\n"
            "print([name for name in ('sympy', 'torch', 'transformers', 'prefect') if name in sys.modules])")
    root = Path(corpora.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"
