"""Trees (PROTOCOL 3): RFC 6962, CometBFT's simple-map leaves, inclusion paths, proofs by prefix, salted leaf sets."""

from hashlib import sha256

from . import cbor
from .errors import Malformed

EMPTY = sha256(b"").digest()
PATH_MAX = 63
LEAVES_MAX = 4096
NAME_MAX = 256


def leaf(data: bytes) -> bytes:
    return sha256(b"\x00" + data).digest()


def node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def root(hashes: list[bytes]) -> bytes:
    if not hashes:
        return EMPTY
    if len(hashes) == 1:
        return hashes[0]
    k = _split(len(hashes))
    return node(root(hashes[:k]), root(hashes[k:]))


def uvarint(n: int) -> bytes:
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def value_leaf(key: bytes, value: bytes) -> bytes:
    return value_leaf_of_hash(key, sha256(value).digest())


def value_leaf_of_hash(key: bytes, value_hash: bytes) -> bytes:
    return leaf(uvarint(len(key)) + key + b"\x20" + value_hash)


path_shape = cbor.struct("Path", sides=cbor.u64, hashes=cbor.many(cbor.h32))


def climb(path, at: bytes) -> bytes:
    """The root to which a path leads from a leaf's hash."""
    if len(path.hashes) > PATH_MAX or path.sides >> len(path.hashes):
        raise Malformed("a path that is not in its one encoding")
    for k, sibling in enumerate(path.hashes):
        at = node(sibling, at) if path.sides >> k & 1 else node(at, sibling)
    return at


def is_last(path) -> bool:
    """Whether nothing stands right of this path's leaf: every hash of the path is on its left."""
    return path.sides == (1 << len(path.hashes)) - 1


adjacent_shape = cbor.struct("AdjacentProof", index=cbor.u64, size=cbor.u64, siblings=cbor.many(cbor.h32))
sorted_leaf_shape = cbor.struct("SortedLeaf", key=cbor.data, value_hash=cbor.h32)
sorted_shape = cbor.struct(
    "SortedProof",
    before=cbor.optional(sorted_leaf_shape),
    found=cbor.many(sorted_leaf_shape),
    after=cbor.optional(sorted_leaf_shape),
    adjacent=adjacent_shape,
)


def adjacent_root(proof, hashes: list[bytes]) -> bytes:
    """The root of a tree of `proof.size` leaves with these hashes side by side from `proof.index`."""
    first, end = proof.index, proof.index + len(hashes)
    if end > proof.size:
        raise Malformed("leaves beyond the end of the tree")
    siblings = iter(proof.siblings)

    def build(start: int, size: int) -> bytes:
        if start + size <= first or start >= end:
            try:
                return next(siblings)
            except StopIteration:
                raise Malformed("too few hashes") from None
        if size == 1:
            return hashes[start - first]
        k = _split(size)
        left = build(start, k)
        return node(left, build(start + k, size - k))

    if proof.size == 0:
        result = EMPTY
    elif not hashes:
        raise Malformed("a proof about no leaf")
    else:
        result = build(0, proof.size)
    if next(siblings, None) is not None:
        raise Malformed("too many hashes")
    return result


def found_under(proof, prefix: bytes, expected_root: bytes):
    """The complete list of leaves whose key starts with `prefix`, or `Malformed` where the proof does not show that."""
    leaves = [x for x in (proof.before, *proof.found, proof.after) if x is not None]
    keys = [x.key for x in leaves]
    if any(a >= b for a, b in zip(keys, keys[1:])):
        raise Malformed("keys that do not increase")
    if not all(x.key.startswith(prefix) for x in proof.found):
        raise Malformed("a found key without the prefix")
    if proof.before is not None and (proof.before.key.startswith(prefix) or proof.before.key > prefix):
        raise Malformed("the left neighbour belongs to the list")
    if proof.after is not None and (proof.after.key.startswith(prefix) or proof.after.key < prefix):
        raise Malformed("the right neighbour belongs to the list")
    if proof.before is None and proof.adjacent.index != 0:
        raise Malformed("the left neighbour is missing")
    if proof.after is None and proof.adjacent.index + len(leaves) != proof.adjacent.size:
        raise Malformed("the right neighbour is missing")
    hashes = [value_leaf_of_hash(x.key, x.value_hash) for x in leaves]
    if adjacent_root(proof.adjacent, hashes) != expected_root:
        raise Malformed("the list does not belong to this root")
    return proof.found


def _redacted(value):
    redacted = cbor.struct("Redacted", leaves=cbor.many(_LEAF))(value)
    redacted.opened = {x.name: x.value for x in redacted.leaves if x.kind == "opened"}
    return redacted


_LEAF = cbor.kinds(
    "leaf",
    opened=(1, {"name": cbor.text, "salt": cbor.b16, "value": cbor.data}),
    hidden=(2, {"hash": cbor.h32}),
)
redacted_shape = _redacted


def redacted_root(redacted) -> bytes:
    names = [x.name.encode() for x in redacted.leaves if x.kind == "opened"]
    if any(a >= b for a, b in zip(names, names[1:])):
        raise Malformed("opened names that do not increase")
    if len(redacted.leaves) > LEAVES_MAX or any(len(n) > NAME_MAX for n in names):
        raise Malformed("over a limit of leaf sets")
    hashes = []
    for x in redacted.leaves:
        if x.kind == "hidden":
            hashes.append(x.hash)
        else:
            raw = x.name.encode()
            hashes.append(leaf(x.salt + len(raw).to_bytes(2, "big") + raw + x.value))
    return root(hashes)
