"""What can be asked, one module a prefix, one function a request, carried out on the card's own state."""

from judder.emulator.notecard.requests import binary, card, dfu, env, hub, note, web

__all__ = ["binary", "card", "dfu", "env", "hub", "note", "web"]
