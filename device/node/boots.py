"""The boot note: what the Notecard keeps of the board's starts, which no update and no power cut takes.

It says which boot this is, which before it no report has told of that has arrived, and how many windows it had captured
when it was stopped. Loaded only while it is needed.
"""

from node.report import FIRST_REPORT
from node.uplink import RefusedError

NOTE = "boot"
UNTOLD = 16  # boots that the note lists; of more it has the number


def meet(node):
    """Learn which boot was before this one, and leave our own there for the next. Raises LinkError."""
    boots, more = named_boots(node.uplink.note(NOTE))
    if boots and boots[-1][0] != node.window.boot:
        found = node.ring.found
        node.untold = [(boot, captured, max(newest, found.get(boot, -1))) for boot, captured, newest in boots]
        node.untold_more = more + max(0, len(boots) - UNTOLD)
        node.untold = node.untold[-UNTOLD:]
        node.reports.previous = {
            "earlier_boots": [one[:2] for one in node.untold[:-1]] or None,
            "earlier_boots_more": node.untold_more or None,
            "previous_boot": boots[-1][0],
            "previous_captured": boots[-1][1],
            "persisted": [(boot, newest) for boot, _, newest in node.untold if newest >= 0] or None,
            "reset": reset_reason(),
        }
    keep(node)


def keep(node, captured=None):
    """Write the note; `captured`: how many windows there are when no more will come. Raises LinkError."""
    note = {"boot": "%08x" % node.window.boot}  # as text: no JSON on the way makes a float of it
    if captured is not None:
        note["captured"] = captured
    if node.untold and not node.told:
        note["untold"] = [("%08x" % boot, captured, newest) for boot, captured, newest in node.untold]
        note["more"] = node.untold_more
    node.note_kept = True
    try:
        node.uplink.keep_note(NOTE, note)
    except RefusedError as error:
        node.note_kept = node.note_refused
        if not node.note_refused:
            print("%s: what a power cut takes cannot be named" % error)
        node.note_refused = True  # busy, say, so once more; but not for ever


def named_boots(note):
    """(boot, captured, newest) of each boot that a note names, the last one last; and how many more there were.

    `captured`: how many windows it had captured when it was stopped, None when it was not; `newest`: which of them is
    the newest that has been in flash, -1 when there was none.
    """
    try:
        boots = [(int(boot, 16), _count(captured), int(newest)) for boot, captured, newest in note.get("untold", [])]
        boots.append((int(note["boot"], 16), _count(note.get("captured")), -1))
        return boots, _count(note.get("more")) or 0
    except (AttributeError, KeyError, TypeError, ValueError):  # there is none, or it is not ours
        return [], 0


def _count(value):
    return value if isinstance(value, int) and 0 <= value < FIRST_REPORT else None


def reset_reason():
    """Why the board started, as the runtime says it: a name on CircuitPython, a number on MicroPython."""
    try:
        import microcontroller

        return str(microcontroller.cpu.reset_reason).split(".")[-1]
    except (ImportError, AttributeError):
        pass
    try:
        import machine  # pyright: ignore[reportMissingImports]

        return str(machine.reset_cause())
    except (ImportError, AttributeError):
        return "UNKNOWN"
