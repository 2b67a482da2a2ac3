"""What receipts and lists have in common: from the four roots to a signed header, to the keys in trust.json."""

from contextlib import contextmanager
from types import SimpleNamespace

from . import cbor, comet, keys, ops
from .errors import Invalid, Malformed

_cosignature = cbor.struct(
    "Cosignature", agency=cbor.agency, archived_height=cbor.u64, signature=keys.signature
)
checkpoint_shape = cbor.struct(
    "CheckpointPart", tick_ms=cbor.u64, log_size=cbor.u64, cosignatures=cbor.many(_cosignature)
)


@contextmanager
def check(name: str):
    """What goes wrong inside is the failure of this check."""
    try:
        yield
    except Malformed as e:
        raise Invalid(name, str(e)) from None


def need(condition: bool, sentence: str):
    if not condition:
        raise Malformed(sentence)


class Report:
    """The checks that were made, in order, with a sentence each."""

    def __init__(self):
        self.checks: list[tuple[str, str]] = []

    def add(self, name: str, sentence: str):
        self.checks.append((name, sentence))

    def as_json(self) -> list[dict]:
        return [{"name": name, "sentence": sentence} for name, sentence in self.checks]


def check_anchor(evidence, trust, report: Report):
    """`header`, `chain`, `validators`, `commit`, `app_hash`. Answers the epoch and the height that the roots are of."""
    last = trust.epochs[-1]
    report.add("trust", f"trust.json holds together up to epoch {last.n}, fingerprint {trust.fingerprint}")
    with check("header"):
        signed = comet.signed_header(evidence.header)
    header = signed.header
    with check("chain"):
        need(evidence.chain == trust.chain, f"made for chain {evidence.chain}, trust.json is of {trust.chain}")
        need(header.chain == trust.chain, f"the header is of chain {header.chain}")
    report.add("chain", f"the evidence, its header and trust.json are of chain {trust.chain}")
    with check("validators"):
        validators = comet.validator_set(evidence.validators)
        epoch = trust.epoch_at(header.height)
        need(epoch is not None, "no epoch of trust.json covers this height")
        own = comet.validators_hash(validators)
        need(header.validators == own, "the header was made under other validators")
        need(own == epoch.hashes[0], f"the validators are not those of epoch {epoch.n} in trust.json")
        in_order = sorted(validators, key=lambda v: (-v[1], comet.address(v[0])))
        need(validators == in_order, "the validators are not in CometBFT's order")
    report.add("validators", f"the validators are those of epoch {epoch.n} in trust.json")
    with check("commit"):
        votes = comet.check_commit(signed, validators)
    report.add("commit", f"{votes} validators with more than 2/3 of the power signed header {header.height}")
    with check("app_hash"):
        need(ops.app_hash(evidence.roots) == header.app, "the four roots do not make the app hash of the header")
    report.add("app_hash", f"the four roots make the app hash in header {header.height}")
    return SimpleNamespace(epoch=epoch, height=header.height - 1)


def check_checkpoint(evidence, trust, anchor, end: int, report: Report) -> list[str]:
    """`checkpoint`, where there is one; it must cover the log before `end`. Answers who cosigned."""
    part = evidence.checkpoint
    if part is None:
        return []
    signers: list[str] = []
    roots = cbor.decode(evidence.roots.cbor)
    with check("checkpoint"):
        need(end <= part.log_size, f"the checkpoint covers {part.log_size} entries, not op:{end - 1}")
        checkpoint = [trust.chain, anchor.height, part.tick_ms, part.log_size, roots]
        for c in part.cosignatures:
            need(not signers or signers[-1] < c.agency, "cosigners that do not increase")
            key = anchor.epoch.cosign_of(c.agency)
            body = cbor.encode([checkpoint, c.agency, c.archived_height])
            need(key is None or key.suite in (keys.ML_DSA_65, keys.HYBRID), f"{c.agency} has no post-quantum key")
            good = key is not None and keys.verify(key, c.signature, "cosign", trust.chain, body)
            need(good, f"the cosignature of {c.agency} does not verify")
            signers.append(c.agency)
        need(anchor.epoch.is_carried(set(signers)), "not more than two thirds of the validators cosigned")
    report.add("checkpoint", f"{', '.join(signers)} cosigned the checkpoint of height {anchor.height}")
    return signers
