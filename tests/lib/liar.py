#!/usr/bin/env python3
"""A registry that misbehaves as its repositories' names say.

  liar.py --port-file FILE --log FILE

Every repository NAME holds one blob, made from its name (3 MiB and a bit), so
that what is learnt of one never helps another. How it is served:

  ok             as it should be
  X-N            X for the first N requests of the blob, then ok
  X              X for ever, for X one of:
    range200       200 with the whole blob to any range
    wrongrange     Content-Range one byte off
    wrongtotal     Content-Range with another total
    norange        206 without Content-Range
    short          the connection is closed at half of the body
    shortlength    half of the range, and a Content-Length that says so
    long           1000 bytes more than asked for
    empty          206 with an empty body
    headbig        HEAD tells 4096 bytes more than there are
    headsmall      HEAD tells 4096 bytes less
    headnone       HEAD has no Content-Length
    wrongbytes     one bit of the last MiB is flipped
    s416 s404 s401 s403 s429 s500 s503   that status; 429 says Retry-After: 1
    s204           a success without a body
    loop           a redirect to itself
    pingpong       two URLs that redirect to each other, growing
    far            30 redirects, each to a new URL, then the blob
    badredirect    a redirect to "gopher://"
    stall          half of the body, then nothing
    mute           takes the request and says nothing
    reset          half of the body, then a TCP reset
    slow           the first byte after 2 seconds
    drip           a byte a second
    garbage        not HTTP
    hugehead       a header of 4 MiB
The same at 127.0.0.2 to 127.0.0.8, which to its clients are other registries.
Below manifests/ the reference decides:
    good           the blob as layer "blob.bin"
    broken huge deep many badlength baddigest negative schema1 names nul
    surrogate empty
    dup            two layers of one title
    wrong          bytes that do not match the digest the header tells
    noheader       without Docker-Content-Digest
    sha256:...     of "forged": bytes that do not match; else the right ones
tags/list of repository "paging" pages through 250 tags, "endless" links to
itself for ever, "badtags" lists names that are none, "hugetags" never ends.

For the tests themselves, outside of /v2/:
    /liar/digest/NAME      the digest of NAME's blob
    /liar/bytes/NAME       its bytes
    /liar/manifest/NAME/REF  the digest of that manifest
    /liar/heal/NAME        from now on NAME is "ok"
    /liar/log/NAME         the requests for it, JSON lines
"""

import argparse
import hashlib
import json
import random
import re
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SIZE = 3 * 1024 * 1024 + 4321
OCI = "application/vnd.oci.image.manifest.v1+json"
TITLE = "org.opencontainers.image.title"
FORGED = "sha256:" + "f0" * 32

lock = threading.Lock()
blobs = {}
seen = {}
healed = set()
requests = []
log_file = None


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def blob_of(name):
    with lock:
        if name not in blobs:
            blobs[name] = random.Random(name).randbytes(SIZE)
        return blobs[name]


def descriptor(data, title=None, **more):
    d = {"mediaType": "application/octet-stream", "digest": sha(data),
         "size": len(data)}
    if title is not None:
        d["annotations"] = {TITLE: title}
    d.update(more)
    return d


def manifest(layers, **more):
    m = {"schemaVersion": 2, "mediaType": OCI,
         "config": descriptor(b"{}", mediaType="application/json"),
         "layers": layers}
    m.update(more)
    return json.dumps(m).encode()


BAD_TITLES = ["../../etc/passwd", "/etc/passwd", "a/../b", "..", ".", "a//b",
              "tab\tname", "new\nline", "x" * 4096, "", "a/",
              "good.txt", "sub/dir/good.txt"]


def manifest_of(name, ref):
    """The bytes of a manifest, and what the header says of its digest."""
    blob = blob_of(name)
    good = manifest([descriptor(blob, "blob.bin")])
    small = descriptor(b"{}")
    odd = {
        "good": good,
        "wrong": good,
        "noheader": good,
        "broken": good[:-20],
        "empty": b"",
        "huge": good[:-1] + b" " * (16 << 20) + b"}",
        "deep": b'{"a":' + b"[" * 100000 + b"]" * 100000 + b"}",
        "many": manifest([small] * 100000),
        "badlength": good,
        "baddigest": manifest([descriptor(blob, digest="sha256:../../x")]),
        "negative": manifest([descriptor(blob, size=-1)]),
        "schema1": json.dumps({"schemaVersion": 1, "fsLayers": []}).encode(),
        "names": manifest([descriptor(blob, t) for t in BAD_TITLES]),
        "nul": manifest([descriptor(blob, "nul\0name")]),
        "surrogate": manifest([descriptor(blob, "\ud800")]),
        "dup": manifest([descriptor(blob, "same"),
                         descriptor(b"{}", "same")]),
    }
    if ref == FORGED:
        return good, FORGED
    if ref.startswith("sha256:"):
        for data in odd.values():
            if sha(data) == ref:
                return data, ref
        return None, None
    data = odd.get(ref)
    if data is None:
        return None, None
    told = {"wrong": FORGED, "noheader": None}.get(ref, sha(data))
    return data, told


def mode_of(name):
    """What to do with this request for NAME's blob; counts requests."""
    last = name.rsplit("/", 1)[-1]
    m = re.fullmatch(r"([a-z0-9]+)-(\d+)", last)
    with lock:
        if name in healed:
            return "ok"
        if not m:
            return last
        seen[name] = seen.get(name, 0) + 1
        return m[1] if seen[name] <= int(m[2]) else "ok"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def note(self, name, **more):
        line = {"t": round(time.time(), 3), "name": name,
                "method": self.command, "path": self.path,
                "range": self.headers.get("Range"),
                "auth": self.headers.get("Authorization"), **more}
        with lock:
            requests.append(line)
            log_file.write(json.dumps(line) + "\n")
            log_file.flush()

    def reply(self, status, body=b"", headers=(), length=None):
        self.send_response(status)
        for k, v in dict(headers).items():
            if v is not None:
                self.send_header(k, v)
        if length != "none":
            self.send_header("Content-Length",
                             str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def hang(self, seconds=600):
        """Until the client goes away."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.settimeout(seconds)
        try:
            self.connection.recv(1)
        except OSError:
            pass

    def reset(self):
        self.close_connection = True
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                   struct.pack("ii", 1, 0))
        self.connection.close()

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        try:
            self.route()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except OSError:
            self.close_connection = True

    def route(self):
        path = self.path.partition("?")[0]
        if path.startswith("/liar/"):
            return self.control(path[6:])
        if path in ("/v2/", "/v2"):
            return self.reply(200, b"{}")
        m = re.fullmatch(r"/v2/(.+)/(blobs|manifests|tags)/([^/]+)", path)
        if not m:
            self.note(path)
            return self.reply(404)
        name, kind, ref = m.groups()
        if kind == "blobs":
            return self.blob(name, ref)
        if kind == "manifests":
            return self.manifest(name, ref)
        return self.tags(name)

    def control(self, path):
        what, _, name = path.partition("/")
        if what == "digest":
            return self.reply(200, sha(blob_of(name)).encode())
        if what == "bytes":
            return self.reply(200, blob_of(name))
        if what == "manifest":
            name, _, ref = name.rpartition("/")
            return self.reply(200, sha(manifest_of(name, ref)[0]).encode())
        if what == "heal":
            with lock:
                healed.add(name)
            return self.reply(200)
        if what == "log":
            with lock:
                lines = [json.dumps(r) for r in requests if r["name"] == name]
            return self.reply(200, "".join(x + "\n" for x in lines).encode())
        return self.reply(404)

    def manifest(self, name, ref):
        self.note(name)
        data, told = manifest_of(name, ref)
        if data is None:
            return self.reply(404, b'{"errors":[]}')
        length = len(data) + 100 if ref == "badlength" else None
        if length and self.command == "GET":
            self.close_connection = True
        return self.reply(200, data, {"Content-Type": OCI,
                                      "Docker-Content-Digest": told}, length)

    def tags(self, name):
        self.note(name)
        query = self.path.partition("?")[2]
        kind = {"Content-Type": "application/json"}
        if name == "paging":
            last = int((re.search(r"last=t(\d+)", query) or [0, "-1"])[1])
            tags = [f"t{i:03}" for i in range(last + 1, min(last + 101, 250))]
            if last + 101 < 250:
                kind["Link"] = (f'</v2/paging/tags/list?n=100&last={tags[-1]}'
                                '>; rel="next"')
        elif name == "endless":
            tags = ["one"]
            kind["Link"] = '</v2/endless/tags/list?last=one>; rel="next"'
        elif name == "badtags":
            tags = ["fine", "../../x", "a/b", "", ".", "..", "tab\t", "x" * 999,
                    "%2e%2e", 7, None]
        elif name == "hugetags":
            self.reply(200, b'{"name":"hugetags","tags":["', kind,
                       length=1 << 40)
            while True:
                self.wfile.write(b"a" * 65536)
        else:
            tags = ["good"]
        return self.reply(200, json.dumps({"name": name,
                                           "tags": tags}).encode(), kind)

    def blob(self, name, ref):
        data = blob_of(name)
        if ref == sha(b"{}") and name != "missing":
            data = b"{}"
        elif ref != sha(data):
            self.note(name, mode="unknown")
            return self.reply(404, b'{"errors":[]}')
        mode = mode_of(name) if self.command == "GET" else mode_of_head(name)
        self.note(name, mode=mode)
        total = len(data)
        if self.command == "HEAD":
            told = {"headbig": total + 4096, "headsmall": total - 4096,
                    "headnone": "none"}.get(mode, total)
            return self.reply(200, b"", {"Accept-Ranges": "bytes"}, told)
        m = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(m[1]) if m else 0
        end = min(int(m[2]) if m and m[2] else total - 1, total - 1)
        if start >= total:
            return self.reply(416, b"", {"Content-Range": f"bytes */{total}"})
        act = getattr(self, "do_" + mode, None)
        if act:
            return act(data, start, end, m is not None)
        m2 = re.fullmatch(r"s(\d\d\d)", mode)
        if m2:
            return self.status(int(m2[1]), total)
        return self.part(data, start, end, m is not None)

    def part(self, data, start, end, ranged, **more):
        body = data[start:end + 1]
        if not ranged:
            return self.reply(200, body, more.get("headers", ()),
                              more.get("length"))
        headers = {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
        headers.update(more.get("headers", {}))
        return self.reply(206, more.get("body", body), headers,
                          more.get("length"))

    def status(self, status, total):
        headers = {}
        if status == 429:
            headers["Retry-After"] = "1"
        if status == 416:
            headers["Content-Range"] = f"bytes */{total}"
        self.reply(status, b"" if status == 204 else b'{"errors":[]}', headers)

    def do_range200(self, data, start, end, ranged):
        self.reply(200, data)

    def do_wrongrange(self, data, start, end, ranged):
        self.part(data, start, end, True, headers={
            "Content-Range": f"bytes {start + 1}-{end + 1}/{len(data)}"})

    def do_wrongtotal(self, data, start, end, ranged):
        self.part(data, start, end, True, headers={
            "Content-Range": f"bytes {start}-{end}/{len(data) + 7}"})

    def do_norange(self, data, start, end, ranged):
        self.reply(206, data[start:end + 1])

    def half(self, data, start, end):
        body = data[start:end + 1]
        self.reply(206, body[:len(body) // 2],
                   {"Content-Range": f"bytes {start}-{end}/{len(data)}"},
                   length=len(body))

    def do_short(self, data, start, end, ranged):
        self.half(data, start, end)
        self.close_connection = True

    def do_shortlength(self, data, start, end, ranged):
        body = data[start:end + 1]
        self.part(data, start, end, True, body=body[:len(body) // 2])

    def do_long(self, data, start, end, ranged):
        self.part(data, start, end, True,
                  body=data[start:end + 1] + b"x" * 1000)

    def do_empty(self, data, start, end, ranged):
        self.part(data, start, end, True, body=b"")

    def do_wrongbytes(self, data, start, end, ranged):
        bad = bytearray(data)
        bad[-5000] ^= 0x10
        self.part(bytes(bad), start, end, ranged)

    def do_stall(self, data, start, end, ranged):
        self.half(data, start, end)
        self.hang()

    def do_mute(self, data, start, end, ranged):
        self.hang()

    def do_reset(self, data, start, end, ranged):
        self.half(data, start, end)
        self.reset()

    def do_slow(self, data, start, end, ranged):
        time.sleep(2)
        self.part(data, start, end, ranged)

    def do_drip(self, data, start, end, ranged):
        self.close_connection = True
        self.reply(206, b"",
                   {"Content-Range": f"bytes {start}-{end}/{len(data)}"},
                   length=end - start + 1)
        for i in range(start, end + 1):
            self.wfile.write(data[i:i + 1])
            time.sleep(1)

    def do_garbage(self, data, start, end, ranged):
        self.close_connection = True
        self.wfile.write(b"\x16\x03\x01 this is not HTTP at all\r\n\r\n")

    def do_hugehead(self, data, start, end, ranged):
        self.part(data, start, end, True, headers={"X-Big": "y" * (4 << 20)})

    def do_loop(self, data, start, end, ranged):
        self.reply(307, b"", {"Location": self.path})

    def do_badredirect(self, data, start, end, ranged):
        self.reply(307, b"", {"Location": "gopher://127.0.0.1/x"})

    def step(self):
        m = re.search(r"step=(\d+)", self.path)
        return int(m[1]) if m else 0

    def do_pingpong(self, data, start, end, ranged):
        path = self.path.partition("?")[0]
        self.reply(302, b"", {"Location": f"{path}?step={self.step() + 1}"})

    def do_far(self, data, start, end, ranged):
        if self.step() >= 30:
            return self.part(data, start, end, ranged)
        return self.do_pingpong(data, start, end, ranged)


def mode_of_head(name):
    last = name.rsplit("/", 1)[-1]
    return last if last.startswith("head") else "ok"


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def main():
    global log_file
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    p.add_argument("--port-file", required=True)
    p.add_argument("--log", required=True)
    args = p.parse_args()
    log_file = open(args.log, "a", encoding="utf-8")
    server = Server(("127.0.0.1", 0), Handler)
    for i in range(2, 9):
        other = Server((f"127.0.0.{i}", server.server_address[1]), Handler)
        threading.Thread(target=other.serve_forever, daemon=True).start()
    with open(args.port_file, "w", encoding="utf-8") as f:
        f.write(f"{server.server_address[1]}\n")
    server.serve_forever()


main()
