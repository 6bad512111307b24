"""What clients do to an HTTP/1.1 listener. Each returns what came of it, in words; `stop` is when to end by itself."""

import os
import select
import socket
import ssl
import time

from gateway import PATH, sign

HEAD = f"POST {PATH} HTTP/1.1\r\nhost: hooks.example.com\r\n"
FORGED = "x-hub-signature-256: sha256=" + "0" * 64 + "\r\n"


def connect(target, source=None):
    """A connection, from `source` of this machine's many loopback addresses if it matters."""
    stream = socket.create_connection(target, timeout=10, source_address=source and (source, 0))
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def hold(target, count, first, stop, source=None):
    """Opens many connections, says `first` on each, and waits until the gateway has ended all of them. Returns how many
    there were, how many it ended, when all were there, and when the last was
    gone."""
    began, open_streams = time.monotonic(), {}
    poller = select.poll()
    for _ in range(count):
        try:
            stream = connect(target, source)
            stream.setblocking(False)
            rest = first
            while rest:
                try:
                    rest = rest[stream.send(rest) :]
                except BlockingIOError:
                    select.select([], [stream], [], 5)
        except OSError:
            continue
        open_streams[stream.fileno()] = stream
        poller.register(stream, select.POLLIN)
    opened, last, arrived = len(open_streams), 0.0, time.monotonic() - began
    while open_streams and time.monotonic() < stop:
        for number, _ in poller.poll(200):
            stream = open_streams[number]
            try:
                if stream.recv(65536):
                    continue
            except BlockingIOError:
                continue
            except OSError:
                pass
            poller.unregister(number)
            open_streams.pop(number).close()
            last = time.monotonic() - began
    left = len(open_streams)
    for stream in open_streams.values():
        stream.close()
    return {"opened": opened, "ended": opened - left, "arrived_s": arrived, "last_s": last}


def silent(target, stop):
    return hold(target, 1000, b"", stop)


def half_heads(target, stop):
    return hold(target, 1000, HEAD.encode(), stop)


def stalled_uploads(target, stop):
    head = HEAD + FORGED + "content-length: 1048576\r\n\r\n"
    return hold(target, 1000, head.encode() + b"x" * 600_000, stop)


def forgeries(target, stop):
    """One connection at full speed: a forged webhook after the other, several on their way at a time."""
    body = b"y" * 2048
    one = (HEAD + FORGED + f"content-length: {len(body)}\r\n\r\n").encode() + body
    batch, sent, connections, stream = one * 8, 0, 0, None
    while time.monotonic() < stop:
        try:
            if stream is None:
                stream, connections = connect(target), connections + 1
            stream.sendall(batch)
            answers = 0
            while answers < 8:
                got = stream.recv(65536)
                if not got:
                    raise ConnectionError
                answers += got.count(b"HTTP/1.1 ")
            sent += answers
        except OSError:
            stream = None
    return {"sent": sent, "connections": connections}


def churn(target, stop):
    """Connects and leaves."""
    count = 0
    while time.monotonic() < stop:
        try:
            stream = connect(target)
            if count % 2:
                stream.sendall(b"POST /hooks/orders HTT")
            stream.close()
            count += 1
        except OSError:
            pass
    return {"connections": count}


def pipelined(target, stop):
    """Requests without end and without reading an answer."""
    batch = (HEAD + FORGED + "content-length: 0\r\n\r\n").encode() * 200
    connections = ended = sent = 0
    while time.monotonic() < stop:
        try:
            stream, connections = connect(target), connections + 1
            stream.settimeout(1)
            while time.monotonic() < stop:
                try:
                    sent += stream.send(batch)
                except TimeoutError:
                    pass
        except OSError:
            ended += 1
    return {"connections": connections, "ended": ended, "sent_mib": sent >> 20}


def genuine_flood(target, stop):
    """Signed webhooks of 2 KiB, each another one, as fast as one connection goes."""
    accepted = refused = 0
    stream = connect(target)
    while time.monotonic() < stop:
        accepted += 1
        body = b'{"id":"%d-%d"}' % (os.getpid(), time.time_ns()) + b" " * 2000
        head = HEAD + f"x-hub-signature-256: {sign(body)}\r\ncontent-length: {len(body)}\r\n\r\n"
        stream.sendall(head.encode() + body)
        if not stream.recv(65536).startswith(b"HTTP/1.1 200 "):
            accepted, refused = accepted - 1, refused + 1
    return {"accepted": accepted, "refused": refused}


def client_hellos(target, stop):
    """Begins handshakes and never goes on."""
    connections = 0
    hello = tls_hello()
    streams = []
    while time.monotonic() < stop:
        try:
            stream, connections = connect(target), connections + 1
            stream.sendall(hello)
            streams.append(stream)
            if len(streams) > 50:
                streams.pop(0).close()
        except OSError:
            pass
    return {"connections": connections}


def tls_hello():
    """What a TLS client says first."""
    context = ssl.create_default_context()
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="hooks.example.com")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()
