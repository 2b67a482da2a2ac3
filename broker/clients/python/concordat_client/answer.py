"""The answer to a query. Its rows are kept as the bytes they came in: those are what the provider committed to."""

import json
from dataclasses import dataclass, field

_SPACE = " \t\r\n"


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _raw_rows(text: str) -> list[bytes]:
    """The bytes of each row: the member `rows` of the answer, element by element."""
    decoder = json.JSONDecoder()
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError("the answer is no JSON object")
    at = _skip(text, at + 1)
    while text[at : at + 1] == '"':
        name, at = decoder.raw_decode(text, at)
        at = _skip(text, _skip(text, at) + 1)
        if name != "rows":
            _, at = decoder.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)
            continue
        if text[at : at + 1] != "[":
            break
        rows, at = [], _skip(text, at + 1)
        while text[at : at + 1] == "{":
            _, end = decoder.raw_decode(text, at)
            rows.append(text[at:end].encode())
            at = _skip(text, end)
            at = _skip(text, at + 1) if text[at : at + 1] == "," else at
        return rows
    raise ValueError("the answer has no rows")


@dataclass(frozen=True)
class Answer:
    """Rows and where their record is."""

    rows: list[dict]
    operation: str
    height: int
    agreement: str
    clause: str
    request_id: str
    content_secret: bytes
    raw_rows: list[bytes] = field(repr=False)
    # What was asked, so that the receipt can be held against it.
    asked: dict = field(repr=False)

    @classmethod
    def read(cls, body: bytes, asked: dict) -> "Answer":
        text = body.decode()
        raw = _raw_rows(text)
        members = json.loads(text)
        return cls(
            rows=members["rows"],
            operation=members["operation"],
            height=members["height"],
            agreement=members["agreement"],
            clause=members["clause"],
            request_id=members["request_id"],
            content_secret=bytes.fromhex(members["content_secret"]),
            raw_rows=raw,
            asked=asked,
        )
