#!/usr/bin/env python3
"""A member that greets as it should and then misbehaves.

  badpeer.py ADDRESS PORT MODE --log FILE [--file FILE] [--ids N]
             [--ca FILE --cert FILE --key FILE]

With keys it speaks TLS 1.3 and wants a certificate; else plain HTTP. FILE is
the blob that others are to read. It says that it has all of every blob, and of
every key that it is asked for as a home. With --ids it listens on so many ports from
PORT on, with another id on each. MODE says how it answers for bytes:

  flip        all of them right, but for one bit of each range
  garbage     as many as were asked for, at random
  hang        the head, and then nothing
  drip        a byte a second
  crawl       40 KiB a second: too slow, and still a sign of life
  mute        nothing at all, while greetings work
  deaf        nothing at all, not even to a greeting
  half        half of them, then it hangs up
  reset       half of them, then a TCP reset
  nothttp     no HTTP
  hugehead    a head of 16 MiB
  wrongrange  Content-Range one byte off
  wrongtotal  Content-Range with another total
  range200    200 with other bytes from the beginning
  short       half as many, and says so
  long        1000 more
  s404 s500 s503 s416 s401    that status
  self        307 to itself, for ever
  nobody      307 to one that is none
  have        404, and a Peerd-Have that is no such thing

The log has a JSON object a request: path, headers, port.
"""

import argparse
import json
import os
import random
import re
import socket
import ssl
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ID = "bad0" * 8 # the last four digits count the ports

args = None
log = None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        # Not in the accepting thread: a client may never finish.
        if isinstance(self.connection, ssl.SSLSocket):
            self.connection.settimeout(30)
            self.connection.do_handshake()
            self.connection.settimeout(None)

    def log_message(self, *_):
        pass

    def note(self):
        log.write(json.dumps({"t": round(time.time(), 3),
                              "method": self.command, "path": self.path,
                              "port": self.server.server_address[1],
                              "headers": dict(self.headers)}) + "\n")
        log.flush()

    def reply(self, status, body=b"", headers=(), length=None):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length",
                         str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def hang(self):
        """Until the client goes away."""
        self.close_connection = True
        self.wfile.flush()
        try:
            while self.connection.recv(4096):
                pass
        except OSError:
            pass

    def drip(self, body):
        for byte in body:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(1)

    def crawl(self, body):
        for at in range(0, len(body), 4096):
            self.wfile.write(body[at:at + 4096])
            self.wfile.flush()
            time.sleep(0.1)

    def reset(self):
        self.close_connection = True
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                   struct.pack("ii", 1, 0))
        # The TLS layer would say goodbye first.
        socket.socket(fileno=self.connection.detach()).close()

    def do_HEAD(self):
        self.do_GET()

    def do_POST(self):
        self.note()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.reply(204)

    def do_GET(self):
        self.note()
        path = self.path.partition("?")[0]
        try:
            if args.mode == "deaf":
                self.hang()
            elif path == "/peer/v1/hello":
                self.reply(200, json.dumps({
                    "id": self.server.id, "name": "bad", "version": "0",
                    "zone": ""
                }).encode(), {"Content-Type": "application/json"})
            elif path == "/peer/v1/holders":
                self.reply(200, json.dumps({
                    "size": os.path.getsize(args.file), "holders": [self.server.id]
                }).encode(), {"Content-Type": "application/json"})
            elif "/manifests/" in path:
                self.manifest(path)
            else:
                self.blob()
        except OSError:
            self.close_connection = True

    def manifest(self, path):
        """By digest it lies, which can be found out; of tags it knows none."""
        if "sha256:" in path and args.mode in ("flip", "garbage"):
            self.reply(200, b'{"schemaVersion": 2}', {"Content-Type":
                       "application/vnd.oci.image.manifest.v1+json"})
        else:
            self.reply(404, b"{}")

    def blob(self):
        m = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        size = os.path.getsize(args.file)
        if self.command == "HEAD":
            self.reply(200, b"", {}, size)
            return
        if not m:
            self.reply(400)
            return
        first, last = int(m[1]), min(int(m[2]), size - 1)
        with open(args.file, "rb") as f:
            f.seek(first)
            body = bytearray(f.read(last + 1 - first))
        self.answer(first, last, size, body)

    def answer(self, first, last, size, body):
        mode = args.mode
        head = {"Content-Range": f"bytes {first}-{last}/{size}",
                "Peerd-Have": "all"}
        if m := re.fullmatch(r"s(\d\d\d)", mode):
            self.reply(int(m[1]), b"{}")
        elif mode == "flip":
            body[len(body) // 2] ^= 1
            self.reply(206, body, head)
        elif mode == "garbage":
            self.reply(206, random.randbytes(len(body)), head)
        elif mode == "hang":
            self.reply(206, b"", head, len(body))
            self.hang()
        elif mode == "drip":
            self.reply(206, b"", head, len(body))
            self.drip(body)
        elif mode == "crawl":
            self.reply(206, b"", head, len(body))
            self.crawl(body)
        elif mode == "mute":
            self.hang()
        elif mode in ("half", "reset"):
            self.reply(206, body[:len(body) // 2], head, len(body))
            self.close_connection = True
            if mode == "reset":
                self.reset()
        elif mode == "nothttp":
            self.wfile.write(b"\0\1\2\3 what is this\r\n" * 100)
            self.close_connection = True
        elif mode == "hugehead":
            self.wfile.write(b"HTTP/1.1 206 OK\r\nX: " + b"a" * (16 << 20))
            self.close_connection = True
        elif mode == "wrongrange":
            head["Content-Range"] = f"bytes {first + 1}-{last + 1}/{size}"
            self.reply(206, body, head)
        elif mode == "wrongtotal":
            head["Content-Range"] = f"bytes {first}-{last}/{size + 1}"
            self.reply(206, body, head)
        elif mode == "range200":
            self.reply(200, random.randbytes(size), {"Peerd-Have": "all"})
        elif mode == "short":
            self.reply(206, body[:len(body) // 2], head)
        elif mode == "long":
            self.reply(206, bytes(body) + b"x" * 1000, head)
        elif mode == "self":
            self.reply(307, b"", {"Peerd-Ask": self.server.id})
        elif mode == "nobody":
            self.reply(307, b"", {"Peerd-Ask": "no such member"})
        elif mode == "have":
            self.reply(404, b"{}", {"Peerd-Have": "99999999999:zz" * 1000})


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        pass


def listen(i):
    server = Server((args.address, args.port + i), Handler)
    server.id = f"{ID[:-4]}{i:04}"
    if args.cert:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH,
                                         cafile=args.ca)
        tls.minimum_version = ssl.TLSVersion.TLSv1_3
        tls.verify_mode = ssl.CERT_REQUIRED
        tls.load_cert_chain(args.cert, args.key)
        server.socket = tls.wrap_socket(server.socket, server_side=True,
                                        do_handshake_on_connect=False)
    return server


def main():
    global args, log
    p = argparse.ArgumentParser()
    p.add_argument("address")
    p.add_argument("port", type=int)
    p.add_argument("mode")
    p.add_argument("--log", required=True)
    p.add_argument("--file", default="/dev/null")
    p.add_argument("--ids", type=int, default=1)
    for name in ("ca", "cert", "key"):
        p.add_argument("--" + name)
    args = p.parse_args()
    log = open(args.log, "a", encoding="utf-8")
    servers = [listen(i) for i in range(args.ids)]
    print("listening", flush=True)
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    servers[0].serve_forever()


main()
