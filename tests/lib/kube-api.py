#!/usr/bin/env python3
"""An API server of Kubernetes, as far as the tests need one.

It keeps events and pods of any namespace, lets in who has a bearer token that
is in a file (read for each request, as tokens are rotated), checks what the
real one checks of an event, and answers get, list, watch and discovery, so
that kubectl works with it. The next posts can be made to fail:

    POST /control/fail/403,429,hang,...     the next posts, in this order
    POST /control/retry-after/SECONDS       sent with 429 and 5xx
    POST /control/pod/NAMESPACE/NAME/UID    a pod that is there
    GET  /control/requests                  status of each post so far
    GET  /control/attempts                  how many posts came

These need no token. Kubernetes API conventions: Status objects, 401 without
and 403 with a token, 409 for a name that is taken, 422 for what is invalid.
"""

import argparse
import json
import os
import re
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
REASONS = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound",
           409: "AlreadyExists", 422: "Invalid", 429: "TooManyRequests",
           500: "InternalError", 503: "ServiceUnavailable",
           504: "Timeout"}
RESOURCES = {
    "v1": [("pods", "Pod", "po"), ("services", "Service", "svc"),
           ("serviceaccounts", "ServiceAccount", "sa"),
           ("secrets", "Secret", ""), ("configmaps", "ConfigMap", "cm"),
           ("events", "Event", "ev"), ("namespaces", "Namespace", "ns"),
           ("nodes", "Node", "no")],
    "apps/v1": [("daemonsets", "DaemonSet", "ds")],
    "batch/v1": [("jobs", "Job", "")],
    "rbac.authorization.k8s.io/v1": [
        ("roles", "Role", ""), ("rolebindings", "RoleBinding", ""),
        ("clusterroles", "ClusterRole", ""),
        ("clusterrolebindings", "ClusterRoleBinding", "")],
    "networking.k8s.io/v1": [("networkpolicies", "NetworkPolicy", "netpol")],
    "scheduling.k8s.io/v1": [("priorityclasses", "PriorityClass", "pc")],
    "policy/v1": [("poddisruptionbudgets", "PodDisruptionBudget", "pdb")],
}
CLUSTER_WIDE = {"namespaces", "nodes", "clusterroles", "clusterrolebindings",
                "priorityclasses"}


class State:
    def __init__(self, token_file):
        self.token_file = token_file
        self.lock = threading.Condition()
        self.events = []  # (resource version, object)
        self.pods = {}
        self.version = 1000
        self.fail = []
        self.retry_after = None
        self.answers = []
        self.attempts = 0

    def tokens(self):
        with open(self.token_file, encoding="ascii") as f:
            return f.read().split()


def invalid(event, namespace):
    """What the real server would say of it; None if it is good."""
    if event.get("kind") != "Event" or event.get("apiVersion") != "v1":
        return 400, "the object provided is unrecognized"
    meta, ref = event.get("metadata", {}), event.get("involvedObject", {})
    if not NAME.fullmatch(meta.get("name", "")) or len(meta["name"]) > 253:
        return 422, "metadata.name: Invalid value"
    if meta.get("namespace", namespace) != namespace:
        return 400, "the namespace of the object does not match"
    if ref.get("namespace", "") != namespace:
        return 422, "involvedObject.namespace: does not match event.namespace"
    if event.get("type") not in ("Normal", "Warning"):
        return 422, "type: Invalid value"
    for key in "firstTimestamp", "lastTimestamp":
        if not TIME.fullmatch(event.get(key, "")):
            return 400, "cannot parse " + key
    if not isinstance(event.get("count"), int):
        return 400, "count: not an integer"
    for key in "reason", "message", "reportingComponent", "reportingInstance":
        if not isinstance(event.get(key), str):
            return 400, key + ": not a string"
    if len(event["message"]) > 1024 or len(event["reason"]) > 128:
        return 422, "too long"
    return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state = None

    def log_message(self, *_):
        pass

    def send(self, status, obj, headers=()):
        body = json.dumps(obj).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def fail(self, status, message):
        headers = []
        if self.state.retry_after and (status == 429 or status >= 500):
            headers = [("Retry-After", self.state.retry_after)]
        self.send(status, {
            "kind": "Status", "apiVersion": "v1", "metadata": {},
            "status": "Failure", "message": message,
            "reason": REASONS.get(status, "BadRequest"), "code": status,
        }, headers)

    def allowed(self):
        token = self.headers.get("Authorization", "")
        if token[:7] == "Bearer " and token[7:] in self.state.tokens():
            return True
        self.fail(401, "Unauthorized")
        return False

    # ---- Discovery ----

    def discovery(self, path):
        if path == "/version":
            return {"major": "1", "minor": "30", "gitVersion": "v1.30.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            groups = [g.split("/") for g in RESOURCES if "/" in g]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [
                {"name": g, "versions": [
                    {"groupVersion": f"{g}/{v}", "version": v}],
                 "preferredVersion": {
                     "groupVersion": f"{g}/{v}", "version": v}}
                for g, v in groups]}
        group = path.removeprefix("/apis/").removeprefix("/api/")
        if group not in RESOURCES:
            return None
        return {"kind": "APIResourceList", "apiVersion": "v1",
                "groupVersion": group, "resources": [
                    {"name": name, "singularName": kind.lower(),
                     "namespaced": name not in CLUSTER_WIDE, "kind": kind,
                     "shortNames": [short] if short else [],
                     "verbs": ["get", "list", "watch", "create", "patch"]}
                    for name, kind, short in RESOURCES[group]]}

    # ---- Events ----

    @staticmethod
    def selected(event, selector):
        """fieldSelector, as kubectl describe sends it."""
        for term in filter(None, selector.split(",")):
            key, value = term.split("=", 1)
            at = event
            for part in key.split("."):
                at = at.get(part, {})
            if at != value:
                return False
        return True

    def watch(self, namespace, query):
        since = int(query.get("resourceVersion", ["0"])[0] or 0)
        selector = query.get("fieldSelector", [""])[0]
        until = time.monotonic() + float(
            query.get("timeoutSeconds", ["60"])[0])
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while time.monotonic() < until:
            with self.state.lock:
                new = [(v, e) for v, e in self.state.events if v > since]
                if not new:
                    self.state.lock.wait(0.2)
            for version, event in new:
                since = version
                if (event["metadata"]["namespace"] != namespace
                        or not self.selected(event, selector)):
                    continue
                line = json.dumps({"type": "ADDED", "object": event})
                line = line.encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.write(b"0\r\n\r\n")

    def list_events(self, namespace, query):
        selector = query.get("fieldSelector", [""])[0]
        with self.state.lock:
            items = [e for _, e in self.state.events
                     if namespace in (None, e["metadata"]["namespace"])
                     and self.selected(e, selector)]
            version = str(self.state.version)
        self.send(200, {"kind": "EventList", "apiVersion": "v1",
                        "metadata": {"resourceVersion": version},
                        "items": items})

    def create_event(self, namespace, body):
        try:
            event = json.loads(body)
        except ValueError:
            return 400, "not JSON"
        bad = invalid(event, namespace)
        if bad:
            return bad
        meta = event["metadata"]
        with self.state.lock:
            for _, old in self.state.events:
                if (old["metadata"]["name"], old["metadata"]["namespace"]) \
                        == (meta["name"], namespace):
                    return 409, f'events "{meta["name"]}" already exists'
            self.state.version += 1
            meta.update(namespace=namespace,
                        resourceVersion=str(self.state.version),
                        uid=f"uid-{self.state.version}",
                        creationTimestamp=time.strftime(
                            "%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
            self.state.events.append((self.state.version, event))
            self.state.lock.notify_all()
        return 201, event

    def post_event(self, namespace, body):
        state = self.state
        with state.lock:
            state.attempts += 1
            scripted = state.fail.pop(0) if state.fail else None
        if scripted == "hang":
            time.sleep(3600)
        if scripted == "lost":  # it is kept, and the answer never arrives
            self.create_event(namespace, body)
            self.close_connection = True
            state.answers.append("lost")
            return
        if scripted:
            status, what = int(scripted), "as the test says"
        elif self.headers.get("Content-Type") != "application/json":
            status, what = 415, "unsupported media type"
        else:
            status, what = self.create_event(namespace, body)
        state.answers.append(status)
        if status == 201:
            self.send(201, what)
        else:
            self.fail(status, what)

    # ---- Routes ----

    def control(self, parts):
        state = self.state
        with state.lock:
            if parts[0] == "fail":
                state.fail = parts[1].split(",") if len(parts) > 1 else []
            elif parts[0] == "retry-after":
                state.retry_after = parts[1]
            elif parts[0] == "pod":
                namespace, name, uid = parts[1:4]
                state.pods[namespace, name] = {
                    "kind": "Pod", "apiVersion": "v1",
                    "metadata": {"name": name, "namespace": namespace,
                                 "uid": uid},
                    "spec": {"containers": [
                        {"name": "peerd", "image": "peerd"}]},
                    "status": {"phase": "Running"}}
            self.send(200, {"requests": state.answers,
                            "attempts": state.attempts}.get(parts[0], "ok"))

    def do_GET(self):
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        parts = [unquote(p) for p in url.path.split("/")[1:]]
        if parts[0] == "control":
            return self.control(parts[1:])
        if not self.allowed():
            return None
        if found := self.discovery(url.path.rstrip("/")):
            return self.send(200, found)
        match parts:
            case ["api", "v1", "namespaces", namespace, "events"]:
                if "watch" in query:
                    return self.watch(namespace, query)
                return self.list_events(namespace, query)
            case ["api", "v1", "events"]:
                return self.list_events(None, query)
            case ["api", "v1", "namespaces", namespace, "pods", name]:
                pod = self.state.pods.get((namespace, name))
                if pod:
                    return self.send(200, pod)
        return self.fail(404, f"{url.path} not found")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = [unquote(p) for p in urlsplit(self.path).path.split("/")[1:]]
        if parts[0] == "control":
            return self.control(parts[1:])
        if not self.allowed():
            self.state.attempts += 1
            self.state.answers.append(401)
            return None
        match parts:
            case ["api", "v1", "namespaces", namespace, "events"]:
                return self.post_event(namespace, body)
        return self.fail(404, "not found")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port-file", required=True)
    parser.add_argument("--token-file", required=True)
    parser.add_argument("--cert")
    parser.add_argument("--key")
    args = parser.parse_args()
    Handler.state = State(args.token_file)
    ThreadingHTTPServer.daemon_threads = True
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if args.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(args.cert, args.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    with open(args.port_file + ".new", "w", encoding="ascii") as f:
        f.write(str(server.server_port))
    os.rename(args.port_file + ".new", args.port_file)
    server.serve_forever()


if __name__ == "__main__":
    main()
