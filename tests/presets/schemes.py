"""The scheme language of `src/preset/SCHEMA.md`, a second time: verifies requests and signs them.

It shares no line with the gateway. Where the two disagree, one of them misreads the page. Everything is bytes once
it is signed; time is a whole number of nanoseconds, so that no unit is rounded.
"""

import base64
import hashlib
import hmac
import json
import re
import zlib
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from keys import BadKey, decode_key, make_signature, matches
from preset import JWT_ALGORITHMS, PLACES, SECOND_NS, Unreadable, duration_ns
from values import (
    Number,
    Refused,
    decode,
    encode,
    find,
    form_fields,
    json_text,
    load_json,
    one_field,
    query_of,
    quote,
    scalar,
    steps_of,
    time_ns,
)

SIGNATURES_MAX = 8


@dataclass(frozen=True)
class Request:
    """`headers` are pairs in the order of the wire, `token` is the segment of the path, `url` is as the provider knows it."""

    method: str
    url: str
    headers: tuple = ()
    body: bytes = b""
    token: str | None = None

    def header(self, name):
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        if len(found) > 1:
            raise Refused(f"the header {name} stands twice")
        return found[0].encode() if found else None

    def with_header(self, name, value):
        kept = tuple(pair for pair in self.headers if pair[0].lower() != name.lower())
        return replace(self, headers=kept if value is None else (*kept, (name, value)))

    def with_query(self, name, value):
        return replace(self, url=f"{self.url}{'&' if '?' in self.url else '?'}{name}={quote(value)}")


# --- signed content ---------------------------------------------------------------------------------------------------


def content_of(preset, request, own, params, key=b""):
    """`own` are the texts of timestamp, id and nonce."""
    content = b""
    for part, fence in zip(preset.parts, preset.fences):
        value = part if isinstance(part, bytes) else value_of(part, request, own, params, key)
        if isinstance(fence, int) and fence in value and "ambiguous" not in preset.signature:
            raise Refused(f"{part[0]} holds what separates it from its neighbour")
        content += value
    return content


def value_of(part, request, own, params, key):
    name, argument = part
    match name:
        case "body":
            return request.body
        case "timestamp" | "id" | "nonce":
            value = own.get(name)
        case "header":
            value = request.header(argument)
        case "json":
            value = json_text(request.body, argument.removesuffix("?"))
            value = b"" if value is None and argument.endswith("?") else value
        case "form":
            value = one_field(request.body, argument)
        case "query":
            value = one_field(query_of(request.url), argument)
        case "form-sorted":
            value = b"".join(key + value for key, value in sorted(set(form_fields(request.body))))
        case "url":
            value = request.url.encode()
        case "url-no-query":
            value = request.url.partition("?")[0].encode()
        case "method":
            value = request.method.encode()
        case "param":
            value = params[argument].encode()
        case "secret":
            value = key
        case "body-sha256":
            value = hashlib.sha256(request.body).hexdigest().encode()
        case "body-crc32":
            value = str(zlib.crc32(request.body)).encode()
        case "body-json-string":
            try:
                value = json.dumps(request.body.decode(), ensure_ascii=False)[1:-1].encode()
            except UnicodeDecodeError as cause:
                raise Refused("the body is not UTF-8") from cause
    if value is None:
        raise Refused(f"nothing at {name} {argument or ''}".rstrip())
    return value


def urls_of(preset, url):
    """The URL as it is and, where ports are tolerated, without a port and with the default one."""
    if preset.signature.get("url_port") != "tolerant":
        return [url]
    split = urlsplit(url)
    host = re.sub(r":[0-9]+$", "", split.netloc)
    default = {"https": 443, "http": 80}[split.scheme]
    rest = url[len(f"{split.scheme}://{split.netloc}") :]
    return list(dict.fromkeys([url, f"{split.scheme}://{host}{rest}", f"{split.scheme}://{host}:{default}{rest}"]))


def at_place(place, request, fields=None, claims=None):
    """The text at a place, None if nothing is there. `fields` are the items of the signature's own text."""
    [(kind, name)] = [(kind, place[kind]) for kind in PLACES if kind in place]
    match kind:
        case "header":
            return request.header(name)
        case "json":
            return json_text(request.body, name)
        case "form":
            return one_field(request.body, name)
        case "query":
            return one_field(query_of(request.url), name)
        case "claim":
            return scalar((claims or {}).get(name))
        case _:
            return (fields or {}).get(name)


# --- grammars ---------------------------------------------------------------------------------------------------------


def candidates_of(preset, text, params):
    """Pairs of the named items and one signature, still encoded. What is malformed is passed over."""
    scheme = preset.signature
    prefix = scheme.get("prefix", "").encode()
    separator = scheme.get("separator", ",").encode()
    match scheme.get("grammar", "plain"):
        case "plain" | "jwt":
            return [({}, text[len(prefix) :])] if text.startswith(prefix) else []
        case "list":
            return [({}, item[len(prefix) :]) for item in items_of(scheme, text) if item.startswith(prefix)]
        case "fields":
            groups = filter(None, text.split(scheme["groups"].encode())) if "groups" in scheme else [text]
            return alike([found for group in groups for found in field_list(preset, group)])
        case "positional":
            items = text.split(separator)
            named = [
                scheme[key]["position"] for key in ("timestamp", "id", "nonce") if "position" in scheme.get(key, ())
            ]
            fields = {n: items[n] for n in named if n < len(items)}
            return [(fields, item) for n, item in enumerate(items) if n not in named]
        case "keyed":
            ours = params[scheme["param"]].encode() + scheme["assign"].encode()
            return [({}, item[len(ours) :]) for item in text.split(separator) if item.startswith(ours)]
        case "base64-json":
            try:
                return [({}, json_text(decode("base64", text), scheme["pointer"]) or b"")]
            except (ValueError, Refused):
                return []


def items_of(scheme, text):
    items = text.split(scheme["separator"].encode())
    return [item.lstrip(b" ") for item in items] if scheme.get("trim") else items


def field_list(preset, text):
    """What is no `key=value` spoils the whole list."""
    scheme, pairs = preset.signature, [item.partition(b"=") for item in items_of(preset.signature, text)]
    named = {
        place["field"].encode() for key in ("timestamp", "id", "nonce") if "field" in (place := scheme.get(key, {}))
    }
    fields = [(key, value) for key, equals, value in pairs if key in named]
    if not all(equals for _, equals, _ in pairs) or len(dict(fields)) != len(fields):
        raise Refused("a list of items that can be read in two ways")
    fields = {key.decode(): value for key, value in fields}
    return [(fields, value) for key, _, value in pairs if key == scheme["field"].encode()]


def alike(found):
    if any(fields != found[0][0] for fields, _ in found):
        raise Refused("groups that differ")
    return found


# --- verifying --------------------------------------------------------------------------------------------------------


def verify(preset, secrets, params, request, now):
    """Returns if the request verifies at `now` (Unix seconds) under one of the secrets, else raises `Refused` or `BadKey`."""
    if preset.signature is None:
        for secret in secrets:
            if not secret:
                raise BadKey("empty")
        return check_credential(preset, [secret.encode() for secret in secrets], request)
    keys = [decode_key(preset, secret) for secret in secrets]
    for name, value in preset.signature.get("requires", {}).items():
        if request.header(name) != value.encode():
            raise Refused(f"{name} is not {value}")
    found = [one for text in signature_texts(preset, request) for one in candidates_of(preset, text, params)]
    if not found or len(found) > SIGNATURES_MAX:
        raise Refused(f"{len(found)} signatures")
    for fields, signature in found:
        refused = Refused("no signature is ours")
        try:
            if preset.jwt:
                return check_jwt(preset, keys, params, request, signature, now)
            return check_one(preset, keys, params, request, fields, signature, now)
        except ValueError:
            continue
        except Refused as cause:
            refused = cause
    raise refused


def signature_texts(preset, request):
    for name in preset.signature_headers:
        if (text := request.header(name)) is not None:
            yield text
    place = {key: preset.signature[key] for key in ("json", "form", "query") if key in preset.signature}
    if place and (text := at_place(place, request)) is not None:
        yield text


def check_one(preset, keys, params, request, fields, signature, now):
    scheme = preset.signature
    raw = decode(scheme.get("encoding", "hex"), signature)
    own = {
        name: at_place(scheme[name], request, fields) or None for name in ("timestamp", "id", "nonce") if name in scheme
    }
    for name, value in own.items():
        if value is None:
            raise Refused(f"no {name}")
    if not any(
        matches(preset.algorithm, key, content_of(preset, replace(request, url=url), own, params, key), raw)
        for key in keys
        for url in urls_of(preset, request.url)
    ):
        raise Refused("the signature is of something else")
    if "timestamp" in scheme:
        check_fresh(preset, time_ns(scheme["timestamp"]["unit"], own["timestamp"]), now)
    check_body_hash(preset, request, fields, None)


def check_body_hash(preset, request, fields, claims):
    """A token says nothing of a body that is not there; else only an optional hash may be missing."""
    if not (place := preset.signature.get("body_hash")):
        return
    given = at_place(place, request, fields, claims)
    if given is None:
        if not place.get("optional") and (request.body or "claim" not in place):
            raise Refused("no hash of the body")
    elif given != encode(place.get("encoding", "hex"), hashlib.sha256(request.body).digest()).encode():
        raise Refused("the hash is of another body")


def check_jwt(preset, keys, params, request, token, now):
    jwt, (past, future) = preset.jwt, preset.tolerance_ns
    head, claims, signature = token.split(b".")
    header, claims = load_json(decode("base64url", head)), load_json(decode("base64url", claims))
    if not (isinstance(header, dict) and isinstance(claims, dict)) or "crit" in header:
        raise Refused("no token that is understood")
    if header.get("alg") not in jwt["algorithms"]:
        raise Refused("an algorithm that is not allowed")
    signed, raw = token.rpartition(b".")[0], decode("base64url", signature)
    if not any(matches(JWT_ALGORITHMS[header["alg"]], key, signed, raw) for key in keys):
        raise Refused("the signature is of something else")
    at, now_ns = {name: numeric_date(claims, name) for name in ("exp", "nbf", "iat")}, now * SECOND_NS
    for name, wanted in (("exp", jwt.get("exp")), ("nbf", jwt.get("nbf")), ("iat", "max_age" in jwt)):
        if wanted and at[name] is None:
            raise Refused(f"no {name}")
    if at["exp"] is not None and now_ns >= at["exp"] + past:
        raise Refused("expired")
    if any(
        at[name] is not None and at[name] > now_ns + future
        for name in ("nbf", "iat")
        if name == "nbf" or "max_age" in jwt
    ):
        raise Refused("too far ahead")
    if "max_age" in jwt and now_ns - at["iat"] > duration_ns(jwt["max_age"]) + past:
        raise Refused("too old")
    if "timestamp" in preset.signature:
        place = preset.signature["timestamp"]
        check_fresh(preset, time_ns(place["unit"], at_place(place, request, None, claims) or b""), now)
    urls = urls_of(preset, request.url)
    for claim, wanted in (("iss", jwt.get("issuer")), ("aud", jwt.get("audience"))):
        given = claims.get(claim)
        given = given if claim == "aud" and isinstance(given, list) else [given]
        if wanted is not None and not any(fill(wanted, url, params) in given for url in urls):
            raise Refused(f"another {claim}")
    if "url_hash" in jwt and claims.get(jwt["url_hash"]) not in [
        hashlib.sha256(url.encode()).hexdigest() for url in urls
    ]:
        raise Refused("another URL")
    check_body_hash(preset, request, None, claims)


def numeric_date(claims, name):
    if name not in claims:
        return None
    if type(claims[name]) is not Number or not re.fullmatch(r"[0-9]{1,11}(\.[0-9]+)?", claims[name]):
        raise Refused(f"{name} is no time")
    return int(float(claims[name]) * SECOND_NS) if "." in claims[name] else int(claims[name]) * SECOND_NS


def fill(template, url, params):
    return re.sub(r"\{param:([^{}]+)\}", lambda found: params[found[1]], template).replace("{url}", url)


def check_credential(preset, secrets, request):
    kind, _, place = preset.data.get("credential", "token").partition(":")
    match kind:
        case "token":
            shown = [(request.token or "").encode()]
        case "basic":
            secrets = [b"Basic " + base64.b64encode(secret) for secret in secrets]
            shown = [request.header("authorization")]
        case "header":
            shown = [request.header(place)]
        case "query":
            shown = [one_field(query_of(request.url), place)]
        case _:
            steps = steps_of(place)
            shown = [value.encode() if type(value) is str else None for value in find(load_json(request.body), steps)]
            if "*" in steps and len(shown) != len(find(load_json(request.body), steps[: steps.index("*") + 1])):
                raise Refused("an item without the secret")
    if not shown or not any(
        all(value is not None and hmac.compare_digest(value, secret) for value in shown) for secret in secrets
    ):
        raise Refused("the secret is not shown")


def check_fresh(preset, at_ns, now):
    """Both bounds belong to what is allowed."""
    past, future = preset.tolerance_ns
    if now * SECOND_NS - at_ns > past:
        raise Refused("too old")
    if at_ns - now * SECOND_NS > future:
        raise Refused("too far ahead")


# --- signing ----------------------------------------------------------------------------------------------------------


def sign(preset, private, params, request, own, tamper=lambda raw: raw, rewrite=lambda text: text, beside=()):
    """The request with its signature, for all but a JWT. `own` are the texts of timestamp, id and nonce; those that stand
    in headers or in the query are put there. `tamper` changes the raw signature, `rewrite` the encoded one,
    `beside` are further encoded ones."""
    scheme = preset.signature
    for name, text in own.items():
        if "header" in scheme[name]:
            request = request.with_header(scheme[name]["header"], text)
        elif "query" in scheme[name]:
            request = request.with_query(scheme[name]["query"], text)
    if "query" in scheme.get("body_hash", {}) or "header" in scheme.get("body_hash", {}):
        place = scheme["body_hash"]
        digest = encode(place.get("encoding", "hex"), hashlib.sha256(request.body).digest())
        request = (
            request.with_query(place["query"], digest)
            if "query" in place
            else request.with_header(place["header"], digest)
        )
    content = content_of(preset, request, {name: text.encode() for name, text in own.items()}, params, private)
    text = rewrite(encode(scheme.get("encoding", "hex"), tamper(make_signature(preset.algorithm, private, content))))
    return put_signature(preset, request, written(scheme, [*beside, text], own, params))


def written(scheme, signatures, own, params):
    """The text that holds the signatures, as the grammar says."""
    separator, prefix = scheme.get("separator", ""), scheme.get("prefix", "")
    match scheme.get("grammar", "plain"):
        case "list":
            return separator.join(prefix + one for one in signatures)
        case "fields":
            named = [f"{scheme[name]['field']}={text}" for name, text in own.items() if "field" in scheme[name]]
            return separator.join([*named, *(f"{scheme['field']}={one}" for one in signatures)])
        case "positional":
            items = list(signatures)
            for at, text in sorted(
                (scheme[name]["position"], text) for name, text in own.items() if "position" in scheme[name]
            ):
                items.insert(at, text)
            return separator.join(items)
        case "keyed":
            keys = ["another"] * (len(signatures) - 1) + [params[scheme["param"]]]
            return separator.join(key + scheme["assign"] + one for key, one in zip(keys, signatures))
        case "base64-json":
            document = signatures[-1]
            for step in reversed(steps_of(scheme["pointer"])):
                document = {step: document}
            return base64.b64encode(json.dumps(document).encode()).decode()
        case _:
            return prefix + signatures[-1]


def put_signature(preset, request, text):
    """`text` None takes the signature away."""
    scheme = preset.signature
    if preset.signature_headers:
        return request.with_header(preset.signature_headers[0], text)
    if "query" in scheme:
        return request if text is None else request.with_query(scheme["query"], text)
    if "form" in scheme:
        return replace(request, body=with_field(request.body, scheme["form"], text))
    return replace(request, body=with_string(request.body, scheme["json"], text))


def with_field(body, name, value):
    """The form with another value of a field; without the field if `value` is None."""
    items = [item for item in body.split(b"&") if form_fields(item)[0][0] != name.encode()]
    return b"&".join(items if value is None else [f"{name}={quote(value)}".encode(), *items])


def with_string(body, pointer, value):
    """The JSON body with another string at a pointer, all other bytes as they were. The old string must stand there once."""
    values = {
        json.dumps(old, ensure_ascii=ascii_only).encode()
        for old in find(load_json(body), steps_of(pointer))
        for ascii_only in (True, False)
    }
    found = [old for old in values if old in body]
    if not found or "*" not in pointer and body.count(found[0]) != 1:
        raise Unreadable(f"the sample has no string of its own at {pointer}")
    for old in found:
        body = body.replace(old, json.dumps(value).encode())
    return body


def sign_jwt(preset, private, claims, algorithm=None, signed_as=None, tamper=lambda raw: raw):
    """A compact token of these claims, and the text around it. `signed_as` is the algorithm where the header lies."""
    name = algorithm or preset.jwt["algorithms"][0]
    head = json.dumps({"alg": name, "typ": "JWT"}, separators=(",", ":")).encode()
    body = json.dumps(claims, separators=(",", ":")).encode()
    signed = f"{encode('base64url', head)}.{encode('base64url', body)}"
    raw = b"" if name == "none" else make_signature(JWT_ALGORITHMS[signed_as or name], private, signed.encode())
    return f"{preset.signature.get('prefix', '')}{signed}.{encode('base64url', tamper(raw))}"
