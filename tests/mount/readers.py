#!/usr/bin/env python3
"""Many blobs and many readers at once, for 11-limits.bats.

lay STORE REPO COUNT LIST     puts COUNT small blobs into docker-registry's
                              storage; LIST gets their digests, a line each
files PID LIST FORMAT         opens all of them ({} is the digest), then reads
                              each, then reads each again; all stay open
http PID LIST FORMAT          GETs each, 16 connections at once
killed STATUS COUNT FILE...   COUNT readers of the files, each of them killed
                              when STATUS (a command) says that they wait

Each blob's bytes are checked against its digest; the most descriptors that PID
had meanwhile are printed."""

import concurrent.futures
import hashlib
import http.client
import json
import mmap
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
import urllib.parse


def lay(store, repo, count, list_file):
    base = os.path.join(store, "docker/registry/v2")
    rng = random.Random(repo)
    digests = []
    for i in range(int(count)):
        data = rng.randbytes(1000 + i)
        h = hashlib.sha256(data).hexdigest()
        blob = f"{base}/blobs/sha256/{h[:2]}/{h}"
        link = f"{base}/repositories/{repo}/_layers/sha256/{h}"
        os.makedirs(blob)
        os.makedirs(link)
        with open(f"{blob}/data", "wb") as f:
            f.write(data)
        with open(f"{link}/link", "w", encoding="ascii") as f:
            f.write(f"sha256:{h}")
        digests.append(f"sha256:{h}")
    with open(list_file, "w", encoding="ascii") as f:
        f.write("\n".join(digests) + "\n")


def digests_of(list_file):
    with open(list_file, encoding="ascii") as f:
        return f.read().split()


def check(digest, data):
    got = "sha256:" + hashlib.sha256(data).hexdigest()
    if got != digest:
        sys.exit(f"{digest}: {len(data)} bytes of {got}")


class Descriptors:
    """The most of a process, as they are looked at now and then."""

    def __init__(self, pid):
        self.dir = f"/proc/{pid}/fd"
        self.most = 0

    def look(self):
        self.most = max(self.most, len(os.listdir(self.dir)))


def files(pid, list_file, pattern):
    seen = Descriptors(pid)
    digests = digests_of(list_file)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = len(digests) + 64
    if soft < need:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, max(need, hard)))
    fds = []
    for digest in digests:
        fds.append(os.open(pattern.replace("{}", digest), os.O_RDONLY))
        check(digest, os.pread(fds[-1], 1 << 20, 0))
        seen.look()
    for digest, fd in zip(digests, fds):
        # So that the kernel asks the daemon again.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        check(digest, os.pread(fd, 1 << 20, 0))
        seen.look()
    print(seen.most)


def get(local, url, digest):
    for again in True, False:
        if not hasattr(local, "conn"):
            local.conn = http.client.HTTPConnection(url.netloc, timeout=120)
        try:
            local.conn.request("GET", f"{url.path.replace('{}', digest)}"
                                      f"?{url.query}")
            answer = local.conn.getresponse()
            data = answer.read()
            break
        except (http.client.RemoteDisconnected, ConnectionResetError):
            # An idle connection may be closed at any time, a new one not.
            del local.conn
            if not again:
                raise
    if answer.status != 200:
        sys.exit(f"{digest}: {answer.status} {data[:200]}")
    check(digest, data)


def over_http(pid, list_file, pattern):
    seen = Descriptors(pid)
    url = urllib.parse.urlsplit(pattern)
    local = threading.local()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for f in [pool.submit(get, local, url, d)
                  for d in digests_of(list_file)]:
            f.result()
            seen.look()
    print(seen.most)


def waiting(command):
    out = subprocess.run(command, shell=True, check=True,
                         stdout=subprocess.PIPE).stdout
    return json.loads(out)["fetch"]["waiting_reads"]


def reader(path, offset):
    """A process. With MADV_RANDOM the kernel asks for a single page and passes
    signals on; what read-ahead asks for is never interrupted."""
    pid = os.fork()
    if pid:
        return pid
    try:
        fd = os.open(path, os.O_RDONLY)
        pages = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        pages.madvise(mmap.MADV_RANDOM)
        print(pages[offset])
    finally:
        os._exit(7)


def killed(status, count, *paths):
    """In waves, so that some end while others come. Each reader wants a page of
    its own, near the end of what is never sent."""
    count = int(count)
    before = waiting(status)
    for first in range(0, count, 40):
        signal.alarm(90)
        pids = [reader(paths[i % len(paths)],
                       (3 << 20) - (1 + i // len(paths)) * 4096)
                for i in range(first, min(first + 40, count))]
        end = time.monotonic() + 60
        while waiting(status) < before + len(pids):
            if time.monotonic() > end:
                sys.exit(f"{waiting(status)} of {len(pids)} readers wait")
            time.sleep(0.02)
        for pid in pids:
            os.kill(pid, (signal.SIGKILL, signal.SIGTERM)[first // 40 % 2])
        for pid in pids:
            got = os.waitpid(pid, 0)[1]
            if not os.WIFSIGNALED(got):
                sys.exit(f"a reader was not killed but ended: {got}")


if __name__ == "__main__":
    {"lay": lay, "files": files, "http": over_http,
     "killed": killed}[sys.argv[1]](*sys.argv[2:])
