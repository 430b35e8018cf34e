#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2119,SC2120,SC2154
# docs/swagger.yml describes what the server does.

load ../lib/common
load ../lib/http

setup()
{
	PYTHON=python3
	# A Python that is not Debian's may lack Debian's modules.
	"$PYTHON" -c 'import yaml' 2>/dev/null || PYTHON=/usr/bin/python3
	"$PYTHON" -c 'import yaml' || missing 'needs python3-yaml'
	start_registry
	random_file "$BATS_TEST_TMPDIR/f" 200000
	BLOB=$(push_blob team/files "$BATS_TEST_TMPDIR/f")
	push_artifact team/files v1 "$BATS_TEST_TMPDIR/f" >/dev/null
}

@test "every route answers as it is described" {
	start_mirror --blobs-allow "$REG" --mirror-timeout 3s
	run "$PYTHON" "$HTTPDIR/swagger.py" "$ROOT/docs/swagger.yml" \
		--http "$HTTP" --socket "$CACHE/peerd.sock" \
		--source "$ROOT/api.c" --source "$ROOT/registry/mirror.c" \
		--set name=team/files --set reference=v1 --set "ns=$REG" \
		--set "digest=$BLOB" \
		--set "url=http://$REG/v2/team/files/blobs/$BLOB" \
		--set "pull={\"reference\":\"$REG/team/files:v1\"}" \
		--set "verify={\"digests\":[\"$BLOB\"]}" \
		--set "evict={\"digests\":[\"$BLOB\"]}"
	echo "$output"
	equal "$status" 0
	matches "${lines[-1]}" '^[0-9]{3,} requests, 0 deviations$'
}

@test "the description itself is well formed" {
	"$PYTHON" - "$ROOT/docs/swagger.yml" <<-'END'
		import re, sys, yaml
		with open(sys.argv[1], encoding="utf-8") as f:
		    root = yaml.safe_load(f)
		assert root["openapi"].startswith("3.0.")
		def walk(node, at):
		    if isinstance(node, dict):
		        if "$ref" in node:
		            to = root
		            for part in node["$ref"][2:].split("/"):
		                to = to[part]
		        for k, v in node.items():
		            walk(v, f"{at}/{k}")
		    elif isinstance(node, list):
		        for v in node:
		            walk(v, at)
		walk(root, "")
		for path, item in root["paths"].items():
		    named = {p.get("name") or p["$ref"].rsplit("/", 1)[1]
		             for p in item.get("parameters", [])}
		    assert set(re.findall(r"{(\w+)}", path)) <= named, path
		    for method, op in item.items():
		        if method in ("get", "head", "post"):
		            assert op["responses"], path
		            for r in op["responses"].values():
		                assert "$ref" in r or "description" in r, path
	END
}
