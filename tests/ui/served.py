"""A page served by app.py in a process of its own, and a small proxy in front of it."""

from __future__ import annotations

import contextlib
import http.client
import http.cookiejar
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
START_SECONDS = 180


@dataclass(frozen=True)
class Served:
    """address: with a slash at its end; log: what the server prints; temp: its folder for temporary files."""

    address: str
    log: Path
    temp: Path
    process: subprocess.Popen

    def files(self) -> list[Path]:
        """Files with something in them, anywhere below `temp`."""
        return [path for path in self.temp.rglob("*") if path.is_file() and path.stat().st_size]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def served(folder: Path, *arguments: str) -> Iterator[Served]:
    """Start app.py with these arguments; ends it politely."""
    temp, log, port = folder / "temp", folder / "log.txt", free_port()
    temp.mkdir()
    command = [sys.executable, "app.py", "--port", str(port), *arguments]
    with log.open("w") as stream:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(temp), "GRADIO_TEMP_DIR": ""},
        )
    page = Served(f"http://127.0.0.1:{port}/", log, temp, process)
    try:
        _wait(page)
        yield page
    finally:
        _end(page)


def _end(page: Served) -> None:
    """Ask the server to end, as a person's Ctrl-C does; one that does not leaves no process behind."""
    page.process.terminate()
    try:
        page.process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        page.process.kill()
        page.process.wait()
        pytest.fail(f"the page did not end within 60 s:\n{page.log.read_text()}")


def _wait(page: Served) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        assert page.process.poll() is None, f"the page stopped:\n{page.log.read_text()}"
        try:
            urllib.request.urlopen(page.address, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"no page after {START_SECONDS} s:\n{page.log.read_text()}")


class Visitor:
    """Speaks HTTP with a page, with cookies of its own."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        )

    def ask(
        self, path: str, data: bytes | None = None, method: str | None = None, **headers: str
    ) -> tuple[int, bytes]:
        """Status and body of a request; a stream is left after its first bytes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(
            self.address + path.lstrip("/"), data=data, method=method, headers=named
        )
        try:
            with self._opener.open(request, timeout=60) as answer:
                stream = "event-stream" in answer.headers.get("content-type", "")
                return answer.status, answer.read1(200) if stream else answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def log_in(self, name: str, password: str) -> int:
        """Status of the log-in."""
        form = urllib.parse.urlencode({"username": name, "password": password}).encode()
        return self.ask("login", form)[0]

    def upload(self, name: str, data: bytes) -> tuple[int, bytes]:
        """Send one file as a browser does."""
        body = (
            b'--edge\r\nContent-Disposition: form-data; name="files"; filename="'
            + name.encode()
            + b'"\r\nContent-Type: image/png\r\n\r\n'
            + data
            + b"\r\n--edge--\r\n"
        )
        return self.ask("gradio_api/upload", body, Content_Type="multipart/form-data; boundary=edge")

    def uploaded(self, name: str, data: bytes) -> str:
        """The path under which the server keeps a file just sent."""
        status, body = self.upload(name, data)
        assert status == 200, body
        return json.loads(body)[0]


def _ends_late(parts: Iterator[bytes], late: float) -> Iterator[bytes]:
    """The same bytes, but the message that ends the stream comes `late` seconds later and in pieces."""
    waiting = b""
    for part in parts:
        waiting += part
        while (end := waiting.find(b"\n\n") + 2) > 1:
            message, waiting = waiting[:end], waiting[end:]
            if b'"close_stream"' not in message:
                yield message
                continue
            time.sleep(late)
            for start in range(0, len(message), 7):
                yield message[start : start + 7]
                time.sleep(0.001)
    if waiting:
        yield waiting


@contextlib.contextmanager
def proxied(address: str, prefix: str, late: float = 0.0) -> Iterator[str]:
    """Address of a proxy that serves the page below `prefix`, which it cuts off; answers as bytes arrive.

    late: seconds by which it holds back the message that ends a stream of events; then it comes in pieces.
    """
    target = urllib.parse.urlsplit(address)

    class Proxy(BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            if not self.path.startswith(f"{prefix}/"):
                self.send_error(404, "Outside the page")
                return
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            behind = http.client.HTTPConnection(target.hostname or "", target.port, timeout=120)
            try:
                headers = {key: value for key, value in self.headers.items() if key.lower() != "connection"}
                behind.request(self.command, self.path[len(prefix) :], body, headers)
                answer = behind.getresponse()
                self.send_response(answer.status)
                for key, value in answer.getheaders():
                    if key.lower() not in ("transfer-encoding", "connection", "server", "date"):
                        self.send_header(key, value)
                self.end_headers()
                parts = iter(lambda: answer.read1(65536), b"")
                for part in _ends_late(parts, late) if "/queue/data" in self.path and late else parts:
                    self.wfile.write(part)
                    self.wfile.flush()
            except (BrokenPipeError, ConnectionResetError, http.client.IncompleteRead):
                pass
            finally:
                behind.close()

        do_GET = do_POST = do_HEAD = _pass_on

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{prefix}/"
    finally:
        server.shutdown()
        server.server_close()
