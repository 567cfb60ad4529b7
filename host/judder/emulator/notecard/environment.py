"""The card's environment variables: where a value comes from, and when it last changed.

Precedence (dev.blues.io, environment variables): env.set on the card, then Notehub's, then env.default. Names are
looked up without regard to case.
"""


class Environment:
    """Effective variables. `modified_s`: UTC of the last change, 0 before the first."""

    def __init__(self, hub: dict[str, str] | None = None) -> None:
        self._hub = dict(hub or {})
        self._defaults: dict[str, str] = {}
        self._local: dict[str, str] = {}
        self.modified_s = 0

    def all(self) -> dict[str, str]:
        """Name to text, by precedence."""
        merged: dict[str, tuple[str, str]] = {}
        for source in (self._defaults, self._hub, self._local):
            for name, text in source.items():
                first, _ = merged.get(name.casefold(), (name, ""))
                merged[name.casefold()] = first, text
        return dict(merged.values())

    def get(self, wanted: str) -> tuple[str, str] | None:
        """The variable's name, as it was first spelled, and its text."""
        for name, text in self.all().items():
            if name.casefold() == wanted.casefold():
                return name, text
        return None

    def set_default(self, name: str, text: str, at_s: int) -> bool:
        """An empty text takes it away. True when an effective value changed."""
        return self._set(self._defaults, name, text, at_s)

    def set_local(self, name: str, text: str, at_s: int) -> bool:
        """As set_default, but above everything."""
        return self._set(self._local, name, text, at_s)

    def sync(self, hub: dict[str, str], at_s: int) -> bool:
        """Take over what Notehub has. True when an effective value changed."""
        before = self.all()
        self._hub = dict(hub)
        return self._changed(before, at_s)

    def _set(self, source: dict[str, str], name: str, text: str, at_s: int) -> bool:
        before = self.all()
        for held in [held for held in source if held.casefold() == name.casefold()]:
            del source[held]
        if text:
            source[name] = text
        return self._changed(before, at_s)

    def _changed(self, before: dict[str, str], at_s: int) -> bool:
        if self.all() == before:
            return False
        self.modified_s = max(at_s, self.modified_s + 1)  # two changes within a second are two
        return True
