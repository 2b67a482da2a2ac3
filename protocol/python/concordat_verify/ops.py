"""Log entries, operations, state leaves (PROTOCOL 5, 6, 8) and their shapes."""

from hashlib import sha256

from . import cbor, keys, trees
from .cbor import b16, h32, many, struct, text, u16, u64
from .errors import Malformed

verdict = cbor.uint(2)
log_entry = struct(
    "LogEntry", height=u64, tick_ms=u64, writer=text, incarnation=u64, seq=u64, op_hash=h32, verdict=verdict, code=u16
)
store_roots = struct("StoreRoots", heads=h32, log=h32, meta=h32, runs=h32)
session_leaf = struct(
    "SessionLeaf", consumer=cbor.agency, provider=cbor.agency, key=h32, expires_ms=u64, newest_n=u64, window_hash=h32
)
key_view = struct(
    "KeyView",
    agency=cbor.agency,
    role=keys.role,
    label=text,
    key=keys.public_key,
    revoked_ms=u64,
    compromised_since_ms=u64,
)
request = struct(
    "Request",
    chain=text,
    session=u64,
    n=u64,
    provider=cbor.agency,
    dataset=cbor.dataset,
    clause=text,
    purpose=text,
    case=text,
    query_hash=h32,
    kem_key_id=b16,
    not_after_ms=u64,
)


def tags(value):
    """Either tags of 16 bytes, or `[count, root]` of so many that they travel apart."""
    if len(cbor.items(value)) == 2 and isinstance(value[0], int):
        return cbor.pair(u64, h32)(value)
    return many(b16)(value)


_ON_SESSION = {"handle": u64, "session": u64, "n": u64, "day": u64, "tags": tags, "commitment": h32}
_REFERENCE = {"reference": u64, "commitment": h32}
operation = cbor.kinds(
    "an operation",
    publish=(1, {"dataset": u64, "last_seq": u64, "count": u64, "root": h32}),
    deliver=(
        2,
        {"handle": u64, "subscription": u64, "last_sub_seq": u64, "count": u64, "root": h32, "oldest_ms": u64}
        | {"day": u64, "tags": tags, "commitment": h32},
    ),
    query=(3, _ON_SESSION),
    intent=(4, _ON_SESSION),
    break_glass=(5, _ON_SESSION),
    deny=(6, _ON_SESSION),
    outcome=(7, _REFERENCE),
    withheld=(8, _REFERENCE),
    review=(9, _REFERENCE),
    annotate=(10, _REFERENCE),
    erase=(11, _REFERENCE),
    ack=(12, _REFERENCE),
)

ACTS = (
    "genesis key-add key-revoke dataset session-open session-close propose approve reject suspend revoke renew reset dispute "
    "complaint equivocation params validator agency-add agency-remove upgrade epoch roles role-map"
).split()


def _act_body(value):
    """Only the kind of an act is of interest here: the log's hash covers the rest."""
    if not cbor.items(value) or not 1 <= u64(value[0]) <= len(ACTS):
        raise Malformed("an act of no known kind")
    return value


act = struct("Act", chain=text, agency=cbor.agency, key_id=b16, counter=u64, body=_act_body)

# Leaves of a commitment whose value is text, and those whose value is a number; the others are bytes.
TEXTS = ("actor", "case", "clause", "consumer", "evidence", "purpose")
NUMBERS = ("count", "open_by")


def parse(raw: bytes, entry, chain: str):
    """The operation, or the act, that an entry is about."""
    if not entry.writer.startswith("act:"):
        return cbor.parse(operation, raw)
    parsed = cbor.parse(act, raw)
    if (parsed.chain, parsed.agency, parsed.counter) != (chain, provider_of(entry), entry.seq):
        raise Malformed("an act of another agency, chain or counter than its entry")
    parsed.kind = ACTS[parsed.body[0] - 1]
    return parsed


def index_key(index: int) -> bytes:
    return index.to_bytes(8, "big")


def entry_leaf(index: int, entry) -> bytes:
    return trees.value_leaf(index_key(index), entry.cbor)


def app_hash(roots) -> bytes:
    """CometBFT's simple map over the four roots, in the order of their names."""
    named = ((name, getattr(roots, name)) for name in ("heads", "log", "meta", "runs"))
    return trees.root([trees.value_leaf(name.encode(), value) for name, value in named])


def provider_of(entry) -> str:
    """The agency whose writer made an entry, or whose act it is."""
    if entry.writer.startswith("act:"):
        return cbor.agency(entry.writer[4:])
    agency, slash, name = entry.writer.partition("/")
    if not slash:
        raise Malformed(f"{entry.writer} is not the writer of an operation")
    cbor.agency(name)
    return cbor.agency(agency)


def op_hash(raw: bytes) -> bytes:
    return sha256(raw).digest()


def shown(name: str, value: bytes) -> str:
    """An opened value as people read it."""
    if name in NUMBERS and len(value) == 8:
        return str(int.from_bytes(value, "big"))
    if name in TEXTS:
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    return value.hex()
