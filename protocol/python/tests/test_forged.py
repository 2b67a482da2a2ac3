"""forged.json of the corpus: forgeries as patches of good files, each with the check that must fail."""

import json
import unittest

from concordat_verify import Invalid, Trust, verify_list, verify_receipt

from .support import VECTORS

KINDS = {"receipt": verify_receipt, "access": verify_list}


def bases(folder, file: str) -> dict[str, bytes]:
    out = {}
    for rows in json.loads((folder / file).read_text()).values():
        for row in rows if isinstance(rows, list) else []:
            raw = row.get("receipt") or row.get("list") if isinstance(row, dict) else None
            if raw:
                out[row["name"]] = bytes.fromhex(raw)
    return out


class Forged(unittest.TestCase):
    def test_each_fails_at_the_check_that_it_states(self):
        for kind, verify in KINDS.items():
            for file in sorted((VECTORS / kind).glob("forged*.json")):
                content = json.loads(file.read_text())
                good = bases(file.parent, content["bases"])
                trust = Trust((file.parent / content["trust"]).resolve().read_text())
                self.assertGreater(len(content["cases"]), 50)
                for case in content["cases"]:
                    patch = case["patch"]
                    base = good[case["base"]]
                    raw = base[: patch["offset"]] + bytes.fromhex(patch["insert"]) + base[patch["offset"] + patch["remove"] :]
                    with self.subTest(file=file.name, base=case["base"], case=case["name"]):
                        try:
                            verify(raw, trust)
                            got = ("valid", None)
                        except Invalid as e:
                            got = ("invalid", e.check)
                        self.assertEqual(got, (case["expect"], case.get("check")))


if __name__ == "__main__":
    unittest.main()
