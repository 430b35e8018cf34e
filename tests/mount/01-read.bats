#!/usr/bin/env bats
# What the mount shows, read in every way, and how little is fetched for it.

load ../lib/common

setup_file()
{
	start_registry
	export FILES=$BATS_FILE_TMPDIR/files
	mkdir -p "$FILES"
	random_file "$FILES/big" $((300 * MiB))
	random_file "$FILES/small" $((5 * MiB + 12345))
	printf 'one line\n' >"$FILES/notes.txt"
	BIG=$(push_blob team/data "$FILES/big")
	SMALL=$(push_blob team/data "$FILES/small")
	ARTIFACT=$(push_artifact team/files v1 "$FILES/notes.txt" \
		"dir/inner.bin=$FILES/small")
	push_image library/hello v1
	export BIG SMALL ARTIFACT
}

setup()
{
	start_peerd
}

# The layers of team/files:v1 for several platforms, under one tag.
push_index()
{
	local dir=$BATS_TEST_TMPDIR arch manifests='[]' digest
	for arch in amd64 arm64 s390x riscv64; do
		printf '{"architecture":"%s","os":"linux"}' $arch >"$dir/cfg"
		digest=$(push_blob team/multi "$dir/cfg")
		jq -n --arg c "$digest" --argjson s "$(stat -c %s "$dir/cfg")" '{
			schemaVersion: 2,
			mediaType: "application/vnd.oci.image.manifest.v1+json",
			config: {
			mediaType: "application/vnd.oci.image.config.v1+json",
			digest: $c, size: $s}, layers: []}' >"$dir/m-$arch"
		digest=$(push_manifest team/multi "$arch" "$dir/m-$arch")
		manifests=$(jq -c --arg d "$digest" --arg a $arch \
			--argjson s "$(stat -c %s "$dir/m-$arch")" '. + [{
			mediaType: "application/vnd.oci.image.manifest.v1+json",
			digest: $d, size: $s,
			platform: {os: "linux", architecture: $a}}]' \
			<<<"$manifests")
	done
	jq -n --argjson m "$manifests" '{schemaVersion: 2,
		mediaType: "application/vnd.oci.image.index.v1+json",
		manifests: $m}' >"$dir/index"
	push_manifest team/multi all "$dir/index" \
		application/vnd.oci.image.index.v1+json
}

@test "the tree has its directories, read-only" {
	[[ -d $MNT/blobs/sha256 && -d $MNT/registry && -d $MNT/url ]]
	jq -e . "$MNT/.peerd/status.json" >/dev/null
	for dir in blobs manifests tags; do
		[[ -d $(repo_dir team/data)/$dir ]]
	done
	equal "$(settle_log; grep -c /v2/team "$REG_LOG" || true)" \
		"$(grep -c /v2/team "$REG_LOG" || true)"
	refute touch "$MNT/x"
	refute rm "$(blob_path team/data "$SMALL")"
	refute mkdir "$MNT/registry/x"
}

@test "directories above blobs, manifests and tags ask the registry nothing" {
	mark=$(reg_mark)
	ls -d "$(repo_dir never/seen/before)" "$(repo_dir team/data)/blobs" \
		"$(repo_dir team/data)/tags" "$(repo_dir team/data)/manifests"
	equal "$(reg_mark)" $((mark + 1)) 'requests'
}

@test "a blob of 300 MiB has the right digest, and is fetched once" {
	file=$(blob_path team/data "$BIG")
	equal "$(stat -c %s "$file")" $((300 * MiB)) st_size
	mark=$(reg_mark)
	equal "$(digest_of "$file")" "$BIG"
	equal "$(reg_stat twice "$BIG" "$mark")" 0 'bytes sent twice'
	equal "$(reg_stat bytes "$BIG" "$mark")" $((300 * MiB)) 'bytes sent'
	wait_for "$PATIENCE" is_verified "$file"
	equal "$(digest_of "$MNT/blobs/sha256/${BIG#sha256:}")" "$BIG"
}

@test "cat, dd with odd sizes, and mmap read the same bytes" {
	file=$(blob_path team/data "$SMALL")
	same_at "$file" "$FILES/small" $((3 * MiB - 7)) 777777
	same_at "$file" "$FILES/small" 0 1
	same_at "$file" "$FILES/small" $((5 * MiB + 12000)) 9999
	equal "$(read_at "$file" $((5 * MiB + 12345)) 10 | wc -c)" 0 'at the end'
	cmp <(dd if="$file" bs=513 skip=2049 status=none) \
		<(tail -c +$((513 * 2049 + 1)) "$FILES/small")
	python3 - "$file" "$FILES/small" <<-'END'
		import mmap, random, sys
		files = [open(p, "rb") for p in sys.argv[1:]]
		a, b = (mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
		        for f in files)
		assert len(a) == len(b)
		for _ in range(2000):
		    i = random.randrange(len(b))
		    n = random.randrange(1, 70000)
		    assert a[i:i + n] == b[i:i + n], i
		assert a[:] == b[:]
	END
	cmp "$file" "$FILES/small"
}

@test "O_DIRECT reads give the same bytes" {
	file=$(blob_path team/data "$SMALL")
	cmp <(dd if="$file" bs=64k iflag=direct status=none) "$FILES/small"
}

@test "reading a few bytes fetches one chunk; du shows it" {
	file=$(blob_path team/data "$BIG")
	mark=$(reg_mark)
	same_at "$file" "$FILES/big" $((123 * MiB + 4096)) 64
	at_most "$(reg_stat bytes "$BIG" "$mark")" "$MiB" 'bytes fetched'
	equal "$(reg_stat requests "$BIG" "$mark")" 1 requests
	# The kernel keeps attributes for a moment.
	wait_for 10 eval '(($(stored "$file") == MiB))'
	equal "$(du -k "$file" | cut -f1)" 1024 du
	equal "$(du -k --apparent-size "$file" | cut -f1)" $((300 * 1024))
	equal "$(stat -c %s "$file")" $((300 * MiB)) st_size
	equal "$(xattr cached "$file")" "$MiB"
	equal "$(xattr verified "$file")" no
}

@test "extended attributes tell digest and sources" {
	file=$(blob_path team/data "$SMALL")
	equal "$(xattr digest "$file")" "$SMALL"
	cat "$file" >/dev/null
	wait_for "$PATIENCE" is_verified "$file"
	equal "$(xattr cached "$file")" $((5 * MiB + 12345))
	xattr sources "$file" | grep -qF "$REG/team/data"
	refute xattr nonsense "$file"
	getfattr --absolute-names -d -m '^user\.peerd\.' "$file" |
		grep -c '^user\.peerd\.' | grep -qx 4
}

@test "sixteen readers of a cold file share each byte" {
	file=$(blob_path team/data "$BIG")
	mark=$(reg_mark)
	for i in {1..16}; do
		background "$BATS_TEST_TMPDIR/reader$i" \
			openssl dgst -sha256 -r "$file"
	done
	for i in {1..16}; do
		wait_for 300 ended "$BATS_TEST_TMPDIR/reader$i"
		grep -q "^${BIG#sha256:}" "$BATS_TEST_TMPDIR/reader$i.out"
	done
	equal "$(reg_stat twice "$BIG" "$mark")" 0 'bytes sent twice'
	equal "$(reg_stat asked "$BIG" "$mark")" $((300 * MiB)) 'bytes asked'
}

@test "random readers of a cold file share each chunk" {
	file=$(blob_path team/data "$BIG")
	mark=$(reg_mark)
	cat >"$BATS_TEST_TMPDIR/readers-random.py" <<-'END'
		import os, random, sys
		random.seed(7)
		a, b = (os.open(p, os.O_RDONLY) for p in sys.argv[1:])
		for _ in range(150):
		    i = random.randrange(40 << 20)
		    n = random.randrange(1, 300000)
		    assert os.pread(a, n, i) == os.pread(b, n, i), i
	END
	for i in {1..8}; do
		background "$BATS_TEST_TMPDIR/r$i" python3 \
			"$BATS_TEST_TMPDIR/readers-random.py" "$file" "$FILES/big"
	done
	for i in {1..8}; do
		wait_for 300 ended "$BATS_TEST_TMPDIR/r$i"
		equal "$(<"$BATS_TEST_TMPDIR/r$i.rc")" 0 \
			"reader $i: $(<"$BATS_TEST_TMPDIR/r$i.log")"
	done
	equal "$(reg_stat twice "$BIG" "$mark")" 0 'bytes sent twice'
}

@test "tags are listed, and show manifest, config, layers and files" {
	dir=$(repo_dir team/files)/tags
	equal "$(ls "$dir")" v1
	equal "$(digest_of "$dir/v1/manifest.json")" "$ARTIFACT"
	equal "$(<"$dir/v1/config.json")" '{}'
	equal "$(<"$dir/v1/files/notes.txt")" 'one line'
	cmp "$dir/v1/files/dir/inner.bin" "$FILES/small"
	equal "$(cd "$dir/v1/files" && find . -type f | sort | xargs)" \
		'./dir/inner.bin ./notes.txt'
	equal "$(ls "$dir/v1/layers" | wc -l)" 2
	for layer in "$dir"/v1/layers/*; do
		matches "$(basename "$layer")" '^0[0-9]-[0-9a-f]+$'
	done
	cmp "$dir"/v1/layers/01-* "$FILES/small"
}

@test "an image pushed by skopeo has its layers under the tag" {
	dir=$(repo_dir library/hello)/tags/v1
	jq -e '.rootfs.type == "layers"' "$dir/config.json"
	n=$(jq '.layers | length' "$dir/manifest.json")
	equal "$(ls "$dir/layers" | wc -l)" "$n"
	for ((i = 0; i < n; i++)); do
		equal "$(digest_of "$dir"/layers/0$i-*)" \
			"$(jq -r ".layers[$i].digest" "$dir/manifest.json")"
	done
}

@test "a tag that is an index shows it, and this platform's manifest" {
	index=$(push_index)
	dir=$(repo_dir team/multi)/tags/all
	equal "$(digest_of "$dir/index.json")" "$index"
	case $(uname -m) in
	x86_64) arch=amd64 ;;
	aarch64) arch=arm64 ;;
	*) arch=$(uname -m) ;;
	esac
	equal "$(jq -r .architecture "$dir/config.json")" "$arch"
	cmp "$dir/manifest.json" "$BATS_TEST_TMPDIR/m-$arch"
}

# index TAG ENTRY...: pushes an index of these JSON entries; prints its entry.
index()
{
	local tag=$1 file=$BATS_TEST_TMPDIR/index-$1
	shift
	printf '%s\n' "$@" | jq -s '{schemaVersion: 2,
		mediaType: "application/vnd.oci.image.index.v1+json",
		manifests: .}' >"$file"
	push_manifest team/multi "$tag" "$file" \
		application/vnd.oci.image.index.v1+json >/dev/null
	entry "$file" application/vnd.oci.image.index.v1+json null
}

# entry FILE TYPE PLATFORM: a descriptor.
entry()
{
	jq -nc --arg d "$(digest_of "$1")" --arg t "$2" --argjson p "$3" \
		--argjson s "$(stat -c %s "$1")" '{mediaType: $t, digest: $d,
		size: $s} + if $p then {platform: $p} else {} end'
}

@test "indexes: nested, without a platform, none for this one, empty" {
	local type=application/vnd.oci.image.manifest.v1+json other inner
	push_index
	dir=$BATS_TEST_TMPDIR
	other=$(entry "$dir/m-s390x" $type '{"os":"linux","architecture":"mips"}')
	bare=$(entry "$dir/m-arm64" $type null)
	inner=$(index inner "$other")
	index nested "$inner" "$(index all2 "$(entry "$dir/m-amd64" $type \
		"{\"os\":\"linux\",\"architecture\":\"$(uname -m)\"}")")"
	index bare "$other" "$bare"
	index none "$other"
	index empty
	tags=$(repo_dir team/multi)/tags
	cmp "$tags/nested/manifest.json" "$dir/m-amd64"
	cmp "$tags/bare/manifest.json" "$dir/m-arm64"
	peerd pull "$REG/team/multi:nested"
	peerd pull "$REG/team/multi:bare"
	for tag in none inner; do
		refute test -e "$tags/$tag/manifest.json"
		run peerd pull "$REG/team/multi:$tag"
		refute test "$status" = 0
		matches "$output" 'has no image for linux/.*, but for linux/mips'
	done
	run peerd pull "$REG/team/multi:empty"
	refute test "$status" = 0
	matches "$output" 'has no image for linux/'
}

@test "manifests are read by tag and by digest" {
	dir=$(repo_dir team/files)/manifests
	equal "$(digest_of "$dir/$ARTIFACT")" "$ARTIFACT"
	equal "$(digest_of "$dir/v1")" "$ARTIFACT"
	equal "$(stat -c %s "$dir/v1")" "$(wc -c <"$dir/$ARTIFACT")"
}

@test "a tag that moves is seen when it is no longer fresh" {
	stop_peerd
	start_peerd --tag-fresh 100ms
	echo first >"$BATS_TEST_TMPDIR/f"
	push_artifact team/moving now "$BATS_TEST_TMPDIR/f"
	file=$(repo_dir team/moving)/tags/now/files/f
	equal "$(<"$file")" first
	echo second >"$BATS_TEST_TMPDIR/f"
	push_artifact team/moving now "$BATS_TEST_TMPDIR/f"
	wait_for 20 eval '[[ $(<"$file") == second ]]'
}

@test "an empty blob can be read" {
	: >"$BATS_TEST_TMPDIR/empty"
	digest=$(push_blob team/data "$BATS_TEST_TMPDIR/empty")
	file=$(blob_path team/data "$digest")
	equal "$(stat -c %s "$file")" 0
	equal "$(wc -c <"$file")" 0
}

@test "blobs/ lists what is known, and a restart keeps names and inodes" {
	file=$(blob_path team/data "$SMALL")
	cat "$file" >/dev/null
	ls "$MNT/blobs/sha256" | grep -qx "${SMALL#sha256:}"
	inode=$(stat -c %i "$file" "$MNT/blobs/sha256/${SMALL#sha256:}")
	stop_peerd
	start_peerd
	equal "$(stat -c %i "$(blob_path team/data "$SMALL")" \
		"$MNT/blobs/sha256/${SMALL#sha256:}")" "$inode" inodes
	cmp "$MNT/blobs/sha256/${SMALL#sha256:}" "$FILES/small"
}

@test "read-ahead of the mount is raised" {
	need_root
	kib=$(cat "/sys/class/bdi/$(mountpoint -d "$MNT")/read_ahead_kb")
	at_least "$kib" 1024 'read_ahead_kb'
}
