"""Rows are what was committed to, byte for byte; and only then."""

import unittest

from concordat_client.answer import Answer
from concordat_client.proof import content_root

BODY = (
    b'{"rows":[{"a":1.10,"b":"\xc3\xa9"},{}],"count":2,"operation":"op:7","height":9,"agreement":"A-1","clause":"C1",'
    b'"request_id":"r","content_secret":"' + b"07" * 32 + b'"}'
)


class Answers(unittest.TestCase):
    def test_rows_keep_their_bytes(self):
        answer = Answer.read(BODY, {})
        self.assertEqual(answer.raw_rows, [b'{"a":1.10,"b":"\xc3\xa9"}', b"{}"])
        self.assertEqual(answer.rows, [{"a": 1.1, "b": "é"}, {}])
        spaced = BODY.replace(b'{"rows"', b' { "x" : [1, {"rows": [{}]}] , "rows"', 1)
        self.assertEqual(Answer.read(spaced, {}).raw_rows, answer.raw_rows)

    def test_an_answer_without_rows_is_refused(self):
        for bad in (b"[]", b"{}", b'{"rows":1}', b'{"count":1}'):
            with self.assertRaises((ValueError, KeyError)):
                Answer.read(bad, {})

    def test_every_row_and_its_place_counts(self):
        secret = bytes(32)
        rows = [b'{"a":1}', b'{"a":2}', b'{"a":3}']
        root = content_root(secret, rows)
        others = ([], rows[:2], rows[::-1], [b'{"a":1 }', *rows[1:]], [*rows, b"{}"])
        self.assertEqual(len({root, content_root(b"\1" * 32, rows), *(content_root(secret, r) for r in others)}), 7)


if __name__ == "__main__":
    unittest.main()
