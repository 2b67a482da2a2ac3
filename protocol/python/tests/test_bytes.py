"""CBOR, trees, leaf sets, keys and signatures against protocol/vectors."""

import unittest

from concordat_verify import cbor, ed25519, keys, ops, trees
from concordat_verify.errors import Malformed

from .support import load

SHAPES = {
    "uint": cbor.u64,
    "int": lambda v: v if isinstance(v, int) else cbor.u64(v),
    "bytes": cbor.data,
    "text": cbor.text,
    "list of uint": cbor.many(cbor.u64),
    "absent or uint": cbor.optional(cbor.u64),
    "16 bytes": cbor.b16,
}


class Cbor(unittest.TestCase):
    def test_good_encodings_come_back_and_others_are_refused(self):
        for case in load("cbor.json")["shapes"]:
            shape = SHAPES[case["shape"]]
            for good in case["good"]:
                raw = bytes.fromhex(good["cbor"])
                shape(cbor.decode(raw))
            for bad in case["refused"]:
                with self.subTest(bad["why"]), self.assertRaises(Malformed):
                    cbor.parse(shape, bytes.fromhex(bad["cbor"]))

    def test_nesting_ends_at_sixteen(self):
        cbor.decode(b"\x81" * 15 + b"\x80")
        with self.assertRaises(Malformed):
            cbor.decode(b"\x81" * 16 + b"\x80")

    def test_a_length_alone_takes_no_memory(self):
        with self.assertRaises(Malformed):
            cbor.decode(b"\x9b" + b"\xff" * 8)

    def test_operations_decode_to_their_kind_and_others_are_refused(self):
        file = load("operations.json")
        for case in file["operations"]:
            raw = bytes.fromhex(case["cbor"])
            op = cbor.parse(ops.operation, raw)
            self.assertEqual(op.kind, case["name"])
            self.assertEqual(ops.op_hash(raw).hex(), case["op_hash"])
            self.assertEqual(op.cbor, raw)
        for bad in file["refused_operations"]:
            with self.subTest(bad["why"]), self.assertRaises(Malformed):
                cbor.parse(ops.operation, bytes.fromhex(bad["cbor"]))

    def test_acts_decode_to_their_kind(self):
        for suite in ("ed25519", "hybrid"):
            for case in load("acts.json")[suite]["acts"]:
                act = cbor.parse(ops.act, bytes.fromhex(case["act"]))
                self.assertEqual(ops.op_hash(act.cbor).hex(), case["act_hash"])
                self.assertEqual(ops.ACTS[act.body[0] - 1].replace("-", ""), case["name"].lower().replace("-", ""))


class Trees(unittest.TestCase):
    def test_roots_and_leaves(self):
        file = load("trees.json")
        for case in file["trees"]:
            hashes = [trees.leaf(bytes.fromhex(leaf)) for leaf in case["leaves"]]
            self.assertEqual([h.hex() for h in hashes], case["leaf_hashes"])
            self.assertEqual(trees.root(hashes).hex(), case["root"])
        for case in file["value_leaves"]:
            leaf = trees.value_leaf(bytes.fromhex(case["key"]), bytes.fromhex(case["value"]))
            self.assertEqual(leaf.hex(), case["leaf_hash"])

    def test_complete_lists_and_absence(self):
        tree = load("trees.json")["sorted"]
        root = bytes.fromhex(tree["root"])
        for case in tree["lists"]:
            proof = cbor.parse(trees.sorted_shape, bytes.fromhex(case["proof_cbor"]))
            found = trees.found_under(proof, bytes.fromhex(case["prefix"]), root)
            self.assertEqual([x.key.hex() for x in found], case["keys"])
            with self.assertRaises(Malformed):
                trees.found_under(proof, bytes.fromhex(case["prefix"]), bytes(32))

    def test_a_list_that_leaves_something_out_is_refused(self):
        tree = load("trees.json")["sorted"]
        root = bytes.fromhex(tree["root"])
        refused = 0
        for case in tree["lists"]:
            value = cbor.decode(bytes.fromhex(case["proof_cbor"]))
            for other in (value[:1] + [value[1][1:]] + value[2:], [[]] + value[1:], value[:2] + [[]] + value[3:]):
                if other == value:
                    continue
                with self.assertRaises(Malformed):
                    trees.found_under(trees.sorted_shape(other), bytes.fromhex(case["prefix"]), root)
                refused += 1
        self.assertGreater(refused, 5)

    def test_redacted_forms_have_the_root_of_the_set(self):
        file = load("leaves.json")
        for case in file["redacted"]:
            redacted = cbor.parse(trees.redacted_shape, bytes.fromhex(case["cbor"]))
            self.assertEqual(trees.redacted_root(redacted).hex(), file["root"])
            self.assertEqual(list(redacted.opened), case["shown"])


class Signatures(unittest.TestCase):
    def parts(self, case):
        key = cbor.parse(keys.public_key, bytes.fromhex(case["public_key_cbor"]))
        sig = cbor.parse(keys.signature, bytes.fromhex(case["signature_cbor"]))
        return key, sig, case["statement"], case["chain"], bytes.fromhex(case["cbor"])

    def test_every_suite(self):
        cases = load("signatures.json")["cases"]
        for case in cases:
            key, sig, statement, chain, body = self.parts(case)
            self.assertEqual(keys.key_id(key).hex(), case["key_id"])
            self.assertEqual(keys.signed_bytes(statement, chain, body).hex(), case["signed_bytes"])
            self.assertTrue(keys.verify(key, sig, statement, chain, body))
        self.assertEqual({case["suite"] for case in cases}, {"ed25519", "ml-dsa-65", "hybrid"})

    def test_what_must_not_verify(self):
        for case in load("signatures.json")["refused"]:
            with self.subTest(case["why"]):
                self.assertFalse(keys.verify(*self.parts(case)))


class Strictness(unittest.TestCase):
    """Two rules for one curve: what votes may do and our own signatures may not (the points are those of ZIP-215's tests)."""

    ZERO = bytes(32)
    IDENTITY = (1).to_bytes(32, "little")
    # y = p + 1, the identity in an encoding that is not canonical.
    OTHER_IDENTITY = (ed25519.P + 1).to_bytes(32, "little")

    def test_small_order_passes_zip215_alone(self):
        for key in (self.IDENTITY, self.OTHER_IDENTITY, self.ZERO):
            for r in (self.IDENTITY, self.OTHER_IDENTITY, self.ZERO):
                signature = r + bytes(32)
                self.assertTrue(ed25519.verify_zip215(key, signature, b"vote"))
                self.assertFalse(ed25519.verify_strict(key, signature, b"vote"))

    def test_a_cofactor_apart_passes_zip215_alone(self):
        secret = 12345
        key = ed25519.compress(ed25519.multiply(secret, ed25519.BASE))
        # R = 7B plus the point of order four: wrong without the cofactor, right with it.
        small = ed25519.decompress(self.ZERO)
        r = ed25519.compress(ed25519.add(ed25519.multiply(7, ed25519.BASE), small))
        k = int.from_bytes(ed25519.sha512(r + key + b"vote").digest(), "little")
        signature = r + ((7 + k * secret) % ed25519.L).to_bytes(32, "little")
        self.assertTrue(ed25519.verify_zip215(key, signature, b"vote"))
        self.assertFalse(ed25519.verify_strict(key, signature, b"vote"))
        self.assertFalse(ed25519.verify_zip215(key, signature, b"another"))

    def test_s_is_below_the_order(self):
        key = ed25519.compress(ed25519.multiply(5, ed25519.BASE))
        r = ed25519.compress(ed25519.multiply(7, ed25519.BASE))
        k = int.from_bytes(ed25519.sha512(r + key + b"m").digest(), "little")
        s = (7 + k * 5) % ed25519.L
        for verify in (ed25519.verify_strict, ed25519.verify_zip215):
            self.assertTrue(verify(key, r + s.to_bytes(32, "little"), b"m"))
            self.assertFalse(verify(key, r + (s + ed25519.L).to_bytes(32, "little"), b"m"))


if __name__ == "__main__":
    unittest.main()
