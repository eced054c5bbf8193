"""Starts the page: reads the arguments, opens the session, builds the embedded store on first use, serves."""

from __future__ import annotations

import argparse
import functools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from explorer.errors import ExplorerError
from explorer.vlm.loading import add_choice, choice_of, say
from explorer.vlm.loading.full import full_told

ROOT = Path(__file__).resolve().parent
STORE = Path("stores") / "embedded"
SCENES = 4000
MAX_UPLOAD = "64MB"


def _port(text: str) -> int:
    return _count(text, "port", 65535)


def _count(text: str, name: str, most: int) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if not 1 <= count <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no {name}; use 1 to {most}")
    return count


def _auth(text: str) -> tuple[str, str]:
    user, colon, password = text.partition(":")
    if not (user.strip() and colon and password.strip()):
        raise argparse.ArgumentTypeError("use USER:PASS")
    return user.strip(), password.strip()


def _auth_file(text: str) -> list[tuple[str, str]]:
    try:
        lines = Path(text).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"cannot read {text!r}: {error}") from error
    try:
        found = [_auth(line) for line in map(str.strip, lines) if line and not line.startswith("#")]
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} has a line that is not USER:PASS") from error
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} names nobody; write a line USER:PASS for each visitor")
    return found


def _root_path(text: str) -> str:
    path = text.rstrip("/")
    if not re.fullmatch(r"(https?://[^/\s]+)?(/[\w.~-]+)*", path) or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is no path of a page; use something like /neurons")
    return path


def _size(text: str) -> int:
    found = re.fullmatch(r"([1-9]\d{0,5})\s*(kb|mb|gb)", text.strip().lower())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; use a whole number and KB, MB or GB, as 64MB")
    return int(found[1]) << {"kb": 10, "mb": 20, "gb": 30}[found[2]]


def _folder(text: str) -> Path:
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a file; give a folder")
    return path


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; HOST and PORT in the environment are the defaults of --host and --port."""
    parser = argparse.ArgumentParser(description="See, find and steer the visual neurons of an LVLM.")
    add_choice(parser.add_argument_group("the model, its SAE and their store"))
    parser.add_argument("--host", default=os.environ.get("HOST", "127.0.0.1"), help="address to serve on")
    parser.add_argument("--port", type=_port, default=os.environ.get("PORT", "7860"), help="port to serve on")
    _add_hosting(parser.add_argument_group("for the people who host it"))
    args = parser.parse_args(argv)
    if args.model and not args.sae:
        parser.error("--model needs --sae: the embedded SAE belongs to the embedded model")
    try:
        args.choice = choice_of(args)
    except ExplorerError as error:
        parser.error(str(error))
    args.auth = [*(args.auth or ()), *(args.auth_file or ())]
    names = [user for user, _ in args.auth]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        parser.error(f"--auth: {twice[0]!r} has two passwords; give one")
    return args


def _add_hosting(group: argparse._ArgumentGroup) -> None:
    """The arguments that decide who may do what."""
    add = group.add_argument
    add("--share", action="store_true", help="also serve at a public gradio.live address")
    add(
        "--auth",
        type=_auth,
        action="append",
        metavar="USER:PASS",
        help="ask for this name and password; repeatable",
    )
    add("--auth-file", type=_auth_file, metavar="FILE", help="the same, a line USER:PASS for each visitor")
    add(
        "--root-path",
        type=_root_path,
        metavar="PATH",
        help="path of the page behind a proxy, such as /neurons",
    )
    add("--read-only", action="store_true", help="nobody writes notes, lists or cases")
    add("--cases", type=_folder, metavar="FOLDER", help="where cases are kept (default: cases)")
    add(
        "--max-upload",
        type=_size,
        default=MAX_UPLOAD,
        metavar="SIZE",
        help="largest upload (default: %(default)s)",
    )
    count = functools.partial(_count, name="number of events", most=100_000)
    add("--queue", type=count, default=64, metavar="N", help="longest queue of events (default: 64)")
    count = functools.partial(_count, name="number of visitors", most=100_000)
    add(
        "--visitors",
        type=count,
        default=200,
        metavar="N",
        help="visitors remembered at a time (default: 200)",
    )


def check_address(host: str, port: int) -> None:
    """Raise ExplorerError when nothing can be served at this address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ExplorerError(
                f"cannot serve on {host}:{port} ({error.strerror}); choose another port: make run PORT=7861"
            ) from error


def stay_home(embedded: bool) -> None:
    """Ask nothing of the internet: no analytics, and no model hub for the embedded set."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if embedded:
        os.environ["HF_HUB_OFFLINE"] = "1"


def build_store() -> None:
    """Index drawn scenes for the embedded set, in a process of its own; replaces a store of an old format.

    A store of the format before this one is brought up to date in seconds. Raises ExplorerError.
    """
    from explorer.store import is_upgradable

    if is_upgradable(ROOT / STORE):
        print(f"The format of {STORE} is old: bringing it up to date", file=sys.stderr)
        upgrade = [sys.executable, "-m", "index", "upgrade", str(STORE)]
        if subprocess.run(upgrade, cwd=ROOT, check=False).returncode == 0:
            return
    command = [sys.executable, "-m", "index", "build", "--scenes", str(SCENES), "--out", str(STORE)]
    why = "Its format is old" if (ROOT / STORE).exists() else "First start"
    print(f"{why}: indexing {SCENES} drawn scenes into {STORE}", file=sys.stderr)
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise ExplorerError(f"the store could not be built; try: python {' '.join(command[1:])}")


def serve(args: argparse.Namespace) -> None:
    """Open the session and serve the page until interrupted."""
    check_address(args.host, args.port)
    embedded = args.model is None and args.sae is None
    stay_home(embedded)
    from explorer.store import is_outdated

    store = ROOT / STORE
    if embedded and args.store is None and (not store.exists() or is_outdated(store)):
        build_store()
    if args.share and not args.auth:
        print("note: whoever knows the address can use the page; add --auth USER:PASS", file=sys.stderr)

    from explorer.session.anyway import open_anyway
    from explorer.ui import health, page, serving
    from explorer.ui.hub import Rules

    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        say(line)

    session, trouble = open_anyway(args.choice, tell)
    if trouble:
        print(f"note: the page starts without exemplars: {trouble}", file=sys.stderr)
    if session.store is not None:
        session.overview()  # read once, so that the gallery's first page need not wait
    signal.signal(signal.SIGTERM, _stop)
    with serving.uploads_folder():
        rules = Rules(args.read_only, args.cases, args.queue, trouble)
        shown = page.build(session, rules, health.opening(args.choice, told))
        serving.launch(
            shown,
            args.max_upload,
            args.visitors,
            server_name=args.host,
            server_port=args.port,
            share=args.share,
            auth=args.auth or None,
            root_path=args.root_path,
            **page.look(),
        )


def _stop(*_: object) -> None:
    """A polite request to end counts as Ctrl-C, so that nothing is left behind."""
    late = threading.Timer(10, os._exit, (0,))
    late.daemon = True
    late.start()
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Serve, or say in one line why not."""
    try:
        with full_told():
            serve(parse(argv))
    except ExplorerError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    ended = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ended)  # all is cleaned up; putting a model away piece by piece would take seconds
