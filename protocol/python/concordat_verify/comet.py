"""CometBFT's part: protobuf of SignedHeader and ValidatorSet in normal form, their hashes, and votes (CometBFT 0.38)."""

import re
from hashlib import sha256
from types import SimpleNamespace

from . import ed25519, trees
from .errors import Malformed

ABSENT, COMMIT, NIL = 1, 2, 3
PRECOMMIT = 2
# Go's zero time, which an absent vote carries.
ZERO_SECONDS = -62135596800
CHAIN = re.compile("[A-Za-z0-9._-]{1,50}")
VARINT, FIXED64, BYTES = 0, 1, 2


def fields(raw: bytes) -> list[tuple[int, int | bytes]]:
    out, at = [], 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(raw) or shift > 63:
                raise Malformed("protobuf ends early")
            byte = raw[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(raw):
        tag = varint()
        if tag & 7 == VARINT:
            out.append((tag >> 3, varint()))
        elif tag & 7 == BYTES:
            size = varint()
            if at + size > len(raw):
                raise Malformed("protobuf ends early")
            out.append((tag >> 3, raw[at : at + size]))
            at += size
        else:
            raise Malformed("a protobuf field of another type")
    return out


def message(raw: bytes, repeated: int | None = None) -> dict:
    """Fields by number. The comparison with what we encode finds everything that is out of order, unknown or given twice."""
    out: dict = {}
    for number, value in fields(raw):
        if number == repeated:
            out.setdefault(number, []).append(value)
        else:
            out[number] = value
    return out


def _int(m: dict, number: int, signed: bool = True) -> int:
    value = m.get(number, 0)
    if not isinstance(value, int) or value >= 1 << 64:
        raise Malformed("not an integer")
    return value - (1 << 64) if signed and value >= 1 << 63 else value


def _bytes(m: dict, number: int) -> bytes:
    value = m.get(number, b"")
    if not isinstance(value, bytes):
        raise Malformed("not bytes")
    return value


def put_int(number: int, value: int) -> bytes:
    return trees.uvarint(number << 3) + trees.uvarint(value % (1 << 64)) if value else b""


def put_fixed(number: int, value: int) -> bytes:
    return trees.uvarint(number << 3 | FIXED64) + (value % (1 << 64)).to_bytes(8, "little") if value else b""


def put_bytes(number: int, value: bytes) -> bytes:
    return put_message(number, value) if value else b""


def put_message(number: int, value: bytes) -> bytes:
    """An embedded message: written even where it is empty."""
    return trees.uvarint(number << 3 | BYTES) + trees.uvarint(len(value)) + value


def _time(raw: bytes):
    m = message(raw)
    return _int(m, 1), _int(m, 2)


def put_time(time) -> bytes:
    return put_int(1, time[0]) + put_int(2, time[1])


def _block_id(raw: bytes):
    m = message(raw)
    parts = message(_bytes(m, 2))
    return SimpleNamespace(hash=_bytes(m, 1), total=_int(parts, 1), parts=_bytes(parts, 2))


def put_block_id(block) -> bytes:
    return put_bytes(1, block.hash) + put_message(2, put_int(1, block.total) + put_bytes(2, block.parts))


HASHES = ("last_commit", "data", "validators", "next_validators", "consensus", "app", "last_results", "evidence")


def _header(raw: bytes):
    m = message(raw)
    version = message(_bytes(m, 1))
    try:
        chain = _bytes(m, 2).decode()
    except UnicodeDecodeError:
        raise Malformed("a chain that is not UTF-8") from None
    if not CHAIN.fullmatch(chain):
        raise Malformed("a chain's name of another form")
    header = SimpleNamespace(
        block=_int(version, 1, signed=False),
        app_version=_int(version, 2, signed=False),
        chain=chain,
        height=_int(m, 3),
        time=_time(_bytes(m, 4)),
        last_block=_block_id(_bytes(m, 5)),
        proposer=_bytes(m, 14),
    )
    for number, name in enumerate(HASHES, 6):
        setattr(header, name, _bytes(m, number))
    return header


def _put_version(header) -> bytes:
    return put_int(1, header.block) + put_int(2, header.app_version)


def _put_header(header) -> bytes:
    out = put_message(1, _put_version(header)) + put_bytes(2, header.chain.encode()) + put_int(3, header.height)
    out += put_message(4, put_time(header.time)) + put_message(5, put_block_id(header.last_block))
    out += b"".join(put_bytes(number, getattr(header, name)) for number, name in enumerate(HASHES, 6))
    return out + put_bytes(14, header.proposer)


def header_hash(header) -> bytes:
    """RFC 6962 root over the fourteen fields, each in protobuf; single values are wrapped in a message of one field."""
    leaves = [_put_version(header), put_bytes(1, header.chain.encode()), put_int(1, header.height)]
    leaves += [put_time(header.time), put_block_id(header.last_block)]
    leaves += [put_bytes(1, getattr(header, name)) for name in HASHES]
    leaves += [put_bytes(1, header.proposer)]
    return trees.root([trees.leaf(x) for x in leaves])


def _vote(raw: bytes):
    m = message(raw)
    return SimpleNamespace(flag=_int(m, 1), address=_bytes(m, 2), time=_time(_bytes(m, 3)), signature=_bytes(m, 4))


def _put_vote(vote) -> bytes:
    out = put_int(1, vote.flag) + put_bytes(2, vote.address) + put_message(3, put_time(vote.time))
    return out + put_bytes(4, vote.signature)


def signed_header(raw: bytes):
    """A `SignedHeader` in normal form: `.header` and `.commit`."""
    outer = message(raw)
    header = _header(_bytes(outer, 1))
    m = message(_bytes(outer, 2), repeated=4)
    commit = SimpleNamespace(height=_int(m, 1), round=_int(m, 2), block=_block_id(_bytes(m, 3)), votes=[])
    for vote in m.get(4, []):
        if not isinstance(vote, bytes):
            raise Malformed("a vote that is no message")
        commit.votes.append(_vote(vote))
    again = put_int(1, commit.height) + put_int(2, commit.round) + put_message(3, put_block_id(commit.block))
    again += b"".join(put_message(4, _put_vote(v)) for v in commit.votes)
    if put_message(1, _put_header(header)) + put_message(2, again) != raw:
        raise Malformed("not in normal form")
    for vote in commit.votes:
        blank = not vote.address and not vote.signature and vote.time == (ZERO_SECONDS, 0)
        if vote.flag not in (ABSENT, COMMIT, NIL) or (vote.flag == ABSENT and not blank):
            raise Malformed("a vote of no known form")
    if commit.height != header.height:
        raise Malformed("the commit is of another height")
    return SimpleNamespace(header=header, commit=commit)


def address(key: bytes) -> bytes:
    return sha256(key).digest()[:20]


def validator_leaf(key: bytes, power: int) -> bytes:
    """`SimpleValidator`, what the hash of a set covers."""
    return put_message(1, put_bytes(1, key)) + put_int(2, power)


def validators_hash(validators: list[tuple[bytes, int]]) -> bytes:
    """The hash of (key, power) in CometBFT's order: most power first, then by address."""
    ordered = sorted(validators, key=lambda v: (-v[1], address(v[0])))
    return trees.root([trees.leaf(validator_leaf(*v)) for v in ordered])


def validator_set(raw: bytes) -> list[tuple[bytes, int]]:
    """A `ValidatorSet` in normal form, as (key, power) in its own order: no proposer, no priorities."""
    m = message(raw, repeated=1)
    out, again = [], b""
    for value in m.get(1, []):
        if not isinstance(value, bytes):
            raise Malformed("a validator that is no message")
        v = message(value)
        key, power = _bytes(message(_bytes(v, 2)), 1), _int(v, 3)
        if len(key) != 32 or power <= 0:
            raise Malformed("a validator without an Ed25519 key or power")
        out.append((key, power))
        one = put_bytes(1, address(key)) + put_message(2, put_bytes(1, key)) + put_int(3, power)
        again += put_message(1, one)
    if again + put_int(3, sum(p for _, p in out)) != raw:
        raise Malformed("not in normal form")
    return out


def vote_bytes(chain: str, commit, vote) -> bytes:
    """What a validator signs: `CanonicalVote`, with its length before it."""
    body = put_int(1, PRECOMMIT) + put_fixed(2, commit.height) + put_fixed(3, commit.round)
    body += put_message(4, put_block_id(commit.block)) + put_message(5, put_time(vote.time))
    body += put_bytes(6, chain.encode())
    return trees.uvarint(len(body)) + body


def check_commit(signed, validators: list[tuple[bytes, int]]) -> int:
    """Every vote shown is good and they hold more than two thirds of the power. Answers how many there are."""
    header, commit = signed.header, signed.commit
    if commit.block.hash != header_hash(header):
        raise Malformed("the commit is for another header")
    if len(commit.votes) != len(validators):
        raise Malformed("the commit has not one vote a validator")
    voted = count = 0
    for vote, (key, power) in zip(commit.votes, validators):
        if vote.flag != COMMIT:
            if vote.flag != ABSENT:
                raise Malformed("a vote that is neither for this block nor absent")
            continue
        if vote.address != address(key):
            raise Malformed("a vote of another validator")
        if not ed25519.verify_zip215(key, vote.signature, vote_bytes(header.chain, commit, vote)):
            raise Malformed("a vote's signature does not verify")
        voted, count = voted + power, count + 1
    total = sum(p for _, p in validators)
    if voted * 3 <= total * 2:
        raise Malformed(f"votes hold {voted} of {total}: not more than two thirds")
    return count
