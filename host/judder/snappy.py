"""Snappy's block format: compressed by rules of our own that stay, so that images made years apart are the same bytes.

Ref: google/snappy:format_description.txt. A block is its length as a varint, then literals and copies of what came
before. Which of them a compressor chooses is left to it; this one takes the newest place where the next four bytes
were seen, as long as they agree.
"""

MOST_BYTES = 1 << 32
"""Of what a block may hold."""

_LITERAL, _COPY_1, _COPY_2 = 0, 1, 2
_SHORTEST, _LONGEST = 4, 64  # of a copy; the format allows shorter ones, which save nothing
_FARTHEST = 65535
_NEAR, _NEAR_LONGEST = 2048, 11  # what fits into a copy of two bytes
_IN_TAG = 60  # bytes of a literal whose length its tag holds


class SnappyError(ValueError):
    """A block that is damaged, in a line."""


def compress(data: bytes) -> bytes:
    """The block of `data`."""
    block = bytearray(_varint(len(data)))
    newest: dict[bytes, int] = {}
    begin = at = 0  # of what is not yet written, and of what is looked at
    while at <= len(data) - _SHORTEST:
        key = data[at : at + _SHORTEST]
        found = newest.get(key, at)
        newest[key] = at
        if not 0 < at - found <= _FARTHEST:
            at += 1
            continue
        end = at + _SHORTEST
        while end < len(data) and data[end] == data[end - at + found]:
            end += 1
        _add_literal(block, data[begin:at])
        _add_copy(block, at - found, end - at)
        for inside in range(at + 1, min(end, len(data) - _SHORTEST)):
            newest[data[inside : inside + _SHORTEST]] = inside
        begin = at = end
    _add_literal(block, data[begin:])
    return bytes(block)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _add_literal(block: bytearray, data: bytes) -> None:
    if not data:
        return
    length = len(data) - 1
    if length < _IN_TAG:
        block.append(length << 2 | _LITERAL)
    else:
        size = -(-length.bit_length() // 8)
        block.append(_IN_TAG - 1 + size << 2 | _LITERAL)
        block += length.to_bytes(size, "little")
    block += data


def _add_copy(block: bytearray, offset: int, length: int) -> None:
    while length:
        part = length
        if part > _LONGEST:  # what remains is no shorter than a copy can be
            part = min(_LONGEST, length - _SHORTEST)
        if part <= _NEAR_LONGEST and offset < _NEAR:
            block += bytes([offset >> 8 << 5 | part - _SHORTEST << 2 | _COPY_1, offset & 0xFF])
        else:
            block.append(part - 1 << 2 | _COPY_2)
            block += offset.to_bytes(2, "little")
        length -= part


def decompress(block: bytes, most_bytes: int = MOST_BYTES) -> bytes:
    """What the block holds. Raises SnappyError if it is damaged, or holds more than `most_bytes`."""
    length, at = _length(block)
    if length > most_bytes:
        raise SnappyError(f"the block says it holds {length} bytes, of at most {most_bytes}")
    data = bytearray()
    while at < len(block):
        tag = block[at]
        at += 1
        kind = tag & 3
        if kind == _LITERAL:
            size = max(0, (tag >> 2) - _IN_TAG + 1)
            count = (int.from_bytes(block[at : at + size], "little") if size else tag >> 2) + 1
            at += size
            data += block[at : at + count]
            at += count
        else:
            size = (1, 2, 4)[kind - 1]
            offset = int.from_bytes(block[at : at + size], "little")
            count = (tag >> 2) + 1
            if kind == _COPY_1:
                offset, count = offset | tag >> 5 << 8, (tag >> 2 & 7) + _SHORTEST
            at += size
            if not 0 < offset <= len(data):
                raise SnappyError(f"the block copies from {offset} bytes back, and {len(data)} are there")
            start = len(data) - offset
            data += (data[start : start + count] * -(-count // offset))[:count]  # it may reach into itself
        if at > len(block) or len(data) > length:
            raise SnappyError(f"the block ends within an element, or holds more than its {length} bytes")
    if len(data) != length:
        raise SnappyError(f"the block holds {len(data)} bytes, of {length}")
    return bytes(data)


def _length(block: bytes) -> tuple[int, int]:
    """What it says it holds, and where its elements begin."""
    length = 0
    for at, byte in enumerate(block[:5]):
        length |= (byte & 0x7F) << 7 * at
        if byte <= 0x7F:
            return length, at + 1
    raise SnappyError("the block does not begin with its length")
