"""Every provider: how its SDK signs, how its SDK verifies, and what is signed.

Where an SDK has no helper that signs, its own primitive does, and its verifier has to agree before anything is sent.
"""

import base64
import contextlib
import hashlib
import hmac
import io
import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from urllib.parse import parse_qs, parse_qsl, urlencode

import Adyen.util
import braintree
import cloudinary
import cloudinary.utils
import discord_interactions
import hubspot.utils.signature
import linebot.v3.webhook
import nacl.signing
import openai
import paddle_billing.Notifications
import plivo.utils
import plivo.utils.signature_v3
import pusher
import pusher.signature
import razorpay
import slack_sdk.signature
import standardwebhooks.webhooks
import stripe
import svix.webhooks
import twilio.request_validator
from box_sdk_gen.internal.utils import compute_webhook_signature
from box_sdk_gen.managers.webhooks import WebhooksManager
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import node
from messages import Event, Message, Part, body, form, header, member, query, rewritten

logging.disable(logging.CRITICAL)  # an SDK that refuses a mutant need not say so


@dataclass(frozen=True, kw_only=True)
class Provider:
    preset: str
    sdk: str
    secret: str
    body: Callable[[Event, float], bytes]
    sign: Callable[[bytes, float], Message]
    verify: Callable[[Message], object]
    """Of the SDK. What is not true, and any exception, is a refusal."""
    parts: list[Part]
    """All that is signed, and the signature."""
    unsigned: tuple[Part, ...] = ()
    """What is not signed although it is of the event."""
    rewritten: Callable[[bytes], dict[str, bytes]] = lambda text: {}
    """Other bytes that the SDK takes under the same signature."""
    past: int | None = None
    """The oldest signed time that the preset takes, in seconds; none, if no time is signed."""
    future: int = 300
    ack: bytes | None = None
    """The body that it takes for success."""
    source: tuple[str, ...] = ()
    private_key: str | None = None
    """What `hookward sign` signs with, where the secret is a public key: PEM."""
    sign_options: tuple[str, ...] = ()
    """More that `hookward sign` has to know."""
    target: str = "/hooks/sdk"
    blank: Callable[[bytes], bytes] = lambda text: text
    """The body before it was signed, where the signature is a part of it."""
    also: Callable[["Provider", Callable[[Message], object]], None] | None = None
    """What else the SDK and the gateway have to agree on."""

    def genuine(self, message: Message) -> bool:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                return bool(self.verify(message))
        except Exception:
            return False


def nonce() -> str:
    return secrets.token_hex(16)


def key(name: str) -> str:
    """A secret that no other provider has."""
    return f"{name}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def hmac_sha256(name: str, text: bytes) -> bytes:
    return hmac.new(key(name).encode(), text, hashlib.sha256).digest()


def whsec(name: str) -> str:
    return "whsec_" + base64.b64encode(hashlib.sha256(name.encode()).digest()).decode()


def utc(when: float) -> datetime:
    return datetime.fromtimestamp(int(when), timezone.utc)


def raises_if_wrong(verify: Callable[..., object], *values: object, **named: object) -> bool:
    verify(*values, **named)
    return True


JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PUBLIC_URL = ('public_url = "https://hooks.example.com"',)

PROVIDERS: list[Provider] = []


# --- Standard Webhooks, and who sends by it ----------------------------------------------------------------------------


def standard(preset: str, sdk: str, prefix: str, webhook: type, verify: Callable[[Message], object]) -> None:
    def sign(text: bytes, when: float) -> Message:
        id = f"msg_{secrets.token_hex(12)}"
        signature = webhook(whsec(preset)).sign(id, utc(when), text.decode())
        stamped = {f"{prefix}-id": id, f"{prefix}-timestamp": str(int(when)), f"{prefix}-signature": signature}
        return Message(JSON | stamped, text)

    PROVIDERS.append(
        Provider(
            preset=preset,
            sdk=sdk,
            secret=whsec(preset),
            body=lambda event, when: event.json({"type": "invoice.paid", "timestamp": utc(when).isoformat(), "data": event.id}),
            sign=sign,
            verify=verify,
            parts=[
                body(),
                header("signature", f"{prefix}-signature", b"v1,(.*)"),
                header("version", f"{prefix}-signature", b"(v1,)"),
                header("timestamp", f"{prefix}-timestamp"),
                header("id", f"{prefix}-id"),
            ],
            past=300,
        )
    )


standard(
    "standard-webhooks",
    "standardwebhooks",
    "webhook",
    standardwebhooks.webhooks.Webhook,
    lambda m: raises_if_wrong(
        standardwebhooks.webhooks.Webhook(whsec("standard-webhooks")).verify, m.text, m.headers, json_parse=False
    ),
)
standard(
    "svix",
    "svix",
    "svix",
    svix.webhooks.Webhook,
    lambda m: raises_if_wrong(svix.webhooks.Webhook(whsec("svix")).verify, m.text, m.headers),
)
# The SDK of OpenAI verifies only; what signs is the library of the scheme that it follows.
standard(
    "openai",
    "openai",
    "webhook",
    standardwebhooks.webhooks.Webhook,
    lambda m: raises_if_wrong(
        openai.OpenAI(api_key="none").webhooks.verify_signature, m.text, m.headers, secret=whsec("openai")
    ),
)

# --- A header with a digest of the body --------------------------------------------------------------------------------

PROVIDERS += [
    Provider(
        preset="github",
        sdk="@octokit/webhooks-methods",
        secret=key("github"),
        body=lambda event, when: event.json({"ref": "refs/heads/main", "after": event.id}),
        sign=lambda text, when: Message(
            JSON
            | {
                "X-GitHub-Event": "push",
                "X-GitHub-Delivery": nonce(),
                "X-Hub-Signature-256": node.call("octokit.sign", key("github"), text.decode()),
            },
            text,
        ),
        verify=lambda m: node.call("octokit.verify", key("github"), m.text, m.lower["x-hub-signature-256"]),
        parts=[
            body(),
            header("signature", "x-hub-signature-256", b"sha256=(.*)"),
            header("prefix", "x-hub-signature-256", b"(sha256=)"),
        ],
    ),
    Provider(
        preset="razorpay",
        sdk="razorpay",
        secret=key("razorpay"),
        body=lambda event, when: event.json({"entity": "event", "event": "payment.captured", "id": event.id}),
        # It verifies only.
        sign=lambda text, when: Message(JSON | {"X-Razorpay-Signature": hmac_sha256("razorpay", text).hex()}, text),
        verify=lambda m: razorpay.Client(auth=("id", "secret")).utility.verify_webhook_signature(
            m.text, m.lower["x-razorpay-signature"], key("razorpay")
        ),
        parts=[body(), header("signature", "x-razorpay-signature")],
    ),
    Provider(
        preset="line",
        sdk="line-bot-sdk",
        secret=key("line"),
        body=lambda event, when: event.json(
            {"destination": "U0", "events": [{"type": "message", "webhookEventId": event.id, "timestamp": int(when * 1000)}]}
        ),
        # It verifies only.
        sign=lambda text, when: Message(
            JSON | {"X-Line-Signature": base64.b64encode(hmac_sha256("line", text)).decode()}, text
        ),
        verify=lambda m: linebot.v3.webhook.SignatureValidator(key("line")).validate(m.text, m.lower["x-line-signature"]),
        parts=[body(), header("signature", "x-line-signature")],
    ),
]

# --- Adyen -------------------------------------------------------------------------------------------------------------

ADYEN_KEY = hashlib.sha256(b"adyen").hexdigest().upper()


def adyen_classic_body(event: Event, when: float) -> bytes:
    item = {
        "additionalData": {"hmacSignature": "A" * 43 + "="},
        "amount": {"currency": "EUR", "value": 2350 + event.number},
        "eventCode": "AUTHORISATION",
        "eventDate": utc(when).isoformat(),
        "merchantAccountCode": "ExampleMerchantECOM",
        "merchantReference": f"order {event.note[:40].strip()}",
        "originalReference": "SQV2M9SVLRPBWX65",
        "pspReference": event.id[:16].upper(),
        "success": "true" if event.number % 2 == 0 else "false",
    }
    if event.number == 1:
        del item["originalReference"]
    if event.number == 2:
        item["originalReference"] = ""
    return event.json({"live": "false", "notificationItems": [{"NotificationRequestItem": item}]})


def adyen_classic_sign(text: bytes, when: float) -> Message:
    item = json.loads(text)["notificationItems"][0]["NotificationRequestItem"]
    signature = Adyen.util.generate_notification_sig(item, ADYEN_KEY)
    written = Part("signature", "body", rb'"hmacSignature":\s*"([^"]*)"')
    return written.replaced(Message(JSON, text), lambda old: signature)


PROVIDERS += [
    Provider(
        preset="adyen-classic",
        sdk="adyen",
        secret=ADYEN_KEY,
        body=adyen_classic_body,
        sign=adyen_classic_sign,
        verify=lambda m: Adyen.util.is_valid_hmac_notification(json.loads(m.body), ADYEN_KEY),
        parts=[
            member("hmacSignature"),
            *map(member, ("pspReference", "originalReference", "merchantAccountCode", "merchantReference")),
            *map(member, ("value", "currency", "eventCode", "success")),
        ],
        unsigned=(member("eventDate"), member("live")),
        ack=b"[accepted]",
    ),
    Provider(
        preset="adyen-platform",
        sdk="adyen",
        secret=ADYEN_KEY,
        body=lambda event, when: event.json({"type": "balancePlatform.transfer.updated", "data": {"id": event.id}}),
        sign=lambda text, when: Message(
            JSON | {"HmacSignature": Adyen.util.generate_payload_sig(text, ADYEN_KEY).decode()}, text
        ),
        verify=lambda m: Adyen.util.is_valid_hmac_payload(m.lower["hmacsignature"], ADYEN_KEY, m.body),
        parts=[body(), header("signature", "hmacsignature")],
        ack=b"[accepted]",
    ),
]

# --- Box ---------------------------------------------------------------------------------------------------------------


def box_sign(text: bytes, when: float) -> Message:
    stamped = {
        "box-delivery-id": nonce(),
        "box-delivery-timestamp": datetime.fromtimestamp(int(when), timezone(timedelta(hours=-8))).isoformat(),
        "box-signature-version": "1",
        "box-signature-algorithm": "HmacSHA256",
    }
    signature = compute_webhook_signature(text.decode(), stamped, key("box"))
    other = compute_webhook_signature(text.decode(), stamped, key("another box"))
    # While the primary key is changed, which is when a body is long, ours is the secondary one.
    first, second = (other, signature) if len(text) > 4096 else (signature, other)
    return Message(JSON | stamped | {"box-signature-primary": first, "box-signature-secondary": second}, text)


PROVIDERS.append(
    Provider(
        preset="box",
        sdk="boxsdk",
        secret=key("box"),
        body=lambda event, when: event.json({"type": "webhook_event", "id": event.id, "trigger": "FILE.UPLOADED"}),
        sign=box_sign,
        verify=lambda m: WebhooksManager.validate_message(m.text, m.lower, key("box"), secondary_key=key("box")),
        parts=[
            body(),
            header("signature", "box-signature-primary"),
            header("timestamp", "box-delivery-timestamp"),
            header("algorithm", "box-signature-algorithm"),
        ],
        past=600,
        future=0,
    )
)

# --- Braintree ---------------------------------------------------------------------------------------------------------

BRAINTREE_PUBLIC_KEY = "integration2public3key"
BRAINTREE = braintree.BraintreeGateway(
    braintree.Configuration(
        braintree.Environment.Sandbox, "merchant", public_key=BRAINTREE_PUBLIC_KEY, private_key=key("braintree")
    )
)
BRAINTREE_KINDS = [
    braintree.WebhookNotification.Kind.SubscriptionCanceled,
    braintree.WebhookNotification.Kind.TransactionSettled,
    braintree.WebhookNotification.Kind.DisputeOpened,
    braintree.WebhookNotification.Kind.SubscriptionChargedSuccessfully,
]


def braintree_body(event: Event, when: float) -> bytes:
    kind = BRAINTREE_KINDS[event.number % len(BRAINTREE_KINDS)]
    return urlencode(BRAINTREE.webhook_testing.sample_notification(kind, event.id)).encode()


def braintree_verify(message: Message) -> object:
    fields = dict(parse_qsl(message.text))
    return BRAINTREE.webhook_notification.parse(fields["bt_signature"], fields["bt_payload"])


def braintree_challenge(provider: Provider, send: Callable[[Message], object]) -> None:
    challenge = nonce()
    answer = send(Message({}, b"", f"{provider.target}?bt_challenge={challenge}", "GET"))
    wanted = BRAINTREE.webhook_notification.verify(challenge)
    assert answer.body.decode() == wanted, f"the challenge was answered with {answer}, not with {wanted}"


PROVIDERS.append(
    Provider(
        preset="braintree",
        sdk="braintree",
        secret=key("braintree"),
        body=braintree_body,
        sign=lambda text, when: Message(FORM, text),
        verify=braintree_verify,
        parts=[
            form("bt_payload"),
            Part("signature", "body", rb"bt_signature=[^&]*%7C([^&]*)"),
            Part("public key", "body", rb"bt_signature=([^&%]*)%7C"),
        ],
        source=(f'params = {{ public_key = "{BRAINTREE_PUBLIC_KEY}" }}',),
        sign_options=("--param", f"public_key={BRAINTREE_PUBLIC_KEY}"),
        rewritten=lambda text: rewritten(text) | {"with one more field": text + b"&bt_more=1"},
        blank=lambda text: text.replace(text[text.index(b"%7C") + 3 :][:40], b"0" * 40),
        also=braintree_challenge,
    )
)

# --- Cloudinary --------------------------------------------------------------------------------------------------------

cloudinary.config(api_secret=key("cloudinary"))


def cloudinary_provider(algorithm: str) -> Provider:
    def sign(text: bytes, when: float) -> Message:
        stamp = str(int(when))
        signature = cloudinary.utils.compute_hex_hash(text.decode() + stamp + key("cloudinary"), algorithm)
        return Message(JSON | {"X-Cld-Timestamp": stamp, "X-Cld-Signature": signature}, text)

    return Provider(
        preset=f"cloudinary-{algorithm}",
        sdk="cloudinary",
        secret=key("cloudinary"),
        body=lambda event, when: event.json({"notification_type": "upload", "public_id": event.id}),
        sign=sign,
        verify=lambda m: cloudinary.utils.verify_notification_signature(
            m.text, m.lower["x-cld-timestamp"], m.lower["x-cld-signature"], algorithm=algorithm
        ),
        parts=[body(), header("signature", "x-cld-signature"), header("timestamp", "x-cld-timestamp")],
        past=7200,
    )


PROVIDERS += [cloudinary_provider("sha1"), cloudinary_provider("sha256")]

# --- Discord -----------------------------------------------------------------------------------------------------------

DISCORD_KEY = nacl.signing.SigningKey(hashlib.sha256(b"discord").digest())
DISCORD_PUBLIC_KEY = DISCORD_KEY.verify_key.encode().hex()
DISCORD_PEM = (
    Ed25519PrivateKey.from_private_bytes(DISCORD_KEY.encode())
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode()
)


def discord_sign(text: bytes, when: float) -> Message:
    stamp = str(int(when))
    signature = DISCORD_KEY.sign(stamp.encode() + text).signature.hex()
    return Message(JSON | {"X-Signature-Ed25519": signature, "X-Signature-Timestamp": stamp}, text)


def discord_ping(provider: Provider, send: Callable[[Message], object]) -> None:
    ping = json.dumps({"id": "1", "type": discord_interactions.InteractionType.PING}).encode()
    stamped = discord_sign(ping, datetime.now().timestamp())
    answer = send(stamped)
    pong = {"type": discord_interactions.InteractionResponseType.PONG}
    assert answer.code == "challenge" and json.loads(answer.body) == pong, f"a ping was answered with {answer}"
    # Discord sends this too when the URL is entered, and wants 401.
    forged = send(header("signature", "x-signature-ed25519").replaced(stamped, lambda old: old[::-1]))
    assert forged.status == 401, f"a forged ping was answered with {forged}"


PROVIDERS.append(
    Provider(
        preset="discord",
        sdk="discord-interactions",
        secret=DISCORD_PUBLIC_KEY,
        private_key=DISCORD_PEM,
        body=lambda event, when: event.json({"id": event.id, "type": 2, "token": "a-token"}),
        sign=discord_sign,
        verify=lambda m: discord_interactions.verify_key(
            m.body, m.lower["x-signature-ed25519"], m.lower["x-signature-timestamp"], DISCORD_PUBLIC_KEY
        ),
        parts=[body(), header("signature", "x-signature-ed25519"), header("timestamp", "x-signature-timestamp")],
        past=300,
        also=discord_ping,
    )
)

# --- HubSpot -----------------------------------------------------------------------------------------------------------


def hubspot_provider(version: str) -> Provider:
    secret, name = key(f"hubspot-{version}"), "X-HubSpot-Signature" + ("-v3" if version == "v3" else "")
    target = "/hooks/sdk" if version == "v1" else "/hooks/sdk?portal=62515&from=crm"

    def sign(text: bytes, when: float) -> Message:
        message = Message(JSON, text, target)
        stamp = str(int(when * 1000))
        signature = hubspot.utils.signature.Signature.get_signature(
            secret, text.decode(), version, message.url, message.method, stamp
        )
        stamped = {"X-HubSpot-Request-Timestamp": stamp} if version == "v3" else {"X-HubSpot-Signature-Version": version}
        return replace(message, headers=JSON | stamped | {name: signature})

    parts = [body(), header("signature", name)]
    if version != "v1":
        parts += [query("portal"), query("from")]
    if version == "v3":
        parts.append(header("timestamp", "x-hubspot-request-timestamp"))
    return Provider(
        preset=f"hubspot-{version}",
        sdk="hubspot-api-client",
        secret=secret,
        body=lambda event, when: event.json({"eventId": event.id, "subscriptionType": "contact.creation"}),
        sign=sign,
        verify=lambda m: hubspot.utils.signature.Signature.is_valid(
            m.lower[name.lower()],
            secret,
            m.text,
            m.url,
            m.method,
            version,
            m.lower.get("x-hubspot-request-timestamp"),
        ),
        parts=parts,
        past=300 if version == "v3" else None,
        source=() if version == "v1" else PUBLIC_URL,
        target=target,
    )


PROVIDERS += [hubspot_provider("v1"), hubspot_provider("v2"), hubspot_provider("v3")]

# --- Paddle ------------------------------------------------------------------------------------------------------------


def paddle_sign(text: bytes, when: float) -> Message:
    stamp = int(when)
    signed = paddle_billing.Notifications.PaddleSignature.calculate_hmac(key("paddle"), b"%d:%s" % (stamp, text))
    return Message(JSON | {"Paddle-Signature": f"ts={stamp};h1={signed.hexdigest()}"}, text)


PROVIDERS.append(
    Provider(
        preset="paddle",
        sdk="paddle-python-sdk",
        secret=key("paddle"),
        body=lambda event, when: event.json({"event_id": f"evt_{event.id}", "event_type": "transaction.completed"}),
        sign=paddle_sign,
        verify=lambda m: paddle_billing.Notifications.Verifier().verify(
            SimpleNamespace(headers={"Paddle-Signature": m.lower["paddle-signature"]}, body=m.body),
            paddle_billing.Notifications.Secret(key("paddle")),
        ),
        parts=[
            body(),
            header("signature", "paddle-signature", b"h1=(.*)"),
            header("timestamp", "paddle-signature", b"ts=([0-9]*)"),
            header("label", "paddle-signature", b"(;h1=)"),
        ],
        past=5,
    )
)

# --- Plivo -------------------------------------------------------------------------------------------------------------


def plivo_body(event: Event, when: float) -> bytes:
    return event.form([("MessageUUID", event.id), ("To", "14155550199"), ("From", "+1 415 555 0100"), ("Status", "sent")])


def plivo_v2_sign(text: bytes, when: float) -> Message:
    message = Message(FORM, text)
    # The SDK has no signer for this version; that of the next signs what is given, with a dot in between.
    url, number = message.url, nonce()
    mac = plivo.utils.hnew(key("plivo").encode(), (url + number).encode(), plivo.utils.sha256)
    signature = plivo.utils.base64_encode(mac.digest()).strip().decode()
    return replace(message, headers=FORM | {"X-Plivo-Signature-V2": signature, "X-Plivo-Signature-V2-Nonce": number})


def plivo_v3_sign(text: bytes, when: float) -> Message:
    message = Message(FORM, text)
    fields = parse_qs(text.decode(), keep_blank_values=True)
    url = plivo.utils.signature_v3.construct_post_url(message.url, fields).decode()
    number = nonce()
    signature = plivo.utils.signature_v3.get_signature_v3(key("plivo"), url, number).decode()
    # One for each token of the account.
    other = plivo.utils.signature_v3.get_signature_v3(key("another plivo"), url, number).decode()
    stamped = {"X-Plivo-Signature-V3": f"{other},{signature}", "X-Plivo-Signature-V3-Nonce": number}
    return replace(message, headers=FORM | stamped)


PROVIDERS += [
    Provider(
        preset="plivo-v2",
        sdk="plivo",
        secret=key("plivo"),
        body=plivo_body,
        sign=plivo_v2_sign,
        verify=lambda m: plivo.utils.validate_signature(
            m.url, m.lower["x-plivo-signature-v2-nonce"], m.lower["x-plivo-signature-v2"], key("plivo")
        ),
        parts=[header("signature", "x-plivo-signature-v2"), header("nonce", "x-plivo-signature-v2-nonce")],
        unsigned=(body(),),
        source=PUBLIC_URL,
    ),
    Provider(
        preset="plivo-v3-post",
        sdk="plivo",
        secret=key("plivo"),
        body=plivo_body,
        sign=plivo_v3_sign,
        verify=lambda m: plivo.utils.validate_v3_signature(
            m.method,
            m.url,
            m.lower["x-plivo-signature-v3-nonce"],
            key("plivo"),
            m.lower["x-plivo-signature-v3"],
            parse_qs(m.text, keep_blank_values=True),
        ),
        parts=[
            body(),
            header("signature", "x-plivo-signature-v3", b"([^,]*)$"),
            header("nonce", "x-plivo-signature-v3-nonce"),
        ],
        rewritten=rewritten,
        source=PUBLIC_URL,
    ),
]

# --- Pusher ------------------------------------------------------------------------------------------------------------

PROVIDERS.append(
    Provider(
        preset="pusher",
        sdk="pusher",
        secret=key("pusher"),
        body=lambda event, when: event.json(
            {"time_ms": int(when * 1000), "events": [{"name": "channel_occupied", "channel": event.id}]}
        ),
        sign=lambda text, when: Message(
            JSON | {"X-Pusher-Key": "app", "X-Pusher-Signature": pusher.signature.sign(key("pusher"), text.decode())}, text
        ),
        verify=lambda m: pusher.Pusher("1", "app", key("pusher")).validate_webhook(
            "app", m.lower["x-pusher-signature"], m.text
        ),
        parts=[body(), header("signature", "x-pusher-signature"), member("time_ms")],
        past=300,
    )
)

# --- Sanity ------------------------------------------------------------------------------------------------------------

PROVIDERS.append(
    Provider(
        preset="sanity",
        sdk="@sanity/webhook",
        secret=key("sanity"),
        body=lambda event, when: event.json({"_id": event.id, "_type": "page", "_rev": "xm4LFDOyQ1XQsvJZCcCKKA"}),
        sign=lambda text, when: Message(
            JSON
            | {
                "sanity-webhook-signature": node.call(
                    "sanity.encodeSignatureHeader", text.decode(), int(when * 1000), key("sanity")
                )
            },
            text,
        ),
        verify=lambda m: node.call("sanity.isValidSignature", m.text, m.lower["sanity-webhook-signature"], key("sanity")),
        parts=[
            body(),
            header("signature", "sanity-webhook-signature", b"v1=(.*)"),
            header("timestamp", "sanity-webhook-signature", b"t=([0-9]*)"),
            header("label", "sanity-webhook-signature", b"(,v1=)"),
        ],
        past=5400,
    )
)

# --- Slack -------------------------------------------------------------------------------------------------------------

SLACK = slack_sdk.signature.SignatureVerifier(key("slack"))


def slack_sign(text: bytes, when: float) -> Message:
    stamp = str(int(when))
    signature = SLACK.generate_signature(timestamp=stamp, body=text)
    return Message(JSON | {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": signature}, text)


def slack_url_verification(provider: Provider, send: Callable[[Message], object]) -> None:
    challenge = nonce()
    text = json.dumps({"type": "url_verification", "challenge": challenge}).encode()
    answer = send(slack_sign(text, datetime.now().timestamp()))
    assert answer.code == "challenge" and answer.body.decode() == challenge, f"the handshake was answered with {answer}"


PROVIDERS.append(
    Provider(
        preset="slack",
        sdk="slack-sdk",
        secret=key("slack"),
        body=lambda event, when: event.json({"type": "event_callback", "event_id": event.id, "event": {"type": "message"}}),
        sign=slack_sign,
        verify=lambda m: SLACK.is_valid_request(m.body, m.headers),
        parts=[
            body(),
            header("signature", "x-slack-signature", b"v0=(.*)"),
            header("version", "x-slack-signature", b"(v0=)"),
            header("timestamp", "x-slack-request-timestamp"),
        ],
        past=300,
        also=slack_url_verification,
    )
)

# --- Stripe ------------------------------------------------------------------------------------------------------------

PROVIDERS.append(
    Provider(
        preset="stripe",
        sdk="stripe",
        secret="whsec_" + key("stripe"),
        body=lambda event, when: event.json({"id": f"evt_{event.id}", "object": "event", "type": "invoice.paid"}),
        sign=lambda text, when: Message(
            JSON
            | {
                "Stripe-Signature": stripe.WebhookSignature.generate_signature_header(
                    text.decode(), "whsec_" + key("stripe"), int(when)
                )
            },
            text,
        ),
        verify=lambda m: stripe.WebhookSignature.verify_header(
            m.body, m.lower["stripe-signature"], "whsec_" + key("stripe"), tolerance=300
        ),
        parts=[
            body(),
            header("signature", "stripe-signature", b"v1=(.*)"),
            header("timestamp", "stripe-signature", b"t=([0-9]*)"),
            header("label", "stripe-signature", b"(,v1=)"),
        ],
        past=300,
    )
)

# --- Twilio ------------------------------------------------------------------------------------------------------------

TWILIO = twilio.request_validator.RequestValidator(key("twilio"))


class Fields(dict):
    """A form as web frameworks hand it to the SDK: several values for a key."""

    def __init__(self, text: str) -> None:
        super().__init__(parse_qs(text, keep_blank_values=True))

    def getall(self, name: str) -> list[str]:
        return self[name]


def twilio_body(event: Event, when: float) -> bytes:
    fields = [("MessageSid", event.id), ("From", "+14155550100"), ("Body", "Ja & nein = vielleicht?"), ("status", "sent")]
    # The same key several times, and one value twice: the SDK signs each value once.
    if event.number % 2:
        fields += [("Media", "b"), ("Media", "a"), ("Media", "b")]
    return event.form(fields)


def twilio_sign(text: bytes, when: float) -> Message:
    message = Message(FORM, text, "/hooks/sdk?shop=12")
    # Sometimes with the port that the URL has anyway.
    url = message.url.replace(".com/", ".com:443/") if len(text) % 2 else message.url
    return replace(message, headers=FORM | {"X-Twilio-Signature": TWILIO.compute_signature(url, Fields(text.decode()))})


def twilio_json_sign(text: bytes, when: float) -> Message:
    message = Message(JSON, text, f"/hooks/sdk?shop=12&bodySHA256={TWILIO.compute_hash(text.decode())}")
    return replace(message, headers=JSON | {"X-Twilio-Signature": TWILIO.compute_signature(message.url, {})})


PROVIDERS += [
    Provider(
        preset="twilio",
        sdk="twilio",
        secret=key("twilio"),
        body=twilio_body,
        sign=twilio_sign,
        verify=lambda m: TWILIO.validate(m.url, Fields(m.text), m.lower["x-twilio-signature"]),
        parts=[body(), header("signature", "x-twilio-signature"), query("shop")],
        rewritten=lambda text: rewritten(text) | {"with a field twice": text + b"&status=sent"},
        source=PUBLIC_URL,
        target="/hooks/sdk?shop=12",
    ),
    Provider(
        preset="twilio-json",
        sdk="twilio",
        secret=key("twilio"),
        body=lambda event, when: event.json({"event": "conversation-state-updated", "id": event.id}),
        sign=twilio_json_sign,
        verify=lambda m: TWILIO.validate(m.url, m.text, m.lower["x-twilio-signature"]),
        parts=[body(), header("signature", "x-twilio-signature"), query("shop"), query("bodySHA256")],
        source=PUBLIC_URL,
        target="/hooks/sdk?shop=12",
    ),
]
