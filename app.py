"""Starts the page: reads the arguments, opens the session, builds the embedded store on first use, serves."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from explorer.errors import ExplorerError

ROOT = Path(__file__).resolve().parent
STORE = Path("stores") / "embedded"
SCENES = 4000
MAX_UPLOAD = "64mb"


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is no port; use 1 to 65535")
    return port


def _auth(text: str) -> tuple[str, str]:
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        raise argparse.ArgumentTypeError("use USER:PASS")
    return user, password


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; HOST and PORT in the environment are the defaults of --host and --port."""
    parser = argparse.ArgumentParser(description="See, find and steer the visual neurons of an LVLM.")
    parser.add_argument("--model", help="folder or hub name of an LVLM (default: the embedded one)")
    parser.add_argument("--sae", type=Path, help="SAE file (default: the embedded one)")
    parser.add_argument("--store", type=Path, help="store folder (default: stores/embedded)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--host", default=os.environ.get("HOST", "127.0.0.1"), help="address to serve on")
    parser.add_argument("--port", type=_port, default=os.environ.get("PORT", "7860"), help="port to serve on")
    parser.add_argument("--share", action="store_true", help="also serve at a public gradio.live address")
    parser.add_argument("--auth", type=_auth, metavar="USER:PASS", help="ask for this name and password")
    parser.add_argument("--root-path", help="path of the page behind a proxy, such as /neurons")
    args = parser.parse_args(argv)
    if args.model and not args.sae:
        parser.error("--model needs --sae: the embedded SAE belongs to the embedded model")
    return args


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

    Raises ExplorerError.
    """
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

    from explorer.session import Session
    from explorer.ui import page

    session = Session.open(args.model, args.sae, args.store, args.device)
    shown = page.build(session)
    shown.launch(
        server_name=args.host,
        server_port=args.port,
        share=args.share,
        auth=args.auth,
        root_path=args.root_path,
        ssr_mode=False,
        show_error=False,
        max_file_size=MAX_UPLOAD,
        state_session_capacity=page.VISITORS,
        **page.look(),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Serve, or say in one line why not."""
    try:
        serve(parse(argv))
    except ExplorerError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
