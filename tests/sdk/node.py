"""Calls into the SDKs that are for Node: one process of `node.mjs` for all of them."""

import json
import os
import subprocess
from functools import cache


@cache
def _process() -> subprocess.Popen:
    script = os.path.join(os.environ["HOOKWARD_SDKS"], "node.mjs")
    return subprocess.Popen(["node", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def call(name: str, *values: object) -> object:
    process = _process()
    # All in ASCII: a line separator inside a string is not the end of the line.
    process.stdin.write(json.dumps({"name": name, "values": values}) + "\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline() or '{"error": "node has ended"}')
    if "error" in answer:
        raise RuntimeError(f"{name}: {answer['error']}")
    return answer["value"]


def close() -> None:
    if _process.cache_info().currsize:
        _process().stdin.close()
        _process().wait()
