#!/usr/bin/env python3
"""Readers who check every byte, beside an attacker at random.

  soak.py CONFIG

CONFIG is JSON: seconds, seed, registry (HOST:PORT, with the repository
"good/files"), evil and evil_port (a web server of ours to listen on, and its
name for the attacker), nodes ([{http, mount, socket, pid}]), peerd (the
program), files ([{digest, path}]), odd (files that a foreign manifest lists).

Readers read random ranges through the mount, the mirror and /blobs/, of both
nodes, and compare them with the files: a wrong byte, a wrong length or an error
ends it with status 1. The attacker names places that lie about the same digests
(bytes, sizes, statuses, time), reads files of its own names, evicts, and has
blobs verified. Everything random comes from the seed, but for the order between
the threads.

Prints counts, and the resident memory of the daemons (KiB) after each quarter.
"""

import http.client
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

with open(sys.argv[1], encoding="utf-8") as f:
    config = json.load(f)
END = time.monotonic() + config["seconds"]
FILES = [(f["digest"], open(f["path"], "rb").read()) for f in config["files"]]
BY_DIGEST = dict(FILES)
failures, counts, lock = [], {}, threading.Lock()


def count(what):
    with lock:
        counts[what] = counts.get(what, 0) + 1


def over():
    return time.monotonic() > END or failures


# ---- The attacker's server ----

class Evil(BaseHTTPRequestHandler):
    """Any path that ends in a digest; a lie is chosen for each request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status, body, headers=(), length=None):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length",
                         str(len(body) if length is None else length))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
        if length not in (None, len(body)):
            self.close_connection = True

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        rng = random.Random(f"{config['seed']} {self.path} {time.time_ns()}")
        m = re.search(r"sha256:[0-9a-f]{64}", self.path)
        right = BY_DIGEST.get(m[0] if m else "", b"x" * 1000)
        size = len(right)
        if rng.random() < 0.2:
            size = rng.choice([0, 1, size - 1, size + 1, size * 2, 1 << 40])
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)",
                              self.headers.get("Range", ""))
        lie = rng.choice(["right", "right", "wrong", "wrong", "flip", "short",
                          "drip", "status", "range", "redirect", "whole"])
        try:
            if lie == "status":
                self.send(rng.choice([401, 403, 404, 416, 429, 500, 503]), b"{}")
                return
            if lie == "redirect":
                self.send(307, b"", [("Location", self.path + "?again")])
                return
            if self.command == "HEAD" or not wanted or lie == "whole":
                self.send(200, b"" if self.command == "HEAD"
                          else rng.randbytes(min(size, 1 << 20)),
                          [("Accept-Ranges", "bytes")], size)
                return
            first = int(wanted[1])
            last = min(int(wanted[2] or size - 1), size - 1, first + (4 << 20))
            if first > last:
                self.send(416, b"", [("Content-Range", f"bytes */{size}")])
                return
            body = bytearray(right[first:last + 1].ljust(last + 1 - first, b"z"))
            if lie == "wrong":
                body = rng.randbytes(len(body))
            elif lie == "flip":
                body[rng.randrange(len(body))] ^= 1
            head = [("Content-Range",
                     f"bytes {first + (lie == 'range')}-{last}/{size}")]
            if lie == "short":
                self.send(206, bytes(body[:len(body) // 2]), head, len(body))
            elif lie == "drip":
                self.send(206, bytes(body[:1]), head, len(body))
                self.wfile.flush()
                time.sleep(rng.random() * 2)
            else:
                self.send(206, bytes(body), head)
        except OSError:
            self.close_connection = True


class EvilServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        pass


# ---- Readers ----

def get(node, path, first=None, last=None, timeout=120):
    """Status and body of one request, on a connection of its own."""
    c = http.client.HTTPConnection(node["http"], timeout=timeout)
    try:
        c.request("GET", path, headers={} if first is None else
                  {"Range": f"bytes={first}-{last}"})
        r = c.getresponse()
        return r.status, r.read()
    finally:
        c.close()


def from_mount(node, digest, first, last):
    path = f"{node['mount']}/registry/{config['registry']}/good/files/blobs/"
    with open(path + digest, "rb", buffering=0) as f:
        got = b""
        while len(got) < last + 1 - first:
            piece = os.pread(f.fileno(), last + 1 - first - len(got),
                             first + len(got))
            if not piece:
                break
            got += piece
        return got


def from_mirror(node, digest, first, last):
    status, body = get(node, f"/v2/good/files/blobs/{digest}"
                       f"?ns={config['registry']}", first, last)
    if status != 206:
        raise RuntimeError(f"status {status}: {body[:200]}")
    return body


def from_blobs(node, digest, first, last):
    status, body = get(node, f"/blobs/http://{config['registry']}/v2/good/files"
                       f"/blobs/{digest}", first, last)
    if status != 206:
        raise RuntimeError(f"status {status}: {body[:200]}")
    return body


def reader(i):
    rng = random.Random(f"{config['seed']} reader {i}")
    while not over():
        node = rng.choice(config["nodes"])
        how = rng.choice([from_mount, from_mount, from_mirror, from_blobs])
        digest, right = rng.choice(FILES)
        first = rng.randrange(len(right))
        last = min(first + rng.choice([0, 15, 4095, 100_000, 3_000_000]),
                   len(right) - 1)
        if rng.random() < 0.1:
            first, last = 0, len(right) - 1
        try:
            got = how(node, digest, first, last)
            wrong = got != right[first:last + 1]
            what = f"{len(got)} bytes, of which some are wrong" if wrong else ""
        except (OSError, RuntimeError, http.client.HTTPException) as e:
            wrong, what = True, repr(e)
        count(how.__name__)
        if wrong:
            failures.append(f"{how.__name__}({node['http']}, {digest}, {first}, "
                            f"{last}): {what}")


# ---- The attacker ----

def peerd(node, *command):
    subprocess.run([config["peerd"], *command, "--socket", node["socket"]],
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   timeout=120, check=False)


def evil_url(rng, digest):
    query = rng.choice(["", "", "?d=1", "?d=2", "?sig=1", "?token=x"])
    return f"http://{config['evil']}/{rng.choice('ab')}/{digest}{query}"


def ask_evil_blobs(rng, node, digest):
    first = rng.randrange(len(BY_DIGEST[digest]))
    get(node, f"/blobs/{evil_url(rng, digest)}", first, first + 99_999)


def ask_evil_mirror(rng, node, digest):
    get(node, f"/v2/any/thing/blobs/{digest}?ns={config['evil']}", 0, 99_999)


def ask_odd_manifest(_, node, digest):
    get(node, f"/v2/odd/files/manifests/latest?ns={config['registry']}")
    get(node, f"/v2/odd/files/blobs/{digest}?ns={config['registry']}", 0, 9)


def read_evil_file(rng, node, digest):
    host = config["evil"]
    with open(f"{node['mount']}/url/http/{host}/{rng.choice('ab')}/{digest}",
              "rb") as f:
        f.read(100_000)


def evict(_, node, digest):
    peerd(node, "evict", digest)


def verify(_, node, digest):
    peerd(node, "verify", digest)


def attacker(i):
    rng = random.Random(f"{config['seed']} attacker {i}")
    moves = [ask_evil_blobs] * 6 + [ask_evil_mirror] * 4 + [ask_odd_manifest] * 2 \
        + [read_evil_file] * 2 + [evict] * 2 + [verify]
    while not over():
        move = rng.choice(moves)
        try:
            move(rng, rng.choice(config["nodes"]), rng.choice(FILES)[0])
        except (OSError, http.client.HTTPException,
                subprocess.TimeoutExpired):
            pass
        count(move.__name__)


def resident():
    sizes = []
    for node in config["nodes"]:
        with open(f"/proc/{node['pid']}/status", encoding="ascii") as f:
            sizes.append(int(re.search(r"VmRSS:\s+(\d+)", f.read())[1]))
    return sizes


def main():
    server = EvilServer(("127.0.0.1", config["evil_port"]), Evil)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threads = [threading.Thread(target=reader, args=(i,)) for i in range(6)]
    threads += [threading.Thread(target=attacker, args=(i,)) for i in range(3)]
    for t in threads:
        t.start()
    memory = []
    for quarter in range(4):
        while not over() and time.monotonic() < END - config["seconds"] * (
                3 - quarter) / 4:
            time.sleep(0.1)
        memory.append(resident())
    for t in threads:
        t.join()
    print(json.dumps({"seed": config["seed"], "counts": counts,
                      "resident_kib": memory, "failures": failures[:10]}))
    return 1 if failures else 0


sys.exit(main())
