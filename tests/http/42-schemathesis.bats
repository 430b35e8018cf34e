#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2119,SC2120,SC2154
# schemathesis sends what docs/swagger.yml allows, and what it does not.

load ../lib/common
load ../lib/http

@test "schemathesis finds no deviation from docs/swagger.yml" {
	[[ -x ${TOOLS:-}/schemathesis ]] || missing \
		'needs schemathesis, which scripts/tools installs from PyPI'
	start_registry
	random_file "$BATS_TEST_TMPDIR/f" 2000
	push_artifact library/alpine v1 "$BATS_TEST_TMPDIR/f"
	# No request leads out of this host.
	start_mirror --hosts "$REG" --mirror-timeout 3s --blobs-allow "$REG"
	cd "$BATS_TEST_TMPDIR"
	# OpenAPI has no path parameter with slashes: a name is sent with %2F,
	# which is a 400, and so cannot be accepted. The parameters of lists are
	# for the registry to reject.
	# The rest is on other listeners, with paths that these servers lack.
	# QUERY is a 501, as for any method that the parser does not know.
	printf '[phases.coverage]\nunexpected-methods = %s\n' \
		'["GET", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE"]' \
		>config.toml
	run "$TOOLS/schemathesis" --config-file config.toml run "$ROOT/docs/swagger.yml" \
		--url "http://$HTTP" --exclude-tag peers --exclude-tag control \
		--phases examples,coverage,fuzzing --max-examples 5 --seed 1 \
		--exclude-checks positive_data_acceptance,negative_data_rejection \
		--generation-deterministic --max-time 50 --no-color
	echo "$output"
	equal "$status" 0
}
