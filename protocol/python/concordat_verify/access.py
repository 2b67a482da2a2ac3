"""Access lists: every operation that names a subject in a range of the log, and the proof that there is no other.

From the subject's key follow its tags, one a day. Each run of the ledger's subject index is shown with the complete list
under the tags of its days and under the bulk tag (*may include anybody*); an empty list proves absence.
"""

import hmac
from hashlib import sha256

from . import base, cbor, ops, trees, words
from .base import Report, check, need

VERSION = 1
DECODE_MAX = 64 << 20
DAY_MS = 86_400_000
BULK_TAG = bytes(16)
BULK_VALUE_HASH = sha256(b"\x01").digest()

_run_view = cbor.struct(
    "RunView",
    first_index=cbor.u64,
    end_index=cbor.u64,
    from_ms=cbor.u64,
    to_ms=cbor.u64,
    count=cbor.u64,
    root=cbor.h32,
)
_run_part = cbor.struct(
    "RunPart", number=cbor.u64, run=_run_view, path=trees.path_shape, lists=cbor.many(trees.sorted_shape)
)
_access_entry = cbor.struct(
    "AccessEntry",
    index=cbor.u64,
    entry=ops.log_entry,
    log_path=trees.path_shape,
    op=cbor.data,
    openings=cbor.optional(trees.redacted_shape),
    bulk=cbor.optional(trees.sorted_shape),
    sentence=cbor.text,
)
_access_list = cbor.struct(
    "AccessList",
    version=cbor.u64,
    chain=cbor.text,
    dataset=cbor.dataset,
    subject_key=cbor.h32,
    roots=ops.store_roots,
    runs=cbor.many(_run_part),
    entries=cbor.many(_access_entry),
    header=cbor.data,
    validators=cbor.data,
    checkpoint=cbor.optional(base.checkpoint_shape),
)


def subject_tag(key: bytes, dataset: str, day: int) -> bytes:
    """The tag of a subject on a day (UTC days since 1970)."""
    return hmac.digest(key, dataset.encode() + b"\x00" + day.to_bytes(8, "big"), "sha256")[:16]


def days_of(run) -> range:
    """The days whose tags a run may hold: an operation's day is its tick's or the day before."""
    return range(max(run.from_ms // DAY_MS - 1, 0), run.to_ms // DAY_MS + 1)


def verify_list(raw: bytes, trust) -> dict:
    """What the list proves: see the README. Raises `Invalid`."""
    report = Report()
    with check("decode"):
        need(len(raw) <= DECODE_MAX, f"{len(raw)} bytes, more than a list may have")
        access = cbor.parse(_access_list, raw)
        need(access.version == VERSION, f"version {access.version} of lists is not known")
    report.add("decode", f"{len(raw)} bytes in their one canonical encoding")
    anchor = base.check_anchor(access, trust, report)
    named = _check_runs(access, report)
    with check("list"):
        indices = [e.index for e in access.entries]
        need(all(a < b for a, b in zip(indices, indices[1:])), "entries out of order")
        need(indices == sorted(named), "the entries shown are not those that the runs name")
    report.add("list", f"the {len(indices)} operations that the runs name are shown, and no other")
    shown = [_check_entry(access, e, named, anchor) for e in access.entries]
    report.add("entry", "each stands in the log, as shown, and what is opened belongs to it")
    first, last = access.runs[0], access.runs[-1]
    cosigners = base.check_checkpoint(access, trust, anchor, last.run.end_index, report)
    return {
        "valid": True,
        "status": "final" if cosigners else "provisional",
        "dataset": access.dataset,
        "provider": _provider(access),
        "subject": sha256(access.subject_key).hexdigest()[:16],
        "first_run": first.number,
        "from_index": first.run.first_index,
        "complete_to": last.run.end_index,
        "complete_to_ms": last.run.to_ms,
        # The number of runs is not in the file; the newest one stands at the right edge of the tree.
        "to_newest_run": trees.is_last(last.path),
        "proof_height": anchor.height,
        "cosigners": cosigners,
        "accesses": shown,
        "checks": report.as_json(),
    }


def _provider(access) -> str:
    return access.dataset[len("ds:") :].partition("/")[0]


def _check_runs(access, report: Report) -> dict[int, tuple[bytes, set]]:
    """The operations that the runs name: by index the hash of the operation's value and the tags it stands under."""
    named: dict[int, tuple[bytes, set]] = {}
    with check("runs"):
        need(bool(access.runs), "a list without runs says nothing")
        for before, part in zip([None, *access.runs], access.runs):
            run = part.run
            leaf = trees.value_leaf(ops.index_key(part.number), run.cbor)
            need(trees.climb(part.path, leaf) == access.roots.runs, f"run {part.number} is not in the state")
            if before is not None:
                follows = part.number == before.number + 1 and run.first_index == before.run.end_index
                need(follows, f"run {part.number} does not follow run {before.number}")
    covered = f"operations {access.runs[0].run.first_index} to {access.runs[-1].run.end_index - 1}"
    report.add("runs", f"{len(access.runs)} runs stand in the state, one after the other, and cover {covered}")
    with check("tags"):
        for part in access.runs:
            _check_lists(access, part, named)
    report.add("tags", f"under the subject's tags and the bulk tag stand {len(named)} operations, and no other")
    return named


def _check_lists(access, part, named):
    tags = [subject_tag(access.subject_key, access.dataset, day) for day in days_of(part.run)] + [BULK_TAG]
    need(len(part.lists) == len(tags), f"run {part.number} has not one list a day and one for bulk")
    for tag, proof in zip(tags, part.lists):
        need(proof.adjacent.size == part.run.count, f"run {part.number}: a list of another size")
        for found in trees.found_under(proof, tag, part.run.root):
            need(len(found.key) == 24, "a key that is no tag and index")
            index = int.from_bytes(found.key[16:], "big")
            need(part.run.first_index <= index < part.run.end_index, "an operation outside of its run")
            value_hash, under = named.setdefault(index, (found.value_hash, set()))
            need(value_hash == found.value_hash, f"op:{index} stands with two hashes")
            under.add(tag)


def _check_entry(access, e, named, anchor) -> dict:
    with check("entry"):
        leaf = ops.entry_leaf(e.index, e.entry)
        need(trees.climb(e.log_path, leaf) == access.roots.log, f"op:{e.index} is not in the log")
        need(e.entry.height <= anchor.height, "an entry newer than the header")
    with check("op_hash"):
        need(ops.op_hash(e.op) == e.entry.op_hash, f"op:{e.index} shown is not the one in the log")
        provider = ops.provider_of(e.entry)
        op = ops.parse(e.op, e.entry, access.chain)
        value_hash, under = named[e.index]
        need(value_hash == sha256(e.entry.op_hash).digest(), f"the run names another operation op:{e.index}")
        tags = getattr(op, "tags", [])
        carried = {BULK_TAG} if isinstance(tags, tuple) else set(tags)
        need(under <= carried, f"op:{e.index} does not have the tag under which it was found")
    includes = _check_bulk(access, e, op, provider, under)
    with check("commitment"):
        opened = _opened(e, op)
    text = {name: ops.shown(name, value) for name, value in opened.items()}
    open_by = int.from_bytes(opened.get("open_by", b""), "big")
    return {
        "operation": f"op:{e.index}",
        "kind": op.kind,
        "tick_ms": e.entry.tick_ms,
        "writer": e.entry.writer,
        "verdict": words.VERDICTS[e.entry.verdict],
        "code": e.entry.code,
        "code_text": words.CODES.get(e.entry.code, "unknown code"),
        "clause": text.get("clause") or None,
        "consumer": text.get("consumer") or None,
        "purpose": text.get("purpose") or None,
        "opened": text,
        "open_by_ms": open_by or None,
        "state": _state(includes, e.openings, set(opened)),
        "sentence": e.sentence,
    }


def _opened(e, op) -> dict[str, bytes]:
    """What is opened: nothing, or who, why and on what ground, or the date of that alone."""
    if e.openings is None:
        return {}
    root = trees.redacted_root(e.openings)
    need(root == op.commitment, f"the fields shown of op:{e.index} do not belong to it")
    opened = e.openings.opened
    dated = opened.keys() == {"open_by"} and len(opened["open_by"]) == 8
    complete = opened.keys() >= {"consumer", "clause", "purpose"}
    need(dated or complete, f"op:{e.index} opens neither consumer, clause and purpose nor the date of that alone")
    return opened


def _state(includes: bool | None, openings, opened: set) -> str:
    """What the list says of an operation: of the subject or not, and whether its fields are open."""
    if includes is None:
        return "maybe"
    if not includes:
        return "not-included"
    if openings is None:
        return "erased"
    return "sealed" if opened == {"open_by"} else "open"


def _check_bulk(access, e, op, provider: str, under: set) -> bool | None:
    """Whether the operation is about the subject; None where that is not shown."""
    # Tags are public: another agency can repeat them, but only the dataset's owner records who was given its data.
    foreign = provider != _provider(access)
    with check("bulk"):
        if not isinstance(op.tags, tuple):
            need(e.bulk is None, f"op:{e.index} has its tags in itself")
            return not foreign and under != {BULK_TAG}
        if foreign or e.bulk is None:
            need(e.bulk is None, f"op:{e.index} is another agency's: there is nothing to show")
            return False if foreign else None
        count, bulk_root = op.tags
        need(e.bulk.adjacent.size == count, f"a bulk list of op:{e.index} of another size")
        tag = subject_tag(access.subject_key, access.dataset, op.day)
        found = trees.found_under(e.bulk, tag, bulk_root)
        good = [(x.key, x.value_hash) for x in found] in ([], [(tag, BULK_VALUE_HASH)])
        need(good, "a bulk list with another entry")
        return bool(found)
