"""The command `derive`; also `python -m flows.cli`.

Bad input ends with one line and exit code 2 before anything is written; a stage that crashes with 1; Ctrl-C with
130. What a command does is in `flows/commands.py`, imported only when it runs, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from configs.errors import EXIT_USER_ERROR, UserError
from configs.tree import check_one_tree
from flows import (
    compare_command,
    corpus_command,
    evaluate_command,
    export_command,
    fork_command,
    judge_command,
    lifecycle_command,
    plan_command,
    push_command,
    rollouts_command,
    space_command,
    table_command,
)

EXAMPLES = """examples:
  derive math                              the embedded seedling to a released math model, on any machine
  derive run math/smoke --store /data/derive
  derive math --set rl.steps=80 --set seed=3
  derive corpus coder/tiny                 only its corpora, with what was dropped and why
  derive plan math/7b --machine eight-gpu  what would run, how long, in how much memory, and what would go wrong
  derive sft data.jsonl --base Qwen/Qwen2.5-0.5B --set sft.epochs=2
  derive evaluate RELEASE --tasks gsm8k --samples 4
  derive chat RELEASE -p "What is 12 + 30?"
  derive runs; derive report; derive gc; derive up

Finished stages are reused, interrupted ones resumed: after a crash, run the same command again.
The store is --store, else $DERIVE_STORE, else .derive in the current directory."""


UNUSABLE_STORE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.ENOENT)


class Terminated(KeyboardInterrupt):
    """SIGTERM, as an exception, so that a run ends its stage and its record like on Ctrl-C."""


class OneLine(argparse.ArgumentParser):
    """A parser whose complaint is one line like every other, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(EXIT_USER_ERROR, f"error: {message}; `{self.prog} --help` shows what is allowed\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn errors into exit codes."""
    signal.signal(signal.SIGTERM, _raise_terminated)
    given = argparse.Namespace()
    try:
        check_one_tree()
        given = parser().parse_args(argv)
        run: Callable[[argparse.Namespace], int] = given.run
        return run(given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except BrokenPipeError:  # `derive runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the exit does not complain again
        return 0
    except OSError as error:
        if error.errno not in UNUSABLE_STORE:
            raise
        where = error.filename or getattr(given, "store", "") or os.environ.get("DERIVE_STORE") or ".derive"
        print(
            f"error: {where}: {error.strerror}; free space there, or give another folder with --store", file=sys.stderr
        )
        return EXIT_USER_ERROR
    except Terminated:
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def entry() -> NoReturn:
    """The console script: `main`, and an end that waits for nobody."""
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    if "prefect" in sys.modules:
        # Prefect's threads would try for a minute to reach a server that is gone; what was sent is sent.
        os._exit(code)
    sys.exit(code)


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    top: argparse.ArgumentParser = OneLine(
        prog="derive",
        description="Turn a base checkpoint into a specialised derivative.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, summary: str, *parents: argparse.ArgumentParser, example: str = "") -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            parents=list(parents),
            epilog=f"example:\n  {example}" if example else None,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(run=lambda given: _call(name, given))
        return made

    store, change, execute = _store_options(), _change_options(), _execute_options()
    choose = _choice_options()
    json_output = _json_option()
    for family in _families():
        made = add(
            family,
            f"build a {family} derivative",
            change,
            choose,
            execute,
            store,
            json_output,
            example=f"derive {family} --set rl.steps=80",
        )
        made.add_argument("--preset", default=f"{family}/tiny", help="preset to build (default: %(default)s)")
        _add_until(made)
    made = add("run", "build any preset", change, choose, execute, store, json_output,
               example="derive run math/smoke")  # fmt: skip
    made.add_argument("preset", metavar="PRESET", help="preset name (`derive presets`) or path of a .yaml file")
    _add_until(made)
    problems = "prompt and answer"
    for kind, data, keys in (
        ("pretrain", "TEXT.jsonl", "text"),
        ("sft", "DATA.jsonl", "prompt and completion, or messages"),
        ("sample", "PROBLEMS.jsonl", problems),
        ("dpo", "PAIRS.jsonl", "prompt, chosen and rejected"),
        ("rl", "PROBLEMS.jsonl", problems),
    ):
        changed = f"{kind}.num_samples=16" if kind == "sample" else f"{kind}.learning_rate=1e-4"
        made = add(
            kind,
            f"one {kind} stage on your own JSONL, no preset needed",
            change,
            execute,
            store,
            json_output,
            example=f"derive {kind} {data} --base seedling --set {changed}",
        )
        made.add_argument("data", type=Path, metavar=data, help=f"JSONL file with {keys} in each line")
        product = "data" if kind == "sample" else "model"
        made.add_argument("--out", type=Path, metavar="DIR", help=f"also copy the {product} to this new folder")
    corpus_command.add_command(add, change, execute, store, json_output)
    plan_command.add_command(add, change, choose, store, json_output)
    _add_inspection(add, store, change, json_output)
    _add_asking(add, json_output)
    judge_command.add_commands(add, json_output, _at_least)
    rollouts_command.add_commands(add, store, json_output, _at_least)
    fork_command.add_command(add, _set_option(), execute, store, json_output)
    space_command.add_commands(add, store, json_output, _at_least)
    compare_command.add_commands(add, store, json_output)
    table_command.add_command(add, store, json_output, _at_least)
    export_command.add_command(add, json_output, _at_least)
    push_command.add_command(add, json_output)
    lifecycle_command.add_commands(add, store)
    return top


def _add_until(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--until",
        action="append",
        default=[],
        metavar="STAGE",
        help="build only this stage and what it needs; may be repeated",
    )


def _add_inspection(
    add: Callable[..., argparse.ArgumentParser],
    store: argparse.ArgumentParser,
    change: argparse.ArgumentParser,
    json_output: argparse.ArgumentParser,
) -> None:
    add("presets", "list the presets", json_output)
    made = add(
        "show",
        "a preset's resolved recipe, as YAML that can be run",
        change,
        example="derive show math/tiny --fields rl",
    )
    made.add_argument("preset", metavar="PRESET")
    made.add_argument(
        "--fields",
        nargs="?",
        const="all",
        metavar="KIND",
        help="explain every field of the stages used, or of one kind",
    )
    add("runs", "list the runs, newest last", store, json_output)
    made = add("report", "write a run's report again and print its path", store)
    made.add_argument("run_id", nargs="?", metavar="RUN", help="run id, or its beginning or end (default: the newest)")
    add("verify", "check every file of the store against its recorded digest", store, json_output)
    add("doctor", "check this machine and this installation", store, json_output)
    for name, what in (("up", "the Prefect UI with a form per preset, on this machine"), ("serve", "the same as up")):
        made = add(name, what, store, example="derive up --port 4200")
        made.add_argument("--port", type=int, default=4200, help="loopback port (default: %(default)s)")
        made.add_argument("--runs", type=_at_least(1), default=1, metavar="N",
                          help="runs at once; further ones wait (default: %(default)s)")  # fmt: skip
        made.add_argument("--automations", default="", metavar="TEMPLATE,...",
                          help="also make these (`derive automations --help`)")  # fmt: skip
        made.add_argument("--check", action="store_true", help="start nothing: say what is wrong and what to do")
    made = add(
        "adopt",
        "accept a code change: let a stage made by other code stand for the one that would be built now",
        change,
        store,
        example='derive adopt sft --why "only a log line changed"',
    )
    made.add_argument("stage", metavar="STAGE", help="stage id")
    made.add_argument("--preset", default="", help="preset the stage belongs to (default: the newest run's recipe)")
    made.add_argument("--why", required=True, metavar="TEXT", help="reason, recorded in the lineage")


def _add_asking(add: Callable[..., argparse.ArgumentParser], json_output: argparse.ArgumentParser) -> None:
    evaluate_command.add_command(add, json_output, _at_least)
    made = add("chat", "talk to a checkpoint", example='derive chat RELEASE -p "What is 12 + 30?"')
    made.add_argument("model", metavar="FOLDER", help="release or checkpoint folder, or `seedling`")
    made.add_argument("-p", "--prompt", help="ask this one question and print the answer")
    made.add_argument("--temperature", type=_at_least(0.0), default=0.0, help="0 is greedy (default)")
    made.add_argument("--max-new-tokens", type=_at_least(1), default=256)
    made.add_argument("--machine", default="", help="launch profile")


def _at_least(lowest: float) -> Callable[[str], float]:
    """A number of the lowest one's type that is not below it, as an argument's type."""

    def convert(text: str) -> float:
        value = type(lowest)(text)
        if not lowest <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is out of range; allowed: at least {lowest}, and finite")
        return value

    convert.__name__ = "number"  # argparse names the type in its message for what is no number
    return convert


def _store_options() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(add_help=False)
    made.add_argument(
        "--store", default="", metavar="DIR", help="artifact store (default: $DERIVE_STORE, else .derive)"
    )
    return made


def _change_options() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(add_help=False, parents=[_set_option()])
    made.add_argument("--base", default="", help="checkpoint to start from: seedling, a folder, or a hub id")
    return made


def _choice_options() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(add_help=False)
    made.add_argument("--verifier", default="", metavar="NAME",
                      help="reward every rl stage by this verifier; what the release is judged by stays")  # fmt: skip
    made.add_argument(
        "--budget",
        default="",
        metavar="AMOUNT",
        help="total of all training stages, e.g. '5e6 tokens', '200 steps', '2 hours': each gets as many times longer "
        "or shorter (docs/operating.md)",
    )
    return made


def _set_option() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(add_help=False)
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="STAGE.FIELD=VALUE",
        dest="overrides",
        help="change one value of the recipe; may be repeated",
    )
    return made


def _execute_options() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(add_help=False)
    made.add_argument(
        "--machine", default="", help="launch profile: cpu, one-gpu, eight-gpu, or a .yaml file (default: what fits)"
    )
    made.add_argument(
        "--no-prefect", action="store_true", help="only run the stages: starts faster, nothing in Prefect's UI"
    )
    return made


def _json_option() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(add_help=False)
    made.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    return made


def _families() -> list[str]:
    """Preset folders that have a `tiny`, each a command of its own. Read from the tree: loading presets is slow."""
    configs = Path(__file__).resolve().parent.parent / "configs"
    return sorted(path.parent.name for path in configs.glob("*/tiny.yaml"))


def _call(name: str, given: argparse.Namespace) -> int:
    from flows import commands

    run: Callable[[argparse.Namespace], int] = commands.COMMANDS.get(name, commands.run_preset)
    return run(given)


def _raise_terminated(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


if __name__ == "__main__":
    entry()
