#!/usr/bin/env python3
"""What a registry was asked for, from the access log of its front (nginx.conf
in common.bash): one JSON object a line.

  ranges.py LOG PATTERN [--from LINE] [--chunks]

Looks at the GETs whose path matches PATTERN (a regular expression) and that
were answered 200 or 206, and prints

  requests N        how many
  bytes N           body bytes sent, in all
  asked N           bytes asked for, in all, counting none twice
  twice N           bytes sent more than once
  largest N         the longest range asked for

or with --chunks the numbers of the 1 MiB chunks that were touched. A request
without a range counts as one for everything.
"""

import argparse
import json
import re
import sys

CHUNK = 1 << 20


def requests(args):
    with open(args.log, encoding="utf-8", errors="replace") as f:
        for n, line in enumerate(f):
            if n < args.first:
                continue
            try:
                r = json.loads(line)
            except ValueError:
                continue
            if r["method"] != "GET" or r["status"] not in (200, 206):
                continue
            if re.search(args.pattern, r["uri"]):
                yield r


def span(r):
    """(start, end asked for, end sent), ends exclusive."""
    m = re.fullmatch(r"bytes (\d+)-(\d+)/\d+", r["content_range"])
    if r["status"] == 206 and m:
        start, end = int(m[1]), int(m[2]) + 1
    else:
        start, end = 0, int(r["length"] or r["sent"])
    return start, end, min(end, start + r["sent"])


def union(spans):
    total, twice, reach = 0, 0, 0
    for a, b in sorted(spans):
        total += max(0, b - max(a, reach))
        twice += max(0, min(b, reach) - a)
        reach = max(reach, b)
    return total, twice


def main():
    p = argparse.ArgumentParser()
    p.add_argument("log")
    p.add_argument("pattern")
    p.add_argument("--from", dest="first", type=int, default=0)
    p.add_argument("--chunks", action="store_true")
    args = p.parse_args()
    spans = [span(r) for r in requests(args)]
    if args.chunks:
        touched = set()
        for a, b, _ in spans:
            touched.update(range(a // CHUNK, (b + CHUNK - 1) // CHUNK))
        print("\n".join(str(c) for c in sorted(touched)))
        return
    print("requests", len(spans))
    print("bytes", sum(s - a for a, _, s in spans))
    print("asked", union([(a, b) for a, b, _ in spans])[0])
    print("twice", union([(a, s) for a, _, s in spans])[1])
    print("largest", max([b - a for a, b, _ in spans], default=0))


sys.exit(main())
