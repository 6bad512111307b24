#!/usr/bin/env python3
"""Known answers for every preset: writes `vectors/NAME.json`, or with `--check` compares and verifies what is there.

Every vector but `valid` differs from a valid one by the mutation that its `why` names, and comes out as it claims
under `schemes.py` before it is written.
"""

import argparse
import base64
import hashlib
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import preset as presets
import schemes
import values
from keys import BadKey
from preset import ALGORITHMS, JWT_ALGORITHMS, SECOND_NS, UNITS_NS, Unreadable
from schemes import Request
from test_keys import make_secret, other_writings
from values import Refused, encode, quote

HERE = Path(__file__).resolve().parent
SIGNED_AT = 1700000000
TEXTS = {"id": "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", "nonce": "752c14ea195c460bac3c3b7896975ee9fd15eeb7"}
RFC3339 = "2023-11-14T22:13:20Z"
SAMPLE = '{"id":"evt_1","type":"test"}'
NOT_THE_SAME_TWICE = {"rsa-pss-sha256", "PS256"}


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true", help="write nothing; exit code 1 on any difference")
    arguments.add_argument("--presets", type=Path, default=HERE.parents[1] / "src/preset/data")
    arguments.add_argument("--vectors", type=Path, default=HERE / "vectors")
    given = arguments.parse_args()
    problems, count, names = [], 0, set()
    for path in sorted(given.presets.glob("*.toml")):
        names.add(path.stem)
        try:
            preset = presets.read_file(path)
            fresh = Maker(preset).all()
        except (Unreadable, Refused, BadKey, KeyError, TypeError, ValueError) as error:
            problems.append(f"{path.name}: {type(error).__name__}: {error}")
            continue
        count += len(fresh)
        file = given.vectors / f"{path.stem}.json"
        written = json.loads(file.read_text()) if file.exists() else None
        if given.check:
            problems += compare(preset, fresh, written, file.name)
        elif written is None or compare(preset, fresh, written, file.name):
            file.write_text(json.dumps(fresh, indent=2, ensure_ascii=False) + "\n")
    strays = [file for file in given.vectors.glob("*.json") if file.stem not in names]
    problems += [f"{file.name}: no preset of this name" for file in strays]
    print(*problems, f"{count} vectors of {len(names)} presets, {len(problems)} problems", sep="\n")
    return 1 if problems else 0


def compare(preset, fresh, written, name):
    """What differs between fresh and written vectors. Signatures that are never the same twice are verified only."""
    if written is None:
        return [f"{name}: missing"]
    random = preset.signature is not None and NOT_THE_SAME_TWICE & {preset.algorithm, *preset.jwt.get("algorithms", ())}
    left_out = {"headers", "url", "body_b64"} if random else set()
    plain = lambda vectors: [{key: value for key, value in one.items() if key not in left_out} for one in vectors]
    problems = [] if plain(fresh) == plain(written) else [f"{name}: differs from what the preset gives"]
    return problems + [
        f"{name}: {one['id']} does not come out as it claims" for one in written if outcome(preset, one) != one["valid"]
    ]


def outcome(preset, vector):
    request = Request(
        vector["method"],
        vector["url"],
        tuple(map(tuple, vector["headers"])),
        base64.b64decode(vector["body_b64"]),
        vector.get("token"),
    )
    try:
        schemes.verify(preset, vector["secrets"], vector.get("params", {}), request, vector["now"])
    except (Refused, BadKey):
        return False
    return True


class Maker:
    """Makes the vectors of one preset. `secrets` are as configured, `privates` what signs for each of them."""

    def __init__(self, preset):
        self.preset, self.scheme, self.vectors = preset, preset.signature or {}, []
        self.secrets, self.privates = zip(*(make_secret(preset, n) for n in (1, 2)))
        names = {
            *preset.data.get("params", {}),
            *preset.names("param"),
            *([self.scheme["param"]] if "param" in self.scheme else []),
        }
        self.params = {name: f"test-{name}" for name in sorted(names)}
        methods = preset.data.get("methods", ["POST"])
        body = preset.data.get("sample", SAMPLE).encode()
        self.base = Request(
            "POST" if "POST" in methods else methods[0],
            f"https://hooks.example.com/hooks/{preset.name}?x=1",
            (("Content-Type", content_type(body)),),
            body,
        )
        for name, value in self.scheme.get("requires", {}).items():
            self.base = self.base.with_header(name, value)
        for name in preset.names("header"):
            if self.base.header(name) is None:
                self.base = self.base.with_header(name, header_value(name))
        for name in preset.names("query"):
            self.base = self.base.with_query(name, f"test-{name}")

    def all(self):
        if self.preset.jwt:
            self.token_vectors()
        elif self.scheme:
            self.signature_vectors()
        elif "credential" in self.preset.data:
            self.credential_vectors()
        return self.vectors

    def add(self, id, request, why=None, secrets=None, params=None, now=None):
        """A vector; without `why` it is a valid one."""
        params = self.params if params is None else params
        vector = {
            "id": id,
            "secrets": list(secrets or self.secrets[:1]),
            **({"params": params} if params else {}),
            "method": request.method,
            "url": request.url,
            "headers": [list(pair) for pair in request.headers],
            **({"token": request.token} if request.token is not None else {}),
            "body_b64": base64.b64encode(request.body).decode(),
            "now": self.now if now is None else now,
            "valid": why is None,
            **({"why": why} if why else {}),
        }
        if outcome(self.preset, vector) != vector["valid"]:
            raise Unreadable(f"the vector {id} comes out as {not vector['valid']}")
        self.vectors.append(vector)

    def other_secrets(self, good):
        self.add("valid-second-secret", good, secrets=[self.secrets[1], self.secrets[0]])
        for id, secret in other_writings(self.preset, self.secrets[0], self.privates[0]).items():
            self.add(id, good, secrets=[secret])
        self.add("other-secret", good, "the receiver holds another secret", secrets=self.secrets[1:])

    # --- signatures ---

    def signature_vectors(self):
        scheme, base = self.scheme, self.base
        own = {name: self.own_text(name) for name in ("timestamp", "id", "nonce") if name in scheme}
        at_ns = (
            values.time_ns(scheme["timestamp"]["unit"], own["timestamp"].encode())
            if "timestamp" in own
            else SIGNED_AT * SECOND_NS
        )
        self.now = -(-at_ns // SECOND_NS)
        self.own = own
        signed = self.sign(base)
        self.add("valid", signed)
        self.other_secrets(signed)
        if "timestamp" in own:
            self.bounds(signed, at_ns)
        self.several_signatures(signed)
        if self.scheme.get("url_port") == "tolerant":
            self.ports(signed)
        self.add("signature-changed", self.sign(base, tamper=flip), "one bit of the decoded signature")
        self.other_encodings()
        self.add("signature-missing", self.without_signature(signed), "nothing stands where the signature should")
        if (changed := self.other_body(signed)) is not None:
            self.add("body-changed", changed, "one byte of the body")
        for name, text in own.items():
            if {"json", "form"} & set(scheme[name]):
                continue
            other = (
                later(scheme[name]["unit"], text)
                if name == "timestamp"
                else text[:-1] + ("0" if text[-1] != "0" else "1")
            )
            self.add(f"{name}-changed", self.with_own(signed, name, text, other), f"the {name} that was not signed")
        self.separators()
        self.changes_around(signed)

    def separators(self):
        """An id or nonce that is signed as it stands, and holds what ends it."""
        for part, fence in zip(self.preset.parts, self.preset.fences):
            name = part[0]
            if (
                name in ("id", "nonce")
                and isinstance(fence, int)
                and "ambiguous" not in self.scheme
                and not {"json", "form"} & set(self.scheme[name])
            ):
                own = {**self.own, name: self.own[name] + chr(fence) + "0"}
                self.add(
                    f"{name}-holds-its-separator",
                    self.sign_anyway(own),
                    f"the {name} holds {chr(fence)!r}, so that it could end elsewhere",
                )

    def other_encodings(self):
        """The same signature, written in a way that is not its encoding's one."""
        match self.scheme.get("encoding", "hex"):
            case "hex":
                upper = self.sign(self.base, rewrite=str.upper)
                self.add("signature-in-upper-case", upper, "upper-case digits of a hexadecimal signature")
            case "hex-any-case":
                self.add("valid-in-upper-case", self.sign(self.base, rewrite=str.upper))
            case _:
                if unused := self.rewritten(with_an_unused_bit):
                    self.add(
                        "signature-with-an-unused-bit", unused, "a bit of the base64 that stands for nothing is set"
                    )
                if cut := self.rewritten(lambda text: text.rstrip("=")):
                    self.add("signature-without-padding", cut, "the base64 lost its padding")

    def rewritten(self, rewrite):
        """None if the rewriting changes nothing."""
        texts = []
        request = self.sign(self.base, rewrite=lambda text: texts.extend([text, rewrite(text)]) or texts[1])
        return request if texts[0] != texts[1] else None

    def sign_anyway(self, own):
        """Signed by somebody who does not keep parts apart."""
        open_preset = replace(self.preset, fences=(None,) * len(self.preset.parts))
        return schemes.sign(open_preset, self.privates[0], self.params, self.base, own)

    def sign(self, request, **more):
        private, params = more.pop("private", self.privates[0]), more.pop("params", self.params)
        return schemes.sign(self.preset, private, params, request, self.own, **more)

    def own_text(self, name):
        place = self.scheme[name]
        if {"json", "form"} & set(place):
            if (text := schemes.at_place(place, self.base)) is None:
                raise Unreadable(f"the sample has no {name}")
            return text.decode()
        if name != "timestamp":
            return TEXTS[name]
        return RFC3339 if place["unit"] == "rfc3339" else str(SIGNED_AT * SECOND_NS // UNITS_NS[place["unit"]])

    def bounds(self, signed, at_ns):
        past, future = self.preset.tolerance_ns
        last, first = (at_ns + past) // SECOND_NS, -((future - at_ns) // SECOND_NS)
        self.add("valid-at-the-past-bound", signed, now=last)
        self.add("valid-at-the-future-bound", signed, now=first)
        self.add("one-second-too-old", signed, "one second past the tolerance", now=last + 1)
        self.add("one-second-too-far-ahead", signed, "one second before the tolerance", now=first - 1)

    def several_signatures(self, signed):
        grammar, headers = self.scheme.get("grammar", "plain"), self.preset.signature_headers
        zeros = self.sign(self.base, tamper=lambda raw: bytes(len(raw)))
        if grammar in ("fields", "list", "positional", "keyed"):
            garbage = encode(self.scheme.get("encoding", "hex"), bytes(20))
            self.add("valid-beside-garbage", self.sign(self.base, beside=["garbage", garbage]))
        if len(headers) > 1:
            ours = signed.header(headers[0]).decode()
            first = zeros.header(headers[0]).decode()
            self.add("valid-in-the-last-header", signed.with_header(headers[0], first).with_header(headers[-1], ours))
            self.add(
                "valid-in-the-last-header-alone", signed.with_header(headers[0], None).with_header(headers[-1], ours)
            )
        if headers and "groups" in self.scheme:
            both = f"{zeros.header(headers[0]).decode()}{self.scheme['groups']}{signed.header(headers[0]).decode()}"
            self.add("valid-in-the-second-group", signed.with_header(headers[0], both))
        if headers and self.scheme.get("trim"):
            separator = self.scheme["separator"]
            text = self.sign(self.base, beside=["garbage"]).header(headers[0]).decode()
            self.add("valid-with-spaces", signed.with_header(headers[0], text.replace(separator, separator + " ")))

    def ports(self, signed):
        at = lambda request, host: replace(request, url=request.url.replace("hooks.example.com", host))
        default, other = (self.sign(at(self.base, f"hooks.example.com:{port}")) for port in (443, 8443))
        self.add("valid-signed-with-the-default-port", replace(default, url=signed.url))
        self.add("valid-signed-without-a-port", at(signed, "hooks.example.com:8443"))
        self.add("valid-signed-with-its-port", other)
        self.add(
            "signed-with-another-port", replace(other, url=signed.url), "signed with a port that is not the default one"
        )

    def without_signature(self, signed):
        if "query" in self.scheme:
            kept = [
                item
                for item in signed.url.partition("?")[2].split("&")
                if not item.startswith(self.scheme["query"] + "=")
            ]
            return replace(signed, url=f"{signed.url.partition('?')[0]}?{'&'.join(kept)}")
        return schemes.put_signature(self.preset, signed, None)

    def other_body(self, signed):
        """The last byte that is covered is changed; None if nothing of the body is."""
        ours = schemes.signature_texts(self.preset, signed)
        apart = [
            (at, at + len(text))
            for text in ours
            for one in (text, quote(text.decode()).encode())
            if (at := signed.body.find(one)) >= 0
        ]
        for at in reversed(range(len(signed.body))):
            if (
                chr(signed.body[at]).isalnum()
                and signed.body[at] < 128
                and not any(start <= at < end for start, end in apart)
            ):
                changed = replace(signed, body=other_byte(signed.body, at + 1))
                try:
                    schemes.verify(self.preset, self.secrets[:1], self.params, changed, self.now)
                except Refused as refused:
                    if str(refused) in ("the signature is of something else", "the hash is of another body"):
                        return changed
        if self.part_names() & presets.WHOLE_BODY and signed.body:
            raise Unreadable("no byte of the body can be changed")
        return None

    def part_names(self):
        return {part[0] for part in self.preset.parts if isinstance(part, tuple)}

    def with_own(self, signed, name, old, new):
        place = self.scheme[name]
        if "query" in place:
            return replace(
                signed, url=signed.url.replace(f"{place['query']}={quote(old)}", f"{place['query']}={quote(new)}")
            )
        header = place.get("header") or self.preset.signature_headers[0]
        return signed.with_header(header, signed.header(header).decode().replace(old, new, 1))

    def changes_around(self, signed):
        """What is signed beside the body and the time: URL, method, headers, parameters."""
        parts = self.part_names()
        if parts & {"url", "url-no-query"}:
            self.add("url-changed", replace(signed, url=other_url(signed.url)), "another path")
        if "url" in parts:
            self.add("query-changed", replace(signed, url=signed.url.replace("x=1", "x=2", 1)), "another query")
        if "method" in parts:
            self.add("method-changed", replace(signed, method="PUT"), "another method")
        for n, (name, value) in enumerate(self.scheme.get("requires", {}).items()):
            self.add(
                f"requires-violated{f'-{n + 1}' if n else ''}",
                signed.with_header(name, value + "x"),
                f"{name} has another value",
            )
        for n, name in enumerate(self.preset.names("header")):
            self.add(
                f"header-part-changed{f'-{n + 1}' if n else ''}",
                signed.with_header(name, signed.header(name).decode() + "x"),
                f"{name} is signed",
            )
        for name in [*self.preset.names("param"), *([self.scheme["param"]] if "param" in self.scheme else [])]:
            other = {**self.params, name: self.params[name] + "x"}
            self.add("param-changed", signed, f"the receiver's {name} is another", params=other)

    # --- tokens ---

    def token_vectors(self):
        jwt, (past, _) = self.preset.jwt, self.preset.tolerance_ns
        past, self.now = -(-past // SECOND_NS), SIGNED_AT
        claims = self.claims()
        good = self.token(claims)
        self.add("valid", good)
        self.other_secrets(good)
        self.add("signature-changed", self.token(claims, tamper=flip), "one bit of the decoded signature")
        self.add("signature-missing", schemes.put_signature(self.preset, good, None), "no token at all")
        self.add("alg-none", self.token(claims, algorithm="none"), "the algorithm none, and no signature")
        self.add("alg-not-allowed", self.foreign_token(claims), "an algorithm that is not in the list")
        self.add("claims-changed", self.other_claims(good), "a claim that was not signed")
        for algorithm in jwt["algorithms"][1:]:
            self.add(f"valid-{algorithm.lower()}", self.token(claims, algorithm=algorithm))
        expiring = self.token({**claims, "exp": SIGNED_AT + 20})
        self.add("valid-before-it-expires", expiring, now=SIGNED_AT + 19)
        self.add("expired", expiring, "one second past exp and the leeway", now=SIGNED_AT + 20 + past + 1)
        future = -(-self.preset.tolerance_ns[1] // SECOND_NS)
        self.add(
            "not-yet", self.token({**claims, "nbf": SIGNED_AT + future + 1}), "one second before nbf and the leeway"
        )
        self.required_claims(claims, past, future)
        urls = {"url_hash"} & set(jwt) or "{url}" in jwt.get("issuer", "") + jwt.get("audience", "")
        if urls:
            self.add("url-changed", replace(good, url=other_url(good.url)), "another path")
        for name in self.params:
            if f"{{param:{name}}}" in jwt.get("issuer", "") + jwt.get("audience", ""):
                self.add(
                    "param-changed",
                    good,
                    f"the receiver's {name} is another",
                    params={**self.params, name: self.params[name] + "x"},
                )
        if (place := self.scheme.get("body_hash")) and "claim" in place:
            self.body_hashes(claims, good, place)

    def required_claims(self, claims, past, future):
        jwt = self.preset.jwt
        without = lambda name: self.token({key: value for key, value in claims.items() if key != name})
        if "max_age" in jwt:
            age = presets.duration_ns(jwt["max_age"]) // SECOND_NS
            lasting = self.token({**claims, **({"exp": SIGNED_AT + 10 * age} if "exp" in claims else {})})
            self.add("valid-at-the-past-bound", lasting, now=SIGNED_AT + age)
            self.add(
                "one-second-too-old", lasting, "one second past max_age and the leeway", now=SIGNED_AT + age + past + 1
            )
            self.add(
                "one-second-too-far-ahead", lasting, "one second before iat and the leeway", now=SIGNED_AT - future - 1
            )
            self.add("iat-missing", without("iat"), "no iat")
        for name in ("exp", "nbf"):
            if jwt.get(name):
                self.add(f"{name}-missing", without(name), f"no {name}")
        for name, claim in (("issuer", "iss"), ("audience", "aud")):
            if name in jwt:
                self.add(f"wrong-{name}", self.token({**claims, claim: claims[claim] + "x"}), f"another {claim}")
                self.add(f"{name}-missing", without(claim), f"no {claim}")
        if "url_hash" in jwt:
            self.add("url-hash-missing", without(jwt["url_hash"]), "no hash of the URL")

    def body_hashes(self, claims, good, place):
        name = place["claim"]
        self.add("body-changed", replace(good, body=other_byte(good.body, len(good.body))), "one byte of the body")
        self.add(
            "body-hash-wrong", self.token({**claims, name: self.digest(b"another body")}), "the hash is of another body"
        )
        without = {key: value for key, value in claims.items() if key != name}
        if place.get("optional"):
            self.add("valid-without-the-hash", self.token(without))
        else:
            self.add("body-hash-missing", self.token(without), "no hash of a body that is there")
            self.add("valid-empty-body-without-its-hash", replace(self.token(without), body=b""))

    def claims(self):
        jwt, url = self.preset.jwt, self.base.url
        claims = {"jti": TEXTS["id"], "iat": SIGNED_AT}
        claims |= {"exp": SIGNED_AT + 300} if jwt.get("exp") else {}
        claims |= {"nbf": SIGNED_AT} if jwt.get("nbf") else {}
        for key, claim in (("issuer", "iss"), ("audience", "aud")):
            claims |= {claim: schemes.fill(jwt[key], url, self.params)} if key in jwt else {}
        claims |= {jwt["url_hash"]: hashlib.sha256(url.encode()).hexdigest()} if "url_hash" in jwt else {}
        for key in ("timestamp", "id", "nonce", "body_hash"):
            if claim := self.scheme.get(key, {}).get("claim"):
                claims.setdefault(
                    claim,
                    self.digest(self.base.body)
                    if key == "body_hash"
                    else SIGNED_AT
                    if key == "timestamp"
                    else TEXTS[key],
                )
        return claims

    def digest(self, body):
        return encode(self.scheme["body_hash"].get("encoding", "hex"), hashlib.sha256(body).digest())

    def token(self, claims, private=None, **more):
        text = schemes.sign_jwt(self.preset, private or self.privates[0], claims, **more)
        return schemes.put_signature(self.preset, self.base, text)

    def foreign_token(self, claims):
        """Signed with the right key where it can do more than is allowed, else with the public key's text as a secret."""
        ours = [name for name, algorithm in JWT_ALGORITHMS.items() if ALGORITHMS[algorithm] == self.preset.key_kind]
        others = [name for name in ours if name not in {*self.preset.jwt["algorithms"], *NOT_THE_SAME_TWICE}]
        if others:
            return self.token(claims, algorithm=others[0])
        if self.preset.key_kind == "text":
            return self.token(claims, algorithm="RS256", signed_as="HS256")
        return self.token(claims, private=self.secrets[0].encode(), algorithm="HS256")

    def other_claims(self, good):
        [header] = self.preset.signature_headers[:1]
        head, claims, signature = good.header(header).decode().split(".")
        changed = json.loads(values.decode("base64url", claims.encode())) | {"extra": True}
        return good.with_header(header, f"{head}.{encode('base64url', json.dumps(changed).encode())}.{signature}")

    # --- credentials ---

    def credential_vectors(self):
        self.now = SIGNED_AT
        ours, other = self.secrets
        self.add("valid", self.showing(ours))
        self.add("valid-second-secret", self.showing(ours), secrets=[other, ours])
        self.add("wrong", self.showing(other), "another secret")
        self.add("missing", self.showing(None), "no secret is shown")
        self.add("one-character-more", self.showing(ours + "x"), "a character behind the secret")
        self.add("one-character-less", self.showing(ours[:-1]), "the last character is missing")

    def showing(self, secret):
        base, (kind, _, place) = self.base, self.preset.data["credential"].partition(":")
        match kind:
            case "token":
                path, _, query = base.url.partition("?")
                return base if secret is None else replace(base, token=secret, url=f"{path}/{secret}?{query}")
            case "basic":
                return (
                    base
                    if secret is None
                    else base.with_header("Authorization", "Basic " + base64.b64encode(secret.encode()).decode())
                )
            case "header":
                return base if secret is None else base.with_header(place, secret)
            case "query":
                return base if secret is None else base.with_query(place, secret)
            case _:
                return replace(base, body=schemes.with_string(base.body, place, secret))


# --- small things ----------------------------------------------------------------------------------------------------


def content_type(body):
    start = body.lstrip()[:1]
    form = re.fullmatch(rb"[^\s=&]+=[^\s&]*(&[^\s=&]+=[^\s&]*)*", body)
    return (
        "application/json" if start in (b"{", b"[") else "application/x-www-form-urlencoded" if form else "text/plain"
    )


def header_value(name):
    return (
        RFC3339
        if re.search("time|date", name.lower())
        else TEXTS["id"]
        if name.lower().endswith("id")
        else f"test-{name.lower()}"
    )


def later(unit, text):
    return text.replace("22:13:20", "22:13:21") if unit == "rfc3339" else str(int(text) + SECOND_NS // UNITS_NS[unit])


def flip(raw):
    return raw[:-1] + bytes([raw[-1] ^ 1])


def with_an_unused_bit(text):
    """The base64 text as it is if every bit of it is used."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    letters += "-_" if set(text) & set("-_") else "+/"
    bare = text.rstrip("=")
    if len(bare) % 4 == 0:
        return text
    return bare[:-1] + letters[letters.index(bare[-1]) ^ 1] + text[len(bare) :]


def other_byte(body, end):
    """The last letter or digit before `end` becomes another of its kind."""
    at = max((n for n in range(end) if chr(body[n]).isalnum() and body[n] < 128), default=None)
    if at is None:
        raise Unreadable("no letter or digit to change")
    other = body[at] - 1 if chr(body[at]) in "9zZ" else body[at] + 1
    return body[:at] + bytes([other]) + body[at + 1 :]


def other_url(url):
    path, mark, query = url.partition("?")
    return f"{path}-2{mark}{query}"


if __name__ == "__main__":
    sys.exit(main())
