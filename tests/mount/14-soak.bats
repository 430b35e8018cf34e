#!/usr/bin/env bats
# shellcheck disable=SC2154
# Readers who check every byte, beside an attacker who does at random what
# 13-whose-bytes does in order: see soak.py. SOAK_SECONDS, SOAK_SEED.

load ../lib/common
load ../lib/http

SIZES=(1000 300000 $((1 * MiB)) $((1 * MiB + 1)) $((3 * MiB + 77)) $((5 * MiB))
	$((9 * MiB + 5)) $((17 * MiB + 12345)))

# node ZONE: a daemon with files of its own; its line of the configuration is
# added to NODES.
node()
{
	CACHE=$BATS_TEST_TMPDIR/cache.$1 MNT=$BATS_TEST_TMPDIR/mnt.$1
	HTTP=127.0.0.1:$(free_port)
	start_peerd --http-addr "$HTTP" --blobs-allow "$EVIL,$REG" \
		--cache-size 48MiB --tag-fresh 1s --negative-time 2s \
		--https-addr "$2" --peers "$3"
	NODES+=("$(jq -n --arg h "$HTTP" --arg m "$MNT" \
		--arg s "$CACHE/peerd.sock" --argjson p "$(peerd_pid)" \
		'{http: $h, mount: $m, socket: $s, pid: $p}')")
}

# foreign_manifest: lists the first layers with other sizes, in odd/files.
foreign_manifest()
{
	local dir=$BATS_TEST_TMPDIR/foreign
	mkdir "$dir"
	printf '{}' >"$dir/config"
	jq -n --arg c "$(push_blob odd/files "$dir/config")" \
		--argjson d "$(jq -s . <<<"$FILES")" '{schemaVersion: 2,
		mediaType: "application/vnd.oci.image.manifest.v1+json",
		config: {mediaType: "application/vnd.oci.image.config.v1+json",
			digest: $c, size: 2},
		layers: [$d[] |
			{mediaType: "application/vnd.oci.image.layer.v1.tar",
			digest, size: 0}]}' >"$dir/manifest"
	push_manifest odd/files latest "$dir/manifest"
}

# flat BEFORE AFTER: KiB; a quarter more, and 16 MiB, are the noise of buffers.
flat()
{
	at_most "$2" $(($1 * 5 / 4 + 16384)) 'KiB resident'
}

@test "readers see right bytes only, whatever an attacker does beside them" {
	local i seconds=${SOAK_SECONDS:-20} a b
	# The sanitizer keeps what was freed, 256 MiB by default: that is no leak.
	if [[ ${SANITIZED:-} ]]; then
		seconds=${SOAK_SECONDS:-60}
		export ASAN_OPTIONS=${ASAN_OPTIONS:-}:quarantine_size_mb=8
	fi
	start_registry
	EVIL=127.0.0.1:$(free_port)
	FILES='' NODES=()
	for i in "${!SIZES[@]}"; do
		random_file "$BATS_TEST_TMPDIR/f$i" "${SIZES[i]}"
		push_blob odd/files "$BATS_TEST_TMPDIR/f$i" >/dev/null
		FILES+=$(jq -n --arg p "$BATS_TEST_TMPDIR/f$i" --arg d \
			"$(push_blob good/files "$BATS_TEST_TMPDIR/f$i")" \
			'{digest: $d, path: $p}')
	done
	foreign_manifest
	a=127.0.0.1:$(free_port) b=127.0.0.1:$(free_port)
	node a "$a" "$b"
	node b "$b" "$a"
	# What the attacker's own places do is told in the log.
	expect_errors "$EVIL"
	expect_errors 'sha256:'
	expect_errors 'a member is benched'
	jq -n --argjson n "$(jq -s . <<<"${NODES[*]}")" --arg e "$EVIL" \
		--argjson f "$(jq -s . <<<"$FILES")" --arg r "$REG" \
		--arg p "$PEERD" --arg seed "${SOAK_SEED:-$SRANDOM}" \
		--argjson s "$seconds" '{seconds: $s, seed: $seed, registry: $r,
		evil: $e, evil_port: ($e | split(":")[1] | tonumber),
		nodes: $n, peerd: $p, files: $f}' >"$BATS_TEST_TMPDIR/config"
	python3 "$ROOT/tests/mount/soak.py" "$BATS_TEST_TMPDIR/config" \
		>"$BATS_TEST_TMPDIR/said" || {
		cat "$BATS_TEST_TMPDIR/said" >&2
		return 1
	}
	cat "$BATS_TEST_TMPDIR/said"
	# The first quarter warms up.
	jq -r '.resident_kib as $m | range($m[0] | length) |
		"\($m[1][.]) \($m[3][.])"' <"$BATS_TEST_TMPDIR/said" |
		while read -r before after; do
			flat "$before" "$after"
		done
	# Nothing is bad in the end, and all of it is what it was.
	for i in "${!SIZES[@]}"; do
		cmp "$(blob_path good/files "$(jq -r -s ".[$i].digest" \
			<<<"$FILES")")" "$BATS_TEST_TMPDIR/f$i"
	done
}
