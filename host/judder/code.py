"""The firmware's code as an update by file carries it: the folder node/ in a FAT12 volume that the board mounts.

Comments and docstrings stay at home: they are a quarter of the bytes, on the air and on the board. So does what only a
person at the console needs.
"""

import ast

from judder import fat12
from judder.board import SLOTS, Tree, tree
from judder.update import Kind, Update, UpdateError

FOLDER = "node"
AT_HOME = ("meanings.py", "selftest.py")  # of the base: settings explained, and what the board measures of itself
ROOT_ENTRIES = 16
HEAD_BYTES, GUARD_BYTES = 8192, 3584  # of a slot (device/slots.py)
ROOM_BYTES = {name: size - HEAD_BYTES - GUARD_BYTES for name, size in SLOTS.items()}
"""For the content of an update."""
SLOT, MODEL_SLOT = "code-a.bin", "model-a.bin"
ENDING = ".judder"
"""Of the file's name: by it boards tell it from what their Notecard writes (device/node/update.py)."""


def update(version: str, source: Tree | None = None) -> Update:
    """The update that brings boards this code as `version`. Raises UpdateError when their slots cannot hold it."""
    folder = (source or tree()).device / FOLDER
    files = {
        f"{FOLDER}/{path.name}": stripped(path.read_text()).encode()
        for path in sorted(folder.glob("*.py"))
        if path.name not in AT_HOME
    }
    room = ROOM_BYTES[SLOT]
    try:
        volume = fat12.volume(files, sectors=room // fat12.SECTOR_BYTES, root_entries=ROOT_ENTRIES, label="JUDDER")
    except fat12.Fat12Error as error:
        raise UpdateError(f"the code does not fit the {room} bytes of a board's slot: {error}") from None
    used = len(volume.rstrip(b"\xff"))
    return Update(Kind.CODE, version, volume[: -(-used // fat12.SECTOR_BYTES) * fat12.SECTOR_BYTES])


def stripped(text: str) -> str:
    """A Python file without comments and docstrings. Raises SyntaxError."""
    module = ast.parse(text)
    for node in ast.walk(module):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(module) + "\n"
