"""A running gateway with one source, and the upstream behind it that keeps what it gets."""

import http.client
import json
import subprocess
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from messages import Message

PATIENCE_S = 60
TOKEN = "the-sdk-tests-read-here"


@dataclass(frozen=True)
class Answer:
    """What the sender got, and the code that the gateway's log has for it."""

    status: int
    body: bytes
    code: str

    @property
    def id(self) -> str | None:
        try:
            return json.loads(self.body).get("id")
        except (ValueError, AttributeError):
            return None

    def __str__(self) -> str:
        return f"{self.status} {self.code} {self.body[:200]!r}"


class Upstream:
    """Takes everything, and remembers the bytes."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.changed = threading.Condition()
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                with upstream.changed:
                    upstream.got.append(body)
                    upstream.changed.notify_all()
                self.send_response(204)
                self.end_headers()

            do_POST = do_GET = do_PUT = handle_any

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/in"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def wait_for(self, count: int) -> None:
        with self.changed:
            self.changed.wait_for(lambda: len(self.got) >= count, PATIENCE_S)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Gateway:
    """`hookward serve` with the source `sdk`, at /hooks/sdk."""

    def __init__(self, program: str, preset: str, secrets: list[str], source: Iterable[str] = ()) -> None:
        self._directory = tempfile.TemporaryDirectory()
        directory = Path(self._directory.name)
        for number, secret in enumerate(secrets):
            (directory / f"secret-{number}").write_text(secret)
        (directory / "token").write_text(TOKEN)
        files = ", ".join(f'{{ file = "secret-{number}", id = "{number}" }}' for number in range(len(secrets)))
        self.upstream = Upstream()
        lines = [
            "[server]",
            'listen = "127.0.0.1:0"',
            'drain_delay = "0s"',
            "[admin]",
            'listen = "127.0.0.1:0"',
            'tokens = [{ file = "token", role = "read" }]',
            "[store]",
            'path = "store"',
            "[log]",
            'format = "json"',
            "[upstreams.recorder]",
            f'url = "{self.upstream.url}"',
            "[sources.sdk]",
            f'provider = "{preset}"',
            f"secrets = [{files}]",
            'upstream = "recorder"',
            'on_mismatch = "reject"',
            *source,
        ]
        (directory / "hookward.toml").write_text("\n".join(lines) + "\n")

        self._log: list[str] = []
        self._codes: dict[str, str] = {}
        self._addresses: dict[str, str] = {}
        self._ended = False
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [program, "serve", "-c", str(directory / "hookward.toml")], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        threading.Thread(target=self._read_log, daemon=True).start()
        with self._changed:
            started = self._changed.wait_for(lambda: len(self._addresses) == 2 or self._ended, PATIENCE_S)
            if not started or self._ended:
                why = "".join(self._log)
                self.close()
                raise RuntimeError(f"the gateway did not start:\n{why}")
        self._connection = http.client.HTTPConnection(self._addresses["public"], timeout=PATIENCE_S)

    def _read_log(self) -> None:
        for line in self._process.stderr:
            text = line.decode(errors="replace")
            try:
                entry = json.loads(text)
            except ValueError:
                entry = {}
            with self._changed:
                self._log.append(text)
                if entry.get("message") == "listening":
                    self._addresses[entry["listener"]] = entry["address"]
                if entry.get("message") == "webhook":
                    self._codes[entry["request_id"]] = entry["code"]
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def send(self, message: Message) -> Answer:
        connection = self._connection
        connection.putrequest(message.method, message.target, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": "hooks.example.com", **message.headers}.items():
            connection.putheader(name, value)
        if message.body or message.method != "GET":
            connection.putheader("Content-Length", str(len(message.body)))
        connection.endheaders(message.body or None)
        response = connection.getresponse()
        body = response.read()
        request = response.getheader("x-request-id")
        with self._changed:
            if not self._changed.wait_for(lambda: request in self._codes or self._ended, PATIENCE_S):
                raise RuntimeError(f"the log has nothing of request {request}, which got {response.status}")
            return Answer(response.status, body, self._codes.get(request, "nothing"))

    def events(self) -> int:
        """How many events the store holds."""
        admin = http.client.HTTPConnection(self._addresses["admin"], timeout=PATIENCE_S)
        admin.request("GET", "/api/v1/status", headers={"Authorization": f"Bearer {TOKEN}"})
        status = json.loads(admin.getresponse().read())
        admin.close()
        return status["health"]["counts"]["events"]

    def stop(self) -> list[str]:
        """Ends it as an operator does, and says what in its log should not be there."""
        self._process.terminate()
        code = self._process.wait(PATIENCE_S)
        with self._changed:
            self._changed.wait_for(lambda: self._ended, PATIENCE_S)
            wrong = [line for line in self._log if '"level":"ERROR"' in line]
        return wrong if code == 0 else [*wrong, f"the gateway ended with {code}"]

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self.upstream.close()
        self._directory.cleanup()

    def __enter__(self) -> "Gateway":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self.close()
