"""Where something can go wrong on a Notecard; what can go wrong is in `faults`."""

from typing import TYPE_CHECKING

from judder.emulator.notecard.line import Request
from judder.emulator.notecard.link import WebRequest, WebResponse

if TYPE_CHECKING:
    from judder.emulator.notecard.card import Notecard


class Fault:
    """Something that can go wrong, in one of ten places; as it stands nothing does."""

    def hears(self, data: bytes) -> bytes:
        """Bytes from the host, as they reach the card."""
        return data

    def swallows(self, card: "Notecard", request: Request) -> bool:
        """True: the request is neither carried out nor answered. The place for what befalls the card itself."""
        return False

    def stream(self, data: bytes) -> bytes:
        """The encoded bytes of a binary stream as they reach the card, without the newline."""
        return data

    def intercept(self, request: WebRequest) -> WebResponse | None:
        """An answer given before the server is reached."""
        return None

    def answer(self, request: WebRequest, response: WebResponse) -> WebResponse | None:
        """The server's answer as it reaches the card; None when it never does."""
        return response

    def delay_ns(self, request: Request) -> int:
        """How much longer than usual the card takes."""
        return 0

    def replies(self, request: Request, lines: list[bytes]) -> list[bytes]:
        """The lines that reach the host for a request: the reply is the last, any before it come at once."""
        return lines

    def stall_ns(self) -> int:
        """How much longer a download takes that has come to its end."""
        return 0

    def refuses_erase(self) -> bool:
        """True: the host's bootloader does not erase its flash."""
        return False

    def page(self, data: bytes) -> bytes:
        """A page of an outboard update as it reaches the host's flash."""
        return data
