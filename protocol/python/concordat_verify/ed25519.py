"""Ed25519 twice: the strict rule of PROTOCOL 2, and ZIP-215, by which CometBFT judges votes.

The library does the arithmetic of the common case. What it leaves open (which encodings of points it takes, points of
small order) is decided here, and the full ZIP-215 equation, which it has not, is here too. Nothing is secret, so nothing
needs to run in constant time.
"""

from hashlib import sha512

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)
IDENTITY = (0, 1, 1, 0)


def _recover_x(y: int, sign: int) -> int | None:
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if v * x * x % P == (-u) % P:
        x = x * SQRT_M1 % P
    if v * x * x % P != u:
        return None
    return P - x if x & 1 != sign and x else x


def decompress(raw: bytes):
    """The point of an encoding as ZIP-215 reads it, other than the canonical encoding included; None where there is none."""
    n = int.from_bytes(raw, "little")
    y, sign = n & (1 << 255) - 1, n >> 255
    x = _recover_x(y % P, sign)
    return None if x is None else (x, y % P, 1, x * y % P)


def compress(point) -> bytes:
    x, y, z, _ = point
    inverse = pow(z, P - 2, P)
    x, y = x * inverse % P, y * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def negate(p):
    return -p[0] % P, p[1], p[2], -p[3] % P


def multiply(n: int, p):
    result = IDENTITY
    while n:
        if n & 1:
            result = add(result, p)
        p, n = add(p, p), n >> 1
    return result


def is_identity(p) -> bool:
    return p[0] % P == 0 and (p[1] - p[2]) % P == 0


BASE = decompress((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def is_good_point(raw: bytes) -> bool:
    """Whether these are the canonical bytes of a point that is not of small order."""
    point = decompress(raw) if len(raw) == 32 else None
    return point is not None and compress(point) == raw and not is_identity(multiply(8, point))


def _library_verify(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def verify_strict(key: bytes, signature: bytes, message: bytes) -> bool:
    """The key and R canonical and not of small order, S below L, and the equation without cofactor."""
    if len(key) != 32 or len(signature) != 64 or int.from_bytes(signature[32:], "little") >= L:
        return False
    return is_good_point(key) and is_good_point(signature[:32]) and _library_verify(key, signature, message)


def verify_zip215(key: bytes, signature: bytes, message: bytes) -> bool:
    """Any encoding of the points, S below L, and 8sB = 8R + 8kA."""
    if len(key) != 32 or len(signature) != 64:
        return False
    s = int.from_bytes(signature[32:], "little")
    if s >= L:
        return False
    # What satisfies the equation without cofactor satisfies it with cofactor too.
    if _library_verify(key, signature, message):
        return True
    a, r = decompress(key), decompress(signature[:32])
    if a is None or r is None:
        return False
    k = int.from_bytes(sha512(signature[:32] + key + message).digest(), "little") % L
    difference = add(multiply(s, BASE), negate(add(r, multiply(k, a))))
    return is_identity(multiply(8, difference))
