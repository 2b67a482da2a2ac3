"""Receipts (PROTOCOL 11): one operation, proven from its log entry to the validators' votes."""

from hashlib import sha256

from . import base, cbor, keys, ops, trees, words
from .base import Report, check, need


VERSION = 1
DECODE_MAX = 1 << 20
RELEASED = ("query", "intent", "break-glass")
# 256 requests a signature.
REQUEST_PATH_MAX = 8
ON_SESSION = (*RELEASED, "deny")

_request_part = cbor.struct(
    "RequestPart",
    request=ops.request,
    path=trees.path_shape,
    signature=cbor.b64,
    session=ops.session_leaf,
    session_path=trees.path_shape,
)
_release_part = cbor.struct("ReleasePart", signature=keys.signature, key=ops.key_view, key_path=trees.path_shape)
_receipt = cbor.struct(
    "Receipt",
    version=cbor.u64,
    chain=cbor.text,
    index=cbor.u64,
    entry=ops.log_entry,
    log_path=trees.path_shape,
    roots=ops.store_roots,
    op=cbor.data,
    openings=cbor.optional(trees.redacted_shape),
    request=cbor.optional(_request_part),
    release=cbor.optional(_release_part),
    header=cbor.data,
    validators=cbor.data,
    checkpoint=cbor.optional(base.checkpoint_shape),
)


def decode(raw: bytes):
    with check("decode"):
        need(len(raw) <= DECODE_MAX, f"{len(raw)} bytes, more than a receipt may have")
        receipt = cbor.parse(_receipt, raw)
        need(receipt.version == VERSION, f"version {receipt.version} of receipts is not known")
        return receipt


def verify_receipt(raw: bytes, trust) -> dict:
    """What the receipt proves, under these names and in this form: see the README. Raises `Invalid`."""
    report = Report()
    r = decode(raw)
    report.add("decode", f"{len(raw)} bytes in their one canonical encoding")
    anchor = base.check_anchor(r, trust, report)
    op = _check_log(r, anchor, report)
    opened = _check_commitment(r, op, report)
    provider = ops.provider_of(r.entry)
    with check("request_signature"):
        need(r.request is not None or op.kind not in RELEASED, f"a {op.kind} without the request that it answers")
    if r.request is not None:
        _check_request(r, op, opened, provider, report)
    with check("release_signature"):
        need(r.release is None or op.kind in RELEASED, f"a {op.kind} releases nothing")
    contested = r.release is not None and _check_release(r, opened, provider, report)
    cosigners = base.check_checkpoint(r, trust, anchor, r.index + 1, report)
    verdict = words.VERDICTS[r.entry.verdict]
    code_text = words.CODES.get(r.entry.code, "unknown code")
    if verdict == "accepted":
        report.add("verdict", f"the ledger accepted op:{r.index}")
    else:
        released = "; yet the provider released data" if r.release is not None else ""
        said = f"{verdict}, code {r.entry.code} ({code_text})"
        report.add("verdict", f"the ledger did not accept op:{r.index}: {said}{released}")
    result = _result(r, op, opened, anchor, provider)
    parties = sorted({a for a in (provider, result["consumer"]) if a})
    return result | {
        "verdict": verdict,
        "code": r.entry.code,
        "code_text": code_text,
        "contested": contested,
        "cosigners": cosigners,
        # Where the receipt is final: which of the two parties did not confirm it themselves.
        "not_countersigned": [a for a in parties if a not in cosigners] if cosigners else [],
        "status": "final" if cosigners else "provisional",
        "checks": report.as_json(),
    }


def _check_log(r, anchor, report: Report):
    verdict = words.VERDICTS[r.entry.verdict]
    with check("log_path"):
        need(trees.climb(r.log_path, ops.entry_leaf(r.index, r.entry)) == r.roots.log, "the entry is not in the log")
        need(r.entry.height <= anchor.height, "the entry is newer than the header")
    report.add("log_path", f"op:{r.index} stands in the log, {verdict} at height {r.entry.height}")
    with check("op_hash"):
        need(ops.op_hash(r.op) == r.entry.op_hash, "the operation shown is not the one in the log")
        ops.provider_of(r.entry)
        op = ops.parse(r.op, r.entry, r.chain)
    report.add("op_hash", f"the {op.kind} shown is the one in the log")
    return op


def _check_commitment(r, op, report: Report) -> dict[str, bytes]:
    if r.openings is None:
        return {}
    with check("commitment"):
        need(hasattr(op, "commitment"), f"a {op.kind} commits to no fields")
        need(trees.redacted_root(r.openings) == op.commitment, "the fields shown do not belong to this operation")
    opened = r.openings.opened
    report.add("commitment", f"opened leaves belong to the operation: {', '.join(opened) or 'none'}")
    return opened


def _check_request(r, op, opened, provider: str, report: Report):
    part, session = r.request, r.request.session
    request = part.request
    with check("chain"):
        need(request.chain == r.chain, f"the request is for chain {request.chain}")
    with check("request"):
        need(op.kind in ON_SESSION and op.n > 0, f"a {op.kind} that answers no request")
    with check("session"):
        key = f"session/{op.session}".encode()
        leaf = trees.value_leaf(key, session.cbor)
        need(trees.climb(part.session_path, leaf) == r.roots.heads, f"session {op.session} is not in the state")
        both = {session.provider, request.provider}
        need(both == {provider}, f"session and request must be with {provider}, whose writer made the entry")
    with check("request"):
        need((request.session, request.n) == (op.session, op.n), "the request has another session or number")
    report.add("session", f"session {op.session} of {session.consumer} with {session.provider} stands in the state")
    with check("request_signature"):
        need(len(part.path.hashes) <= REQUEST_PATH_MAX, "more requests under one signature than allowed")
        body = cbor.encode(trees.climb(part.path, trees.leaf(request.cbor)))
        key, sig = keys.ed25519_key(session.key), keys.ed25519_signature(part.signature)
        need(keys.verify(key, sig, "request", r.chain, body), "the session's key did not sign this request")
    report.add("request_signature", f"{session.consumer} signed the request")
    with check("request"):
        need(opened.get("request_hash") == sha256(request.cbor).digest(), "the operation commits to another request")
        _check_agreement_of(op, request, session, opened)
    report.add("request", "the operation commits to this request, and they agree in what is opened")


def _check_agreement_of(op, request, session, opened):
    said = {"consumer": session.consumer, "purpose": request.purpose, "case": request.case}
    for name, value in said.items():
        need(name not in opened or opened[name] == value.encode(), f"the request and the operation differ in {name}")
    # A denial names the clause that forbade, which may be another one.
    if op.kind != "deny" and request.clause and opened.get("clause"):
        clause = opened["clause"].decode(errors="replace").rpartition("/")[2]
        need(clause == request.clause.rpartition("/")[2], "the request and the operation differ in clause")


def _check_release(r, opened, provider: str, report: Report) -> bool:
    part, view = r.release, r.release.key
    with check("release_key"):
        key = b"key/" + keys.key_id(view.key).hex().encode()
        leaf = trees.value_leaf(key, view.cbor)
        need(trees.climb(part.key_path, leaf) == r.roots.meta, "the key is not registered with these facts")
        need(view.role == "release", "the key is not for releases")
        need(view.agency == provider, f"the key is of {view.agency}, not of {provider}")
        need(not view.revoked_ms or r.entry.tick_ms < view.revoked_ms, "the key was revoked before the entry")
    report.add("release_key", f"{provider} registered the release key, and it was not revoked at the entry")
    with check("content_root"):
        content_root = opened.get("content_root", b"")
        need(len(content_root) == 32, "the root of the operation's content is not opened")
    with check("release_signature"):
        request_hash = sha256(r.request.request.cbor).digest()
        body = cbor.encode([request_hash, r.entry.op_hash, content_root])
        good = keys.verify(view.key, part.signature, "release", r.chain, body)
        need(good, "the release key did not sign the release of this content")
    report.add("release_signature", f"{provider} signed the release of this content for this request")
    since = view.compromised_since_ms
    if since and r.entry.tick_ms >= since:
        report.add("contested", "the release key is declared compromised since before this entry")
        return True
    return False


def _result(r, op, opened, anchor, provider: str) -> dict:
    agreement, _, clause = opened.get("clause", b"").decode(errors="replace").rpartition("/")
    consumer = opened.get("consumer", b"").decode(errors="replace")
    if r.request is not None:
        consumer, clause = r.request.session.consumer, clause or r.request.request.clause
    return {
        "valid": True,
        "operation": f"op:{r.index}",
        "kind": op.kind,
        "handle": getattr(op, "handle", None) or None,
        "height": r.entry.height,
        "proof_height": anchor.height,
        "tick_ms": r.entry.tick_ms,
        "writer": r.entry.writer,
        "provider": provider,
        "consumer": consumer or None,
        "agreement": agreement or None,
        "clause": clause or None,
        "opened": {name: ops.shown(name, value) for name, value in opened.items()},
        "released": r.release is not None,
    }


