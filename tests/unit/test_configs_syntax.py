"""Source as text that is the same under every Python: what counts, and what does not."""

import ast
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from configs.syntax import canonical, imports_of, parse

ROOT = Path(__file__).resolve().parents[2]


def same(first: str, second: str) -> bool:
    return canonical(parse(first)) == canonical(parse(second))


@pytest.mark.parametrize(("first", "second"), [
    ("x = 1 # why", "x=1"),
    ('"""Doc."""\ndef f():\n    "Doc"\n    return 1', "def f(): return 1"),
    ("x = 'a' 'b'", 'x = "ab"'),
    ("x = u'a'", "x = 'a'"),
    ("x = 0x10", "x = 16"),
    ("x = 1_000", "x = 1000"),
    ("x = f'{a}' 'b' ''", "x = f'{a}b'"),
    ("x = f'{a:}'", "x = f'{a}'"),
    ("x = f'a{{b'", "x = f'a' '{b'"),
    ("x = 1 # type: int", "x = 1"),
])
def test_how_it_is_written_does_not_count(first: str, second: str) -> None:
    assert same(first, second)


@pytest.mark.parametrize(("first", "second"), [
    ("x = 1", "x = 1.0"),
    ("x = 1", "x = True"),
    ("x = 'a'", "x = b'a'"),
    ("x = None", "x = ..."),
    ("return_ = None", "return_ = 'None'"),
    ("x = f'{a}'", "x = f'{a!r}'"),
    ("x = f'{a:>3}'", "x = f'{a}'"),
    ("x = f'{a}b'", "x = f'{a}c'"),
    ("x = {**a}", "x = {None: a}"),
    ("def f(*, a, b=1): pass", "def f(*, a=1, b): pass"),
    ("def f(a, /): pass", "def f(a): pass"),
    ("x = a, b", "x = [a, b]"),
    ("x = '\\u00e9'", "x = 'e\\u0301'"),
    ("from . import a", "from .. import a"),
    ("x = 'a\\',)b'", "x = 'a'"),
])
def test_what_it_does_counts(first: str, second: str) -> None:
    assert not same(first, second)


def test_the_text_is_this_one_under_every_python() -> None:
    source = 'def f(a, *b, c=None) -> int:\n    """Doc."""\n    return f"{a!r:>{c}}z" if b else {**a, 1: -2.5}\n'
    assert canonical(parse(source)) == (
        "Module(body=[FunctionDef(args=arguments(args=[arg(arg='a',),],kw_defaults=[Constant(),],kwonlyargs=[arg("
        "arg='c',),],vararg=arg(arg='b',),),body=[Return(value=IfExp(body=JoinedStr(values=[FormattedValue("
        "conversion=0x72,format_spec=JoinedStr(values=[Constant(value='>',),FormattedValue(conversion=-0x1,value="
        "Name(ctx=Load(),id='c',),),],),value=Name(ctx=Load(),id='a',),),Constant(value='z',),],),orelse=Dict(keys=["
        "None,Constant(value=0x1,),],values=[Name(ctx=Load(),id='a',),UnaryOp(op=USub(),operand=Constant(value=2.5,"
        "),),],),test=Name(ctx=Load(),id='b',),),),],name='f',returns=Name(ctx=Load(),id='int',),),],)"
    )


def test_it_does_not_matter_where_an_f_string_is_cut() -> None:
    tree = parse("x = f'ab{c}'")
    assign = tree.body[0]
    assert isinstance(assign, ast.Assign) and isinstance(assign.value, ast.JoinedStr)
    whole = canonical(tree)
    cut = [ast.Constant("a"), ast.Constant(""), ast.Constant("b"), assign.value.values[1], ast.Constant("")]
    assign.value.values = cut
    assert canonical(tree) == whole
    assign.value.values = [*cut, ast.Constant("d")]
    assert canonical(tree) != whole


def test_fields_that_other_versions_have_and_leave_empty_do_not_count() -> None:
    tree = parse("def f(): return 1")
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef)
    plain = canonical(tree)
    newer = type("FunctionDef", (ast.FunctionDef,), {"_fields": (*ast.FunctionDef._fields, "more", "other")})
    values = {name: getattr(function, name, None) for name in ast.FunctionDef._fields}
    tree.body[0] = newer(**values, more=[], other=None)
    assert canonical(tree) == plain
    tree.body[0] = newer(**values, more=[ast.Constant(1)], other=None)
    assert canonical(tree) != plain


def test_a_deep_tree_is_no_trouble() -> None:
    assert canonical(parse("x = " + " + ".join(["a"] * 900))).count("BinOp(") == 899


def test_a_huge_number_is_no_trouble() -> None:
    assert "0x1000" in canonical(parse("x = 0x1" + "0" * 5000))


def test_an_invalid_escape_is_its_authors_affair() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same("x = '\\d'", "x = '\\\\d'")


def test_a_file_in_another_encoding_is_read_as_python_reads_it() -> None:
    assert canonical(parse("# coding: latin-1\nx = '\u00e9'".encode("latin-1"))) == canonical(parse("x = '\u00e9'"))


def test_imports_give_the_module_and_what_may_be_one() -> None:
    tree = parse("import a.b\nfrom c import d\nfrom . import e\n")
    assert imports_of(tree, "p.q", is_package=False) == {"a.b", "c", "c.d", "p", "p.e"}
    assert imports_of(tree, "p.q", is_package=True) == {"a.b", "c", "c.d", "p.q", "p.q.e"}


DIGESTS = """
import hashlib, pathlib, sys
from configs.syntax import canonical, parse
for path in sorted(pathlib.Path(sys.argv[1]).rglob("*.py")):
    print(path.name, hashlib.sha256(canonical(parse(path.read_bytes())).encode()).hexdigest())
"""


@pytest.mark.parametrize("version", ["3.12", "3.13", "3.14"])
def test_another_python_on_this_machine_writes_the_same(version: str) -> None:
    there = shutil.which(f"python{version}")
    if there is None or subprocess.run([there, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"there is no python{version} on PATH")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    here, other = (
        subprocess.run([python, "-c", DIGESTS, str(ROOT / "configs")], env=environment, capture_output=True, text=True)
        for python in (sys.executable, there)
    )
    assert other.returncode == 0, other.stderr
    assert here.stdout == other.stdout and here.stdout.count("\n") > 10


def test_a_parser_that_another_thread_disturbed_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = ast.parse

    def disturbed(source: str) -> ast.Module:
        asked.append(source)
        if len(asked) < 3:
            raise SystemError("AST constructor recursion depth mismatch (before=60, after=75)")
        return real(source)

    monkeypatch.setattr(ast, "parse", disturbed)
    assert canonical(parse("x = 1")) == canonical(real("x=1")) and len(asked) == 3
