"""Requests, the parts of them that are signed, and what is one byte off."""

import json
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode


@dataclass(frozen=True)
class Message:
    """A request as it goes over the wire. `target` is the path and the query."""

    headers: dict[str, str]
    body: bytes
    target: str = "/hooks/sdk"
    method: str = "POST"

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def url(self) -> str:
        """The URL as the provider knows it."""
        return "https://hooks.example.com" + self.target

    @property
    def lower(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}


@dataclass(frozen=True)
class Event:
    """Something that happened, of which a provider writes a body. No two have the same id."""

    number: int
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    NOTES = ("plain", "Grüße aus 東京 🚀 & 'quotes' <\u2028>", "Grüße aus 東京 🚀\t\r\n", "0123456789abcdef" * 4096)

    @property
    def note(self) -> str:
        return self.NOTES[self.number % len(self.NOTES)]

    def json(self, document: dict, note: str = "note") -> bytes:
        """The document with a note at the end: compact, in UTF-8, escaped over several lines, or of 64 KiB."""
        document = document | {note: self.note}
        if self.number % 4 == 2:
            return (json.dumps(document, indent=2).replace("\n", "\r\n") + "\r\n").encode()
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()

    def form(self, fields: list[tuple[str, str]]) -> bytes:
        return urlencode([("Empty", ""), *fields, ("Note", self.note)]).encode()


def rewritten(form: bytes) -> dict[str, bytes]:
    """The same fields in other bytes. A signature over decoded fields cannot tell them from the original."""
    fields = form.split(b"&")
    written = {
        "backwards": b"&".join(reversed(fields)),
        "with a letter escaped": b"&".join([*fields[:-1], b"%%%02X" % fields[-1][0] + fields[-1][1:]]),
    }
    if b"Empty=&" in form:
        written["with an empty field without its sign"] = form.replace(b"Empty=&", b"Empty&")
    return written


# The neighbour of a byte, of its own kind: so a signature stays well written, and what is refused is what it says.
_AFTER = {
    **{digit: str((int(digit) + 1) % 10) for digit in "0123456789"},
    **{letter: chr(ord(letter) + 1) for letter in "abcdeghijklmnopqrstuvwxyABCDEGHIJKLMNOPQRSTUVWXY"},
    **{"f": "a", "F": "A", "z": "y", "Z": "Y", "+": "/", "/": "+", "-": "_", "_": "-", "=": "-", "&": "-"},
}
NEIGHBOURS = bytes(ord(_AFTER.get(chr(byte), chr(byte ^ 1))) for byte in range(256))


@dataclass(frozen=True)
class Part:
    """What a pattern's one group finds in the body, the target or a header."""

    name: str
    place: str
    pattern: bytes = b"(?s)(.*)"
    most: int = 64
    """How many of its bytes are changed, if it is longer: evenly spread, with the first and the last."""

    def _read(self, message: Message) -> bytes:
        if self.place == "body":
            return message.body
        return (message.target if self.place == "target" else message.lower[self.place]).encode()

    def span(self, message: Message) -> tuple[int, int]:
        found = re.search(self.pattern, self._read(message))
        assert found, f"there is no {self.name} in {self._read(message)!r}"
        return found.span(1)

    def replaced(self, message: Message, change: Callable[[bytes], bytes]) -> Message:
        begin, end = self.span(message)
        whole = self._read(message)
        whole = whole[:begin] + change(whole[begin:end]) + whole[end:]
        if self.place == "body":
            return replace(message, body=whole)
        if self.place == "target":
            return replace(message, target=whole.decode())
        others = {name: value for name, value in message.headers.items() if name.lower() != self.place}
        return replace(message, headers=others | {self.place: whole.decode(errors="replace")})

    def mutants(self, make: Callable[[], Message], most: int | None = None) -> Iterator[tuple[str, Message]]:
        """Each of a message that `make` signs anew, so that none is refused for its age alone: a byte changed, the
        first and the last left out, and one more at the end."""
        most = most or self.most
        begin, end = self.span(make())
        length = end - begin
        assert length > 1, f"{self.name} is too short to be changed"
        wanted = range(length) if length <= most else {round(i * (length - 1) / (most - 1)) for i in range(most)}

        for at in sorted(wanted):
            yield f"{self.name} changed at {at}", self.replaced(
                make(), lambda old, at=at: old[:at] + NEIGHBOURS[old[at] : old[at] + 1] + old[at + 1 :]
            )
        yield f"{self.name} without its first byte", self.replaced(make(), lambda old: old[1:])
        yield f"{self.name} without its last byte", self.replaced(make(), lambda old: old[:-1])
        yield f"{self.name} with one more byte", self.replaced(make(), lambda old: old + NEIGHBOURS[old[-1] : old[-1] + 1])


def body() -> Part:
    return Part("body", "body", most=32)


def header(called: str, name: str, pattern: bytes = b"(.*)") -> Part:
    return Part(called, name.lower(), pattern)


def query(key: str) -> Part:
    return Part(f"query {key}", "target", rb"[?&]%s=([^&]*)" % key.encode())


def form(key: str) -> Part:
    return Part(f"field {key}", "body", rb"(?:^|&)%s=([^&]*)" % key.encode())


def member(key: str) -> Part:
    """The text of one string or number of a JSON document, found by its key."""
    return Part(f"member {key}", "body", rb'"%s":\s*"?([^",}]*)' % key.encode())
