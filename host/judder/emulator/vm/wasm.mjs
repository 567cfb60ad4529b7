// node wasm.mjs MICROPYTHON_MJS READ_FD WRITE_FD DEVICE BOOT START: the wasm build of MicroPython on the bench's stream.
//
// Its file system is in memory: the board's tree, settings.toml and a model are copied in. Bytes cross as hex strings.

import fs from "node:fs";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const [library, readFd, writeFd, device, boot, start] = process.argv.slice(2);
const { loadMicroPython } = await import(pathToFileURL(library).href);

const reply = Buffer.alloc(70000);

function readFully(from, to) {
  while (from < to) {
    const got = fs.readSync(Number(readFd), reply, from, to - from, null);
    if (!got) process.exit(0);
    from += got;
  }
}

function exchange(request) {
  fs.writeSync(Number(writeFd), Buffer.from(request, "hex"));
  readFully(0, 3);
  const end = 3 + reply.readUInt16LE(1);
  readFully(3, end);
  return reply.toString("hex", 0, end);
}

const mp = await loadMicroPython({ heapsize: 1 << 20, stderr: (line) => process.stderr.write(line + "\n") });
mp.registerJsModule("bridge", { exchange });

function copy(from, to) {
  if (fs.statSync(from).isDirectory()) {
    mp.FS.mkdir(to);
    for (const name of fs.readdirSync(from)) if (name !== "__pycache__") copy(path.join(from, name), `${to}/${name}`);
  } else {
    mp.FS.writeFile(to, fs.readFileSync(from));
  }
}

copy(device, "/device");
copy(boot, "/boot.py");
for (const name of ["settings.toml", "model.bin"]) if (fs.existsSync(name)) copy(name, "/" + name);
const here = path.dirname(fileURLToPath(import.meta.url));
copy(path.join(here, "bootstrap.py"), "/bootstrap.py");
copy(path.join(here, "..", "modules", "_flash_file.py"), "/_flash_file.py");
copy(start, "/start.json");
mp.runPython(`
import json
import sys
from binascii import hexlify, unhexlify
import bridge
sys.path.append("/")
import bootstrap

def exchange(header, written, into):
    reply = unhexlify(bridge.exchange((hexlify(header) + hexlify(written)).decode()))
    if into is not None and len(reply) > 3:
        bootstrap.fill(into, reply, 3)
    return reply[0]

bootstrap.attach(exchange, "/device")
with open("/start.json") as file:
    start = json.load(file)
bootstrap.boot("/boot.py", "/device/main.py", start, "")
`);
