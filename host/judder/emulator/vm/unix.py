"""`micropython unix.py READ_FD WRITE_FD DEVICE BOOT START`: the bench over two inherited file descriptors."""

import json
import sys

here = sys.argv[0].rsplit("/", 1)[0]
sys.path.insert(0, here)
import bootstrap  # noqa: E402

bench_in = open(int(sys.argv[1]), "rb")
bench_out = open(int(sys.argv[2]), "wb")


reply = bytearray(3)
rest = bytearray(256)


def exchange(header, written, into):
    bench_out.write(header)
    if written:
        bench_out.write(written)
    if bench_in.readinto(reply) != 3:
        sys.exit(0)
    length = reply[1] | reply[2] << 8
    if length:
        bench_in.readinto(into if into is not None else rest, length)
    return reply[0]


bootstrap.attach(exchange, sys.argv[3])
with open(sys.argv[5]) as file:
    start = json.load(file)
bootstrap.boot(sys.argv[4], sys.argv[3] + "/main.py", start, here + "/../modules")
