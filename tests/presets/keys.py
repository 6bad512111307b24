"""Keys as a user configures them, and what is done with them."""

import base64
import hashlib
import hmac
import json
import re
import unicodedata

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from values import decode, error

SECRET_BYTES_MIN = 16
RSA_BITS_MIN = 2048


class BadKey(Exception):
    """A secret that is none in the preset's key format."""


def decode_key(preset, secret):
    """The bytes of a shared secret, or a public key; `BadKey` for what is none."""
    kind, form = preset.key_kind, preset.data.get("key_format", "utf8")
    try:
        if kind == "text":
            key = text_key(form, secret)
            if not key or len(key) < SECRET_BYTES_MIN and not preset.data.get("allow_short", False):
                raise BadKey("too short")
            return key
        key = public_key(form, secret)
    except (ValueError, KeyError, UnsupportedAlgorithm) as error:
        raise BadKey(str(error)) from error
    suits = {
        "ed25519": lambda: isinstance(key, ed25519.Ed25519PublicKey),
        "p256": lambda: isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1",
        "rsa": lambda: isinstance(key, rsa.RSAPublicKey) and key.key_size >= RSA_BITS_MIN,
    }
    if not suits[kind]():
        raise BadKey("a key of another kind")
    return key


def text_key(form, secret):
    match form:
        case "base64":
            return key_base64(secret)
        case "whsec":
            return key_base64(secret.removeprefix("v1,").removeprefix("whsec_"))
        case "hex":
            return bytes.fromhex(secret) if re.fullmatch(r"([0-9A-Fa-f]{2})*", secret) else error("not hex")
        case "utf8-nfkd":
            return unicodedata.normalize("NFKD", secret).encode()
        case "sha1-of-utf8":
            return hashlib.sha1(secret.encode()).digest() if secret else b""
        case _:
            return secret.encode()


def public_key(form, secret):
    match form:
        case "pem":
            found = re.fullmatch(r"\s*-----BEGIN ([A-Z ]+)-----(.*)-----END \1-----\s*", secret, re.DOTALL)
            if not found or found[1] not in ("PUBLIC KEY", "RSA PUBLIC KEY", "CERTIFICATE"):
                raise BadKey("no PEM of a public key")
            der = key_base64("".join(found[2].split()))
            return (
                x509.load_der_x509_certificate(der).public_key()
                if found[1] == "CERTIFICATE"
                else serialization.load_der_public_key(der)
            )
        case "spki-base64":
            return serialization.load_der_public_key(key_base64(secret))
        case "ed25519-hex":
            return ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(secret))
        case "ed25519-base64":
            return ed25519.Ed25519PublicKey.from_public_bytes(key_base64(secret.removeprefix("whpk_")))
    jwk = json.loads(secret)
    number = lambda name: int.from_bytes(decode("base64url", jwk[name].encode()))
    match jwk["kty"]:
        case "OKP" if jwk["crv"] == "Ed25519":
            return ed25519.Ed25519PublicKey.from_public_bytes(decode("base64url", jwk["x"].encode()))
        case "EC" if jwk["crv"] == "P-256":
            return ec.EllipticCurvePublicNumbers(number("x"), number("y"), ec.SECP256R1()).public_key()
        case "RSA":
            return rsa.RSAPublicNumbers(number("e"), number("n")).public_key()
    raise BadKey("no JSON Web Key that is known here")


def key_base64(text):
    """Padding is optional, and unused bits are ignored: vendors cut such secrets."""
    return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)


def matches(algorithm, key, content, raw):
    digest = hashes.SHA1() if algorithm.endswith("sha1") else hashes.SHA256()
    try:
        if algorithm.startswith("hmac-"):
            return hmac.compare_digest(hmac.digest(key, content, algorithm[5:]), raw)
        if algorithm in ("sha1", "sha256"):
            return hmac.compare_digest(hashlib.new(algorithm, content).digest(), raw)
        if algorithm == "ed25519":
            key.verify(raw, content)
        elif algorithm.startswith("ecdsa"):
            if algorithm.endswith("-fixed"):
                if len(raw) != 64:
                    return False
                raw = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
            key.verify(raw, content, ec.ECDSA(digest))
        else:
            key.verify(raw, content, rsa_padding(algorithm), digest)
    except InvalidSignature:
        return False
    return True


def rsa_padding(algorithm):
    return padding.PSS(padding.MGF1(hashes.SHA256()), 32) if algorithm == "rsa-pss-sha256" else padding.PKCS1v15()


def make_signature(algorithm, private, content):
    """`private` is the bytes of a shared secret or a private key. ECDSA is deterministic (RFC 6979); PSS is not."""
    digest = hashes.SHA1() if algorithm.endswith("sha1") else hashes.SHA256()
    if algorithm.startswith("hmac-"):
        return hmac.digest(private, content, algorithm[5:])
    if algorithm in ("sha1", "sha256"):
        return hashlib.new(algorithm, content).digest()
    if algorithm == "ed25519":
        return private.sign(content)
    if algorithm.startswith("ecdsa"):
        der = private.sign(content, ec.ECDSA(digest, deterministic_signing=True))
        return b"".join(n.to_bytes(32) for n in decode_dss_signature(der)) if algorithm.endswith("-fixed") else der
    return private.sign(content, rsa_padding(algorithm), digest)
