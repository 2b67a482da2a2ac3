"""trust.json (PROTOCOL 11): what a verifier takes as given, and whether it holds together."""

import base64
import json
import re
from hashlib import sha256
from types import SimpleNamespace

from . import cbor, comet, keys
from .errors import Invalid, Malformed

VERSION = 1
ZEROS = bytes(32)


def _pairs(pairs):
    out = {}
    for name, value in pairs:
        if name in out:
            raise Malformed(f"{name} is given twice")
        out[name] = value
    return out


def load_json(text: str):
    def refuse(what):
        raise Malformed(f"a number that is no integer: {what}")

    try:
        return json.loads(text, object_pairs_hook=_pairs, parse_float=refuse, parse_constant=refuse)
    except (ValueError, RecursionError) as e:
        raise Malformed(f"not JSON: {e}") from None


def members(value, what: str, needed: tuple, allowed: tuple = ()) -> dict:
    """An object with these members and no others."""
    if not isinstance(value, dict):
        raise Malformed(f"{what} is no object")
    for name in needed:
        if name not in value:
            raise Malformed(f"{what} has no {name}")
    for name in value:
        if name not in needed and name not in allowed:
            raise Malformed(f"{what} has an unknown member {name}")
    return value


def _list(value) -> list:
    if not isinstance(value, list):
        raise Malformed("not an array")
    return value


def _number(value) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
        raise Malformed("not a number")
    return value


def _hex(value, size: int) -> bytes:
    if not isinstance(value, str) or not re.fullmatch(rf"[0-9a-f]{{{2 * size}}}", value):
        raise Malformed(f"not {size} bytes in hex")
    return bytes.fromhex(value)


def _key(value):
    key = keys.from_hex(keys.public_key, value)
    keys.check_key(key)
    return key


class Epoch:
    """Validators and post-quantum keys from a height on."""

    def __init__(self, value):
        names = ("n", "from_height", "validators_hash", "pq_keys_hash", "prev_hash", "validators", "keys", "signatures")
        m = members(value, "an epoch", names)
        self.n, self.from_height = _number(m["n"]), _number(m["from_height"])
        self.hashes = [_hex(m[name], 32) for name in ("validators_hash", "pq_keys_hash", "prev_hash")]
        self.validators = []
        for v in _list(m["validators"]):
            v = members(v, "a validator", ("agency", "key", "power"))
            self.validators.append((cbor.agency(v["agency"]), _hex(v["key"], 32), _number(v["power"])))
        self.keys = []
        for k in _list(m["keys"]):
            k = members(k, "keys", ("agency", "root"), ("cosign",))
            cosign = _key(k["cosign"]) if k.get("cosign") is not None else None
            self.keys.append((cbor.agency(k["agency"]), _key(k["root"]), cosign))
        self.signatures = []
        for s in _list(m["signatures"]):
            s = members(s, "a signature", ("agency", "signature"))
            sig = keys.from_hex(keys.signature, s["signature"])
            self.signatures.append((cbor.agency(s["agency"]), sig))

    @property
    def body(self) -> bytes:
        """What the epoch before signs."""
        return cbor.encode([self.n, self.from_height, *self.hashes])

    def check_hashes(self):
        agencies = [k[0] for k in self.keys]
        if any(a >= b for a, b in zip(agencies, agencies[1:])):
            raise Malformed("agencies that do not increase")
        for column in (0, 1):
            if len({v[column] for v in self.validators}) != len(self.validators):
                raise Malformed("an agency or a validator's key that is given twice")
        if not self.validators or any(power == 0 for _, _, power in self.validators):
            raise Malformed("an epoch without validators or power")
        if comet.validators_hash([(key, power) for _, key, power in self.validators]) != self.hashes[0]:
            raise Malformed(f"epoch {self.n}: its validators are not those of its hash")
        if pq_keys_hash(self.keys, self.validators) != self.hashes[1]:
            raise Malformed(f"epoch {self.n}: its keys are not those of its hash")
        if not {v[0] for v in self.validators} <= set(agencies):
            raise Malformed(f"epoch {self.n}: an agency with a validator has no keys")

    def is_carried(self, agencies: set) -> bool:
        """Whether these are more than two thirds of the validator agencies and hold more than two thirds of the power."""
        powers = {agency: power for agency, _, power in self.validators}
        mine = agencies & powers.keys()
        return 3 * len(mine) > 2 * len(powers) and 3 * sum(powers[a] for a in mine) > 2 * sum(powers.values())

    def root_of(self, agency: str):
        return next((root for a, root, _ in self.keys if a == agency), None)

    def cosign_of(self, agency: str):
        return next((cosign for a, _, cosign in self.keys if a == agency), None)


def pq_keys_hash(entries, validators) -> bytes:
    """Covers whose each validator is too: CometBFT's hash of the validators does not."""
    own = {agency: [key] for agency, key, _ in validators}
    rows = []
    for agency, root, cosign in entries:
        rows.append([agency, _plain(root), [_plain(cosign)] if cosign else [], own.get(agency, [])])
    return sha256(cbor.encode(rows)).digest()


def _plain(shape):
    return cbor.decode(shape.cbor)


class Trust:
    """A trust.json that holds together, from its genesis to its last epoch."""

    def __init__(self, text: str):
        """Raises `Invalid` in check `trust`."""
        try:
            self._read(text)
        except Malformed as e:
            raise Invalid("trust", str(e)) from None

    def _read(self, text: str):
        m = members(load_json(text), "trust.json", ("version", "chain", "genesis", "epochs", "oversight"))
        if m["version"] != VERSION or not isinstance(m["chain"], str) or not isinstance(m["genesis"], str):
            raise Malformed("trust.json of another form")
        self.chain, self.genesis = m["chain"], m["genesis"]
        self.oversight = []
        for o in _list(m["oversight"]):
            o = members(o, "an oversight key", ("name", "key"))
            self.oversight.append((cbor.text(o["name"]), _key(o["key"])))
        self.epochs = [Epoch(e) for e in _list(m["epochs"])]
        if not self.epochs:
            raise Malformed("there is no epoch")
        for epoch in self.epochs:
            epoch.check_hashes()
        self._check_first(read_genesis(self.genesis))
        for before, epoch in zip(self.epochs, self.epochs[1:]):
            self._check_next(before, epoch)

    def _check_first(self, genesis):
        first = self.epochs[0]
        if genesis.chain != self.chain:
            raise Malformed("the genesis is of another chain")
        if (first.n, first.from_height, first.hashes[2]) != (0, 1, ZEROS) or first.signatures:
            raise Malformed("epoch 0 is not the first one")
        if sorted(first.validators) != genesis.validators:
            raise Malformed("the validators of epoch 0 are not those of the genesis")
        if pq_keys_hash(genesis.keys, genesis.validators) != first.hashes[1]:
            raise Malformed("the keys of epoch 0 are not those of the genesis")

    def _check_next(self, before: Epoch, epoch: Epoch):
        if epoch.n != before.n + 1 or epoch.from_height <= before.from_height:
            raise Malformed(f"epoch {epoch.n} does not follow epoch {before.n}")
        if epoch.hashes[2] != sha256(before.body).digest():
            raise Malformed(f"epoch {epoch.n} names another epoch before it")
        signed = set()
        for agency, sig in epoch.signatures:
            key = before.root_of(agency)
            if agency in signed or key is None or not keys.verify(key, sig, "epoch", self.chain, epoch.body):
                raise Malformed(f"epoch {epoch.n}: the signature of {agency} is not good")
            signed.add(agency)
        if not before.is_carried(signed):
            raise Malformed(f"epoch {epoch.n} is not signed by enough of the epoch before")

    def epoch_at(self, height: int) -> Epoch | None:
        return next((e for e in reversed(self.epochs) if e.from_height <= height), None)

    @property
    def fingerprint(self) -> str:
        """What people compare aloud; it stays the same as epochs chain on."""
        named = [[name, key.cbor] for name, key in self.oversight]
        raw = sha256(cbor.encode([sha256(self.genesis.encode()).digest(), named])).hexdigest()
        return " ".join(raw[i : i + 4] for i in range(0, 32, 4))


def read_genesis(text: str):
    """What epoch 0 must say, from the text of CometBFT's genesis.json."""
    genesis = load_json(text)
    if not isinstance(genesis, dict) or not isinstance(genesis.get("chain_id"), str):
        raise Malformed("the genesis has no chain_id")
    state = members(genesis.get("app_state"), "app_state", ("version", "agencies"), ("params",))
    if state["version"] != VERSION:
        raise Malformed("app_state of another version")
    validators, found = [], []
    for entry in _list(state["agencies"]):
        m = members(entry, "an agency", ("agency", "keys"), ("roles", "validator"))
        agency = cbor.agency(m["agency"])
        root = cosign = None
        for k in _list(m["keys"]):
            k = members(k, "a key", ("role", "label", "key"))
            # The first of a role counts.
            if k["role"] == "root" and root is None:
                root = _key(k["key"])
            elif k["role"] == "cosign" and cosign is None:
                cosign = _key(k["key"])
        if root is None:
            raise Malformed(f"{agency} has no root key")
        found.append((agency, root, cosign))
        if m.get("validator") is not None:
            v = members(m["validator"], "a validator", ("key", "power"))
            validators.append((agency, _hex(v["key"], 32), _number(v["power"])))
    if sorted((k, p) for _, k, p in validators) != sorted(_comet_validators(genesis)):
        raise Malformed("the agencies' validators are not CometBFT's")
    validators.sort()
    found.sort(key=lambda f: f[0])
    return SimpleNamespace(
        chain=genesis["chain_id"], validators=validators, keys=found
    )


def _comet_validators(genesis) -> list[tuple[bytes, int]]:
    out = []
    for v in _list(genesis.get("validators")):
        try:
            key, power = base64.b64decode(v["pub_key"]["value"], validate=True), int(v["power"])
            kind, address = v["pub_key"]["type"], v.get("address", "")
        except (KeyError, TypeError, ValueError, AttributeError):
            raise Malformed("a validator of another form") from None
        if kind != "tendermint/PubKeyEd25519" or address not in ("", comet.address(key).hex().upper()):
            raise Malformed("a validator of another form")
        out.append((key, power))
    return out
