"""The HTTP client. It repeats what the broker says may be repeated, under one Idempotency-Key."""

import json
import secrets
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from concordat_verify import Trust

from .answer import Answer
from .proof import prove

# How often a request is repeated that may succeed later.
ATTEMPTS = 5


class Problem(Exception):
    """What the broker answers when it refuses: the members of an RFC 9457 problem."""

    def __init__(self, status: int, members: dict):
        super().__init__(f"{status} {members.get('code', '')}: {members.get('detail', '')}".strip())
        self.status, self.members = status, members
        self.code, self.detail = members.get("code", ""), members.get("detail", "")
        self.retry, self.next = bool(members.get("retry")), members.get("next", "")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A token goes nowhere but to the broker it is for."""

    def redirect_request(self, *_):
        return None


def _segment(text: str) -> str:
    return urllib.parse.quote(text, safe="")


class Client:
    """An application's way to its own agency's broker. Not for use by several threads at once."""

    def __init__(self, base: str, token: str, trust: str | Path | None = None, timeout: float = 60.0):
        self._base, self._token, self._timeout = base.rstrip("/"), token, timeout
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._trust = None if trust is None else Trust(Path(trust).read_text(encoding="utf-8"))

    # Requests

    def _once(self, method: str, path: str, body: dict | None, headers: dict) -> tuple[bytes, dict]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data=data, method=method)
        request.add_header("Authorization", f"Bearer {self._token}")
        if data is not None:
            request.add_header("Content-Type", "application/json")
        for name, value in headers.items():
            request.add_header(name, value)
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                return answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as e:
            text = e.read()
            try:
                members = json.loads(text)
            except ValueError:
                members = {"detail": text.decode(errors="replace")}
            problem = Problem(e.code, members if isinstance(members, dict) else {"detail": str(members)})
            problem.wait = float(e.headers.get("Retry-After") or 1)
            raise problem from None

    def _call(self, method: str, path: str, body: dict | None = None, headers: dict | None = None) -> bytes:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._once(method, path, body, headers or {})[0]
            except Problem as e:
                if not e.retry or attempt == ATTEMPTS:
                    raise
                time.sleep(min(e.wait, 10.0))
        raise AssertionError("unreachable")

    def get(self, path: str, **query) -> dict:
        """A resource as JSON, for example `get("/v1/catalogue/datasets", text="stops")`."""
        query = {k: v for k, v in query.items() if v is not None}
        return json.loads(self._call("GET", path + ("?" + urllib.parse.urlencode(query) if query else "")))

    def whoami(self) -> dict:
        """Who this application is to the broker."""
        return self.get("/v1/whoami")

    # Queries

    def query(self, dataset: str, purpose: str, *, key: str | None = None, **members) -> Answer:
        """Rows under an agreement; further members are `where select order limit case clause`."""
        asked = {"dataset": dataset, "purpose": purpose} | {k: v for k, v in members.items() if v is not None}
        headers = {"Idempotency-Key": key or secrets.token_hex(16)}
        return Answer.read(self._call("POST", "/v1/queries", asked, headers), asked)

    def receipt(self, operation: str, wait: int | None = None) -> bytes:
        """The receipt of an operation; with `wait` (seconds) the final one where it is there by then."""
        query = "" if wait is None else f"?wait={wait}"
        return self._call("GET", f"/v1/operations/{_segment(operation)}/receipt{query}")

    def verify(self, answer: Answer, wait: int | None = None) -> dict:
        """What is proven of an answer, `status` being `provisional` or `final`. Raises `Invalid`."""
        if self._trust is None:
            raise ValueError("verify needs trust.json: Client(..., trust=PATH)")
        return prove(self.receipt(answer.operation, wait), self._trust, answer)

    # Feeds

    def subscribe(self, dataset: str, **members) -> dict:
        """A subscription; members are `name agreement clause purpose case where select from_`."""
        if "from_" in members:
            members["from"] = members.pop("from_")
        asked = {"dataset": dataset} | {k: v for k, v in members.items() if v is not None}
        headers = {"Idempotency-Key": secrets.token_hex(16)}
        return json.loads(self._call("POST", "/v1/subscriptions", asked, headers))

    def messages(self, subscription: str, after: str | None = None, max: int = 100, wait: float = 0) -> tuple[list, str]:
        """Messages behind a cursor, or behind what is acknowledged; and the cursor of the last one."""
        found = self.get(f"/v1/subscriptions/{_segment(subscription)}/messages", max=max, wait=wait, after=after)
        return found["messages"], found["cursor"]

    def acknowledge(self, subscription: str, cursor: str) -> dict:
        """Everything up to and with a cursor was dealt with; it does not come again."""
        path = f"/v1/subscriptions/{_segment(subscription)}/acks"
        return json.loads(self._call("POST", path, {"cursor": cursor}))

    def follow(self, subscription: str, stop_after: int | None = None, wait: float = 10) -> Iterator[dict]:
        """Messages as they come, each once. A page is acknowledged after its last message was dealt with."""
        left = stop_after
        while left is None or left > 0:
            page, cursor = self.messages(subscription, max=min(100, left or 100), wait=wait)
            yield from page
            if page:
                self.acknowledge(subscription, cursor)
            if left is not None:
                left -= len(page)
