#!/usr/bin/env python3
"""Holds the server against docs/swagger.yml (python3-yaml).

  swagger.py FILE --http HOST:PORT --socket PATH [--source FILE...]
             [--set NAME=VALUE...]

Sends every path and method of the description, well and badly formed, and
checks that the status is one of those it declares, and that bodies are of a
declared type and match its schema. --set fills the parameters. --source: every
route in these C files must be in the description.
"""

import argparse
import http.client
import json
import re
import socket
import sys

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
                 "boolean": bool, "integer": int}
        kind = schema.get("type")
        if kind not in kinds:
            raise SystemExit(f"{where}: the schema has no type")
        if not isinstance(value, kinds[kind]) or \
                (kind == "integer" and isinstance(value, bool)):
            yield f"{where} is not of type {kind}"
            return
        if value not in schema.get("enum", [value]):
            yield f"{where} is {value!r}"
        if kind == "string" and not re.search(schema.get("pattern", ""),
                                              value):
            yield f"{where} is {value!r}"
        if kind == "integer" and value < schema.get("minimum", value):
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
    if status not in responses:
        fail(where, f"status {status} is not declared: {body[:200]!r}")
        return
    response = d.at(responses[status])
    for name, header in response.get("headers", {}).items():
        value = answer.headers.get(name)
        pattern = d.at(header)["schema"].get("pattern")
        if pattern and (value is None or not re.search(pattern, value)):
            fail(where, f"{name} is {value!r}")
    if method == "HEAD":
        if body:
            fail(where, "a body for HEAD")
        return
    check_body(d, where, response, answer.headers.get("Content-Type", ""),
               body)


def exchange(args, on_socket, method, target, headers, body):
    global sent
    sent += 1
    if on_socket:
        c = Unix(args.socket)
    else:
        c = http.client.HTTPConnection(args.http, timeout=60)
    c.request(method, target, body=body, headers=headers)
    answer = c.getresponse()
    data = answer.read()
    c.close()
    return answer, data


BAD = {"name": ["UPPER", "a..b/../c", "a%2fb"], "reference": ["..", "a%20b"],
       "digest": ["sha256:12", "md5:aa"], "ns": ["../..", "a b"],
       "url": ["file:///etc/passwd", "http://127.0.0.1:9/x", "nothing"]}
HEADERS = [{}, {"Range": "bytes=0-1"}, {"Range": "bytes=0-1,3-4"},
           {"Range": "bytes=99999999999-"}, {"If-None-Match": "*"},
           {"If-Match": '"x"'}]
BODIES = [b"", b"{", b"[]", b"{}", b'{"digests":["x"]}', b'{"reference":"@"}',
          b'{"reference":7}', b'{"all":true}']


def fillings(parameters, values):
    """Good values for all; then each bad one in turn."""
    yield dict(values)
    for p in parameters:
        for bad in BAD.get(p["name"], []):
            yield {**values, p["name"]: bad}


def target_of(path, parameters, values):
    for p in parameters:
        if p["in"] == "path":
            path = path.replace("{" + p["name"] + "}", values[p["name"]])
    query = [f"{p['name']}={values[p['name']].replace(' ', '%20')}"
             for p in parameters
             if p["in"] == "query" and p["name"] in values]
    return path + ("?" + "&".join(query) if query else "")


def walk(d, args, values):
    for path, item in d.root["paths"].items():
        parameters = [d.at(p) for p in item.get("parameters", [])]
        on_socket = any(s["url"].startswith("unix:")
                        for s in item.get("servers", []))
        for method, operation in item.items():
            if method not in ("get", "head", "post"):
                continue
            method = method.upper()
            statuses = set()
            for filling in fillings(parameters, values):
                target = target_of(path, parameters, filling)
                variants = [(h, None) for h in HEADERS]
                if "requestBody" in operation:
                    good = values.get(path.rsplit("/", 1)[1], "{}").encode()
                    variants = [({}, b) for b in [*BODIES, good]]
                for headers, body in variants:
                    where = f"{method} {target} {headers or body or ''}"
                    answer, data = exchange(args, on_socket, method, target,
                                            headers, body)
                    statuses.add(answer.status)
                    check_answer(d, where, method, operation, answer, data)
            if 200 not in statuses:
                fail(f"{method} {path}", f"never 200, but {statuses}")
            if on_socket:
                answer, _ = exchange(args, False, method, path, {}, b"{}")
                if answer.status != 404:
                    fail(path, "not on the socket only")


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
    p.add_argument("--source", action="append", default=[])
    p.add_argument("--set", action="append", default=[])
    args = p.parse_args()
    d = Description(args.file)
    check_sources(d, args.source)
    walk(d, args, dict(x.split("=", 1) for x in args.set))
    print(f"{sent} requests, {failed} deviations")
    return 1 if failed else 0


sys.exit(main())
