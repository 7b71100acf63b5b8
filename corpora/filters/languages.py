"""Which language a file is written in, by its name, its extension or its first line.

The names are those of Qwen2.5-Coder's list of 92 languages, in lower case (its README); Cython, `text` and data formats
are named too, so that a rule can treat them apart. Content is looked at for `#!` lines only: guessing a programming
language from its content needs a model, and none of the published rules does it.
"""

from __future__ import annotations

import re

_EXTENSIONS = {
    "python": "py pyi pyw", "cython": "pyx pxd pxi", "javascript": "js jsx mjs cjs",
    "typescript": "ts tsx mts cts", "java": "java", "c": "c h",
    "c++": "cc cpp cxx c++ hh hpp hxx ipp", "cuda": "cu cuh", "c#": "cs", "go": "go", "rust": "rs",
    "ruby": "rb rake gemspec", "php": "php", "perl": "pl pm", "lua": "lua", "shell": "sh bash zsh ksh",
    "powershell": "ps1 psm1", "batchfile": "bat cmd", "scala": "scala sc", "kotlin": "kt kts", "swift": "swift",
    "objective-c": "m mm", "haskell": "hs", "ocaml": "ml mli", "f#": "fs fsi fsx", "erlang": "erl hrl",
    "elixir": "ex exs", "elm": "elm", "clojure": "clj cljs cljc edn", "common-lisp": "lisp cl lsp", "scheme": "scm ss",
    "racket": "rkt", "emacs-lisp": "el", "julia": "jl", "r": "r", "fortran": "f f90 f95 f03 for", "ada": "adb ads",
    "pascal": "pas pp", "assembly": "asm s", "verilog": "v vh", "systemverilog": "sv svh", "vhdl": "vhd vhdl",
    "matlab": "mat", "mathematica": "wl nb", "lean": "lean", "agda": "agda", "idris": "idr", "isabelle": "thy",
    "coq": "coq", "prolog": "pro prolog", "sql": "sql", "sparql": "rq sparql", "solidity": "sol", "zig": "zig",
    "dart": "dart", "groovy": "groovy gradle", "tcl": "tcl", "awk": "awk", "glsl": "glsl vert frag", "thrift": "thrift",
    "protocol-buffer": "proto", "antlr": "g4", "yacc": "y yy", "cmake": "cmake", "makefile": "mk mak",
    "dockerfile": "dockerfile", "html": "html htm xhtml", "css": "css scss sass less", "vue": "vue", "json": "json",
    "yaml": "yaml yml", "toml": "toml", "ini": "ini cfg", "xml": "xml xsd svg", "xslt": "xsl xslt", "csv": "csv tsv",
    "tex": "tex sty cls", "markdown": "md markdown", "restructuredtext": "rst", "text": "txt",
    "jupyter-notebook": "ipynb", "stan": "stan", "smalltalk": "st", "nim": "nim", "crystal": "cr", "d": "d",
    "roff": "roff man 1 3 7",
}  # fmt: skip
BY_EXTENSION = {extension: language for language, found in _EXTENSIONS.items() for extension in found.split()}
BY_NAME = {
    "makefile": "makefile", "gnumakefile": "makefile", "dockerfile": "dockerfile", "containerfile": "dockerfile",
    "cmakelists.txt": "cmake", "rakefile": "ruby", "gemfile": "ruby", "sconstruct": "python", "sconscript": "python",
    "jenkinsfile": "groovy", "readme": "text", "license": "text", "licence": "text", "copying": "text",
}  # fmt: skip
_INTERPRETERS = {
    "python": "python", "bash": "shell", "sh": "shell", "zsh": "shell", "ksh": "shell", "dash": "shell",
    "perl": "perl", "ruby": "ruby", "node": "javascript", "lua": "lua", "php": "php", "tclsh": "tcl", "awk": "awk",
    "rscript": "r", "julia": "julia",
}  # fmt: skip
_SHEBANG = re.compile(r"#!\s{0,8}\S{0,200}?([A-Za-z]+)[0-9.]{0,8}(?:\s|$)(?:\s{0,8}([A-Za-z]+))?")

PROSE = frozenset({"text", "markdown", "restructuredtext", "tex", "roff"})
"""Languages that are written to be read, not to be run."""
DATA = frozenset({"json", "yaml", "toml", "ini", "xml", "csv", "jupyter-notebook"})
"""Formats that hold data or settings."""


def language_of(path: str, text: str = "") -> str:
    """Language of a file, in lower case, or an empty string where neither its name nor its `#!` line tells.

    >>> language_of("src/app.py"), language_of("Makefile"), language_of("run", "#!/usr/bin/env python3\\nx = 1")
    ('python', 'makefile', 'python')
    """
    name = path.rsplit("/", 1)[-1].lower()
    stem, dot, extension = name.rpartition(".")
    found = BY_NAME.get(name) or (BY_EXTENSION.get(extension) if dot and stem else None)
    if found:
        return found
    if text.startswith("#!"):
        shebang = _SHEBANG.match(text[: text.find("\n") if "\n" in text else len(text)])
        if shebang:
            program, argument = shebang.group(1).lower(), (shebang.group(2) or "").lower()
            return _INTERPRETERS.get(argument if program == "env" else program, "")
    return ""
