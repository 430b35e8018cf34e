#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2119,SC2120,SC2154
# What operators scrape: the families of the Go peerd, and our own.

load ../lib/common
load ../lib/http

setup_file()
{
	start_registry
	export FILES=$BATS_FILE_TMPDIR/files
	mkdir -p "$FILES"
	random_file "$FILES/blob" $((3 * MiB + 5))
	BLOB=$(push_blob team/data "$FILES/blob")
	push_artifact team/files v1 "$FILES/blob" >/dev/null
	export BLOB
}

setup()
{
	start_mirror --node-name here --blobs-allow "$REG"
	SIZE=$((3 * MiB + 5))
	URL=$(v2 "team/data/blobs/$BLOB")
}

use_everything()
{
	curl -sf "$URL" -o /dev/null
	curl -sf -r 0-9 "$URL" -o /dev/null
	curl -sfI "$(v2 team/files/manifests/v1)" -o /dev/null
	curl -s "$(v2 team/none/manifests/v1)" -o /dev/null
	curl -sf "http://$HTTP/blobs/http://$REG/v2/team/data/blobs/$BLOB" \
		-o /dev/null
	curl -sf "http://$HTTP/api/v1/status" -o /dev/null
	cat "$(blob_path team/data "$BLOB")" >/dev/null
}

@test "promtool finds nothing wrong" {
	command -v promtool >/dev/null || missing 'needs promtool'
	for url in "http://$PROM/metrics/prometheus" \
		"http://$HTTP/metrics/prometheus" "http://$PROM/metrics"; do
		curl -sf "$url" | promtool check metrics
		use_everything
	done
	curl -sf "http://$PROM/metrics/prometheus" | promtool check metrics
	matches "$(header_of Content-Type "http://$PROM/metrics/prometheus")" \
		'^text/plain; version=0\.0\.4'
}

# family NAME TYPE
family()
{
	grep -qx "# TYPE $1 $2" "$BATS_TEST_TMPDIR/metrics" || {
		echo "no $2 $1" >&2
		return 1
	}
	grep -q "^# HELP $1 ." "$BATS_TEST_TMPDIR/metrics"
}

scrape()
{
	curl -sf "http://$PROM/metrics/prometheus" >"$BATS_TEST_TMPDIR/metrics"
}

@test "every family is there from the start, with its type" {
	use_everything
	scrape
	for name in request_duration_seconds peer_discovery_duration_seconds \
		peer_response_speed_mib_per_second \
		upstream_response_speed_mib_per_second; do
		family "peerd_$name" histogram
	done
	for name in http_requests http_sent_bytes fetched_bytes flights \
		fetch_waits failed_reads evicted_chunks evicted_bytes \
		store_errors checked_blobs upstream_requests upstream_bytes \
		mirror_requests mirror_stale_tags proxy_requests \
		fuse_operations fuse_read_bytes; do
		family "peerd_${name}_total" counter
	done
	for name in amplification_ratio flights waiting_reads cache_bytes \
		cache_blobs cache_free_bytes fetch_memory_bytes; do
		family "peerd_$name" gauge
	done
	# No secret and no path ever becomes a label.
	refute grep -qE 'sha256|team/|secret' "$BATS_TEST_TMPDIR/metrics"
}

@test "the Go peerd's families move, with its labels" {
	use_everything
	scrape
	for labels in 'method="GET",handler="oci"' \
		'method="HEAD",handler="oci"' 'method="GET",handler="files"'; do
		n=$(awk -v l="{self=\"here\",$labels}" '$1 == \
			"peerd_request_duration_seconds_count" l { print $2 }' \
			"$BATS_TEST_TMPDIR/metrics")
		at_least "${n:-0}" 1 "$labels"
	done
	host=${REG%:*}
	at_least "$(metric peerd_upstream_response_speed_mib_per_second_count \
		"self=\"here\",hostname=\"$host\",op=\"pread\"")" 1
	at_least "$(metric peerd_upstream_response_speed_mib_per_second_sum)" 0
}

@test "bytes are counted by where they came from, and where they went" {
	curl -sf "$URL" -o /dev/null
	wait_for 20 quiet
	equal "$(metric peerd_fetched_bytes_total 'source="upstream"')" "$SIZE"
	at_least "$(metric peerd_upstream_bytes_total)" "$SIZE"
	equal "$(metric peerd_http_sent_bytes_total)" "$SIZE"
	at_least "$(metric peerd_flights_total)" 4
	at_least "$(metric peerd_fetch_waits_total)" 1
	equal "$(metric peerd_cache_bytes)" "$SIZE"
	hits=$(metric peerd_http_sent_bytes_total 'kind="hit"')
	for i in 1 2 3; do
		curl -sf "$URL" -o /dev/null
	done
	equal "$(metric peerd_http_sent_bytes_total 'kind="hit"')" \
		$((hits + 3 * SIZE))
	equal "$(metric peerd_fetched_bytes_total)" "$SIZE"
	# Four were sent for one that came.
	matches "$(curl -sf "http://$PROM/metrics" |
		sed -n 's/^peerd_amplification_ratio //p')" '^0\.25'
	wait_for 20 eval '(($(metric peerd_checked_blobs_total verified) >= 1))'
	cat "$(blob_path team/data "$BLOB")" >/dev/null
	at_least "$(metric peerd_fuse_read_bytes_total hit)" "$SIZE"
	at_least "$(metric peerd_fuse_operations_total 'operation="read"')" 1
	at_least "$(metric peerd_fuse_operations_total 'operation="lookup"')" 1
	peerd evict --all >/dev/null
	equal "$(metric peerd_cache_bytes)" 0
}

@test "evictions are counted" {
	stop_peerd
	start_mirror --cache-size 2MiB
	curl -sf "$URL" -o /dev/null
	wait_for 20 eval '(($(metric peerd_evicted_chunks_total) >= 1))'
	at_least "$(metric peerd_evicted_bytes_total)" "$MiB"
}

@test "errors are counted by cause" {
	start_liar
	expect_errors 'read failed.*x/s403'
	digest=$(liar digest x/s403)
	curl -s "$(v2 "x/s403/blobs/$digest" "$LIAR")" -o /dev/null
	at_least "$(metric peerd_fetch_errors_total 'cause="refused"')" 1
	digest=$(liar digest x/short-1)
	curl -sf "$(v2 "x/short-1/blobs/$digest" "$LIAR")" -o /dev/null
	at_least "$(metric peerd_fetch_errors_total 'cause="unreachable"')" 1
	digest=$(liar digest x/wrongrange-1)
	curl -sf "$(v2 "x/wrongrange-1/blobs/$digest" "$LIAR")" -o /dev/null
	at_least "$(metric peerd_fetch_errors_total 'cause="wrong_answer"')" 1
	curl -s "$(v2 team/none/manifests/v1)" -o /dev/null
	at_least "$(metric peerd_http_requests_total \
		'handler="oci",code="404"')" 1
	at_least "$(metric peerd_mirror_requests_total \
		'kind="manifest",code="404"')" 1
}

@test "a client that goes away is counted as one" {
	random_file "$BATS_TEST_TMPDIR/big" $((32 * MiB))
	digest=$(push_blob team/data "$BATS_TEST_TMPDIR/big")
	clients sip "$(v2 "team/data/blobs/$digest")" 65536
	wait_for 20 eval '(($(metric peerd_http_requests_total \
		"handler=\"oci\",code=\"0\"") == 1))'
}

@test "the dashboard shows metrics that there are" {
	local keys=$BATS_TEST_TMPDIR/keys
	# Those of a node that has a listener for others, too.
	stop_peerd
	"$PEERD" keys init --dir "$keys"
	"$PEERD" keys issue --dir "$keys" here
	start_mirror --node-name here --blobs-allow "$REG" \
		--https-addr 127.0.0.1:0 --tls-ca "$keys/ca.crt" \
		--tls-cert "$keys/here.crt" --tls-key "$keys/here.key"
	use_everything
	start_liar
	curl -sf "$(v2 "x/short-1/blobs/$(liar digest x/short-1)" "$LIAR")" \
		-o /dev/null
	scrape
	jq -r '.panels[].targets[].expr' "$ROOT/deploy/grafana/peerd.json" \
		>"$BATS_TEST_TMPDIR/exprs"
	at_least "$(wc -l <"$BATS_TEST_TMPDIR/exprs")" 20
	while read -r name; do
		grep -qE "^# TYPE (${name}|${name%_bucket}) " \
			"$BATS_TEST_TMPDIR/metrics" || {
			echo "no metric $name" >&2
			return 1
		}
	done < <(grep -oE 'peerd_[a-z_]+' "$BATS_TEST_TMPDIR/exprs" | sort -u)
}

@test "strangers cannot make series without end" {
	for ((i = 0; i < 40; i++)); do
		curl -s -o /dev/null -X "PURGE" "$(v2 "team/x$i/manifests/v1")" \
			"http://$HTTP/nothing/$i?$i"
	done
	scrape
	at_most "$(wc -l <"$BATS_TEST_TMPDIR/metrics")" 1500 lines
}

@test "/healthz and /readyz" {
	for address in "$HTTP" "$PROM"; do
		equal "$(curl -sf "http://$address/healthz")" ok
		equal "$(curl -sf "http://$address/readyz")" ok
	done
	equal "$(status_of "http://$PROM/v2/")" 404
	equal "$(status_of "http://$PROM/api/v1/status")" 404
	# While it drains it is alive, and not ready.
	curl -sf "$URL" -o /dev/null
	random_file "$BATS_TEST_TMPDIR/big" $((32 * MiB))
	digest=$(push_blob team/data "$BATS_TEST_TMPDIR/big")
	stop_peerd
	equal "$(status_of -m 2 "http://$PROM/readyz")" 000
}
