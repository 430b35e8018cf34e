#!/usr/bin/env python3
"""Holds the server against docs/swagger.yml (python3-yaml).

  swagger.py FILE --http HOST:PORT --socket PATH --peers HOST:PORT
             [--source FILE...] [--set NAME=VALUE...]

Sends every path and method of the description, well and badly formed, and
checks that the status is one of those it declares, and that bodies are of a
declared type and match its schema. --set fills the parameters, and the bodies
of requests by the last word of their path. --peers is the listener for members,
without TLS. --source: every route in these C files must be in the description.
"""

import argparse
import http.client
import json
import re
import socket
import sys
import urllib.parse

import yaml

failed = 0
sent = 0


def fail(where, what):
    global failed
    failed += 1
    print(f"{where}: {what}")


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self.path)


class Description:
    def __init__(self, path):
        with open(path, encoding="utf-8") as f:
            self.root = yaml.safe_load(f)

    def at(self, node):
        """What it means, if it is a reference."""
        while isinstance(node, dict) and "$ref" in node:
            ref = node["$ref"]
            node = self.root
            for part in ref.removeprefix("#/").split("/"):
                node = node[part]
        return node

    def errors(self, value, schema, where="body"):
        """What of value does not match the schema: a few words each."""
        schema = self.at(schema)
        if value is None and schema.get("nullable"):
            return
        kinds = {"object": dict, "array": list, "string": str,
                 "boolean": bool, "integer": int, "number": (int, float)}
        numbers = ("integer", "number")
        kind = schema.get("type")
        if kind not in kinds:
            raise SystemExit(f"{where}: the schema has no type")
        if not isinstance(value, kinds[kind]) or \
                (kind in numbers and isinstance(value, bool)):
            yield f"{where} is not of type {kind}"
            return
        if value not in schema.get("enum", [value]):
            yield f"{where} is {value!r}"
        if kind == "string" and not re.search(schema.get("pattern", ""),
                                              value):
            yield f"{where} is {value!r}"
        if kind in numbers and value < schema.get("minimum", value):
            yield f"{where} is {value}"
        if kind == "array":
            if len(value) < schema.get("minItems", 0):
                yield f"{where} has too few items"
            for i, item in enumerate(value):
                yield from self.errors(item, schema["items"], f"{where}[{i}]")
        if kind == "object":
            known = schema.get("properties", {})
            for name in schema.get("required", []):
                if name not in value:
                    yield f"{where} lacks {name}"
            for name, item in value.items():
                if name in known:
                    yield from self.errors(item, known[name],
                                           f"{where}.{name}")
                elif schema.get("additionalProperties") is False:
                    yield f"{where} has {name}"


def check_body(d, where, response, ctype, body):
    content = response.get("content")
    if not content:
        if body:
            fail(where, "a body, where none is declared")
        return
    ctype = ctype.partition(";")[0].strip()
    if ctype not in content:
        fail(where, f"Content-Type {ctype!r} is not declared")
        return
    schema = content[ctype]["schema"]
    if "json" not in ctype or schema.get("format") == "binary":
        return
    lines = body.splitlines() if ctype.endswith("ndjson") else [body]
    for line in lines or [b""]:
        try:
            value = json.loads(line)
        except ValueError as e:
            fail(where, f"not JSON: {e}: {line[:80]!r}")
            continue
        for error in d.errors(value, schema):
            fail(where, error)


def check_answer(d, where, method, operation, answer, body):
    responses = operation["responses"]
    status = str(answer.status)
    if status not in responses and "default" in responses:
        return  # whatever a registry answers
    if status not in responses:
        fail(where, f"status {status} is not declared: {body[:200]!r}")
        return
    response = d.at(responses[status])
    for name, header in response.get("headers", {}).items():
        value = answer.headers.get(name)
        pattern = d.at(header)["schema"].get("pattern")
        if value is None and d.at(header).get("required") is False:
            continue  # there is not always something to say
        if pattern and (value is None or not re.search(pattern, value)):
            fail(where, f"{name} is {value!r}")
    if method == "HEAD":
        if body:
            fail(where, "a body for HEAD")
        return
    check_body(d, where, response, answer.headers.get("Content-Type", ""),
               body)


def exchange(args, server, method, target, headers, body):
    global sent
    sent += 1
    if server == "socket":
        c = Unix(args.socket)
    else:
        c = http.client.HTTPConnection(
            args.peers if server == "peers" else args.http, timeout=60)
    c.request(method, target, body=body, headers=headers)
    answer = c.getresponse()
    data = answer.read()
    c.close()
    return answer, data


BAD = {"name": ["UPPER", "a..b/../c", "a%2fb"], "reference": ["..", "a%20b"],
       "digest": ["sha256:12", "md5:aa"], "ns": ["../..", "a b"],
       "url": ["file:///etc/passwd", "http://127.0.0.1:9/x", "nothing"],
       "key": [None, "", "sha256:12", "md5:" + "0" * 64],
       "Authorization": ["Bearer x", "Basic eDp5", "Basic", "Negotiate x"],
       "Peerd-Hop": [None, "2"],
       "Peerd-Blob": [None, "sha256:12;size=1", "md5:" + "0" * 64 + ";size=1",
                      "sha256:" + "0" * 64, "url:" + "1" * 64 + ";size=9",
                      "sha256:" + "1" * 64 + ";size=9",
                      "sha256:" + "1" * 64 + ";size=99999999999999999999"],
       "Peerd-From": ["nobody"], "Peerd-Fetch": ["2"], "Peerd-Insist": ["2"],
       "Peerd-Have": ["zz", "7:", "0:zz", "0:0", "9" * 40 + ":00"],
       "Peerd-Listen": ["0", "99999", "x"]}
HEADERS = [{}, {"Range": "bytes=0-1"}, {"Range": "bytes=0-1,3-4"},
           {"Range": "bytes=99999999999-"}, {"If-None-Match": "*"},
           {"If-Match": '"x"'}, {"Range": "bytes=0-1", "If-None-Match": "*"},
           {"Range": "bytes=0-1", "If-Match": '"x"'}]
BODIES = [b"", b"{", b"[]", b"{}", b'{"digests":["x"]}', b'{"reference":"@"}',
          b'{"reference":7}', b'{"all":true}', b'{"id":"nobody","holds":[]}',
          b'{"id":7,"holds":[]}', b'{"id":"nobody","holds":[["x",1]]}',
          b'{"id":"nobody","holds":[' + b"1," * 1000 + b"1]}",
          b'{"id":"nobody","holds":["' + b"x" * 200000 + b'"]}']


def fillings(parameters, values):
    """Good values for all; then each bad one in turn; None is left out."""
    fixed = {p["name"]: p["schema"]["enum"][0] for p in parameters
             if p.get("required") and "enum" in p.get("schema", {})}
    values = {**fixed, **values}
    yield values
    for p in parameters:
        for bad in BAD.get(p["name"], []):
            yield {**values, p["name"]: bad}


def filled(parameters, values, where):
    return {p["name"]: values[p["name"]] for p in parameters
            if p["in"] == where and values.get(p["name"]) is not None}


def target_of(path, parameters, values):
    for name, value in filled(parameters, values, "path").items():
        path = path.replace("{" + name + "}", value)
    query = [f"{name}={value.replace(' ', '%20')}" for name, value
             in filled(parameters, values, "query").items()]
    return path + ("?" + "&".join(query) if query else "")


def server_of(item):
    """Which of ours it is, and what comes before the path there."""
    url = item.get("servers", [{"url": "http:"}])[0]["url"]
    if url.startswith("unix:"):
        return "socket", ""
    if url.startswith("https:"):
        return "peers", urllib.parse.urlsplit(url).path
    return "http", ""


def check_elsewhere(args, server, method, path):
    """What is on one of the servers is on no other."""
    body = b"{}" if method == "POST" else None
    for other in ("http", "peers"):
        if other == server or (other == "http" and server == "peers" and
                               not path.startswith("/peer/")):
            continue
        answer, _ = exchange(args, other, method, path, {}, body)
        # 400: a blob, and not asked for as a member asks.
        if answer.status != 404 and (other, answer.status) != ("peers", 400):
            fail(f"{method} {path}", f"not only {server}: {other}")


def walk(d, args, values):
    for path, item in d.root["paths"].items():
        server, prefix = server_of(item)
        path = prefix + path
        for method, operation in item.items():
            if method not in ("get", "head", "post"):
                continue
            method = method.upper()
            statuses = set()
            parameters = [d.at(p) for p in item.get("parameters", []) +
                          operation.get("parameters", [])]
            for filling in fillings(parameters, values):
                target = target_of(path, parameters, filling)
                variants = [(h, None) for h in HEADERS]
                if "requestBody" in operation:
                    good = values.get(path.rsplit("/", 1)[1], "{}").encode()
                    variants = [({}, b) for b in [*BODIES, good]]
                own = filled(parameters, filling, "header")
                for headers, body in variants:
                    headers = {**own, **headers}
                    where = f"{method} {target} {headers or ''} " + \
                        f"{(body or b'')[:80]}"
                    answer, data = exchange(args, server, method, target,
                                            headers, body)
                    statuses.add(answer.status)
                    check_answer(d, where, method, operation, answer, data)
            if not any(200 <= s < 300 for s in statuses):
                fail(f"{method} {path}", f"never well, but {statuses}")
            check_elsewhere(args, server, method, path)


def check_sources(d, files):
    for name in files:
        with open(name, encoding="utf-8") as f:
            text = f.read()
        for route in re.findall(r'strcmp\(path, "(/[^"]*)"\)', text):
            if route not in d.root["paths"] and \
                    route + "/" not in d.root["paths"]:
                fail(name, f"{route} is not described")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("file")
    p.add_argument("--http", required=True)
    p.add_argument("--socket", required=True)
    p.add_argument("--peers", required=True)
    p.add_argument("--source", action="append", default=[])
    p.add_argument("--set", action="append", default=[])
    args = p.parse_args()
    d = Description(args.file)
    check_sources(d, args.source)
    walk(d, args, dict(x.split("=", 1) for x in args.set))
    print(f"{sent} requests, {failed} deviations")
    return 1 if failed else 0


sys.exit(main())
