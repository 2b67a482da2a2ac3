"""Deterministic CBOR with four kinds of item (PROTOCOL 1), and the shapes of structs over it.

A shape is a function from a decoded value (int, bytes, str or list) to a checked one; it raises `Malformed`.
"""

import re
from types import SimpleNamespace

from .errors import Malformed

DEPTH_MAX = 16


def _head(major: int, n: int) -> bytes:
    if n < 24:
        return bytes([major << 5 | n])
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if n < 1 << (8 * size):
            return bytes([major << 5 | info]) + n.to_bytes(size, "big")
    raise Malformed("an integer over 64 bits")


def encode(value) -> bytes:
    """The one encoding of an int, bytes, str, or a list or tuple of such."""
    if isinstance(value, int) and not isinstance(value, bool):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        raw = value.encode()
        return _head(3, len(raw)) + raw
    if isinstance(value, (list, tuple)):
        return _head(4, len(value)) + b"".join(encode(v) for v in value)
    raise TypeError(f"{type(value).__name__} has no encoding")


def decode(data: bytes):
    """The value of canonical bytes; any other bytes are refused."""
    value, end = _item(data, 0, 0)
    if end != len(data):
        raise Malformed("bytes follow the value")
    if encode(value) != data:
        raise Malformed("not the canonical encoding")
    return value


def _item(data: bytes, at: int, depth: int):
    if at >= len(data):
        raise Malformed("the bytes end early")
    major, info = data[at] >> 5, data[at] & 31
    at += 1
    if major > 4:
        raise Malformed(f"an item of major type {major}")
    if info < 24:
        n = info
    elif info <= 27:
        size = 1 << (info - 24)
        if at + size > len(data):
            raise Malformed("the bytes end early")
        n = int.from_bytes(data[at : at + size], "big")
        at += size
    else:
        raise Malformed("an indefinite or reserved length")
    if major == 0:
        return n, at
    if major == 1:
        if n >> 63:
            raise Malformed("an integer below 64 bits")
        return -1 - n, at
    if major == 4:
        if depth >= DEPTH_MAX:
            raise Malformed("nested too deeply")
        items = []
        # No list is allocated by a length alone: every item takes a byte at least.
        for _ in range(n):
            value, at = _item(data, at, depth + 1)
            items.append(value)
        return items, at
    if at + n > len(data):
        raise Malformed("the bytes end early")
    raw = data[at : at + n]
    if major == 2:
        return raw, at + n
    try:
        return raw.decode(), at + n
    except UnicodeDecodeError:
        raise Malformed("text that is not UTF-8") from None


def uint(bits: int):
    def read(value):
        if not isinstance(value, int) or not 0 <= value < 1 << bits:
            raise Malformed(f"not an unsigned integer of {bits} bits")
        return value

    return read


u8, u16, u32, u64 = uint(8), uint(16), uint(32), uint(64)


def data(value):
    if not isinstance(value, bytes):
        raise Malformed("not a byte string")
    return value


def fixed(size: int):
    def read(value):
        if len(data(value)) != size:
            raise Malformed(f"not a byte string of {size}")
        return value

    return read


h32, b16, b64 = fixed(32), fixed(16), fixed(64)


def text(value):
    if not isinstance(value, str):
        raise Malformed("not a text string")
    return value


def name(pattern: str, what: str):
    compiled = re.compile(pattern)

    def read(value):
        if not compiled.fullmatch(text(value)):
            raise Malformed(f"not {what}")
        return value

    return read


AGENCY = r"[a-z][a-z0-9-]{0,31}"
agency = name(AGENCY, "an agency")
dataset = name(rf"ds:{AGENCY}/[a-z][a-z0-9-]{{0,47}}@[1-9][0-9]{{0,5}}", "a dataset")


def items(value):
    if not isinstance(value, list):
        raise Malformed("not an array")
    return value


def optional(shape):
    def read(value):
        if len(items(value)) > 1:
            raise Malformed("an optional value of several")
        return shape(value[0]) if value else None

    return read


def many(shape):
    return lambda value: [shape(v) for v in items(value)]


def pair(first, second):
    def read(value):
        if len(items(value)) != 2:
            raise Malformed("not an array of two")
        return first(value[0]), second(value[1])

    return read


def struct(what: str, **fields):
    """An array of the named fields in this order. The result keeps its own canonical bytes as `.cbor`."""

    def read(value):
        if len(items(value)) != len(fields):
            raise Malformed(f"{what} has {len(fields)} fields")
        read_fields = {}
        for (field, shape), v in zip(fields.items(), value):
            try:
                read_fields[field] = shape(v)
            except Malformed as e:
                raise Malformed(f"{what}.{field}: {e}") from None
        return SimpleNamespace(**read_fields, cbor=encode(value))

    return read


def kinds(what: str, **table):
    """A numbered shape `[k, ...]`: `name=(k, {field: shape})`. The result has `.kind`, the name."""
    shapes = {k: (kind, struct(kind, **fields)) for kind, (k, fields) in table.items()}

    def read(value):
        if not items(value) or not isinstance(value[0], int) or value[0] not in shapes:
            raise Malformed(f"{what} of no known kind")
        kind, shape = shapes[value[0]]
        result = shape(value[1:])
        result.kind = kind.replace("_", "-")
        result.cbor = encode(value)
        return result

    return read


def parse(shape, raw: bytes):
    """Canonical bytes as a shape."""
    return shape(decode(raw))
