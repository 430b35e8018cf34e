#!/usr/bin/env python3
"""Makes a .torrent of one file, and prints its info hash.

  torrent.py FILE ANNOUNCE-URL TORRENT
"""

import hashlib
import os
import sys

PIECE = 256 * 1024


def bencode(value):
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    return b"d" + b"".join(bencode(k) + bencode(v)
                           for k, v in sorted(value.items())) + b"e"


def main(path, announce, torrent):
    pieces = []
    with open(path, "rb") as f:
        while piece := f.read(PIECE):
            pieces.append(hashlib.sha1(piece).digest())
    info = {"length": os.path.getsize(path), "name": os.path.basename(path),
            "piece length": PIECE, "pieces": b"".join(pieces)}
    with open(torrent, "wb") as f:
        f.write(bencode({"announce": announce, "info": info}))
    print(hashlib.sha1(bencode(info)).hexdigest())


main(*sys.argv[1:])
