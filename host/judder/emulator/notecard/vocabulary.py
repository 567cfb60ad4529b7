"""Which requests there are, and what their members have to be.

Documents: Notecard API (dev.blues.io/api-reference), notecard-schema. A request is a function in
`judder.emulator.notecard.requests`; members are checked for their types, for what is needed and for what excludes
each other before it is called. What the documents do not know is ignored and noted (`Notecard.unknown_members`).
A reply leaves out what is false or empty.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, get_args

from judder.emulator.notecard.line import CardError, Fields

if TYPE_CHECKING:
    from judder.emulator.notecard.card import Notecard

Handler = Callable[["Notecard", Fields], Fields]
Kind = type | UnionType | tuple[str, ...]
"""What a member's value may be: of a type, of one of several, or one of some words."""

INTEGER_LIMIT = 1 << 53  # what note-c's doubles hold exactly
CARD_BINARY_SINCE = (5, 3, 1)

_EVERYWHERE = {"req", "cmd", "id", "crc"}
_JSON_NAMES = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "an array",
}


@dataclass(frozen=True)
class Entry:
    """A request's function, its members' kinds, those that must be there, and groups of which only one may be."""

    handler: Handler
    members: Mapping[str, Kind]
    needs: Sequence[str]
    exclusive: Sequence[Sequence[str]]

    def check(self, fields: Fields) -> None:
        """Raises CardError, which names the member."""
        for name in self.needs:
            if name not in fields:
                raise CardError(f"{name}: required but missing")
        for name, value in fields.items():
            kind = self.members.get(name)
            if kind is not None and not _fits(value, kind):
                raise CardError(f"{name}: must be {_words(kind)}")
            if type(value) is int and abs(value) > INTEGER_LIMIT:
                raise CardError(f"{name}: {value} is too far from 0")
        for group in self.exclusive:
            given = [name for name in group if fields.get(name, False) is not False]
            if len(given) > 1:
                raise CardError(f"{given[1]}: cannot go together with {given[0]}")

    def unknown(self, fields: Fields) -> set[str]:
        """Members that are in no documentation."""
        return fields.keys() - self.members.keys() - _EVERYWHERE


VOCABULARY: dict[str, Entry] = {}


def answers(
    request: str,
    members: Mapping[str, Kind] | None = None,
    *,
    needs: Sequence[str] = (),
    exclusive: Sequence[Sequence[str]] = (),
) -> Callable[[Handler], Handler]:
    """Make a function the answer to `request`."""

    def register(handler: Handler) -> Handler:
        VOCABULARY[request] = Entry(handler, members or {}, needs, exclusive)
        return handler

    return register


def entry(card: "Notecard", name: str) -> Entry:
    """What `card` knows by `name`. Raises CardError for what it does not know, or not yet."""
    if name not in VOCABULARY or (name.startswith("card.binary") and card.version_numbers < CARD_BINARY_SINCE):
        raise CardError(f"unknown request: {name or 'req must be a string'} {{not-supported}}")
    return VOCABULARY[name]


def _fits(value: object, kind: Kind) -> bool:
    if isinstance(kind, tuple):
        return value in kind
    return type(value) in (get_args(kind) or (kind,))


def _words(kind: Kind) -> str:
    if isinstance(kind, tuple):
        return f"one of {', '.join(kind)}"
    return " or ".join(_JSON_NAMES[one] for one in get_args(kind) or (kind,))
