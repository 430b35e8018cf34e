#!/usr/bin/env python3
"""A TCP stream, and how fast it was.

  meter.py sink ADDRESS PORT            takes one stream
  meter.py source ADDRESS PORT SECONDS  sends one; prints the Mbit/s that
                                        arrived, of payload, a whole number
"""

import socket
import struct
import sys
import time


def sink(address, port):
    with socket.create_server((address, port)) as server:
        print("listening", flush=True)
        stream, _ = server.accept()
        got, began = 0, None
        while True:
            data = stream.recv(1 << 18)
            if not data:
                break
            # What waits in queues at the beginning is not counted.
            if began is None:
                began = time.monotonic()
            else:
                got += len(data)
        rate = got * 8 / (time.monotonic() - began) / 1e6
        stream.sendall(struct.pack("!d", rate))


def source(address, port, seconds):
    data = bytes(1 << 17)
    with socket.create_connection((address, port)) as stream:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)
        (rate,) = struct.unpack("!d", stream.recv(8, socket.MSG_WAITALL))
        print(int(rate))


if sys.argv[1] == "sink":
    sink(sys.argv[2], int(sys.argv[3]))
else:
    source(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
