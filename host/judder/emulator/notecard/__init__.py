"""Emulated Blues Notecard, part by part.

`card` is the protocol core without I/O, `i2c` its front on a bus; `line` is one line of the protocol, `requests/` what
can be asked, by prefix. The rest is what the card keeps or goes through: `binary_store`, `notefiles`, `environment`,
`link` (its way to Notehub), `attn`, `update` (firmware for the host), `outboard` (the card flashes it); `twin` is what
Notehub holds for it. `faults` and `script` are for whoever tests something with it.
"""

from judder.emulator.notecard.card import Message, Notecard
from judder.emulator.notecard.fault import Fault
from judder.emulator.notecard.i2c import ADDRESS, NotecardI2C
from judder.emulator.notecard.line import Request
from judder.emulator.notecard.link import Sender, WebRequest, WebResponse

__all__ = ["ADDRESS", "Fault", "Message", "Notecard", "NotecardI2C", "Request", "Sender", "WebRequest", "WebResponse"]
