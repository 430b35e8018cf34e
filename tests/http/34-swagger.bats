#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2034,SC2119,SC2120,SC2154
# docs/swagger.yml describes what the server does.

load ../lib/common
load ../lib/http

setup()
{
	PYTHON=python3
	# A Python that is not Debian's may lack Debian's modules.
	"$PYTHON" -c 'import yaml' 2>/dev/null || PYTHON=/usr/bin/python3
	"$PYTHON" -c 'import yaml' || missing 'needs python3-yaml'
	# docker-registry has no referrers.
	REG_LOCATIONS='location ~ ^/v2/[a-z/]+/referrers/ {
		default_type application/vnd.oci.image.index.v1+json;
		return 200 "{\"schemaVersion\":2}";
	}'
	start_registry
	random_file "$BATS_TEST_TMPDIR/f" 200000
	BLOB=$(push_blob team/files "$BATS_TEST_TMPDIR/f")
	push_artifact team/files v1 "$BATS_TEST_TMPDIR/f" >/dev/null
}

peers_api()
{
	curl -sf "http://$HTTP/api/v1/peers"
}

knows_another()
{
	peers_api | jq -e '[.peers[] | select(.state == "alive")] | length == 1'
}

# start_two: a node that has another, and is asked in plain HTTP. Sets MEMBERS
# (its listener) and OTHER (the other's id).
start_two()
{
	local other
	MEMBERS=127.0.0.1:$(free_port)
	other=127.0.0.1:$(free_port)
	CACHE=$BATS_TEST_TMPDIR/other MNT=$BATS_TEST_TMPDIR/other-mnt \
		start_peerd --https-addr "$other" --peers "$MEMBERS"
	start_mirror --blobs-allow "$REG" --mirror-timeout 3s \
		--https-addr "$MEMBERS" --peers "$MEMBERS,$other" --zone here
	wait_for "$PATIENCE" knows_another
	OTHER=$(peers_api | jq -er '.peers[0].id')
	echo "the other is $OTHER"
}

@test "every route answers as it is described" {
	start_two
	# What members ask for is here.
	curl -sf -o /dev/null "$(v2 "team/files/blobs/$BLOB")"
	curl -sf -o /dev/null "$(v2 team/files/manifests/v1)"
	run "$PYTHON" "$HTTPDIR/swagger.py" "$ROOT/docs/swagger.yml" \
		--http "$HTTP" --socket "$CACHE/peerd.sock" --peers "$MEMBERS" \
		--source "$ROOT/daemon/api.c" --source "$ROOT/registry/mirror.c" \
		--source "$ROOT/p2p/upload.c" \
		--set name=team/files --set reference=v1 --set "ns=$REG" \
		--set "digest=$BLOB" --set "key=$BLOB" \
		--set "Peerd-Blob=$BLOB;size=200000" \
		--set "Peerd-From=$OTHER" --set Peerd-Have=0:00 \
		--set "holders={\"id\":\"$OTHER\",\"holds\":[[\"$BLOB\",200000]]}" \
		--set "url=http://$REG/v2/team/files/blobs/$BLOB" \
		--set "pull={\"reference\":\"$REG/team/files:v1\"}" \
		--set "verify={\"digests\":[\"$BLOB\"]}" \
		--set "evict={\"digests\":[\"$BLOB\"]}"
	echo "$output"
	equal "$status" 0
	matches "${lines[-1]}" '^[0-9]{3,} requests, 0 deviations$'
}

@test "the members of a node, and what a node without any says" {
	local about
	start_two
	about=$(peers_api)
	echo "$about"
	jq -e '.self.zone == "here" and (.self.id | length) == 32 and
		.transfers.serving == 0 and .holders.announced >= 0' <<<"$about"
	jq -e --arg id "$OTHER" '.peers | length == 1 and .[0].id == $id and
		.[0].zone == "" and .[0].why == "" and
		(.[0].rtt_ms | type) == "number"' <<<"$about"
	equal "$(peerd status --json | jq .peers.alive)" 1
	stop_peerd
	start_mirror
	equal "$(peers_api | jq -c .)" '{"peers":[]}'
	equal "$(peerd status --json | jq .peers)" null
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
		    url = item.get("servers", [{"url": "http:"}])[0]["url"]
		    assert url.split(":")[0] in ("http", "https", "unix"), path
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
