"""Receipts: the whole corpus, and forgeries of our own."""

import json
import random
import unittest

from concordat_verify import Invalid, Trust, cbor, receipt, verify_receipt

from .support import FIXTURES, VECTORS, load, vector_trust


def said(raw: bytes, trust: Trust) -> dict:
    try:
        return verify_receipt(raw, trust)
    except Invalid as e:
        return {"valid": False, "check": e.check}


class Corpus(unittest.TestCase):
    def test_every_receipt_gets_the_verdict_it_states(self):
        files = sorted((VECTORS / "receipt").glob("*.json"))
        cases = 0
        for file in files:
            content = json.loads(file.read_text())
            trust = vector_trust()
            for case in content.get("receipts", []):
                with self.subTest(file=file.name, case=case["name"]):
                    got = said(bytes.fromhex(case["receipt"]), trust)
                    self.assertEqual({k: got.get(k, "missing") for k in case["expected"]}, case["expected"])
                cases += 1
        self.assertGreaterEqual(cases, 7)

    def test_the_fingerprint_is_the_one_people_compare(self):
        self.assertEqual(vector_trust().fingerprint, load("receipt", "receipts.json")["fingerprint"])

    def test_receipts_that_were_kept_from_a_real_city(self):
        """tests/fixtures/**/trust.json with *.receipt beside it, and its expected verdict in *.json of the same name."""
        for trust_file in FIXTURES.rglob("trust.json"):
            trust = Trust(trust_file.read_text())
            for file in sorted(trust_file.parent.glob("*.receipt")):
                with self.subTest(str(file)):
                    expected = {"valid": True}
                    beside = file.with_suffix(".json")
                    if beside.exists():
                        expected = json.loads(beside.read_text()).get("expected", expected)
                    got = said(file.read_bytes(), trust)
                    self.assertEqual({k: got.get(k) for k in ("valid", "check") if k in expected},
                                     {k: expected[k] for k in ("valid", "check") if k in expected})


class Forged(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.trust = vector_trust()
        cases = {c["name"]: bytes.fromhex(c["receipt"]) for c in load("receipt", "receipts.json")["receipts"]}
        cls.accepted, cls.final = cases["accepted"], cases["final"]

    def test_no_byte_can_be_changed(self):
        chosen = random.Random(7)
        for at in range(len(self.accepted)):
            forged = bytearray(self.accepted)
            forged[at] ^= 1 << chosen.randrange(8)
            self.assertFalse(said(bytes(forged), self.trust)["valid"], f"byte {at}")

    def test_no_byte_of_a_checkpoint_can_be_changed(self):
        chosen = random.Random(8)
        for at in chosen.sample(range(len(self.accepted), len(self.final)), 200):
            forged = bytearray(self.final)
            forged[at] ^= 1 << chosen.randrange(8)
            self.assertFalse(said(bytes(forged), self.trust)["valid"], f"byte {at}")

    def test_no_end_can_be_cut_or_added(self):
        for raw in (self.accepted[:-1], self.accepted + b"\x00", b"", self.accepted[:1000]):
            self.assertEqual(said(raw, self.trust), {"valid": False, "check": "decode"})
        self.assertEqual(said(bytes(receipt.DECODE_MAX + 1), self.trust)["check"], "decode")

    def altered(self, change) -> dict:
        value = cbor.decode(self.accepted)
        change(value)
        return said(cbor.encode(value), self.trust)

    def test_a_refusal_cannot_be_shown_as_accepted(self):
        def change(r):
            r[3][6], r[3][7] = 1, 405

        self.assertEqual(self.altered(change)["check"], "log_path")

    def test_an_opened_leaf_can_be_hidden_but_not_changed(self):
        def hide(r):
            number, name, salt, value = r[7][0][0][3]
            raw = name.encode()
            from concordat_verify.trees import leaf

            r[7][0][0][3] = [2, leaf(salt + len(raw).to_bytes(2, "big") + raw + value)]

        got = self.altered(hide)
        self.assertTrue(got["valid"])
        self.assertNotIn("case", got["opened"])

        def change(r):
            r[7][0][0][3][3] = b"28-CR-2026"

        self.assertEqual(self.altered(change)["check"], "commitment")

    def test_parts_can_be_left_out_and_then_prove_less(self):
        def change(r):
            r[9] = []

        got = self.altered(change)
        self.assertTrue(got["valid"])
        self.assertFalse(got["released"])

    def test_a_query_shows_its_request(self):
        def change(r):
            r[8], r[9] = [], []

        self.assertEqual(self.altered(change)["check"], "request_signature")

    def test_parts_of_another_receipt_do_not_fit(self):
        other = cbor.decode(
            next(bytes.fromhex(c["receipt"]) for c in load("receipt", "receipts.json")["receipts"] if c["name"] == "revoked-key")
        )
        for field in (8, 9):

            def change(r, field=field):
                r[field] = other[field]

            self.assertFalse(self.altered(change)["valid"] and other[field] != cbor.decode(self.accepted)[field])


class Trusted(unittest.TestCase):
    def setUp(self):
        self.value = load("receipt", "trust.json")

    def refused(self, change):
        change(self.value)
        with self.assertRaises(Invalid) as caught:
            Trust(json.dumps(self.value))
        self.assertEqual(caught.exception.check, "trust")

    def test_unknown_members_and_doubles(self):
        self.refused(lambda v: v.update(more=1))
        for text in ("{}", "[]", "", '{"version": 1, "version": 1}', '{"version": 1.0}', "[" * 100000):
            with self.assertRaises(Invalid):
                Trust(text)

    def test_another_validator(self):
        self.refused(lambda v: v["epochs"][0]["validators"][0].update(power=11))

    def test_another_root_key(self):
        def swap(v):
            k = v["epochs"][0]["keys"]
            k[0]["root"], k[1]["root"] = k[1]["root"], k[0]["root"]

        self.refused(swap)

    def test_whose_a_validator_is(self):
        def swap(v):
            k = v["epochs"][-1]["validators"]
            k[0]["agency"], k[1]["agency"] = k[1]["agency"], k[0]["agency"]

        self.refused(swap)

    def test_another_genesis(self):
        self.refused(lambda v: v.update(genesis=v["genesis"].replace('"power":"10"', '"power":"11"', 1)))

    def test_an_epoch_without_enough_signatures(self):
        if len(self.value["epochs"]) < 2:
            self.skipTest("the corpus has one epoch")
        self.refused(lambda v: v["epochs"][1].update(signatures=v["epochs"][1]["signatures"][:2]))

    def test_a_signature_given_twice(self):
        if len(self.value["epochs"]) < 2:
            self.skipTest("the corpus has one epoch")

        def double(v):
            s = v["epochs"][1]["signatures"]
            v["epochs"][1]["signatures"] = [s[0], s[0], s[1]]

        self.refused(double)

    def test_the_fingerprint_is_of_genesis_and_oversight(self):
        before = Trust(json.dumps(self.value)).fingerprint
        self.value["oversight"] = []
        self.assertNotEqual(Trust(json.dumps(self.value)).fingerprint, before)


if __name__ == "__main__":
    unittest.main()
