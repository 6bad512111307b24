#!/usr/bin/env python3
"""Writes the first inputs of the fuzz targets: small files, made from the known answers and the presets.

    tests/fuzz/corpus.py

Always the same files; at most 40 of a target, at most 4 KiB each.
"""

import base64
import json
import pathlib
import shutil
import tomllib
from urllib.parse import urlsplit

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parent.parent
MOST, BYTES_MAX = 40, 4096


def vectors():
    """The first valid answer of every preset, and its data."""
    for path in sorted((TOP / "tests/presets/vectors").glob("*.json")):
        found = next((v for v in json.loads(path.read_text()) if v["valid"]), None)
        preset = TOP / "src/preset/data" / f"{path.stem}.toml"
        if found:
            found["body"] = base64.b64decode(found["body_b64"])
            yield path.stem, preset.read_text(), found


def spread(items):
    """At most MOST, evenly out of all of them."""
    items = [(name, data) for name, data in items if len(data) <= BYTES_MAX]
    step = max(1, -(-len(items) // MOST))
    return items[::step]


def write(target, items):
    folder = HERE / "corpus" / target
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    items = spread(items)
    for name, data in items:
        (folder / name).write_bytes(data)
    print(f"{target}: {len(items)} files")


def header():
    signature = {
        "plain_": "sha256=SIG",
        "fields_,": "t=1700000000,n=abc,v1=SIG,v1=SIG,x=y",
        "fields_,_trim": "t=1700000000, n=abc, v1=SIG",
        "fields_,__ ": "t=1700000000,n=abc,v1=SIG t=1700000000,n=abc,v1=SIG",
        "list_ ": "v1:SIG v2:00 v1:SIG",
        "list_,_trim": "v1:SIG, v1:SIG",
        "positional_,": "1700000000,abc,SIG,SIG",
        "keyed_&": "public|SIG&other|SIG",
        "base64-json_": '{"sig":"SIG","x":[1]}',
    }
    for i, (grammar, value) in enumerate(signature.items()):
        yield f"grammar-{i}", f'{grammar}\n{value}\nmsg_1\n1700000000\nabc\n{{"id":1}}'.encode()
    found = []
    for name, _, vector in vectors():
        lines = [f"{name} {urlsplit(vector.get('url') or '').query}"]
        lines += [f"{key}: {value}" for key, value in vector["headers"]]
        found.append((name, "\n".join(lines).encode() + b"\n\n" + vector["body"]))
    yield from spread(found)[: MOST - len(signature)]


def template():
    rest = b"1700000000\nmsg_1\nabc\nvalue\nq=1\n"
    formed = b"2023-11-14T22:13:20Z\nmsg_1\nabc\nvalue\nq=1\n"
    own = [
        "{timestamp}.{nonce}.{id}.{body}",
        "{header:x-a}|{id}|{body}",
        "{method}\\n{url}\\n{timestamp}\\n{body}",
        "{query:q};{timestamp}{body}",
        '{{"Body":"{body-json-string}","Time":{timestamp}}}',
        "{id}{timestamp}{body}",
        "{body}\\n{url}",
        "{url}.{body}",
    ]
    texts = own + sorted({tomllib.loads(text).get("signature", {}).get("content", "{body}").replace("\n", "\\n")
                          for _, text, _ in vectors()})
    for i, text in enumerate(texts):
        for unit, values in [("s", rest), ("rfc3339", formed)] if i < len(own) else [("s", rest)]:
            body = (values[:20] + b".a.b") if "rfc" in unit else b'a.b|c\\n{"id":1}1700000000'
            yield f"{i:02}-{unit}", f"{text}\n{unit}\n".encode() + values + body


def pointers():
    own = [
        (b"/a/0/b", b"/c~1d", b'{"a":[{"b":"\\u00e9"},{"b":-0}],"c/d":1e3,"n":null}'),
        (b"/list", b"/id", b'{"id":"top","list":[{"id":1},{},{"id":"x"}]}'),
        (b"/a", b"", b'{"a":1,"\\u0061":2}'),
        (b"/01", b"/1", b"[[],[true,1.5,12345678901234567890123]]"),
    ]
    for i, (first, second, document) in enumerate(own):
        yield f"own-{i}", b"\n".join([first, second, document])
    found = []
    for name, text, vector in vectors():
        key = [part for part in tomllib.loads(text).get("event_key", []) if part.startswith("/")]
        try:
            document = json.loads(vector["body"])
        except ValueError:
            continue
        if isinstance(document, dict) and document:
            one, two = f"/{next(iter(document))}", f"/{list(document)[-1]}"
            one = key[0] if key else one
            found.append((name, "\n".join([one, two]).encode() + b"\n" + vector["body"]))
    yield from spread(found)[: MOST - len(own)]


def jwt():
    claims = {"iss": "acme", "aud": "https://hooks.example.com/in", "iat": 1700000000, "exp": 1700000060, "jti": "1"}
    headers = [{"alg": "HS256", "typ": "JWT"}, {"alg": "HS384"}, {"alg": "none"}, {"alg": "HS512"}, {"alg": "RS256"},
               {"alg": "HS256", "crit": ["b64"], "b64": False}]
    payloads = [claims, claims | {"aud": ["other", claims["aud"]]}, claims | {"nbf": 1700000000.5},
                claims | {"exp": "1700000060"}, claims | {"exp": 1699999999}, claims | {"iss": "other"}]
    for i, head in enumerate(headers):
        for j, payload in enumerate(payloads):
            if i == 0 or j == 0:
                yield f"made-{i}{j}", f"{json.dumps(head)}\n{json.dumps(payload)}".encode()
    yield "decimal", b'{"alg":"HS256"}\n' + json.dumps(claims).replace("1700000060", "1.70000006e9").encode()
    for name, _, vector in vectors():
        for _, value in vector["headers"]:
            token = value.split(" ")[-1]
            if token.count(".") == 2 and token.startswith("ey"):
                yield name, token.encode()


def form():
    own = [b"a\na=1&b=2", b"a\na=1&a=2", b"a b\na+b=%41%2B&c", b"a\na=%ff&b=%zz", b"\n=1&&=2", b"a\na=1\n2",
           "é\n%C3%A9=%EF%BF%BD".encode()]
    for i, data in enumerate(own):
        yield f"own-{i}", data
    for name, _, vector in vectors():
        if not vector["body"].startswith(b"{") and b"=" in vector["body"]:
            yield name, vector["body"].split(b"=")[0] + b"\n" + vector["body"]
        query = urlsplit(vector.get("url") or "").query.encode()
        if b"=" in query and query != b"x=1":
            yield f"{name}-query", query.split(b"=")[0] + b"\n" + query


def preset():
    for name, text, _ in vectors():
        yield name, text.encode()


def time():
    now = 1_700_000_000_000_000_000
    for unit, ns in [("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1)]:
        for i, skew in enumerate([0, 5 * 60 * 10**9, -(5 * 60 * 10**9) - 1]):
            yield f"{unit}-{i}", f"{unit} {now + skew} 300000 300000\n{now // ns}".encode()
    texts = ["2023-11-14T22:13:20Z", "2023-11-14T22:13:20.5Z", "2023-11-14T23:13:20.123456789+01:00",
             "2023-11-14T15:13:20-07:00", "2023-11-14T22:13:60Z", "9999-12-31T23:59:59Z", "0000-01-01T00:00:00Z",
             "2024-02-29T00:00:00.000Z", "2023-11-14t22:13:20z", "2023-11-14T22:13:20+24:00"]
    for i, text in enumerate(texts):
        yield f"rfc3339-{i}", f"rfc3339 {now} 300000 0\n{text}".encode()


def forwarded():
    peers = ["10.0.0.1", "203.0.113.9", "fd00::1", "unix"]
    lines = ["203.0.113.7", "198.51.100.1, 203.0.113.7, 10.0.0.9", "198.51.100.1\n203.0.113.7,10.0.0.9", "203.0.113.7:4711",
             "[2001:db8::1]:4711, [fd00::2]", "2001:db8::1", "::ffff:203.0.113.7, ::ffff:10.0.0.3", "unknown, 10.0.0.2",
             "203.0.113.7, _hidden, 10.0.0.9", "[fe80::1%3]:80, 10.0.0.1"]
    for i, peer in enumerate(peers):
        for j, line in enumerate(lines):
            yield f"{i}-{j}", f"{peer}\n10.0.0.0/8 fd00::/8 127.0.0.1/32\n{line}".encode()


def hygiene():
    own = ["Connection: keep-alive, X-Hop\nX-Hop: 1\nTE: trailers", "Hookward-Event-Id: forged\nhookward_source: forged",
           "X_Forwarded_For: 1.2.3.4\nX-Forwarded-For: 1.2.3.4\nIdempotency-Key: theirs",
           "Authorization: Bearer theirs\nX-Api-Key: theirs\nX-Github-Encoded-Secret: shown",
           "Host: a\nContent-Length: 3\nTransfer-Encoding: chunked\nExpect: 100-continue\nUpgrade: h2c",
           "Proxy-Authorization: Basic eDp5\nKeep-Alive: 5\nTrailer: x", "webhook-id: 1\nwebhook-signature: v1,AA==\ntraceparent: x",
           "Hookward-Original-Webhook-Id: forged\nx: caf\u00e9"]
    for i, lines in enumerate(own):
        yield f"own-{i}", f"{lines}\n\n{{}}".encode()
    for name, _, vector in vectors():
        lines = "\n".join(f"{key}: {value}" for key, value in vector["headers"])
        yield name, lines.encode() + b"\n\n" + vector["body"]


def proxy():
    lines = [b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n", b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n",
             b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ffff:ffff::1 x 1 2\r\n", b"PROXY TCP4 1.2.3.4\r\n", b"GET / HTTP/1.1\r\n"]
    mark = b"\r\n\r\n\0\r\nQUIT\n"
    v4, v6 = bytes([203, 0, 113, 7, 192, 0, 2, 1, 18, 103, 1, 187]), bytes(range(32)) + b"\x12\x67\x01\xbb"
    tlv = b"\x03\0\x04\0\0\0\0"
    bodies = [(0x20, 0, b""), (0x21, 0x11, v4), (0x21, 0x11, v4 + tlv), (0x21, 0x21, v6), (0x21, 0x31, bytes(216)),
              (0x21, 0, tlv), (0x20, 0x11, v4), (0x21, 0x12, v4), (0x11, 0x11, v4), (0x21, 0x11, v4[:7])]
    for i, line in enumerate(lines):
        yield f"line-{i}", line + b"GET / HTTP/1.1\r\n\r\n"
    for i, (command, family, body) in enumerate(bodies):
        yield f"binary-{i}", mark + bytes([command, family]) + len(body).to_bytes(2, "big") + body + b"\x16\x03\x01"


for target, items in [("header", header), ("template", template), ("json", pointers), ("jwt", jwt), ("form", form),
                      ("preset", preset), ("time", time), ("forwarded", forwarded), ("hygiene", hygiene), ("proxy", proxy)]:
    write(target, list(items()))
