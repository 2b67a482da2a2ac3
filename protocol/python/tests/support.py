"""Where the corpus lies, and a small city of its own from which tests make evidence that the corpus lacks."""

import json
from hashlib import sha256
from pathlib import Path

from concordat_verify import Trust, cbor, comet, ops, trees
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ROOT = Path(__file__).resolve().parents[3]
VECTORS = ROOT / "protocol" / "vectors"
FIXTURES = ROOT / "tests" / "fixtures"
CHAIN = "city-of-tests"


def load(*path: str):
    return json.loads(VECTORS.joinpath(*path).read_text())


def vector_trust(folder: str = "receipt") -> Trust:
    return Trust(VECTORS.joinpath(folder, "trust.json").read_text())


class Key:
    """An Ed25519 key made from a number."""

    def __init__(self, n: int):
        self.secret = Ed25519PrivateKey.from_private_bytes(sha256(b"tests" + bytes([n])).digest())
        raw = self.secret.public_key()
        self.raw = raw.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.cbor = cbor.encode([1, self.raw, b""])


class City:
    """Four agencies with a validator each, and trust.json for them."""

    def __init__(self):
        self.agencies = ["court", "grid", "police", "transport"]
        self.validators = [Key(n) for n in range(4)]
        self.roots = [Key(10 + n) for n in range(4)]
        self.trust_json = self._trust()
        self.trust = Trust(json.dumps(self.trust_json))

    def _genesis(self) -> str:
        agencies, validators = [], []
        for agency, validator, root in zip(self.agencies, self.validators, self.roots):
            keys = [{"role": "root", "label": "main", "key": root.cbor.hex()}]
            own = {"key": validator.raw.hex(), "power": 10}
            agencies.append({"agency": agency, "roles": [], "keys": keys, "validator": own})
            key = {"type": "tendermint/PubKeyEd25519", "value": _base64(validator.raw)}
            validators.append({"pub_key": key, "power": "10", "name": agency})
        state = {"version": 1, "agencies": agencies}
        return json.dumps({"chain_id": CHAIN, "initial_height": "1", "validators": validators, "app_state": state})

    def _trust(self) -> dict:
        rows, validators, keys = [], [], []
        for agency, validator, root in zip(self.agencies, self.validators, self.roots):
            rows.append([agency, cbor.decode(root.cbor), [], [validator.raw]])
            validators.append({"agency": agency, "key": validator.raw.hex(), "power": 10})
            keys.append({"agency": agency, "root": root.cbor.hex()})
        epoch = {
            "n": 0,
            "from_height": 1,
            "validators_hash": comet.validators_hash([(v.raw, 10) for v in self.validators]).hex(),
            "pq_keys_hash": sha256(cbor.encode(rows)).hexdigest(),
            "prev_hash": bytes(32).hex(),
            "validators": validators,
            "keys": keys,
            "signatures": [],
        }
        genesis = self._genesis()
        return {"version": 1, "chain": CHAIN, "genesis": genesis, "epochs": [epoch], "oversight": []}

    def anchor(self, roots: list[bytes], height: int = 9, voters: int = 4) -> tuple[bytes, bytes]:
        """A signed header of the height after, whose app hash is over these roots, and its validators."""
        named = zip(("heads", "log", "meta", "runs"), roots)
        app = trees.root([trees.value_leaf(name.encode(), root) for name, root in named])
        ordered = sorted(self.validators, key=lambda v: comet.address(v.raw))
        own = comet.validators_hash([(v.raw, 10) for v in ordered])
        some, block = sha256(b"some").digest(), comet.put_bytes(1, bytes(32)) + comet.put_message(2, comet.put_int(1, 1))
        version = comet.put_int(1, 11) + comet.put_int(2, 1)
        time = comet.put_int(1, 1_790_000_000)
        body = comet.put_message(1, version) + comet.put_bytes(2, CHAIN.encode()) + comet.put_int(3, height)
        body += comet.put_message(4, time) + comet.put_message(5, block)
        hashes = {6: some, 7: some, 8: own, 9: own, 10: some, 11: app, 12: some, 13: some, 14: comet.address(ordered[0].raw)}
        body += b"".join(comet.put_bytes(number, value) for number, value in hashes.items())
        header = comet._header(body)
        part = comet.put_message(2, comet.put_int(1, 1) + comet.put_bytes(2, some))
        block_id = comet.put_bytes(1, comet.header_hash(header)) + part
        commit = comet.SimpleNamespace(height=height, round=0, block=comet._block_id(block_id))
        out = comet.put_int(1, height) + comet.put_message(3, block_id)
        for n, validator in enumerate(ordered):
            vote = comet.SimpleNamespace(time=(1_790_000_001, n))
            if n < voters:
                signature = validator.secret.sign(comet.vote_bytes(CHAIN, commit, vote))
                one = comet.put_int(1, 2) + comet.put_bytes(2, comet.address(validator.raw))
                one += comet.put_message(3, comet.put_time(vote.time)) + comet.put_bytes(4, signature)
            else:
                one = comet.put_int(1, 1) + comet.put_message(3, comet.put_int(1, comet.ZERO_SECONDS))
            out += comet.put_message(4, one)
        signed = comet.put_message(1, body) + comet.put_message(2, out)
        members = b""
        for validator in ordered:
            key = comet.put_message(2, comet.put_bytes(1, validator.raw))
            members += comet.put_message(1, comet.put_bytes(1, comet.address(validator.raw)) + key + comet.put_int(3, 10))
        return signed, members + comet.put_int(3, 40)


def _base64(raw: bytes) -> str:
    import base64

    return base64.b64encode(raw).decode()


def path_to(hashes: list[bytes], index: int) -> list:
    """`Path` to a leaf, made from all leaves."""
    sides, siblings = [], []

    def descend(part: list[bytes], at: int):
        if len(part) == 1:
            return
        k = 1 << ((len(part) - 1).bit_length() - 1)
        if at < k:
            descend(part[:k], at)
            sides.append(0)
            siblings.append(trees.root(part[k:]))
        else:
            descend(part[k:], at - k)
            sides.append(1)
            siblings.append(trees.root(part[:k]))

    descend(hashes, index)
    return [sum(side << k for k, side in enumerate(sides)), siblings]


def list_under(rows: list[tuple[bytes, bytes]], prefix: bytes) -> list:
    """`SortedProof` of the rows (key, value hash), sorted, whose key starts with a prefix."""
    inside = [n for n, (key, _) in enumerate(rows) if key.startswith(prefix)]
    start = inside[0] if inside else sum(key < prefix for key, _ in rows)
    end = inside[-1] + 1 if inside else start
    before, after = (rows[start - 1 : start] if start else []), rows[end : end + 1]
    first, last = start - len(before), end + len(after)
    hashes = [trees.value_leaf_of_hash(*row) for row in rows]
    siblings: list[bytes] = []

    def cover(at: int, size: int):
        if at + size <= first or at >= last:
            siblings.append(trees.root(hashes[at : at + size]))
        elif size > 1:
            k = 1 << ((size - 1).bit_length() - 1)
            cover(at, k)
            cover(at + k, size - k)

    if rows:
        cover(0, len(rows))
    found = [list(rows[n]) for n in inside]
    return [[list(r) for r in before], found, [list(r) for r in after], [first, len(rows), siblings]]


__all__ = ["City", "Key", "ops"]
