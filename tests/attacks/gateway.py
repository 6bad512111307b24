"""A gateway under attack: a real process on temporary data, what it holds in memory, and genuine webhooks beside it."""

import contextlib
import hashlib
import hmac
import http.client
import json
import multiprocessing
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request

#: Canaries: none of these may be in what the gateway says of itself, whatever is done to it.
SECRET = b"genuine-webhooks-only-0001"
UPSTREAM = "Bearer canary-to-upstream-0002"
TOKEN = "canary-of-the-operator-0003"

CONFIG = """
[server]
listen = [
  {{ at = "127.0.0.1:0", tls = false }},
  {{ at = "127.0.0.1:0", tls = false, h2c = true }},
  {{ at = "127.0.0.1:0", tls = false, proxy_protocol = true }},
  "127.0.0.1:0",
]
tls = {{ cert = "tls.crt", key = "tls.key" }}
trusted_proxies = ["127.0.0.2"]
drain_delay = "0s"
drain_timeout = "1s"

[server.limits]
memory_max = "{memory_max}"
connections_max = {connections_max}
body_memory_max = "32MiB"
body_bytes_max = "1MiB"
header_timeout = "4s"
body_timeout = "6s"
idle_timeout = "8s"

[admin]
listen = "127.0.0.1:0"
tokens = [{{ value = "{token}", role = "operate" }}]

[upstreams.echo]
url = "{upstream}"
headers = {{ authorization = {{ value = "{credential}" }} }}

[store]
path = "data"

[replay]
capacity = 20000

[log]
format = "json"
level = "warn,hookward::gateway=info"

[sources.orders]
provider = "github"
secrets = [{{ value = "{secret}" }}]
upstream = "echo"
explain = true
body_bytes_max = "1MiB"

# Signs nothing: whoever is on this machine may send, so that a body is read whatever its head says.
[sources.open]
provider = "gains"
allow = ["127.0.0.0/8"]
upstream = "echo"
"""

PATH = "/hooks/orders"
ADMIN_PATHS = [
    "/api/v1/events?limit=100",
    "/api/v1/status",
    "/api/v1/operations",
    "/api/v1/sources/orders/failures",
    "/readyz",
    "/metrics",
]
#: Where no signature is asked for.
OPEN_PATH = "/hooks/open"


def sign(body):
    return "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()


class Gateway:
    """`hookward serve` with an upstream that takes everything."""

    def __init__(self, program, memory_max="768MiB", connections_max=1200, upstream_delay="0s"):
        self.folder = tempfile.TemporaryDirectory(prefix="hookward-attack-")
        self.echo = subprocess.Popen(
            [program, "echo", "--listen", "127.0.0.1:0", "--quiet", "--delay", upstream_delay],
            stderr=subprocess.PIPE,
            text=True,
        )
        self._make_certificate()
        upstream = re.search(r"http://[^,\s]+", self.echo.stderr.readline()).group()
        threading.Thread(target=self.echo.stderr.read, daemon=True).start()
        config = pathlib.Path(self.folder.name, "hookward.toml")
        config.write_text(
            CONFIG.format(
                upstream=upstream + "/",
                secret=SECRET.decode(),
                credential=UPSTREAM,
                token=TOKEN,
                memory_max=memory_max,
                connections_max=connections_max,
            )
        )
        self.bound = int(memory_max.removesuffix("MiB")) << 20
        self.process = subprocess.Popen(
            [program, "serve", "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        public, self.admin, self.log = [], None, []
        for line in self.process.stderr:
            self.log.append(line)
            if not line.startswith("{"):
                continue
            fields = json.loads(line).get("fields", json.loads(line))
            if fields.get("listener") == "public":
                public.append(address(fields["address"]))
            elif fields.get("listener") == "admin":
                self.admin = address(fields["address"])
                break
        assert self.admin and len(public) == 4, "the gateway did not start"
        self.http1, self.http2, self.proxied, self.tls = public
        threading.Thread(target=self._read_log, daemon=True).start()
        self.peak = 0
        self._ending = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    def _make_certificate(self):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
            + ["-subj", "/CN=hooks.example.com", "-addext", "subjectAltName=DNS:hooks.example.com"]
            + ["-keyout", "tls.key", "-out", "tls.crt"],
            cwd=self.folder.name,
            check=True,
            capture_output=True,
        )

    def _read_log(self):
        for line in self.process.stderr:
            self.log.append(line)

    def _sample(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status")
        while not self._ending.wait(0.05):
            with contextlib.suppress(OSError, AttributeError):
                self.peak = max(self.peak, int(re.search(r"VmRSS:\s+(\d+)", status.read_text()).group(1)) << 10)

    def ask(self, path):
        host, port = self.admin
        request = urllib.request.Request(f"http://{host}:{port}{path}", headers={"authorization": f"Bearer {TOKEN}"})
        return urllib.request.urlopen(request, timeout=10).read().decode()

    def leaks(self):
        """Where a secret is to be seen: in the log, the metrics, or what the admin API answers."""
        key = pathlib.Path(self.folder.name, "tls.key").read_text().splitlines()[1]
        secrets = [SECRET.decode(), UPSTREAM.removeprefix("Bearer "), TOKEN, key]
        said = {"the log": "\n".join(self.log)}
        for path in ADMIN_PATHS:
            said[path] = self.ask(path)
        newest = json.loads(said[ADMIN_PATHS[0]])["events"]
        for path in (f"/api/v1/events/{newest[0]['id']}", f"/api/v1/events/{newest[0]['id']}/body") if newest else ():
            said[path] = self.ask(path)
        return [where for where, text in said.items() if any(secret in text for secret in secrets)]

    def metric(self, name):
        """The sum of a metric over its labels."""
        text = self.ask("/metrics")
        rows = re.findall(rf"^{name}(?:\{{[^}}]*\}})? ([0-9.e+]+)$", text, re.M)
        return sum(float(row) for row in rows)

    def is_alive(self):
        return self.process.poll() is None

    def close(self):
        self._ending.set()
        self._sampler.join()
        for process in (self.process, self.echo):
            process.send_signal(signal.SIGTERM if process is self.process else signal.SIGINT)
        for process in (self.process, self.echo):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.folder.cleanup()


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


class Genuine:
    """Signed webhooks of 2 KiB at a steady pace, by turns on a connection of its own each and on one that is kept."""

    def __init__(self, target, every):
        self.out, out = multiprocessing.Pipe(duplex=False)
        self.stop = multiprocessing.Event()
        self.process = multiprocessing.Process(target=_send, args=(target, every, self.stop, out), daemon=True)
        self.process.start()

    def end(self):
        """The answers: (status or what went wrong, seconds)."""
        self.stop.set()
        answers = self.out.recv()
        self.process.join(10)
        return answers


def _send(target, every, stop, out):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers, kept, number, due = [], None, 0, time.monotonic()
    while not stop.is_set():
        number += 1
        body = json.dumps({"id": f"{os.getpid()}-{number}-{time.time_ns()}", "filler": "x" * 2000}).encode()
        headers = {"content-type": "application/json", "x-hub-signature-256": sign(body)}
        began = time.monotonic()
        fresh = number % 2 == 0 or kept is None
        connection = http.client.HTTPConnection(*target, timeout=10) if fresh else kept
        try:
            connection.request("POST", PATH, body, headers)
            answer = connection.getresponse()
            answer.read()
            status = answer.status
            # The idle timeout may end it; a client would connect again.
            kept = connection if number % 2 and not answer.will_close else (None if connection is kept else kept)
        except OSError as error:
            status, kept = repr(error), None
        except http.client.HTTPException as error:
            status, kept = repr(error), None
        answers.append((status, time.monotonic() - began))
        if connection is not kept:
            connection.close()
        due += every
        now = time.monotonic()
        if due > now:
            stop.wait(due - now)
        else:
            due = now
    out.send(answers)


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
