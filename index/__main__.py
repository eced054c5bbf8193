"""The command line of the offline half: `python -m index COMMAND`. Knows the commands and the exit codes.

Exit codes: 0 done, 1 an error in plain words, 2 wrong usage, 130 stopped by Ctrl-C, 143 stopped by SIGTERM,
129 by a terminal that was closed.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import ModuleType
from typing import NamedTuple

from explorer.errors import ExplorerError
from explorer.vlm.loading.full import full_told
from index.commands.common import EXIT_CODES
from index.stopping import ENDING, Ended, ending

DONE, FAILED, SIGNALLED = 0, 1, 128


class Command(NamedTuple):
    """A command: its module, with add_arguments(parser) and run(args) -> exit code, and a line about it."""

    module: str
    help: str


COMMANDS = {
    "build": Command("index.commands.build", "find the strongest images of every neuron and write a store"),
    "merge": Command("index.commands.merge", "make a store of the parts that `build --shard` wrote"),
    "cluster": Command("index.commands.cluster", "build on many processes and machines, over Ray"),
    "verify": Command("index.commands.verify", "check a store, some exemplars through the live model"),
    "stats": Command("index.commands.stats", "tell what a store holds"),
    "label": Command("index.commands.label", "add the words that neurons raise to a store, or renew them"),
    "upgrade": Command("index.commands.upgrade", "bring a store of the format before this one up to date"),
    "export-sae": Command("index.commands.export_sae", "write an SAE in the format of another project"),
    "measure-sae": Command("index.commands.measure_sae", "tell what an SAE is worth on a model and pictures"),
    "bench": Command("index.commands.bench", "measure how fast the index is on this machine"),
    "train-sae": Command("index.commands.train_sae", "train a sparse autoencoder on a model's vision tower"),
}
EPILOG = f"""start with:
  python -m index build --scenes 4000 --out stores/embedded
  python -m index stats stores/embedded

{EXIT_CODES}
"""


def _parser(wanted: str | None) -> argparse.ArgumentParser:
    """The parser; a command's arguments are declared, and its module loaded, only when it is asked for."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m index",
        description="The offline half of the explorer: builds, checks and describes stores.",
        epilog=EPILOG,
        formatter_class=plain,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, help_line) in COMMANDS.items():
        if name != wanted:
            commands.add_parser(name, help=help_line)
            continue
        loaded = _load(module)
        command = commands.add_parser(
            name,
            help=help_line,
            description=getattr(loaded, "DESCRIPTION", help_line),
            epilog=getattr(loaded, "EPILOG", None),
            usage=getattr(loaded, "USAGE", None),
            formatter_class=plain,
        )
        loaded.add_arguments(command)
        command.set_defaults(refuse=command.error)
    return parser


def _load(module: str) -> ModuleType:
    return importlib.import_module(module)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _parser(words[0] if words else None)
    if not words:
        parser.print_help(sys.stderr)
        parser.exit(2)
    args, unknown = parser.parse_known_args(words)
    if unknown:
        args.refuse(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        with ending():
            return _run(args)
    except KeyboardInterrupt:
        return _say("interrupted; nothing was published", SIGNALLED + signal.SIGINT)
    except Ended as ended:
        words = "the terminal was closed" if ended.signal == signal.SIGHUP else "terminated"
        return _say(f"{words}; nothing was published", SIGNALLED + ended.signal)


def _run(args: argparse.Namespace) -> int:
    """Run the command that the arguments name."""
    try:
        with full_told():
            return _load(COMMANDS[args.command].module).run(args)
    except ExplorerError as error:
        return _say(f"error: {' '.join(str(error).split())}", FAILED)


def _say(words: str, code: int) -> int:
    """Say why a command ends, if anybody is there to read it."""
    with suppress(OSError):
        print(words, file=sys.stderr)
    return code


def _end_plainly() -> None:
    """Outside the commands, Ctrl-C and the like end the process without a trace, unless they are ignored."""
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    _end_plainly()
    sys.exit(main())
