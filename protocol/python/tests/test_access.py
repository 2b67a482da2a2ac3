"""Access lists: a city of our own with three runs, complete lists, and what must be refused."""

import json
import unittest
from hashlib import sha256

from concordat_verify import Invalid, Trust, access, cbor, trees, verify_list

from .support import CHAIN, FIXTURES, VECTORS, City, list_under, path_to

DATASET = "ds:police/stops@1"
SUBJECT = b"\x07" * 32
DAY = 20_000
MS = DAY * access.DAY_MS


def h(text: str) -> bytes:
    return sha256(text.encode()).digest()


class World:
    """A log of operations with tags, in runs, and the list of who looked at the subject."""

    def __init__(self):
        self.city = City()
        other = access.subject_tag(b"\x08" * 32, DATASET, DAY)
        mine = [access.subject_tag(SUBJECT, DATASET, day) for day in (DAY - 1, DAY, DAY + 1)]
        crowd = sorted([mine[2], *(sha256(bytes([n])).digest()[:16] for n in range(40))])
        strangers = sorted(sha256(bytes([n, 9])).digest()[:16] for n in range(40))
        # (index, day, tags): found by day, by the day before, of somebody else, in bulk with and without the subject.
        self.calls = [(3, DAY, [mine[1]]), (4, DAY, [other]), (6, DAY - 1, [mine[0]]), (9, DAY + 1, crowd), (11, DAY + 1, strangers)]
        self.runs = [(0, 5, MS, MS + 9, (3, 4)), (5, 8, MS + 10, MS + 99, (6,)), (8, 12, MS + access.DAY_MS, MS + access.DAY_MS + 5, (9, 11))]
        self.ops, self.bulks, self.openings = {}, {}, {}
        for index, day, tags in self.calls:
            self._call(index, day, tags)
        self.log = [self._entry(n) for n in range(12)]
        self.log_leaves = [trees.value_leaf(n.to_bytes(8, "big"), cbor.encode(e)) for n, e in enumerate(self.log)]

    def _call(self, index, day, tags):
        texts = {"clause": b"AGR-2026-0142/C1", "consumer": b"court", "purpose": b"purp:pending-case"}
        leaves = [[1, name, bytes(16), value] for name, value in texts.items()]
        redacted = trees.redacted_shape([leaves])
        carried = tags
        if len(tags) > 1:
            self.bulks[index] = [(tag, access.BULK_VALUE_HASH) for tag in tags]
            carried = [len(tags), trees.root([trees.value_leaf_of_hash(*row) for row in self.bulks[index]])]
        self.openings[index] = [leaves]
        self.ops[index] = cbor.encode([3, 5, 7, index, day, carried, trees.redacted_root(redacted)])

    def _entry(self, index):
        op_hash = sha256(self.ops[index]).digest() if index in self.ops else h(str(index))
        return [2, MS, "police/executor", 1, index + 1, op_hash, 0, 0]

    def run_rows(self, indices):
        rows = []
        for index, _, tags in self.calls:
            if index in indices:
                value = sha256(sha256(self.ops[index]).digest()).digest()
                rows.append(((access.BULK_TAG if index in self.bulks else tags[0]) + index.to_bytes(8, "big"), value))
        return sorted(rows)

    def value(self, first: int = 0) -> list:
        """The list as a value, from a run on."""
        views, lists = [], []
        for start, end, begin, last, indices in self.runs:
            rows = self.run_rows(indices)
            root = trees.root([trees.value_leaf_of_hash(*row) for row in rows])
            views.append([start, end, begin, last, len(rows), root])
            days = range(begin // access.DAY_MS - 1, last // access.DAY_MS + 1)
            tags = [access.subject_tag(SUBJECT, DATASET, day) for day in days] + [access.BULK_TAG]
            lists.append([list_under(rows, tag) for tag in tags])
        run_leaves = [trees.value_leaf(n.to_bytes(8, "big"), cbor.encode(v)) for n, v in enumerate(views)]
        parts = [[n, views[n], path_to(run_leaves, n), lists[n]] for n in range(first, len(views))]
        named = [i for i in (3, 6, 9, 11) if i >= self.runs[first][0]]
        entries = [self._shown(index) for index in named]
        roots = [h("heads"), trees.root(self.log_leaves), h("meta"), trees.root(run_leaves)]
        header, validators = self.city.anchor(roots)
        return [1, CHAIN, DATASET, SUBJECT, roots, parts, entries, header, validators, []]

    def _shown(self, index):
        bulk = []
        if index in self.bulks:
            bulk = [list_under(self.bulks[index], access.subject_tag(SUBJECT, DATASET, DAY + 1))]
        path = path_to(self.log_leaves, index)
        return [index, self.log[index], path, self.ops[index], [self.openings[index]], bulk, "Courts may read stops."]

    def said(self, value) -> dict:
        try:
            return verify_list(cbor.encode(value), self.city.trust)
        except Invalid as e:
            return {"valid": False, "check": e.check, "detail": e.detail}


class OwnCity(unittest.TestCase):
    def setUp(self):
        self.world = World()
        self.value = self.world.value()

    def check_of(self, value=None) -> str:
        got = self.world.said(self.value if value is None else value)
        self.assertFalse(got["valid"])
        return got["check"]

    def test_the_list_names_who_looked_and_who_may_have(self):
        got = self.world.said(self.value)
        self.assertTrue(got["valid"], got)
        states = [(e["operation"], e["state"]) for e in got["accesses"]]
        self.assertEqual(states, [("op:3", "open"), ("op:6", "open"), ("op:9", "open"), ("op:11", "not-included")])
        self.assertEqual({e["consumer"] for e in got["accesses"]}, {"court"})
        self.assertEqual((got["from_index"], got["complete_to"], got["status"]), (0, 12, "provisional"))
        self.assertTrue(got["to_newest_run"])

    def test_a_list_says_from_where_to_where_it_is_complete(self):
        later = self.world.said(self.world.value(first=1))
        self.assertEqual((later["from_index"], later["complete_to"], later["to_newest_run"]), (5, 12, True))
        earlier = self.world.value()
        earlier[5], earlier[6] = earlier[5][:2], earlier[6][:2]
        got = self.world.said(earlier)
        self.assertEqual((got["from_index"], got["complete_to"], got["to_newest_run"]), (0, 8, False))

    def test_no_run_between_can_be_left_out(self):
        for parts in (self.value[5][:1] + self.value[5][2:], self.value[5][::-1], []):
            self.value[5] = parts
            self.assertEqual(self.check_of(), "runs")

    def test_no_operation_can_be_left_out(self):
        for n in range(4):
            value = self.world.value()
            del value[6][n]
            self.assertEqual(self.check_of(value), "list")

    def test_no_found_key_can_be_left_out(self):
        for number, part in enumerate(self.value[5]):
            for at, proof in enumerate(part[3]):
                if proof[1]:
                    value = self.world.value()
                    value[5][number][3][at][1] = []
                    self.assertEqual(self.check_of(value), "tags")

    def test_another_subjects_lists_do_not_fit(self):
        self.value[3] = b"\x09" * 32
        self.assertEqual(self.check_of(), "tags")

    def test_a_day_cannot_be_left_out(self):
        del self.value[5][0][3][0]
        self.assertEqual(self.check_of(), "tags")

    def test_an_operation_cannot_be_exchanged(self):
        self.value[6][0][3] = self.value[6][1][3]
        self.assertEqual(self.check_of(), "op_hash")

    def test_openings_belong_to_their_operation(self):
        self.value[6][0][4][0][0][1][3] = b"grid"
        self.assertEqual(self.check_of(), "commitment")

    def test_a_bulk_answer_cannot_be_turned_round(self):
        self.value[6][2][5] = [list_under([r for r in self.world.bulks[9] if r[0][0] != 0], b"\x00" * 16)]
        self.assertEqual(self.check_of(), "bulk")

    def test_what_is_not_opened_shows_as_such(self):
        self.value[6][0][4] = []
        got = self.world.said(self.value)
        self.assertTrue(got["valid"])
        self.assertEqual((got["accesses"][0]["opened"], got["accesses"][0]["state"]), ({}, "erased"))

    def test_who_and_why_are_opened_together(self):
        opened = self.value[6][0][4][0][0]
        for n in range(3):
            value = self.world.value()
            number, name, salt, text = opened[n]
            raw = len(name).to_bytes(2, "big") + name.encode()
            value[6][0][4] = [[[x if x is not opened[n] else [2, trees.leaf(salt + raw + text)] for x in opened]]]
            self.assertEqual(self.check_of(value), "commitment")

    def test_another_agency_cannot_repeat_a_tag(self):
        self.world.log[3][2] = "grid/executor"
        leaf = trees.value_leaf((3).to_bytes(8, "big"), cbor.encode(self.world.log[3]))
        self.world.log_leaves[3] = leaf
        got = self.world.said(self.world.value())
        self.assertEqual(got["accesses"][0]["state"], "not-included")

    def test_too_few_votes(self):
        roots = self.value[4]
        self.value[7], self.value[8] = self.world.city.anchor(roots, voters=2)
        self.assertEqual(self.check_of(), "commit")
        self.value[7], self.value[8] = self.world.city.anchor(roots, voters=3)
        self.assertTrue(self.world.said(self.value)["valid"])

    def test_no_byte_of_what_is_proven_can_be_changed(self):
        """All but the sentences, which are the provider's word."""
        raw = cbor.encode(self.value)
        sentence = b"Courts may read stops."
        free, at = set(), raw.find(sentence)
        while at >= 0:
            free.update(range(at, at + len(sentence)))
            at = raw.find(sentence, at + 1)
        for at in range(0, len(raw), 5):
            if at in free:
                continue
            forged = bytearray(raw)
            forged[at] ^= 1
            with self.assertRaises(Invalid, msg=f"byte {at}"):
                verify_list(bytes(forged), self.world.city.trust)


class Corpus(unittest.TestCase):
    def test_every_list_gets_the_verdict_it_states(self):
        for file in sorted((VECTORS / "access").glob("*.json")):
            content = json.loads(file.read_text())
            if not isinstance(content, dict) or "lists" not in content:
                continue
            own = file.parent / "trust.json"
            trust = Trust((own if own.exists() else VECTORS / "receipt" / "trust.json").read_text())
            for case in content["lists"]:
                with self.subTest(file=file.name, case=case["name"]):
                    try:
                        got = verify_list(bytes.fromhex(case["list"]), trust)
                    except Invalid as e:
                        got = {"valid": False, "check": e.check}
                    self.assertEqual({k: got.get(k, "missing") for k in case["expected"]}, case["expected"])

    def test_lists_that_were_kept_from_a_real_city(self):
        for trust_file in FIXTURES.rglob("trust.json"):
            trust = Trust(trust_file.read_text())
            for file in sorted(trust_file.parent.glob("*.list")):
                with self.subTest(str(file)):
                    self.assertTrue(verify_list(file.read_bytes(), trust)["valid"])


if __name__ == "__main__":
    unittest.main()
