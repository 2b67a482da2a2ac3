"""A second verifier of Concordat's receipts and access lists, written from docs/PROTOCOL.md (docs/adr/0022)."""

from .access import verify_list
from .errors import Invalid
from .receipt import verify_receipt
from .trust import Trust

__all__ = ["Invalid", "Trust", "verify_list", "verify_receipt"]
__version__ = "0.1.0"
