"""Encodings, JSON, forms and times, read strictly: what could be read in two ways is refused."""

import base64
import binascii
import json
import re
from datetime import datetime
from urllib.parse import unquote_to_bytes

from preset import SECOND_NS, UNITS_NS


class Refused(Exception):
    """A request that did not verify; the text says why."""


def error(text):
    raise ValueError(text)


def encode(encoding, raw):
    match encoding:
        case "base64":
            return base64.b64encode(raw).decode()
        case "base64url":
            return base64.urlsafe_b64encode(raw).decode().rstrip("=")
        case _:
            return raw.hex()


def decode(encoding, text):
    """Canonical only: what does not come out the same when it is encoded again is refused with a `ValueError`."""
    try:
        given = text.decode("ascii")
        if encoding == "hex-any-case":
            given = given.lower()
        match encoding:
            case "base64":
                raw = base64.b64decode(given, validate=True)
            case "base64url":
                raw = base64.b64decode(given + "=" * (-len(given) % 4), b"-_", validate=True)
            case _:
                raw = bytes.fromhex(given)
    except (UnicodeDecodeError, binascii.Error) as cause:
        raise ValueError("no such encoding") from cause
    return raw if raw and encode(encoding, raw) == given else error("not canonical")


class Number(str):
    """A number of a JSON document, as it is written there."""


def load_json(text):
    """A document in which every member has one name; anything else is a refusal."""

    def members(pairs):
        if len(dict(pairs)) != len(pairs):
            error("a member stands twice")
        return dict(pairs)

    try:
        return json.loads(
            text.decode("utf-8"),
            parse_int=Number,
            parse_float=Number,
            object_pairs_hook=members,
            parse_constant=lambda name: error(f"{name} is no number"),
        )
    except (ValueError, RecursionError) as cause:
        raise Refused("not JSON") from cause


def steps_of(pointer):
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def find(document, steps):
    """Everything that a pointer names: one value or none, with `*` one for each item."""
    if not steps:
        return [document]
    step, rest = steps[0], steps[1:]
    if isinstance(document, list):
        if step == "*":
            return [found for item in document for found in find(item, rest)]
        inside = re.fullmatch(r"0|[1-9][0-9]*", step) and int(step) < len(document)
        return find(document[int(step)], rest) if inside else []
    return find(document[step], rest) if isinstance(document, dict) and step in document else []


def scalar(value):
    """A string, number or boolean as text; None for null and for nothing."""
    if value is None or isinstance(value, bool):
        return {True: b"true", False: b"false", None: None}[value]
    if not isinstance(value, str):
        raise Refused("neither a string nor a number nor a boolean")
    try:
        return value.encode()
    except UnicodeEncodeError as cause:
        raise Refused("half a surrogate pair") from cause


def json_text(body, pointer):
    found = find(load_json(body), steps_of(pointer))
    return scalar(found[0]) if found else None


def form_fields(encoded):
    """Pairs of bytes, decoded, in the order in which they stand."""
    pairs = [item.partition(b"=") for item in encoded.split(b"&") if item]
    return [tuple(unquote_to_bytes(side.replace(b"+", b" ")) for side in (key, value)) for key, _, value in pairs]


def one_field(encoded, name):
    found = [value for key, value in form_fields(encoded) if key == name.encode()]
    if len(found) > 1:
        raise Refused(f"the field {name} stands twice")
    return found[0] if found else None


def query_of(url):
    return url.partition("?")[2].encode()


def quote(value):
    return "".join(
        chr(byte) if chr(byte).isalnum() and byte < 128 or byte in b"-._~" else f"%{byte:02X}"
        for byte in value.encode()
    )


def time_ns(unit, text):
    if unit == "rfc3339":
        found = re.fullmatch(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", text)
        if not found:
            raise Refused("the time is not of RFC 3339")
        whole, fraction, zone = (part.decode() if part else "" for part in found.groups())
        try:
            seconds = int(datetime.fromisoformat(whole + zone.replace("Z", "+00:00")).timestamp())
        except ValueError as cause:
            raise Refused("no such time") from cause
        return seconds * SECOND_NS + int(fraction.ljust(9, "0"))
    if not re.fullmatch(rb"0|[1-9][0-9]{0,18}", text):
        raise Refused("the time is no plain number")
    return int(text) * UNITS_NS[unit]
