#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2119,SC2120,SC2154
# Tags, referrers and the catalog through the mirror.

load ../lib/common
load ../lib/http

INDEX=application/vnd.oci.image.index.v1+json

# An nginx that adds referrers to docker-registry, which has none: sets REG.
# It pages them, and filters them by the type "a/sig".
start_with_referrers()
{
	local back
	start_registry "$@"
	back=$REG
	REG=127.0.0.1:$(free_port)
	API=$BATS_TEST_TMPDIR/api
	REG_LOG=$API.access
	mkdir -p "$API"
	echo '{"schemaVersion":2,"manifests":[{"size":1},{"size":2}]}' \
		>"$API/all"
	echo '{"schemaVersion":2,"manifests":[{"size":2}]}' >"$API/sig"
	echo '{"schemaVersion":2,"manifests":[{"size":3}]}' >"$API/second"
	start_api "$back"
}

start_api()
{
	API_BACK=${1:-$API_BACK}
	nginx_start "$API.server" "
	map \$arg_artifactType \$file { default /all; 'a/sig' /sig; }
	map \$arg_artifactType \$filter { default ''; 'a/sig' artifactType; }
	map \$arg_page \$page { default \$file; 2 /second; }
	map \$arg_page \$next { default
		'</v2/team/app/referrers/x?page=1>; rel=first, <?page=2>; rel=\"next\"';
		2 ''; }
	server {
		listen $REG;
		access_log $REG_LOG requests;
		location ~ ^/v2/team/app/referrers/ {
			root $API;
			default_type $INDEX;
			add_header Link \$next;
			add_header OCI-Filters-Applied \$filter;
			rewrite ^ \$page break;
		}
		location /v2/team/sums/ { root $API; }
		location = /v2/team/page/tags/list {
			default_type text/html;
			return 200 '<html>log in</html>';
		}
		location = /v2/team/lost/tags/list {
			default_type text/html;
			return 404 'no registry here';
		}
		location / { proxy_pass http://$API_BACK; }
	}"
	wait_for 30 curl -s -o /dev/null "http://$REG/"
}

stop_api()
{
	finish "$API.server" KILL 10 || true
}

push_two()
{
	random_file "$BATS_TEST_TMPDIR/f" 2000
	APP=$(push_artifact team/app v1 "$BATS_TEST_TMPDIR/f")
	push_artifact team/app v2 "$BATS_TEST_TMPDIR/f"
	push_artifact team/other v1 "$BATS_TEST_TMPDIR/f"
}

# same PATH: the registry's answer and the mirror's: status, type, body.
same()
{
	local how='%{http_code} %{content_type}'
	curl -s -w "$how" "http://$REG/v2/$1" >"$BATS_TEST_TMPDIR/direct"
	curl -s -w "$how" "http://$HTTP/v2/$1" >"$BATS_TEST_TMPDIR/mirror"
	diff "$BATS_TEST_TMPDIR/direct" "$BATS_TEST_TMPDIR/mirror"
}

# pages PATH SERVER: the bodies of all pages.
pages()
{
	local next=/v2/$1
	while [[ $next ]]; do
		curl -sf "http://$2$next"
		next=$(header_of Link "http://$2$next" |
			sed -n 's/^<\(.*\)>; rel="next"$/\1/p')
		echo "next: $next" >&2
	done
}

asked()
{
	settle_log
	grep -c "\"uri\":\"/v2/$1" "$REG_LOG" || true
}

@test "lists are what the registry answers" {
	start_with_referrers
	push_two
	start_mirror --hosts "$REG"
	same team/app/tags/list
	same _catalog
	same "team/app/referrers/$APP"
	same "team/app/referrers/$APP?artifactType=a/sig"
	same no/such/tags/list
	same "team/other/referrers/$APP"
	same '_catalog?n=x'
	jq -e '.tags == ["v1", "v2"]' <(curl -sf "$(v2 team/app/tags/list)")
	equal "$(header_of OCI-Filters-Applied \
		"$(v2 "team/app/referrers/$APP")&artifactType=a/sig")" artifactType
	equal "$(header_of OCI-Filters-Applied \
		"$(v2 "team/app/referrers/$APP")")" ''
	equal "$(header_of Content-Type -I "$(v2 "team/app/referrers/$APP")")" \
		"$INDEX"
}

@test "pages follow each other through the mirror" {
	start_with_referrers
	push_two
	start_mirror --hosts "$REG"
	equal "$(pages '_catalog?n=1' "$HTTP" | jq -c '.repositories')" \
		$'["team/app"]\n["team/other"]'
	equal "$(pages "_catalog?n=1&ns=$REG" "$HTTP" | jq -c '.repositories')" \
		$'["team/app"]\n["team/other"]'
	equal "$(pages "team/app/referrers/$APP?ns=$REG" "$HTTP" |
		jq -c '[.manifests[].size]')" $'[1,2]\n[3]'
	# The registry is not told ns.
	settle_log
	refute grep -q 'ns=' "$REG_LOG"
}

@test "a list is asked for again after --tag-fresh, and stale in an outage" {
	start_with_referrers
	push_two
	start_mirror --hosts "$REG" --tag-fresh 1h --mirror-timeout 3s
	curl -sf "$(v2 team/app/tags/list)" | jq -e '.tags | length == 2'
	curl -sf "$(v2 team/app/tags/list)" | jq -e '.tags | length == 2'
	equal "$(asked team/app/tags/list)" 1
	stop_peerd
	start_mirror --hosts "$REG" --tag-fresh 0s --mirror-timeout 3s
	curl -sf "$(v2 team/app/tags/list)" >/dev/null
	curl -sf "$(v2 "team/app/referrers/$APP")" >"$BATS_TEST_TMPDIR/before"
	equal "$(header_of Warning "$(v2 team/app/tags/list)")" ''
	stop_api
	matches "$(header_of Warning "$(v2 team/app/tags/list)")" '^110 '
	matches "$(header_of Warning "$(v2 "team/app/referrers/$APP")")" '^110 '
	cmp "$BATS_TEST_TMPDIR/before" <(curl -sf "$(v2 "team/app/referrers/$APP")")
	at_least "$(metric peerd_mirror_stale_tags_total)" 3
	# A list that is not known is never an empty one: containerd, which
	# gives ns, asks the registry; oras would take 404 for "none".
	refuses 404 UNAVAILABLE "$(v2 "team/other/referrers/$APP")"
	refuses 502 UNAVAILABLE "http://$HTTP/v2/team/other/referrers/$APP"
	refuses 502 UNAVAILABLE "http://$HTTP/v2/_catalog"
	start_api
	# "Down" is remembered for a while.
	no_warning()
	{
		equal "$(header_of Warning "$(v2 team/app/tags/list)")" ''
	}
	wait_for 20 no_warning
}

@test "a registry that falls silent does not hold up a list that is known" {
	start_with_referrers
	push_two
	start_mirror --hosts "$REG" --tag-fresh 0s --mirror-timeout 300s
	curl -sf "$(v2 "team/app/referrers/$APP")" >"$BATS_TEST_TMPDIR/before"
	kill -STOP "$(<"$API.server.pid")"
	# Long before the request to the registry fails.
	curl -sf -m 8 -D "$BATS_TEST_TMPDIR/head" \
		"$(v2 "team/app/referrers/$APP")" >"$BATS_TEST_TMPDIR/after"
	cmp "$BATS_TEST_TMPDIR/before" "$BATS_TEST_TMPDIR/after"
	grep -q '^Warning: 110 ' "$BATS_TEST_TMPDIR/head"
	kill -CONT "$(<"$API.server.pid")"
}

@test "a page that is no list is no list" {
	start_with_referrers
	start_mirror --hosts "$REG"
	refuses 502 UNAVAILABLE "http://$HTTP/v2/team/page/tags/list"
	refuses 404 UNAVAILABLE "$(v2 team/page/tags/list)"
	same team/lost/tags/list
}

@test "a list is for the credentials that it was fetched with" {
	local config
	start_with_referrers --htpasswd ann secret
	push_two
	config=$(docker_config ann secret)
	start_mirror --hosts "$REG" --registry-config "$config" --tag-fresh 1h
	curl -sf "$(v2 team/app/tags/list)" | jq -e '.tags | length == 2'
	curl -sf "http://$HTTP/v2/_catalog" | jq -e '.repositories | length == 2'
	jq --arg a "$(printf ann:wrong | base64)" '.auths[].auth = $a' \
		"$config" >"$config.new"
	mv "$config.new" "$config"
	# The file is looked at once a second.
	refused()
	{
		equal "$(status_of "http://$HTTP/v2/team/app/tags/list")" 403
	}
	wait_for 20 refused
	refuses 403 DENIED "http://$HTTP/v2/_catalog"
	# A client with credentials of its own goes on to the registry.
	refuses 404 DENIED "$(v2 team/app/tags/list)"
}

@test "content by other digests is passed on, and not kept" {
	local sum
	start_with_referrers
	push_two
	random_file "$BATS_TEST_TMPDIR/big" $((9 * MiB + 7))
	sum=sha512:$(sha512sum "$BATS_TEST_TMPDIR/big" | cut -d ' ' -f 1)
	mkdir -p "$API/v2/team/sums/blobs"
	cp "$BATS_TEST_TMPDIR/big" "$API/v2/team/sums/blobs/$sum"
	start_mirror --hosts "$REG" --mirror-timeout 3s
	curl -sf "$(v2 "team/sums/blobs/$sum")" | cmp - "$BATS_TEST_TMPDIR/big"
	equal "$(header_of Content-Length -I "$(v2 "team/sums/blobs/$sum")")" \
		$((9 * MiB + 7))
	# A client that reads slowly, and one that leaves.
	curl -sf --limit-rate 4M "$(v2 "team/sums/blobs/$sum")" |
		cmp - "$BATS_TEST_TMPDIR/big"
	curl -sf "$(v2 "team/sums/blobs/$sum")" | head -c 100 >/dev/null
	jq -e '.blobs == []' <(curl -sf "http://$HTTP/api/v1/blobs")
	refuses 404 BLOB_UNKNOWN "$(v2 "team/app/blobs/$sum")"
	refuses 404 MANIFEST_UNKNOWN "$(v2 "team/app/manifests/$sum")"
	refuses 400 DIGEST_INVALID "$(v2 "team/app/blobs/sha512:12")"
	refuses 400 DIGEST_INVALID "$(v2 "team/app/blobs/none")"
	refuses 400 DIGEST_INVALID "$(v2 "team/app/referrers/none")"
	curl -sf "$(v2 "team/app/referrers/$sum")" | jq -e .manifests
	refuses 404 UNSUPPORTED "$(v2 team/app/tags/other)"
	stop_api
	refuses 404 BLOB_UNKNOWN "$(v2 "team/sums/blobs/$sum")"
}
