"""Whether a receipt proves an answer: the receipt itself, then that it is of this question and of these very rows."""

from hashlib import sha256

from concordat_verify import Invalid, Trust, verify_receipt
from concordat_verify import trees

from .answer import Answer

__all__ = ["Invalid", "prove"]


def _salts(secret: bytes, count: int) -> list[bytes]:
    """PROTOCOL 3: SHA-256(secret || u32be pair) gives two salts."""
    pairs = (sha256(secret + n.to_bytes(4, "big")).digest() for n in range((count + 1) // 2))
    return [half for pair in pairs for half in (pair[:16], pair[16:])][:count]


def content_root(secret: bytes, rows: list[bytes]) -> bytes:
    """The root of released rows: salted leaves, the count first."""
    values = [len(rows).to_bytes(8, "big"), *rows]
    return trees.root([trees.leaf(salt + value) for salt, value in zip(_salts(secret, len(values)), values)])


def _need(ok: bool, check: str, detail: str):
    if not ok:
        raise Invalid(check, detail)


def prove(receipt: bytes, trust: Trust, answer: Answer) -> dict:
    """What the receipt proves of the answer. Raises `Invalid` at the first thing that does not fit."""
    proven = verify_receipt(receipt, trust)
    _need(proven["verdict"] == "accepted", "verdict", "the ledger did not accept the operation")
    _need(proven["released"], "release", "the receipt proves no release")
    for name, said in (("operation", answer.operation), ("agreement", answer.agreement), ("clause", answer.clause)):
        _need(proven[name] == said, "answer", f"the receipt names {name} {proven[name]}, the answer {said}")
    provider = answer.asked["dataset"].removeprefix("ds:").partition("/")[0]
    _need(proven["provider"] == provider, "answer", f"the receipt is of {proven['provider']}, {provider} was asked")
    for name in ("purpose", "case"):
        asked = answer.asked.get(name) or ""
        opened = proven["opened"].get(name)
        _need(opened == asked, "answer", f"the receipt says {name} {opened!r}, asked was {asked!r}")
    root = content_root(answer.content_secret, answer.raw_rows).hex()
    _need(proven["opened"].get("content_root") == root, "content_root", "these rows are not what the operation records")
    return proven
