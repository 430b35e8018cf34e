#!/usr/bin/env python3
"""Compares two results of the OCI distribution conformance tests.

  conformance.py DIRECT.xml MIRROR.xml EXPECTED [all]

Prints each check that passed directly and does not pass through the mirror. The
names of those that may differ are the lines of EXPECTED ('#': a comment). Fails
if there is any other or if too few checks ran; with "all", too, if one that may
differ does not.
"""

import sys
import xml.etree.ElementTree as tree


def results(path):
    # The tests want OCI-Subject in the answers to some pushes, not always to
    # the same ones. peerd gets no pushes.
    return {case.get("name"): case.get("status")
            for case in tree.parse(path).iter("testcase")
            if "-subject/push/manifest-" not in case.get("name")}


def main():
    direct, mirror = results(sys.argv[1]), results(sys.argv[2])
    with open(sys.argv[3], encoding="utf-8") as f:
        expected = {line.strip() for line in f
                    if line.strip() and not line.startswith("#")}
    passed = {name for name, status in direct.items() if status == "passed"}
    worse = {name for name in passed if mirror.get(name) != "passed"}
    for name in sorted(worse):
        print(f"{mirror.get(name)}: {name}"
              f"{' (expected)' if name in expected else ''}")
    outdated = expected - worse if "all" in sys.argv[4:] else set()
    for name in sorted(outdated):
        print(f"expected to differ, but does not: {name}")
    print(f"{len(passed)} checks pass directly, {len(worse - expected)} of them "
          "fail through the mirror")
    return 1 if worse - expected or outdated or len(passed) < 200 else 0


sys.exit(main())
