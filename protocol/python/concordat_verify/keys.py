"""Keys, signatures and signed bytes (PROTOCOL 2)."""

from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

from . import cbor, ed25519
from .errors import Malformed

ED25519, ML_DSA_65, HYBRID, X_WING = 1, 2, 3, 4
# suite: lengths of a key's two parts, and of a signature's.
PARTS = {ED25519: ((32, 0), (64, 0)), ML_DSA_65: ((0, 1952), (0, 3309)), HYBRID: ((32, 1952), (64, 3309))}
SUITES = (ED25519, ML_DSA_65, HYBRID, X_WING)

ROLES = ("root", "approver", "security", "writer", "envelope", "gateway", "release", "cosign", "kem")


def role(value):
    """The name of a role's number."""
    if not 1 <= cbor.u64(value) <= len(ROLES):
        raise Malformed("a role of no known number")
    return ROLES[value - 1]


def public_key(value):
    key = cbor.struct("PublicKey", suite=cbor.u8, ed25519=cbor.data, pq=cbor.data)(value)
    if key.suite not in SUITES:
        raise Malformed("a key of no known suite")
    return key


def check_key(key):
    """Lengths of a key's parts, and its point."""
    lengths = (0, 1216) if key.suite == X_WING else PARTS[key.suite][0]
    if (len(key.ed25519), len(key.pq)) != lengths:
        raise Malformed("a key of another length than its suite's")
    if key.ed25519 and not ed25519.is_good_point(key.ed25519):
        raise Malformed("an Ed25519 key that is not canonical or of small order")


def signature(value):
    sig = cbor.struct("Signature", suite=cbor.u8, ed25519=cbor.data, pq=cbor.data)(value)
    if sig.suite not in SUITES:
        raise Malformed("a signature of no known suite")
    return sig


def from_hex(shape, text: str):
    """A key or signature as its hex text."""
    if not isinstance(text, str) or text != text.lower():
        raise Malformed("not lower-case hex")
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raise Malformed("not hex") from None
    if raw.hex() != text:
        raise Malformed("not hex")
    return cbor.parse(shape, raw)


def key_id(key) -> bytes:
    return sha256(key.cbor).digest()[:16]


def signed_bytes(statement: str, chain: str, body: bytes) -> bytes:
    return b"concordat/v1/" + statement.encode() + b"\x00" + chain.encode() + b"\x00" + body


def ed25519_key(raw: bytes):
    """A bare Ed25519 key, as sessions have it."""
    return public_key([ED25519, raw, b""])


def ed25519_signature(raw: bytes):
    return signature([ED25519, raw, b""])


def verify(key, sig, statement: str, chain: str, body: bytes) -> bool:
    """Whether every part of the signature verifies under the key, which must be of the same suite."""
    if key.suite != sig.suite or key.suite not in PARTS:
        return False
    if ((len(key.ed25519), len(key.pq)), (len(sig.ed25519), len(sig.pq))) != PARTS[key.suite]:
        return False
    message = signed_bytes(statement, chain, body)
    if key.ed25519 and not ed25519.verify_strict(key.ed25519, sig.ed25519, message):
        return False
    if key.pq:
        try:
            MLDSA65PublicKey.from_public_bytes(key.pq).verify(sig.pq, message)
        except (InvalidSignature, ValueError):
            return False
    return True
