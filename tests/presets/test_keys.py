"""Secrets and keys for tests, the same on every run: derived from the preset's name, but for two fixed RSA keys."""

import base64
import hashlib
import json
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from keys import decode_key
from values import encode

HERE = Path(__file__).resolve().parent


def make_secret(preset, n):
    """A secret as configured, and what signs for it. Derived from the preset's name, except for RSA."""
    form, text = preset.data.get("key_format", "utf8"), f"{preset.name}-test-secret-000{n}"
    seed = hashlib.sha256(text.encode()).digest()
    if preset.key_kind == "text":
        if preset.signature is None and preset.data.get("credential") == "basic":
            text = f"{preset.name}:{text}"
        secret = {
            "base64": base64.b64encode(seed).decode(),
            "whsec": "whsec_" + base64.b64encode(seed).decode(),
            "hex": seed.hex().upper(),
            "utf8-nfkd": text + "-\ufb01\u00bd\u00e9",
        }.get(form, text)
        return secret, secret.encode() if preset.signature is None else decode_key(preset, secret)
    match preset.key_kind:
        case "ed25519":
            private = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        case "p256":
            private = ec.derive_private_key(int.from_bytes(seed) >> 8, ec.SECP256R1())
        case _:
            pem = (HERE / f"keys/rsa-2048-test-key-{n}.pem").read_bytes()
            private = serialization.load_pem_private_key(pem, None)
    return public_text(form, private.public_key()), private


def public_text(form, key):
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    number = lambda n, length=None: encode("base64url", n.to_bytes(length or (n.bit_length() + 7) // 8))
    match form:
        case "pem":
            return key.public_bytes(serialization.Encoding.PEM, spki).decode()
        case "spki-base64":
            return base64.b64encode(key.public_bytes(serialization.Encoding.DER, spki)).decode()
        case "ed25519-hex":
            return key.public_bytes(*raw).hex()
        case "ed25519-base64":
            return base64.b64encode(key.public_bytes(*raw)).decode()
    if isinstance(key, ed25519.Ed25519PublicKey):
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": encode("base64url", key.public_bytes(*raw))}
    elif isinstance(key, ec.EllipticCurvePublicKey):
        jwk = {
            "kty": "EC",
            "crv": "P-256",
            "x": number(key.public_numbers().x, 32),
            "y": number(key.public_numbers().y, 32),
        }
    else:
        jwk = {"kty": "RSA", "n": number(key.public_numbers().n), "e": number(key.public_numbers().e)}
    return json.dumps(jwk)


def other_writings(preset, secret, private):
    """The same secret as a user may find it elsewhere, by the id of a vector."""
    match preset.data.get("key_format", "utf8"):
        case "base64":
            return {"valid-secret-without-padding": secret.rstrip("=")}
        case "whsec":
            return {
                "valid-secret-without-its-prefix": secret.removeprefix("whsec_"),
                "valid-secret-with-a-version": "v1," + secret,
                "valid-secret-without-padding": secret.rstrip("="),
            }
        case "hex":
            return {"valid-secret-in-lower-case": secret.lower()}
        case "ed25519-base64":
            return {"valid-key-with-a-prefix": "whpk_" + secret}
        case "pem":
            found = {"valid-key-in-one-line": secret.replace("\n", "")}
            if isinstance(private, rsa.RSAPrivateKey):
                pkcs1 = serialization.Encoding.PEM, serialization.PublicFormat.PKCS1
                found["valid-rsa-public-key"] = private.public_key().public_bytes(*pkcs1).decode()
                found["valid-certificate"] = certificate(private)
            return found
    return {}


def certificate(private):
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test certificate")])
    builder = x509.CertificateBuilder(name, name, private.public_key(), 1)
    builder = builder.not_valid_before(datetime(2023, 1, 1)).not_valid_after(datetime(2033, 1, 1))
    return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
