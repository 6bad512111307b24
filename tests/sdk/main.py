"""Runs every case, prints a line for each, and ends with 0 only if all of them ran and held.

    main.py PROGRAM [CASE…]
"""

import collections
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

import node
from gateway import Gateway
from messages import Event, Message
from providers import PROVIDERS, Provider

EVENTS = 4


class Failed(Exception):
    pass


def require(condition: object, what: str) -> None:
    if not condition:
        raise Failed(what)


def version(sdk: str) -> str:
    if sdk.startswith("@"):
        package = Path(os.environ["HOOKWARD_SDKS"], "node_modules", sdk, "package.json")
        return json.loads(package.read_text())["version"]
    return metadata.version(sdk)


def counted(names: collections.Counter) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(names.items()))


def sdk_signs(program: str, provider: Provider) -> str:
    """What the SDK signs is accepted once and reaches the upstream once, byte for byte; nothing one byte off is."""

    def signed(event: Event, when: float | None = None) -> Message:
        when = time.time() if when is None else when
        return provider.sign(provider.body(event, when), when)

    with Gateway(program, provider.preset, [provider.secret], provider.source) as gateway:
        forwarded: list[bytes] = []
        held = 0

        def accepted(message: Message, what: str) -> None:
            require(provider.genuine(message), f"the SDK itself refuses {what}")
            answer = gateway.send(message)
            require(answer.status == 200 and answer.code == "accepted", f"{what} got {answer}")
            require(provider.ack in (None, answer.body), f"{what} got {answer}, not {provider.ack!r}")
            forwarded.append(message.body)
            again = gateway.send(message)
            require(again.status == 200 and again.code == "duplicate", f"{what}, sent again, got {again}")
            require(again.id == answer.id, f"{what} has the id {answer.id}, and sent again {again.id}")

        # Forgeries first: what is accepted afterwards shows that they spoilt nothing.
        event = Event(EVENTS)
        refused, codes, lenient = collections.Counter(), collections.Counter(), collections.Counter()
        for part in provider.parts:
            for what, mutant in part.mutants(lambda: signed(event)):
                if provider.genuine(mutant):
                    lenient[part.name] += 1
                answer = gateway.send(mutant)
                require(answer.status == 401, f"{what} got {answer}")
                refused[part.name] += 1
                codes[answer.code] += 1
        require(codes["signature_mismatch"] > 0, "no mutant got as far as the signature")

        # What the SDK signed for another time.
        if provider.past is not None:
            for off in (-provider.past - 30, provider.future + 30):
                answer = gateway.send(signed(Event(0), time.time() + off))
                require(answer.status == 401, f"an event of {off} s from now got {answer}")

        accepted(signed(event), "the event that was forged before")
        for number in range(EVENTS):
            accepted(signed(Event(number)), f"event {number}")

        # What is not signed, and what is signed in other bytes, cannot be told from genuine: under a signature that was
        # seen it reaches nobody.
        def again(message: Message, what: str) -> None:
            nonlocal held, copies
            answer = gateway.send(message)
            require(answer.code in ("duplicate", "conflict"), f"{what} got {answer}")
            held += answer.code == "conflict"
            copies += 1

        copies = 0
        for part in provider.unsigned:
            message = signed(Event(0))
            accepted(message, "an event with unsigned parts")
            for what, mutant in part.mutants(lambda: message, most=4):
                again(mutant, f"{what}, which is not signed,")
        for what in provider.rewritten(provider.body(Event(0), 0)):
            message = signed(Event(0))
            accepted(message, "an event that can be rewritten")
            other = replace(message, body=provider.rewritten(message.body)[what])
            require(other.body != message.body and provider.genuine(other), f"the SDK refuses the body {what}")
            again(other, f"the body {what}")

        if provider.also:
            provider.also(provider, gateway.send)

        gateway.upstream.wait_for(len(forwarded))
        stored = gateway.events()
        require(stored == len(forwarded) + held, f"the store has {stored} events, not {len(forwarded)} and {held} held")
        wrong = gateway.stop()
        require(not wrong, "".join(wrong))
        require(
            collections.Counter(gateway.upstream.got) == collections.Counter(forwarded),
            f"{len(forwarded)} events were accepted, and the upstream got {len(gateway.upstream.got)}, or other bytes",
        )

    line = f"{len(forwarded)} accepted once, {sum(refused.values())} mutants refused ({counted(refused)})"
    if provider.past is not None:
        line += ", stale and future ones too"
    if copies:
        line += f"; {copies} copies under a signature that was seen reached nobody"
    if lenient:
        line += f"; the SDK would take {counted(lenient)}"
    return line


def hookward_signs(program: str, provider: Provider) -> str:
    """What `hookward sign` signs the SDK accepts; nothing one byte off."""

    def signed(event: Event) -> Message:
        text = provider.blank(provider.body(event, time.time()))
        with tempfile.TemporaryDirectory() as directory:
            key, given = Path(directory, "key"), Path(directory, "body")
            key.write_text(provider.private_key or provider.secret)
            given.write_bytes(text)
            command = [program, "sign", "--json", "-p", provider.preset, "-b", given]
            command += ["--private-key" if provider.private_key else "--secret-file", key]
            command += ["-u", f"https://hooks.example.com{provider.target}", *provider.sign_options]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        require(done.returncode == 0, f"hookward sign ended with {done.returncode}: {done.stderr}")
        request = json.loads(done.stdout)
        url = urlsplit(request["url"])
        target = url.path + (f"?{url.query}" if url.query else "")
        return Message(request["headers"], request["body"].encode(), target, request["method"])

    for number in range(EVENTS):
        message = signed(Event(number))
        require(provider.genuine(message), f"the SDK refuses event {number}: {message.target} {message.headers}")
    message = signed(Event(EVENTS))
    refused, lenient = collections.Counter(), collections.Counter()
    for part in provider.parts:
        for what, mutant in part.mutants(lambda: message):
            (lenient if provider.genuine(mutant) else refused)[part.name] += 1
        require(refused[part.name] > 0, f"the SDK refuses no change of its {part.name}")
    require(provider.genuine(message), "the SDK refuses in the end what it took in the beginning")
    line = f"{EVENTS + 1} verified, {sum(refused.values())} mutants refused ({counted(refused)})"
    if lenient:
        line += f"; the SDK takes {counted(lenient)}"
    return line


def cases() -> dict[str, tuple[Provider, Callable[[str, Provider], str]]]:
    both = {f"{provider.preset} signs": (provider, sdk_signs) for provider in PROVIDERS}
    return both | {f"{provider.preset} verifies": (provider, hookward_signs) for provider in PROVIDERS}


def main() -> int:
    program, *wanted = sys.argv[1:]
    known = cases()
    chosen = {name: case for name, case in known.items() if not wanted or name in wanted or name.split()[0] in wanted}
    missing = [name for name in wanted if not any(name in (case, case.split()[0]) for case in known)]
    if missing or not chosen:
        print(f"no such case: {', '.join(missing)}; there are {', '.join(known)}", file=sys.stderr)
        return 2

    began, held = time.monotonic(), 0
    for name, (provider, run) in chosen.items():
        try:
            print(f"ok      {name:26} {provider.sdk} {version(provider.sdk)}: {run(program, provider)}", flush=True)
            held += 1
        except Failed as why:
            print(f"FAILED  {name:26} {provider.sdk} {version(provider.sdk)}: {why}", flush=True)
        except Exception:
            print(f"BROKEN  {name:26} {provider.sdk}: it could not run\n{traceback.format_exc()}", flush=True)
    node.close()
    print(f"\n{held} of {len(chosen)} cases held, of {len(known)} that there are, in {time.monotonic() - began:.0f} s")
    return 0 if held == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
