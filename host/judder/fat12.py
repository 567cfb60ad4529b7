"""FAT12 volumes as bytes: written for the board's flash, the same for the same files; read from anywhere.

Ref: Microsoft, "FAT: General Overview of On-Disk Format", 1.03, and "Long Filename Specification", 0.5. The geometry is
what CircuitPython's FatFs makes of the Swan's 2048 sectors (circuitpython:lib/oofatfs/ff.c, f_mkfs): one table, a
sector to a cluster. Dates and serial number are fixed. What is free is 0xFF, as erased flash is, so that an image may
be cut off behind its last other byte; a reader takes what is cut off for 0xFF.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

SECTOR_BYTES = 512
SECTORS = 2048
"""Of the Swan's drive: the upper bank of its flash, 1 MiB."""
LABEL = "CIRCUITPY"
ROOT_ENTRIES = 512
MOST_BYTES = 32 * 1024 * 1024
"""Of a volume that is read: with 16 bits to count sectors, FAT12 had no larger ones."""

_BOOT = struct.Struct("<3s8sHBHBHHBHHHIIBxBI11s8s")
_ENTRY = struct.Struct("<11sBBB7HI")
_LONG = struct.Struct("<B10sBBB12sH4s")
_JUMP, _SIGNATURE = b"\xeb\xfe\x90", b"\x55\xaa"
_MEDIA, _SERIAL, _DATE = 0xF8, 0x4A554444, 0x0021  # the date is the first that FAT knows, 1980-01-01
_LABEL, _FOLDER, _ARCHIVE, _LONG_NAME, _ATTRIBUTES = 0x08, 0x10, 0x20, 0x0F, 0x3F
_LOWER_STEM, _LOWER_EXTENSION = 0x08, 0x10  # beside the attributes, from Windows NT on
_LAST_PART, _DELETED, _E5 = 0x40, 0xE5, 0x05  # _E5 stands for a name that begins with 0xE5
_PART_UNITS, _MOST_UNITS = 13, 255  # of UTF-16, in an entry and in a name
_FIRST, _MOST_CLUSTERS, _END = 2, 4084, 0xFF8
_FORBIDDEN = frozenset('"*/:<>?\\|\x7f\uffff') | frozenset(map(chr, range(32)))
_SHORT = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'()-@^_`{}~")
_DEVICES = frozenset(
    ("CON", "PRN", "AUX", "NUL", *(f"{kind}{number}" for kind in ("COM", "LPT") for number in range(10)))
)
_NO_FILES: Mapping[str, bytes] = MappingProxyType({})


class Fat12Error(ValueError):
    """A volume that cannot be written or read, in a line."""


# --- writing ----------------------------------------------------------------------------------------------------------


def volume(
    files: Mapping[str, bytes],
    *,
    last: Mapping[str, bytes] = _NO_FILES,
    sectors: int = SECTORS,
    label: str = LABEL,
    root_entries: int = ROOT_ENTRIES,
) -> bytes:
    """All `sectors` sectors of a volume with these files (path with slashes, content), each in one piece.

    First come the folders, then `files` in their order, then `last`. A path that ends in a slash is an empty folder.
    Raises Fat12Error for a name that FAT cannot hold, and when there is no room.
    """
    table_sectors = -(-((sectors * 3 + 1) // 2 + 3) // SECTOR_BYTES)  # as f_mkfs counts, more than it takes
    clusters = sectors - 1 - table_sectors - root_entries * _ENTRY.size // SECTOR_BYTES
    if root_entries % (SECTOR_BYTES // _ENTRY.size) or not 0 < clusters <= _MOST_CLUSTERS:
        raise Fat12Error(
            f"no FAT12 has {sectors} sectors and {root_entries} root entries: these fill whole sectors, and beside "
            f"them there are 1 to {_MOST_CLUSTERS} for files"
        )
    tree = _tree(files, last)
    root = _entry(_label(label), _LABEL) + tree.root.directory()
    if len(root) > root_entries * _ENTRY.size:
        raise Fat12Error(
            f"the root takes {len(root) // _ENTRY.size} entries and has {root_entries}: put files into folders"
        )
    table = [0xF00 | _MEDIA, 0xFFF]
    for node in tree.in_order:
        if length := -(-node.size // SECTOR_BYTES):
            node.cluster = len(table)
            table += [*range(len(table) + 1, len(table) + length), 0xFFF]
    if (missing := len(table) - _FIRST - clusters) > 0:
        raise Fat12Error(
            f"the volume is full: the files take {missing * SECTOR_BYTES} bytes more than its {clusters * SECTOR_BYTES}"
        )
    root = _entry(_label(label), _LABEL) + tree.root.directory()  # now that clusters are known
    parts = [
        _boot_sector(sectors, table_sectors, root_entries),
        _packed(table).ljust(table_sectors * SECTOR_BYTES, b"\0"),
        root.ljust(root_entries * _ENTRY.size, b"\0"),
        *(node.sectors() for node in tree.in_order),
    ]
    return b"".join(parts).ljust(sectors * SECTOR_BYTES, b"\xff")


@dataclass
class _Node:
    """A file, or a folder, which has children by their folded names and no content."""

    name: str
    parent: "_Node | None" = None
    content: bytes | None = None
    children: "dict[str, _Node]" = field(default_factory=dict)
    cluster: int = 0

    @property
    def size(self) -> int:
        return len(self.directory()) if self.content is None else len(self.content)

    def sectors(self) -> bytes:
        """What it has on the volume."""
        data, filler = (self.directory(), b"\0") if self.content is None else (self.content, b"\xff")
        return data.ljust(-(-len(data) // SECTOR_BYTES) * SECTOR_BYTES, filler)

    def directory(self) -> bytes:
        """Of a folder: an entry for each child, with its long name before it."""
        found = []
        if self.parent is not None:
            found += [
                _entry(b".".ljust(11), _FOLDER, self.cluster),
                _entry(b"..".ljust(11), _FOLDER, self.parent.cluster),
            ]
        aliases = _aliases([child.name for child in self.children.values()])
        for child in self.children.values():
            alias = aliases[child.name]
            if child.name != child.name.upper() or _short(child.name) is None:
                found += _long_name(child.name, alias)
            kind, size = (_FOLDER, 0) if child.content is None else (_ARCHIVE, len(child.content))
            found.append(_entry(alias, kind, child.cluster, size))
        return b"".join(found)


class _Tree(NamedTuple):
    root: _Node
    in_order: Sequence[_Node]
    """As they lie on the volume: folders, then files."""


def _tree(*groups: Mapping[str, bytes]) -> _Tree:
    root = _Node("")
    folders: list[_Node] = []
    contents: list[_Node] = []
    for path, content in (item for group in groups for item in group.items()):
        parts = path.removesuffix("/").split("/")
        node = root
        for number, part in enumerate(parts, 1):
            _check_name(part, path)
            is_file = number == len(parts) and not path.endswith("/")
            found = node.children.get(_folded(part))
            if found is None:
                found = _Node(part, node, content if is_file else None)
                node.children[_folded(part)] = found
                (contents if is_file else folders).append(found)
            elif found.name != part:
                raise Fat12Error(f"{path}: there is {found.name!r}, and FAT does not tell capitals from small letters")
            elif is_file or found.content is not None:
                raise Fat12Error(f"{path} is there twice, or is a file and a folder")
            node = found
        if node.content is None and content:
            raise Fat12Error(f"{path} is a folder by its name and has content")
    return _Tree(root, [*folders, *contents])


def _check_name(name: str, path: str) -> None:
    """Raises Fat12Error for a name that FAT, or a PC with the drive in it, could not do with."""
    if wrong := sorted(set(name) & _FORBIDDEN):
        raise Fat12Error(f"{path!r}: a name on FAT cannot have {wrong[0]!r} in it")
    if not name or name != name.rstrip(". "):
        raise Fat12Error(f"{path!r}: a name on FAT cannot be empty, nor end in a dot or a space")
    if name.partition(".")[0].rstrip().upper() in _DEVICES:
        raise Fat12Error(f"{path!r}: {name!r} is the name of a device on Windows: choose another")
    try:
        units = len(name.encode("utf-16-le")) // 2
    except UnicodeEncodeError:
        raise Fat12Error(f"{path!r}: the name is no text that can be encoded") from None
    if units > _MOST_UNITS:
        raise Fat12Error(f"{path!r}: the name has {units} units of UTF-16, and FAT holds {_MOST_UNITS}")


def _folded(name: str) -> str:
    """By which FAT compares names: letter by letter, so that ß is not SS."""
    return "".join(upper if len(upper := letter.upper()) == 1 else letter for letter in name)


def _short(name: str) -> bytes | None:
    """The name as an entry has it, in capitals; None if it is not one of 8.3."""
    stem, dot, extension = name.upper().partition(".")
    fits = name.isascii() and 0 < len(stem) <= 8 and len(dot) <= len(extension) <= 3
    return f"{stem:8}{extension:3}".encode() if fits and _SHORT.issuperset(stem + extension) else None


def _aliases(names: Sequence[str]) -> dict[str, bytes]:
    """The short name of each: itself in capitals, or else its beginning with a number."""
    found = {name: short for name in names if (short := _short(name)) is not None}
    taken = set(found.values())
    numbers: dict[tuple[str, str], int] = {}
    for name in names:
        if name in found:
            continue
        stem, dot, extension = name.lstrip(". ").rpartition(".")
        stem, extension = (_cleaned(stem), _cleaned(extension)[:3]) if dot else (_cleaned(extension), "")
        key = (stem[:6], extension)
        while name not in found:
            numbers[key] = numbers.get(key, 0) + 1
            tail = f"~{numbers[key]}"
            short = f"{stem[: 8 - len(tail)] + tail:8}{extension:3}".encode()
            if short not in taken:
                found[name] = short
                taken.add(short)
    return found


def _cleaned(name: str) -> str:
    kept = name.replace(" ", "").replace(".", "")
    return "".join(upper if (upper := letter.upper()) in _SHORT else "_" for letter in kept)


def _long_name(name: str, alias: bytes) -> list[bytes]:
    """Its entries, the last part first."""
    units = name.encode("utf-16-le")
    count = -(-len(units) // (2 * _PART_UNITS))
    if len(units) < count * 2 * _PART_UNITS:
        units = (units + b"\0\0").ljust(count * 2 * _PART_UNITS, b"\xff")
    found = []
    for number in range(count, 0, -1):
        part = units[(number - 1) * 2 * _PART_UNITS : number * 2 * _PART_UNITS]
        order = number | (_LAST_PART if number == count else 0)
        found.append(_LONG.pack(order, part[:10], _LONG_NAME, 0, _checksum(alias), part[10:22], 0, part[22:]))
    return found


def _checksum(alias: bytes) -> int:
    total = 0
    for byte in alias:
        total = ((total & 1) << 7) + (total >> 1) + byte & 0xFF
    return total


def _entry(alias: bytes, attributes: int, cluster: int = 0, size: int = 0) -> bytes:
    return _ENTRY.pack(alias, attributes, 0, 0, 0, _DATE, _DATE, 0, 0, _DATE, cluster, size)


def _label(label: str) -> bytes:
    if not 0 < len(label) <= 11 or not _SHORT.issuperset(label.replace(" ", "-")) or label != label.strip():
        raise Fat12Error(f"{label!r} is no label of a volume: 1 to 11 capitals and digits")
    return label.encode().ljust(11)


def _boot_sector(sectors: int, table_sectors: int, root_entries: int) -> bytes:
    geometry = (SECTOR_BYTES, 1, 1, 1, root_entries, sectors, _MEDIA, table_sectors, 63, 255, 1, 0)
    names = (b"NO NAME".ljust(11), b"FAT".ljust(8))  # f_mkfs writes no other ones
    head = _BOOT.pack(_JUMP, b"MSDOS5.0", *geometry, 0x80, 0x29, _SERIAL, *names)
    return head.ljust(SECTOR_BYTES - len(_SIGNATURE), b"\0") + _SIGNATURE


def _packed(table: list[int]) -> bytes:
    """Twelve bits an entry, two in three bytes."""
    even = [*table, 0] if len(table) % 2 else table
    return b"".join((low | high << 12).to_bytes(3, "little") for low, high in zip(even[::2], even[1::2], strict=True))


# --- reading ----------------------------------------------------------------------------------------------------------


def is_volume(image: bytes) -> bool:
    """Whether it begins with a boot sector."""
    return image[:1] in (b"\xeb", b"\xe9") and image[510:512] == _SIGNATURE


def read(image: bytes) -> dict[str, bytes]:
    """Path and content of each file; an empty folder's path ends in a slash. Raises Fat12Error for what is broken."""
    opened = _open(image)
    return {found.path: opened.content(found) for found in _walk(opened)}


def locate(image: bytes, path: str) -> tuple[int, int] | None:
    """First sector and size of a file that lies in one piece; None if there is none. Raises Fat12Error.

    A file without content is at sector 0.
    """
    opened = _open(image)
    for found in _walk(opened):
        if _folded(found.path) == _folded(path):
            chain = found.chain
            if not chain:
                return 0, found.size
            if list(chain) != list(range(chain[0], chain[0] + len(chain))):
                raise Fat12Error(f"{path} lies in pieces")
            return opened.offset(chain[0]) // opened.sector_bytes, found.size
    return None


class _Found(NamedTuple):
    path: str
    chain: Sequence[int]
    size: int


@dataclass(frozen=True)
class _Volume:
    image: bytes
    sector_bytes: int
    cluster_bytes: int
    table: bytes
    root: bytes
    data: int
    """Where clusters begin."""
    clusters: int
    owners: dict[int, str] = field(default_factory=dict)
    """Of clusters met so far."""

    def offset(self, cluster: int) -> int:
        return self.data + (cluster - _FIRST) * self.cluster_bytes

    def content(self, found: _Found) -> bytes:
        starts = map(self.offset, found.chain)
        whole = (self.image[start : start + self.cluster_bytes].ljust(self.cluster_bytes, b"\xff") for start in starts)
        return b"".join(whole)[: found.size]

    def chain(self, first: int, path: str) -> list[int]:
        """The clusters of a file or folder that begins there. Raises Fat12Error."""
        chain: list[int] = []
        cluster = first
        while cluster < _END or not chain:
            if not _FIRST <= cluster < _FIRST + self.clusters:
                raise Fat12Error(f"{path}: goes on in cluster {cluster}, which is not one of its {self.clusters}")
            if (owner := self.owners.setdefault(cluster, path)) != path:
                raise Fat12Error(f"{path}: shares cluster {cluster} with {owner}")
            if len(chain) > self.clusters:
                raise Fat12Error(f"{path}: goes round in circles")
            chain.append(cluster)
            pair = int.from_bytes(self.table[cluster * 3 // 2 : cluster * 3 // 2 + 2], "little")
            cluster = pair >> 4 if cluster % 2 else pair & 0xFFF
        return chain


def _open(image: bytes) -> _Volume:
    if not is_volume(image):
        raise Fat12Error("this is no volume: it does not begin with a boot sector")
    _, _, sector_bytes, per_cluster, reserved, tables, root_entries, few, _, table_sectors, *rest = _BOOT.unpack_from(
        image
    )
    sectors = few or rest[3]
    if (
        sector_bytes not in (512, 1024, 2048, 4096)
        or per_cluster not in (1, 2, 4, 8, 16, 32, 64, 128)
        or not reserved
        or tables not in (1, 2)
        or not table_sectors
        or sectors * sector_bytes > MOST_BYTES
    ):
        raise Fat12Error("its boot sector does not describe a FAT12 volume")
    root = reserved + tables * table_sectors
    data = root + -(-root_entries * _ENTRY.size // sector_bytes)
    clusters = (sectors - data) // per_cluster
    if not 0 < clusters <= _MOST_CLUSTERS:
        raise Fat12Error(f"it has {clusters} clusters, and a FAT12 volume 1 to {_MOST_CLUSTERS}")
    if table_sectors * sector_bytes * 2 < (clusters + _FIRST) * 3:
        raise Fat12Error(f"its table of {table_sectors} sectors is too short for {clusters} clusters")
    if len(image) < data * sector_bytes:
        raise Fat12Error(f"it ends after {len(image)} bytes, in the midst of its table or root folder")
    return _Volume(
        image,
        sector_bytes,
        per_cluster * sector_bytes,
        table=image[reserved * sector_bytes : (reserved + table_sectors) * sector_bytes],
        root=image[root * sector_bytes : root * sector_bytes + root_entries * _ENTRY.size],
        data=data * sector_bytes,
        clusters=clusters,
    )


def _walk(opened: _Volume) -> Iterator[_Found]:
    """Each file, and each folder with nothing in it."""
    folders = [("", opened.root)]
    while folders:
        at, directory = folders.pop()
        names: dict[str, str] = {}
        for name, is_folder, cluster, size in _entries(directory, at or "the root"):
            path = at + name
            if other := names.get(_folded(name)):
                raise Fat12Error(f"{path}: there is {other} beside it")
            names[_folded(name)] = path
            chain = opened.chain(cluster, path) if cluster or is_folder else []
            if is_folder:
                size = len(chain) * opened.cluster_bytes
                folders.append((path + "/", opened.content(_Found(path, chain, size))))
                continue
            if len(chain) != -(-size // opened.cluster_bytes):
                raise Fat12Error(f"{path}: has {size} bytes and {len(chain)} clusters of {opened.cluster_bytes}")
            yield _Found(path, chain, size)
        if at and not names:
            yield _Found(at, [], 0)


def _entries(directory: bytes, where: str) -> Iterator[tuple[str, bool, int, int]]:
    """Name, whether it is a folder, first cluster and size of each."""
    parts: list[bytes] = []
    for at in range(0, len(directory) - len(directory) % _ENTRY.size, _ENTRY.size):
        entry = directory[at : at + _ENTRY.size]
        alias, attributes, case, *_, cluster, size = _ENTRY.unpack(entry)
        attributes &= _ATTRIBUTES
        if not alias[0]:
            return
        if alias[0] == _DELETED:
            parts = []
        elif attributes == _LONG_NAME:
            parts.append(entry)
        else:
            if attributes & _LABEL and attributes & _FOLDER:
                raise Fat12Error(f"{where}: entry {at // _ENTRY.size} is no file and no folder")
            if not attributes & _LABEL and alias.rstrip() not in (b".", b".."):
                yield _name(parts, alias, case, where), bool(attributes & _FOLDER), cluster, size
            parts = []


def _name(parts: Sequence[bytes], alias: bytes, case: int, where: str) -> str:
    """The long name, if there is one and it is this entry's; else the short one."""
    units = b""
    for number, part in enumerate(reversed(parts), 1):
        order, first, _, _, checksum, second, _, third = _LONG.unpack(part)
        is_last = _LAST_PART if number == len(parts) else 0
        if order != number | is_last or checksum != _checksum(alias):
            units = b""
            break
        units += first + second + third
    name = _decoded(units) if units else _from_alias(alias, case)
    if not name or name in (".", "..") or _FORBIDDEN & set(name):
        raise Fat12Error(f"{where}: {name!r} is no name")
    return name


def _decoded(units: bytes) -> str:
    end = next((at for at in range(0, len(units), 2) if units[at : at + 2] == b"\0\0"), len(units))
    return units[:end].decode("utf-16-le", "replace")


def _from_alias(alias: bytes, case: int) -> str:
    if alias[0] == _E5:
        alias = b"\xe5" + alias[1:]
    stem, extension = (part.decode("cp437").rstrip(" ") for part in (alias[:8], alias[8:]))
    stem = stem.lower() if case & _LOWER_STEM else stem
    extension = extension.lower() if case & _LOWER_EXTENSION else extension
    return f"{stem}.{extension}" if extension else stem
