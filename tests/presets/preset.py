"""Reads a preset: its TOML, checked against `src/preset/SCHEMA.md` as far as signatures and credentials go."""

import re
import tomllib
from dataclasses import dataclass, field

SECOND_NS = 10**9
UNITS_NS = {"s": SECOND_NS, "ms": 10**6, "us": 10**3, "ns": 1}


class Unreadable(Exception):
    """A preset that the schema does not allow."""


TOP = set(
    """schema title key_format allow_short params repeats signature credential methods event_key event_type attempt_id
    body_bytes_max on_stale on_mismatch items sample handshakes sender evidence unconfirmed vectors""".split()
)
SIGNATURE = set(
    """headers json form query grammar encoding algorithm content timestamp tolerance id nonce requires
    body_hash url_port ambiguous uncovered jwt""".split()
)
GRAMMARS = {
    "plain": {"prefix"},
    "fields": {"separator", "field", "trim", "groups"},
    "list": {"separator", "prefix", "trim"},
    "positional": {"separator"},
    "keyed": {"separator", "assign", "param"},
    "base64-json": {"pointer"},
    "jwt": {"prefix"},
}
ENCODINGS = {"hex", "hex-any-case", "base64", "base64url"}
PLACES = {"header", "field", "position", "json", "form", "query", "claim"}
TEXT_KEYS = {"utf8", "base64", "whsec", "hex", "utf8-nfkd", "sha1-of-utf8"}
KEY_FORMATS = TEXT_KEYS | {"pem", "spki-base64", "ed25519-hex", "ed25519-base64", "jwk"}
ALGORITHMS = {
    **{f"hmac-{name}": "text" for name in ("sha1", "sha256", "sha384", "sha512")},
    "sha1": "text",
    "sha256": "text",
    "ed25519": "ed25519",
    "ecdsa-p256-sha256": "p256",
    "ecdsa-p256-sha1": "p256",
    "ecdsa-p256-sha256-fixed": "p256",
    "rsa-pkcs1-sha1": "rsa",
    "rsa-pkcs1-sha256": "rsa",
    "rsa-pss-sha256": "rsa",
}
JWT_ALGORITHMS = {
    "HS256": "hmac-sha256",
    "HS384": "hmac-sha384",
    "HS512": "hmac-sha512",
    "RS256": "rsa-pkcs1-sha256",
    "PS256": "rsa-pss-sha256",
    "ES256": "ecdsa-p256-sha256-fixed",
    "EdDSA": "ed25519",
}
PARTS = {
    "body",
    "timestamp",
    "id",
    "nonce",
    "header",
    "json",
    "form",
    "query",
    "form-sorted",
    "url",
    "url-no-query",
    "method",
    "param",
    "secret",
    "body-sha256",
    "body-crc32",
    "body-json-string",
}
WITH_ARGUMENT = {"header", "json", "form", "query", "param"}
FILLING, GIVEN = {"body", "form-sorted", "body-json-string"}, {"secret", "method", "param", "body-sha256"}
WHOLE_BODY = {"body", "body-sha256", "body-json-string", "form-sorted"}


@dataclass(frozen=True)
class Preset:
    """`parts` is the signed content: literals as bytes, parts as pairs of a name and an argument or None. `fences` says
    what keeps each of them apart from its neighbour."""

    name: str
    data: dict
    signature: dict | None
    parts: tuple = ()
    fences: tuple = ()
    tolerance_ns: tuple = (0, 0)
    signature_headers: tuple = ()
    jwt: dict = field(default_factory=dict)

    @property
    def algorithm(self):
        return self.signature.get("algorithm", "hmac-sha256")

    @property
    def key_kind(self):
        if self.signature is None:
            return "text"
        return ALGORITHMS[JWT_ALGORITHMS[self.jwt["algorithms"][0]] if self.jwt else self.algorithm]

    def names(self, *parts):
        """The arguments of these parts, in their order."""
        return [part[1] for part in self.parts if isinstance(part, tuple) and part[0] in parts]


def read_file(path):
    return read(path.stem, tomllib.loads(path.read_text(encoding="utf-8")))


def read(name, data):
    """A preset from its TOML as a dictionary; raises `Unreadable` for what the schema does not allow."""
    allow(data, TOP, "the top level")
    need(data.get("schema", 1) == 1, "schema is 1")
    need(data.get("key_format", "utf8") in KEY_FORMATS, "key_format is one of the schema")
    need(not ("signature" in data and "credential" in data), "a signature or a credential, not both")
    if "signature" not in data:
        kind, _, place = data.get("credential", "token").partition(":")
        need(kind in {"token", "basic"} and not place or kind in {"header", "query", "json"} and place, "credential")
        return Preset(name, data, None)
    scheme = data["signature"]
    grammar = scheme.get("grammar", "plain")
    need(grammar in GRAMMARS, f"no grammar {grammar}")
    allow(scheme, SIGNATURE | GRAMMARS[grammar], f"[signature] with the grammar {grammar}")
    need(sum(key in scheme for key in ("headers", "json", "form", "query")) == 1, "one of the four places")
    need(scheme.get("encoding", "hex") in ENCODINGS, "encoding is one of the schema")
    need(scheme.get("algorithm", "hmac-sha256") in ALGORITHMS, "algorithm is one of the schema")
    need(scheme.get("url_port", "exact") in {"exact", "tolerant"}, "url_port is exact or tolerant")
    for key in ("timestamp", "id", "nonce", "body_hash"):
        if key in scheme:
            extra = {"timestamp": {"unit"}, "body_hash": {"encoding", "optional"}}.get(key, set())
            allow(scheme[key], PLACES | extra, key)
            need(len(PLACES & set(scheme[key])) == 1, f"{key} names one place")
    if "timestamp" in scheme:
        need(scheme["timestamp"].get("unit") in {*UNITS_NS, "rfc3339"}, "timestamp has a unit")
        need("tolerance" in scheme, "tolerance is required with timestamp")
    tolerance = scheme.get("tolerance", {"past": "0s", "future": "0s"})
    need(set(tolerance) == {"past", "future"}, "tolerance has both sides")
    need(("jwt" in scheme) == (grammar == "jwt"), "[signature.jwt] and the grammar jwt go together")
    need(("content" in scheme) != (grammar == "jwt"), "content is for all but a JWT")
    if "jwt" in scheme:
        allow(
            scheme["jwt"], {"algorithms", "issuer", "audience", "exp", "nbf", "max_age", "url_hash"}, "[signature.jwt]"
        )
        kinds = {ALGORITHMS[JWT_ALGORITHMS[name]] for name in scheme["jwt"]["algorithms"]}
        need(len(kinds) == 1, "algorithms of one kind of key")
    parts = parts_of(scheme.get("content", ""))
    preset = Preset(
        name,
        data,
        scheme,
        parts,
        fences(parts, scheme.get("timestamp", {}).get("unit")),
        (duration_ns(tolerance["past"]), duration_ns(tolerance["future"])),
        tuple(one for header in scheme.get("headers", ()) for one in numbered(header)),
        scheme.get("jwt", {}),
    )
    need((preset.key_kind == "text") == (data.get("key_format", "utf8") in TEXT_KEYS), "key_format suits the algorithm")
    need(
        ("secret" in [part[0] for part in preset.parts if isinstance(part, tuple)])
        == (not preset.jwt and preset.algorithm in ("sha1", "sha256")),
        "{secret} stands in plain-hash schemes, and only there",
    )
    for key in ("timestamp", "id", "nonce", "body_hash"):
        need(key not in scheme or is_signed(preset, key), f"{key} stands where nothing is signed")
    need("ambiguous" in scheme or "open" not in preset.fences, "its content can be taken apart in two ways")
    need("uncovered" in scheme or covers_body(preset), "it does not cover the body")
    need("uncovered" not in scheme or not covers_body(preset), "it covers the body, and says `uncovered`")
    return preset


def need(holds, what):
    if not holds:
        raise Unreadable(what)


def allow(table, keys, where):
    need(set(table) <= keys, f"unknown in {where}: {', '.join(sorted(set(table) - keys))}")


def numbered(header):
    return [f"{header[:-1]}{n}" for n in range(1, 9)] if header.endswith("-*") else [header]


def duration_ns(text):
    units = {"ms": 10**6, "s": SECOND_NS, "m": 60 * SECOND_NS, "h": 3600 * SECOND_NS, "d": 86400 * SECOND_NS}
    need(re.fullmatch(r"([0-9]+(ms|[smhd]))+", text), f"{text} is no duration")
    return sum(int(count) * units[unit] for count, unit in re.findall(r"([0-9]+)(ms|[smhd])", text))


def parts_of(content):
    """Literals as bytes, parts as pairs; `{{` and `}}` stand for a brace."""
    parts, end = [b""], 0
    for found in re.finditer(r"(\{\{|\}\})|\{([a-z][a-z0-9-]*)(?::([^{}]+))?\}|[{}]", content):
        brace, name, argument = found.groups()
        parts[-1] += content[end : found.start()].encode() + (brace or "")[:1].encode()
        if not brace:
            need(name in PARTS and (argument is not None) == (name in WITH_ARGUMENT), f"no part {found[0]}")
            parts += [(name, argument), b""]
        end = found.end()
    parts[-1] += content[end:].encode()
    return tuple(part for part in parts if part)


def fences(parts, unit):
    """What ends each part: the byte that it may not hold, "form" for a time, whose form and tolerance do, None for what is at the
    edge or not the sender's to choose, "open" if nothing does. Behind the body the neighbour before a part counts."""
    fences, behind_body = [], False
    for at, part in enumerate(parts):
        side = -1 if behind_body else 1
        beside = parts[at + side] if 0 <= at + side < len(parts) else None
        if isinstance(part, bytes) or part[0] in FILLING | GIVEN or beside is None:
            fences.append(None)
        elif isinstance(beside, bytes) and not chr(edge := beside[-1] if behind_body else beside[0]).isalnum():
            fences.append(edge)
        else:
            formed = part[0] == "timestamp" or beside[0] == "timestamp" and unit == "rfc3339"
            fences.append("form" if formed else "open")
        behind_body |= part[0] in FILLING
    return tuple(fences)


def is_signed(preset, key):
    """A place counts as signed if the content names it; what stands in a signed body or token does too."""
    [kind] = PLACES & set(preset.signature[key])
    name, names = preset.signature[key][kind], {part[0] for part in preset.parts if isinstance(part, tuple)}
    whole = {
        "json": {"body", "body-sha256", "body-json-string"},
        "form": {"body", "body-sha256", "form-sorted"},
        "query": {"url"},
    }
    return (
        kind == "claim"
        or key in names
        or bool(whole.get(kind, set()) & names)
        or name in [argument.removesuffix("?") for argument in preset.names(kind)]
    )


def covers_body(preset):
    hashed = preset.signature.get("body_hash", {"optional": True})
    return not hashed.get("optional") or any(part[0] in WHOLE_BODY for part in preset.parts if isinstance(part, tuple))
