"""The one way a verification ends badly."""


class Invalid(Exception):
    """Evidence that does not prove itself: `check` is the name of the first check that fails."""

    def __init__(self, check: str, detail: str):
        super().__init__(f"{check}: {detail}")
        self.check = check
        self.detail = detail


class Malformed(Exception):
    """Bytes or text that are not of the expected form; the caller says in which check that is."""
