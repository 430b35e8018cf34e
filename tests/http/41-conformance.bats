#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2119,SC2120,SC2154
# The OCI distribution conformance tests, oras and crane, with the mirror as
# their registry for all that is read. scripts/tools builds these programs, and
# olareg, a registry with referrers and sha512.

load ../lib/common
load ../lib/http

# need_tools NAME...
need_tools()
{
	local name
	for name; do
		[[ -x ${TOOLS:-}/$name ]] ||
			missing "needs $name, which scripts/tools builds with Go"
	done
}

# Sets REG.
start_olareg()
{
	local port
	port=$(free_port)
	OLAREG=$BATS_TEST_TMPDIR/olareg
	REG=127.0.0.1:$port
	REG_BACK=$REG
	background "$OLAREG" "$TOOLS/olareg" serve --addr 127.0.0.1 \
		--port "$port" --store-type mem --api-delete --api-blob-delete
	wait_for 30 curl -sf "http://$REG/v2/"
}

# start_front: the mirror for GET and HEAD, the registry for all else, as one
# registry at FRONT.
start_front()
{
	start_mirror --hosts "$REG" --tag-fresh 0s --negative-time 0s "$@"
	FRONT=127.0.0.1:$(free_port)
	nginx_start "$BATS_TEST_TMPDIR/both" "
	map \$request_method \$to { default $REG_BACK; GET $HTTP; HEAD $HTTP; }
	server {
		listen $FRONT;
		proxy_request_buffering off;
		# Uploads are asked after by GET.
		location ~ /blobs/uploads/ { proxy_pass http://$REG_BACK; }
		location / { proxy_pass http://\$to; }
	}"
	wait_for 30 curl -s -o /dev/null "http://$FRONT/v2/"
}

# conformance SERVER DIR: its status tells of failed checks, of which any registry
# has some; they are in DIR/junit.xml.
conformance()
{
	mkdir -p "$2"
	env OCI_REGISTRY="$1" OCI_TLS=disabled OCI_RESULTS_DIR="$2" \
		OCI_REPO1=conformance/one OCI_REPO2=conformance/two \
		OCI_CONFIGURATION=/dev/null OCI_LOG=error \
		"$TOOLS/conformance" >"$2/out" || true
	[[ -s $2/junit.xml ]]
}

compare()
{
	"$HTTPDIR/conformance.py" "$BATS_TEST_TMPDIR/direct/junit.xml" \
		"$BATS_TEST_TMPDIR/mirror/junit.xml" \
		"$HTTPDIR/conformance.expected" "$@"
}

@test "conformance with docker-registry: the mirror passes what it passes" {
	need_tools conformance
	start_registry
	conformance "$REG_BACK" "$BATS_TEST_TMPDIR/direct"
	# The second run needs a registry that is empty again.
	stop_registry
	rm -rf "$REG_DIR/store"
	start_registry_again
	start_front
	conformance "$FRONT" "$BATS_TEST_TMPDIR/mirror"
	compare
}

@test "conformance with olareg: referrers and sha512 too" {
	need_tools conformance olareg
	start_olareg
	conformance "$REG" "$BATS_TEST_TMPDIR/direct"
	finish "$OLAREG" KILL || true
	start_olareg
	start_front
	conformance "$FRONT" "$BATS_TEST_TMPDIR/mirror"
	compare all
}

@test "oras: a copy keeps its signature, and discover shows it" {
	local app
	need_tools oras olareg
	start_olareg
	start_front --mirror-timeout 3s
	cd "$BATS_TEST_TMPDIR"
	echo content >file
	echo signature >sig
	"$TOOLS/oras" push --plain-http "$REG/team/app:v1" file
	"$TOOLS/oras" attach --plain-http --artifact-type a/sig \
		"$REG/team/app:v1" sig
	"$TOOLS/oras" discover --plain-http --format json "$HTTP/team/app:v1" |
		jq -e '[.referrers[] | .artifactType] == ["a/sig"]'
	"$TOOLS/oras" cp -r --from-plain-http "$HTTP/team/app:v1" \
		--to-oci-layout "$BATS_TEST_TMPDIR/copy:v1"
	app=$("$TOOLS/oras" discover --oci-layout --format json copy:v1)
	jq -e '[.referrers[] | .artifactType] == ["a/sig"]' <<<"$app"
	# Away: a copy without its signature is no success.
	stop_peerd
	start_mirror --hosts "$REG" --mirror-timeout 3s
	curl -sf "http://$HTTP/v2/team/app/manifests/v1" >/dev/null
	finish "$OLAREG" KILL || true
	refute timeout 60 "$TOOLS/oras" cp -r --from-plain-http \
		"$HTTP/team/app:v1" --to-oci-layout "$BATS_TEST_TMPDIR/lost:v1"
}

@test "crane: ls and catalog" {
	need_tools crane
	start_registry
	random_file "$BATS_TEST_TMPDIR/f" 2000
	push_artifact team/app v1 "$BATS_TEST_TMPDIR/f"
	push_artifact team/app v2 "$BATS_TEST_TMPDIR/f"
	start_mirror --hosts "$REG"
	equal "$("$TOOLS/crane" ls --insecure "$HTTP/team/app")" $'v1\nv2'
	equal "$("$TOOLS/crane" catalog --insecure "$HTTP")" team/app
}
