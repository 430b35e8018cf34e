#!/usr/bin/env bats
# shellcheck disable=SC2034,SC2154
# Who may ask on --http-addr and --prom-addr, and where a registry may send the
# daemon.

load ../lib/common
load ../lib/http

setup()
{
	start_registry
	push_random
	case $BATS_TEST_DESCRIPTION in
	*' address list'*) ;;
	*) start_mirror --node-name this-node --http-names other-name,.svc.example \
		--mirrors http://mirror-name:5000 ;;
	esac
}

# An image of one blob, by "tag".
push_random()
{
	random_file "$BATS_TEST_TMPDIR/blob" 4096
	BLOB=$(push_blob some/name "$BATS_TEST_TMPDIR/blob")
}

# as HOST PATH [CURL-ARGUMENT...]: the status.
as()
{
	local host=$1 url=$2
	shift 2
	status_of -H "Host: $host" "$@" "$url"
}

@test "a name that is not this host's is refused" {
	local name url
	for url in "http://$HTTP/healthz" "$(v2 "some/name/blobs/$BLOB")" \
		"http://$HTTP/blobs/http://$REG/v2/" \
		"http://$HTTP/api/v1/status" "http://$PROM/metrics"; do
		refuses 421 DENIED -H 'Host: evil.example' "$url"
		refuses 421 DENIED -H "Host: evil.example:${HTTP#*:}" "$url"
	done
	for name in this-node.evil.example svc.example xsvc.example \
		localhost.evil.example 127.0.0.1.evil.example '[' ':' ''; do
		equal "$(as "$name:5000" "http://$HTTP/healthz")" 421 "$name"
	done
	for name in 127.0.0.1 '[::1]' 10.1.2.3 localhost LocalHost \
		this-node mirror-name other-name a.b.svc.example \
		this-node. "$(hostname)"; do
		equal "$(as "$name" "http://$HTTP/healthz")" 200 "$name"
		equal "$(as "$name:5000" "http://$PROM/metrics")" 200 "$name"
	done
	equal "$(status_of "$(v2 "some/name/blobs/$BLOB")")" 200
}

@test "web pages of other sites are refused" {
	local url
	url=$(v2 "some/name/blobs/$BLOB")
	refuses 403 DENIED -H 'Sec-Fetch-Site: cross-site' "$url"
	refuses 403 DENIED -H 'Origin: http://evil.example' "$url"
	refuses 403 DENIED -H 'Origin: null' "$url"
	equal "$(status_of -H "Origin: http://$HTTP" "$url")" 200
	equal "$(status_of -H 'Sec-Fetch-Site: none' "$url")" 200
}

@test "with an address list others are refused" {
	need_root
	# An address that is not this host's, on a link that only the test has.
	ip netns add doors-"$$" || missing 'needs network namespaces'
	ip link add name doors0 type veth peer name doors1 netns doors-"$$"
	ip addr add 10.77.0.1/24 dev doors0
	ip link set doors0 up
	ip -n doors-"$$" addr add 10.77.0.2/24 dev doors1
	ip -n doors-"$$" link set doors1 up
	HTTP=10.77.0.1:$(free_port)
	from_there=(ip netns exec doors-"$$" curl -s -o /dev/null -m 20 -w '%{http_code}')
	start_mirror --http-allow 10.78.0.0/16,fd00::/8
	equal "$(status_of "http://$HTTP/v2/")" 200
	equal "$("${from_there[@]}" "http://$HTTP/v2/")" 403
	stop_peerd
	start_mirror --http-allow 10.78.0.0/16,10.77.0.2
	equal "$("${from_there[@]}" "http://$HTTP/v2/")" 200
	stop_peerd
	start_mirror
	equal "$("${from_there[@]}" "http://$HTTP/v2/")" 200
	ip netns del doors-"$$"
	ip link del doors0 2>/dev/null || true
}

@test "an address list that is none is refused" {
	local bad
	for bad in 10.0.0.0/33 10.0.0/8 name fd00::/129 1.2.3.4/ 1.2.3.4/-1; do
		run -2 timeout 20 "$PEERD" run --cache-dir "$BATS_TEST_TMPDIR/c" \
			--http-allow "$bad"
		matches "$output" 'http-allow'
	done
}

@test "a registry may send the daemon to its own host, and not to others here" {
	local site name
	site=127.0.0.1:$(free_port)
	nginx_start "$BATS_TEST_TMPDIR/evil" "server {
		listen $site;
		location ~ ^/v2/same/(.*) { return 302 http://$REG/v2/some/name/\$1; }
		location /v2/host/ { return 302 http://localhost:${REG#*:}/stolen; }
		location /v2/own/ { return 302 http://127.0.0.2:${REG#*:}/stolen; }
		location /v2/link/ { return 302 http://169.254.169.254/stolen; }
		location /v2/realm/ {
			add_header WWW-Authenticate 'Bearer realm=\"http://localhost:${REG#*:}/token\"' always;
			return 401;
		}
	}"
	wait_for 20 curl -s -o /dev/null "http://$site/"
	equal "$(status_of "$(v2 "same/blobs/$BLOB" "$site")")" 200
	peerd evict --all >/dev/null
	for name in host link own realm; do
		equal "$(status_of "$(v2 "$name/manifests/$name" "$site")")" 404 "$name"
	done
	settle_log
	refute grep -qE '/token|/stolen' "$REG_LOG"
	# Nor may a reader name the link itself.
	equal "$(status_of "$(v2 "a/manifests/tag" 169.254.169.254)")" 404
	run cat "$MNT/registry/169.254.169.254/a/tags/x/manifest.json"
	at_least "$status" 1
	for name in localhost 127.0.0.2 169.254.169.254; do
		grep -q "$name: an address of this host or link" "$PEERD_LOG"
	done
}
