#!/usr/bin/env python3
"""Checks of the chart and the manifests, for 54-chart.bats.

  chart.py fields FILE...          no field that Kubernetes does not have
  chart.py peerd PEERD FILE        what the pods need fits together; PEERD run
                                   --help knows every option
  chart.py values SCHEMA VALUES.yaml [VALUES.yaml]...   merged, against a schema
  chart.py keys FILE DIR           writes the secret's files to DIR
"""

import base64
import pathlib
import re
import subprocess
import sys

import yaml

# Names of fields, as far as the manifests use them. {}: any names; []: a list
# of such; None: a value. From the reference of Kubernetes' API.
META = {"name": None, "namespace": None, "labels": {}, "annotations": {}}
SELECTOR = {"matchLabels": {}}
PROBE = {"httpGet": {"path": None, "port": None}, "periodSeconds": None,
         "timeoutSeconds": None, "failureThreshold": None}
CONTAINER = {
    "name": None, "image": None, "imagePullPolicy": None, "args": [None],
    "command": [None],
    "env": [{"name": None, "value": None,
             "valueFrom": {"fieldRef": {"fieldPath": None}}}],
    "ports": [{"name": None, "containerPort": None, "hostPort": None,
               "hostIP": None, "protocol": None}],
    "startupProbe": PROBE, "readinessProbe": PROBE, "livenessProbe": PROBE,
    "lifecycle": {"preStop": {"exec": {"command": [None]}}},
    "resources": {"limits": {}, "requests": {}},
    "securityContext": {
        "privileged": None, "runAsUser": None, "runAsNonRoot": None,
        "readOnlyRootFilesystem": None, "allowPrivilegeEscalation": None,
        "capabilities": {"add": [None], "drop": [None]}},
    "volumeMounts": [{"name": None, "mountPath": None, "readOnly": None,
                      "mountPropagation": None}],
}
POD = {
    "serviceAccountName": None, "priorityClassName": None,
    "terminationGracePeriodSeconds": None, "hostNetwork": None,
    "dnsPolicy": None, "enableServiceLinks": None,
    "automountServiceAccountToken": None,
    "imagePullSecrets": [{"name": None}], "containers": [CONTAINER],
    "volumes": [{"name": None, "emptyDir": {},
                 "hostPath": {"path": None, "type": None},
                 "secret": {"secretName": None, "defaultMode": None,
                            "items": [{"key": None, "path": None}]}}],
    "nodeSelector": {}, "affinity": {},
    "tolerations": [{"operator": None, "key": None, "effect": None,
                     "value": None}],
}
PORTS = [{"protocol": None, "port": None}]
SPECS = {
    ("apps/v1", "DaemonSet"): {"spec": {
        "selector": SELECTOR,
        "updateStrategy": {"type": None,
                           "rollingUpdate": {"maxUnavailable": None}},
        "template": {"metadata": META, "spec": POD}}},
    ("v1", "Service"): {"spec": {
        "clusterIP": None, "publishNotReadyAddresses": None, "selector": {},
        "ports": [{"name": None, "port": None, "targetPort": None}]}},
    ("v1", "ServiceAccount"): {},
    ("v1", "Secret"): {"type": None, "data": {}},
    ("rbac.authorization.k8s.io/v1", "Role"): {
        "rules": [{"apiGroups": [None], "resources": [None],
                   "verbs": [None]}]},
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): {
        "roleRef": {"apiGroup": None, "kind": None, "name": None},
        "subjects": [{"kind": None, "name": None, "namespace": None}]},
    ("networking.k8s.io/v1", "NetworkPolicy"): {"spec": {
        "podSelector": SELECTOR, "policyTypes": [None],
        "ingress": [{"from": [{"podSelector": SELECTOR}],
                     "ports": PORTS}]}},
    ("scheduling.k8s.io/v1", "PriorityClass"): {
        "value": None, "globalDefault": None, "description": None},
}


def objects(path):
    with open(path, encoding="utf-8") as f:
        return [o for o in yaml.safe_load_all(f) if o is not None]


def walk(value, shape, at):
    if shape is None:
        if isinstance(value, (dict, list)) or value is None:
            yield f"{at}: is no single value"
    elif isinstance(shape, list):
        if not isinstance(value, list) or not value:
            yield f"{at}: is no list"
            return
        for i, item in enumerate(value):
            yield from walk(item, shape[0], f"{at}[{i}]")
    elif not isinstance(value, dict):
        yield f"{at}: is no object"
    elif shape:
        for key, item in value.items():
            if key not in shape:
                yield f"{at}.{key}: there is no such field"
            else:
                yield from walk(item, shape[key], f"{at}.{key}")
    else:
        for key, item in value.items():
            if not isinstance(key, str):
                yield f"{at}.{key}: the name is no string"
            elif at.endswith(("abels", "notations", "elector")) \
                    and not isinstance(item, str):
                yield f"{at}.{key}: is no string"


def fields(paths):
    for path in paths:
        for o in objects(path):
            kind = o.get("apiVersion"), o.get("kind")
            if kind not in SPECS:
                yield f"{path}: unknown kind {kind}"
                continue
            shape = {"apiVersion": None, "kind": None, "metadata": META}
            shape.update(SPECS[kind])
            yield from walk(o, shape, f"{path}: {kind[1]}")


def one(found, kind):
    of_kind = [o for o in found if o["kind"] == kind]
    assert len(of_kind) == 1, f"{len(of_kind)} of {kind}"
    return of_kind[0]


def peerd(program, path):
    found = objects(path)
    daemonset = one(found, "DaemonSet")
    pod = daemonset["spec"]["template"]["spec"]
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    container, = pod["containers"]
    ports = {p["name"]: p for p in container["ports"]}
    args = dict(a[2:].split("=", 1) if "=" in a else (a[2:], None)
                for a in container["args"][1:])

    def wrong(condition, what):
        return [what] if condition else []

    # Each selects the pods.
    service = one(found, "Service")
    for what, selector in (
            ("DaemonSet", daemonset["spec"]["selector"]["matchLabels"]),
            ("Service", service["spec"]["selector"])):
        yield from wrong(not selector or not selector.items()
                         <= labels.items(), f"{what} selects other pods")
    yield from wrong(service["spec"]["clusterIP"] != "None",
                     "the service is not headless")
    host = f'{service["metadata"]["name"]}.' \
           f'{service["metadata"]["namespace"]}.svc'
    yield from wrong(args["peers"] != f"dns:{host}:"
                     f"{service['spec']['ports'][0]['port']}",
                     "--peers is not the service")
    for name, option in (("http", "http-addr"), ("https", "https-addr"),
                         ("metrics", "prom-addr")):
        yield from wrong(
            int(args[option].rsplit(":", 1)[1])
            != ports[name]["containerPort"], f"--{option} is another port")
    yield from wrong((ports["http"]["hostPort"], ports["http"]["hostIP"])
                     != (ports["http"]["containerPort"], "127.0.0.1"),
                     "the mirror is not on 127.0.0.1 of the node")
    # Mounts and volumes.
    volumes = {v["name"]: v for v in pod["volumes"]}
    mounts = {m["name"]: m for m in container["volumeMounts"]}
    yield from wrong(set(volumes) != set(mounts),
                     f"volumes and mounts: {set(volumes) ^ set(mounts)}")
    for v in volumes.values():
        if "hostPath" in v:
            yield from wrong(v["hostPath"]["type"] != "DirectoryOrCreate",
                             f'{v["name"]}: fails where it is not there')
    if "mount" in args:
        above = mounts["mount"]
        yield from wrong(
            above.get("mountPropagation") != "Bidirectional"
            or not args["mount"].startswith(above["mountPath"] + "/")
            or above["mountPath"] != volumes["mount"]["hostPath"]["path"]
            or not container["securityContext"]["privileged"],
            "the mount does not come out of the pod")
    paths = [m["mountPath"] for m in mounts.values()]
    for option, value in args.items():
        if value and re.match(r"/(etc|var|run)/", value):
            yield from wrong(not any(value == p or value.startswith(p + "/")
                                     for p in paths),
                             f"--{option}={value} is not mounted")
    yield from wrong(not container["securityContext"]
                     ["readOnlyRootFilesystem"], "the root can be written to")
    # Rights.
    roles = [o for o in found if o["kind"] in ("Role", "ClusterRole")]
    yield from wrong([r["rules"] for r in roles] != [[
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]}]],
        "the rights are not: create events")
    # Every option is one that peerd knows.
    help_text = subprocess.run([program, "run", "--help"], text=True,
                               check=True, capture_output=True).stdout
    known = set(re.findall(r"^ +--([a-z-]+)", help_text, re.M))
    yield from (f"peerd has no option --{a}" for a in args if a not in known)
    if "lifecycle" in container:
        command = container["lifecycle"]["preStop"]["exec"]["command"]
        for a in command[3:]:
            name, value = a[2:].split("=", 1)
            yield from wrong(args.get(name) != value,
                             f"preStop's --{name} is not the daemon's")


def merge(to, other):
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(to.get(key), dict):
            merge(to[key], value)
        else:
            to[key] = value


def values(schema, paths):
    import json

    import jsonschema

    merged = {}
    for path in paths:
        merge(merged, objects(path)[0])
    checker = jsonschema.Draft7Validator(
        json.loads(pathlib.Path(schema).read_text(encoding="utf-8")))
    checker.check_schema(checker.schema)
    for error in checker.iter_errors(merged):
        yield f'{"/".join(map(str, error.path))}: {error.message}'


def keys(path, directory):
    for name, value in one(objects(path), "Secret")["data"].items():
        (pathlib.Path(directory) / name).write_bytes(base64.b64decode(value))
    return []


def main():
    command, *args = sys.argv[1:]
    problems = {
        "fields": lambda: fields(args), "peerd": lambda: peerd(*args),
        "values": lambda: values(args[0], args[1:]),
        "keys": lambda: keys(*args),
    }[command]()
    problems = list(problems)
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


main()
