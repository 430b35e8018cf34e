#!/usr/bin/env bats
# A cache smaller than what is read.

load ../lib/common

setup_file()
{
	start_registry
	export FILES=$BATS_FILE_TMPDIR/files
	mkdir -p "$FILES"
	for i in 1 2 3 4; do
		random_file "$FILES/f$i" $((40 * MiB + i))
		push_blob evict/data "$FILES/f$i" >"$FILES/d$i"
	done
}

nth()
{
	blob_path evict/data "$(<"$FILES/d$1")"
}

cache_bytes()
{
	du -s -B 1 "$CACHE/blobs" | cut -f1
}

@test "readers of more than the cache holds get the right bytes" {
	start_peerd --cache-size 48MiB
	for i in 1 2 3 4; do
		background "$BATS_TEST_TMPDIR/seq$i" bash -c \
			'for n in 1 2; do cmp "$0" "$1" || exit 1; done' \
			"$(nth $i)" "$FILES/f$i"
	done
	cat >"$BATS_TEST_TMPDIR/readers-random.py" <<-'END'
		import os, random, sys
		a, b = (os.open(p, os.O_RDONLY) for p in sys.argv[1:])
		for _ in range(400):
		    i = random.randrange(40 << 20)
		    n = random.randrange(1, 200000)
		    assert os.pread(a, n, i) == os.pread(b, n, i), i
	END
	for i in 1 3; do
		background "$BATS_TEST_TMPDIR/rnd$i" python3 \
			"$BATS_TEST_TMPDIR/readers-random.py" "$(nth $i)" "$FILES/f$i"
	done
	most=0
	for name in seq1 seq2 seq3 seq4 rnd1 rnd3; do
		until ended "$BATS_TEST_TMPDIR/$name"; do
			now=$(cache_bytes)
			((now <= most)) || most=$now
			((SECONDS < 400))
			sleep 0.05
		done
		equal "$(<"$BATS_TEST_TMPDIR/$name.rc")" 0 \
			"$name: $(<"$BATS_TEST_TMPDIR/$name.log")"
	done
	# Writers wait 64 MiB above the limit (store/blob.c, keep_to_limit()), and
	# each of them writes one chunk then.
	[[ ${SANITIZED:-} ]] ||
		at_most "$most" $(((48 + 64 + 16) * MiB)) 'largest size of the cache'
	wait_for "$PATIENCE" eval '(($(cache_bytes) <= 48 * MiB))'
}

@test "what is used again stays, what is old goes" {
	start_peerd --cache-size 64MiB
	cat "$(nth 1)" >/dev/null
	cat "$(nth 2)" >/dev/null
	wait_for "$PATIENCE" eval '(($(cache_bytes) <= 64 * MiB))'
	at_least "$(xattr cached "$(nth 2)")" $((30 * MiB)) 'of the newer'
	at_most "$(xattr cached "$(nth 1)")" $((34 * MiB)) 'of the older'
	cmp "$(nth 1)" "$FILES/f1"
}

@test "evict drops a blob's chunks, and they are fetched again" {
	start_peerd
	digest=$(<"$FILES/d1")
	cmp "$(nth 1)" "$FILES/f1"
	peerd evict "$digest"
	wait_for 10 eval '(($(stored "$(nth 1)") == 0))'
	equal "$(xattr cached "$(nth 1)")" 0
	mark=$(reg_mark)
	cmp "$(nth 1)" "$FILES/f1"
	# The kernel may still hold pages of it.
	drop_caches
	cmp "$(nth 1)" "$FILES/f1"
	equal "$(reg_stat asked "$digest" "$mark")" $((40 * MiB + 1))
}

@test "evict --all empties the cache under a reader" {
	start_peerd
	background "$BATS_TEST_TMPDIR/reader" bash -c \
		'for i in 1 2 3 4 5; do cmp "$0" "$1" || exit 1; done' \
		"$(nth 3)" "$FILES/f3"
	for i in 1 2 3 4 5 6 7 8; do
		peerd evict --all
		drop_caches
	done
	wait_for 120 ended "$BATS_TEST_TMPDIR/reader"
	equal "$(<"$BATS_TEST_TMPDIR/reader.rc")" 0
	peerd evict --all
	at_most "$(cache_bytes)" $((8 * MiB))
}

# large_manifest N: pushes one of 3.9 MB and prints its digest.
large_manifest()
{
	python3 - "$1" >"$BATS_TEST_TMPDIR/manifest" <<-'END'
		import json, sys
		kind = "application/vnd.oci."
		empty = {"mediaType": kind + "empty.v1+json", "size": 2,
		         "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4f"
		                   "c21fe77e8310c060f61caaff8a"}
		print(json.dumps({
		    "schemaVersion": 2,
		    "mediaType": kind + "image.manifest.v1+json",
		    "config": empty, "layers": [empty],
		    "annotations": {"n": sys.argv[1], "pad": "x" * 3900000}}))
	END
	push_manifest evict/manifests "v$1" "$BATS_TEST_TMPDIR/manifest"
}

@test "manifests are counted, bounded and evicted" {
	local digest evicted=0
	echo -n '{}' >"$BATS_TEST_TMPDIR/empty"
	push_blob evict/manifests "$BATS_TEST_TMPDIR/empty"
	for i in {1..12}; do
		large_manifest "$i"
	done >"$BATS_TEST_TMPDIR/digests"
	start_peerd --cache-size 64MiB
	for i in {1..12}; do
		peerd pull --quiet "$REG/evict/manifests:v$i"
	done
	# An eighth of the cache is two of them.
	at_least "$(peerd status --json | jq .cache.manifest_bytes)" 3900000
	at_most "$(peerd status --json | jq .cache.manifest_bytes)" $((8 * MiB))
	at_most "$(stat -c %s "$CACHE/index/data.mdb")" $((32 * MiB))
	peerd status | grep -E 'cache .*[12] manifests, [37]'
	# One or two are left: those of the last second, in any order.
	while read -r digest; do
		! peerd evict "$digest" || ((++evicted))
	done <"$BATS_TEST_TMPDIR/digests"
	at_least "$evicted" 1
	at_most "$evicted" 2
	# A tag whose manifest is gone is asked again.
	equal "$(peerd status --json | jq .cache.manifest_bytes)" 0
	peerd pull --quiet "$REG/evict/manifests:v12"
}

@test "a smaller --cache-size at the next start is kept to" {
	start_peerd
	cat "$(nth 1)" "$(nth 2)" >/dev/null
	stop_peerd
	start_peerd --cache-size 20MiB
	wait_for "$PATIENCE" eval '(($(cache_bytes) <= 20 * MiB))'
	cmp "$(nth 2)" "$FILES/f2"
}
