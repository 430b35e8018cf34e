#!/usr/bin/env python3
"""A front of a real registry that serves ranges of blobs badly, or not at all,
or refuses HEAD.

  no-ranges.py --listen HOST:PORT --back HOST:PORT --log FILE

GET /front/MODE sets what it does from then on:

  ok            as the registry does
  ignore        200 with the whole blob
  chunked       the same, without its length
  s400 s416 s501   a request for a range gets that status, without a size
  star          Content-Range: a-b/*
  short         206 with the first 300,000 bytes of the range
  wrongsize     416 for a range, with another size of the blob
  break-N       as "ignore", but the first N responses break off at two thirds
  head400 head403 head405   HEAD gets that status

The log has a JSON object for each response that has ended; "sent" counts the
bytes of the body that were written."""

import argparse
import http.client
import json
import re
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE = 64 << 10
SHORT = 300000

lock = threading.Lock()
state = {"mode": "ok", "broken": 0}
args = None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        # What a client that goes away has not read counts as sent.
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)
        super().setup()

    def log_message(self, *unused):
        pass

    def note(self, status):
        with lock, open(args.log, "a", encoding="utf-8") as f:
            print(json.dumps({"method": self.command, "uri": self.path,
                              "range": self.headers.get("Range"),
                              "agent": self.headers.get("User-Agent"),
                              "status": status, "sent": self.sent}), file=f)

    def head(self, status, headers):
        self.send_response_only(status)
        for k, v in headers:
            self.send_header(k, v)
        self.end_headers()

    def body(self, data, chunked=False):
        for at in range(0, len(data), PIECE):
            piece = data[at:at + PIECE]
            if chunked:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            else:
                self.wfile.write(piece)
            self.sent += len(piece)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def refuse(self, status, headers=()):
        self.head(status, [*headers, ("Content-Length", "0")])
        return status

    def back(self):
        """The registry's response to this request, without its Range."""
        c = http.client.HTTPConnection(args.back)
        keep = {k: v for k, v in self.headers.items()
                if k.lower() not in ("range", "connection")}
        c.request(self.command, self.path, headers=keep)
        r = c.getresponse()
        data = r.read()
        c.close()
        drop = ("connection", "transfer-encoding", "content-length", "date")
        headers = [(k, v) for k, v in r.getheaders() if k.lower() not in drop]
        length = r.getheader("Content-Length") or str(len(data))
        return r.status, headers, length, data

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.sent = 0
        status = 0
        try:
            status = self.answer()
        except OSError:
            self.close_connection = True
        finally:
            self.note(status)

    def answer(self):
        if self.path.startswith("/front/"):
            with lock:
                state.update(mode=self.path[7:], broken=0)
            return self.refuse(200)
        mode = state["mode"]
        if self.command == "HEAD" and mode.startswith("head"):
            return self.refuse(int(mode[4:]))
        status, headers, length, data = self.back()
        m = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if status != 200 or self.command == "HEAD" or "/blobs/" not in self.path:
            self.head(status, headers + [("Content-Length", length)])
            self.body(b"" if self.command == "HEAD" else data)
            return status
        if mode in ("ignore", "chunked") or mode.startswith("break"):
            return self.whole(mode, headers, data)
        if not m:
            return self.whole("ignore", headers, data)
        if mode == "wrongsize":
            return self.refuse(416, [("Content-Range", "bytes */7")])
        if mode in ("s400", "s416", "s501"):
            return self.refuse(int(mode[1:]))
        return self.part(mode, headers, data, m)

    def whole(self, mode, headers, data):
        if mode == "chunked":
            self.head(200, headers + [("Transfer-Encoding", "chunked")])
            self.body(data, True)
            return 200
        self.head(200, headers + [("Content-Length", str(len(data)))])
        if mode.startswith("break") and len(data) > PIECE:
            with lock:
                state["broken"] += 1
                ends = state["broken"] <= int(mode[6:])
            if ends:
                self.body(data[:len(data) * 2 // 3])
                self.close_connection = True
                return 200
        self.body(data)
        return 200

    def part(self, mode, headers, data, m):
        first = int(m[1])
        last = min(int(m[2] or len(data)), len(data) - 1)
        if mode == "short":
            last = min(last, first + SHORT - 1)
        total = "*" if mode == "star" else len(data)
        self.head(206, headers + [
            ("Content-Range", f"bytes {first}-{last}/{total}"),
            ("Content-Length", str(last - first + 1))])
        self.body(data[first:last + 1])
        return 206


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main():
    global args
    p = argparse.ArgumentParser()
    p.add_argument("--listen", required=True)
    p.add_argument("--back", required=True)
    p.add_argument("--log", required=True)
    args = p.parse_args()
    host, _, port = args.listen.rpartition(":")
    Server((host, int(port)), Handler).serve_forever()


sys.exit(main())
