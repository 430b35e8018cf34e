#!/usr/bin/env python3
"""HTTP clients that curl is not.

  clients.py swarm URL N DIGEST    N at once read all of URL; each must get
                                   DIGEST ("sha256:...")
  clients.py sip URL BYTES [RANGE] reads BYTES of the body slowly through a
                                   small window, then hangs up
  clients.py hold URL N FILE [BYTES]
                                   N at once ask for URL, or each for so many
                                   BYTES of it, one behind the other, and read
                                   nothing until FILE exists; then all of it;
                                   prints the digests
  clients.py parts FILE URL RANGES asks for several ranges and compares each
                                   part of the multipart/byteranges answer with
                                   FILE
  clients.py once FILE URL RANGES  the same for ranges that overlap so that one
                                   is left, which comes alone
  clients.py crowd HOST:PORT N FILE
                                   waits for FILE, opens N connections, says
                                   "open", and holds them until FILE is gone
  clients.py dribble HOST:PORT     sends a header, a byte now and then, until
                                   the server cuts it off
"""

import asyncio
import hashlib
import os
import re
import resource
import socket
import sys
import time
import urllib.parse


def split(url):
    u = urllib.parse.urlsplit(url)
    return u.hostname, u.port, url.split(u.netloc, 1)[1]


def request(url, headers=()):
    host, port, target = split(url)
    lines = [f"GET {target} HTTP/1.1", f"Host: {host}:{port}", *headers,
             "Connection: close"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def parse_head(head):
    lines = head.decode().split("\r\n")
    fields = dict(x.split(": ", 1) for x in lines[1:] if ": " in x)
    return int(lines[0].split()[1]), {k.lower(): v for k, v in fields.items()}


async def read_all(reader):
    """Status and digest of the body; the body has the promised length."""
    status, fields = parse_head(await reader.readuntil(b"\r\n\r\n"))
    left = int(fields["content-length"])
    h = hashlib.sha256()
    while left:
        data = await reader.read(min(left, 1 << 18))
        if not data:
            raise EOFError(f"{left} bytes are missing")
        left -= len(data)
        h.update(data)
    return status, "sha256:" + h.hexdigest()


async def fetch(url, wait=None, window=None, ranged=None):
    host, port, _ = split(url)
    s = socket.socket()
    if window:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    s.setblocking(False)
    await asyncio.get_running_loop().sock_connect(s, (host, port))
    if wait:
        # Not through a StreamReader, which would read ahead.
        await asyncio.get_running_loop().sock_sendall(
            s, request(url, [f"Range: bytes={ranged}"] if ranged else []))
        while not os.path.exists(wait):
            await asyncio.sleep(0.1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    reader, writer = await asyncio.open_connection(sock=s, limit=1 << 18)
    if not wait:
        writer.write(request(url))
    result = await read_all(reader)
    writer.close()
    return result


async def swarm(url, n, digest):
    results = await asyncio.gather(*(fetch(url) for _ in range(n)),
                                   return_exceptions=True)
    bad = [r for r in results if r != (200, digest)]
    if bad:
        sys.exit(f"{len(bad)} of {n} failed: {bad[:3]}")


async def hold(url, n, path, size=0):
    results = await asyncio.gather(
        *(fetch(url, wait=path, window=16384,
                ranged=f"{i * size}-{(i + 1) * size - 1}" if size else None)
          for i in range(n)), return_exceptions=True)
    want = 206 if size else 200
    for r in results:
        print(r[1] if isinstance(r, tuple) and r[0] == want else repr(r))


def sip(url, want, ranged=None):
    host, port, _ = split(url)
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    s.connect((host, port))
    s.sendall(request(url, [f"Range: bytes={ranged}"] if ranged else []))
    got = 0
    while got < want:
        data = s.recv(min(4096, want - got))
        if not data:
            sys.exit("the connection ended early")
        got += len(data)
    s.close()


def receive(url, headers):
    host, port, _ = split(url)
    s = socket.create_connection((host, port))
    s.sendall(request(url, headers))
    data = b""
    while True:
        more = s.recv(1 << 16)
        if not more:
            break
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    return *parse_head(head), body


def wanted(spec, size):
    a, _, b = spec.partition("-")
    if not a:
        return max(0, size - int(b)), size
    return int(a), min(int(b) + 1 if b else size, size)


def parts(path, url, ranges):
    with open(path, "rb") as f:
        file = f.read()
    status, fields, body = receive(url, [f"Range: bytes={ranges}"])
    assert status == 206, status
    assert len(body) == int(fields["content-length"]), "length"
    m = re.fullmatch(r'multipart/byteranges; boundary="?([^"]+)"?',
                     fields["content-type"])
    assert m, fields["content-type"]
    bound = m[1].encode()
    rest = b"\r\n" + body
    for spec in ranges.split(","):
        start, end = wanted(spec, len(file))
        head, _, rest = rest.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == b"" and lines[1] == b"--" + bound, head
        assert f"content-range: bytes {start}-{end - 1}/{len(file)}" in [
            x.decode().lower() for x in lines[2:]], (spec, head)
        assert rest[:end - start] == file[start:end], spec
        rest = rest[end - start:]
    assert rest.rstrip(b"\r\n") == b"\r\n--" + bound + b"--", rest[:100]


def once(path, url, ranges):
    with open(path, "rb") as f:
        file = f.read()
    specs = [wanted(spec, len(file)) for spec in ranges.split(",")]
    start, end = min(a for a, _ in specs), max(b for _, b in specs)
    status, fields, body = receive(url, [f"Range: bytes={ranges}"])
    assert status == 206, status
    assert fields["content-range"] == f"bytes {start}-{end - 1}/{len(file)}"
    assert body == file[start:end], (len(body), end - start)


def crowd(address, n, path):
    host, port = address.split(":")
    resource.setrlimit(resource.RLIMIT_NOFILE, (n + 100, max(
        n + 100, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    while not os.path.exists(path):
        time.sleep(0.1)
    held = [socket.create_connection((host, int(port))) for _ in range(n)]
    print("open", flush=True)
    while os.path.exists(path):
        time.sleep(0.1)
    del held


def dribble(address):
    host, port = address.split(":")
    s = socket.create_connection((host, int(port)))
    s.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    began = time.monotonic()
    s.settimeout(0.2)
    while True:
        try:
            s.sendall(b"y")
            if not s.recv(4096):
                break
        except socket.timeout:
            continue
        except OSError:
            break
    print(int((time.monotonic() - began) * 1000))


def main():
    what, *args = sys.argv[1:]
    if what == "swarm":
        asyncio.run(swarm(args[0], int(args[1]), args[2]))
    elif what == "hold":
        asyncio.run(hold(args[0], int(args[1]), args[2],
                         *map(int, args[3:])))
    elif what == "sip":
        sip(args[0], int(args[1]), *args[2:])
    elif what == "parts":
        parts(*args)
    elif what == "once":
        once(*args)
    elif what == "crowd":
        crowd(args[0], int(args[1]), args[2])
    elif what == "dribble":
        dribble(args[0])
    else:
        sys.exit(__doc__)


main()
