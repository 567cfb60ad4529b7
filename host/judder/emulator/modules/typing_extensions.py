"""Only CPython evaluates the libraries' annotations; this is what they ask for."""

from typing import Literal

__all__ = ["Literal"]
