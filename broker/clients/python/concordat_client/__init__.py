"""A client of an agency's Concordat broker that verifies what it gets (docs/connect-your-application.md)."""

from .answer import Answer
from .client import Client, Problem
from .proof import Invalid

__all__ = ["Answer", "Client", "Invalid", "Problem"]
__version__ = "0.1.0"
