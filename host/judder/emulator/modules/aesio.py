"""CircuitPython's aesio: AES in CBC mode, which goes on where the last call ended (circuitpython:shared-module/aesio).

The bench does the arithmetic: this interpreter has its standard library only.
"""

import _bench

MODE_ECB, MODE_CBC, MODE_CTR = 0, 1, 2


class AES:
    def __init__(self, key, mode=MODE_ECB, IV=None, segment_size=8):
        if mode != MODE_CBC:
            raise NotImplementedError("only MODE_CBC is emulated")
        if len(key) != 16:
            raise ValueError("Key must be 16, 24, or 32 bytes long")
        self._key, self._chain = bytes(key), bytes(IV or bytes(16))

    def encrypt_into(self, src, dest):
        if len(src) != len(dest):
            raise ValueError("Source and destination buffers must be the same length")
        if len(src) % 16:
            raise ValueError("CBC blocks must be multiples of 16 bytes")
        dest[:] = _bench.call(ord("J"), written=self._key + self._chain + bytes(src), read_length=len(src))[1]
        self._chain = bytes(dest[-16:]) or self._chain
