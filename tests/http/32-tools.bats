#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2119,SC2120,SC2154
# Other people's tools through the mirror and through /blobs/.

load ../lib/common
load ../lib/http

setup_file()
{
	start_registry
	push_image team/app v1
	export FILES=$BATS_FILE_TMPDIR/www
	mkdir -p "$FILES/signed" "$FILES/a" "$FILES/b"
	random_file "$FILES/disk.raw" $((24 * MiB))
	# A hole, as images have.
	dd if=/dev/zero of="$FILES/disk.raw" bs=1M seek=10 count=5 \
		conv=notrunc status=none
	qemu-img convert -f raw -O qcow2 "$FILES/disk.raw" "$FILES/disk.qcow2"
	random_file "$FILES/a/layer" 3000007
	random_file "$FILES/b/layer" 3000007
	random_file "$FILES/blob" $((4 * MiB + 99))
	BLOB=$(digest_of "$FILES/blob")
	HEX=${BLOB#sha256:}
	# As the storage of registries has them.
	for dir in "store//docker/registry/v2/blobs/sha256/${HEX:0:2}/$HEX" \
		"wrong/docker/registry/v2/blobs/sha256/${HEX:0:2}/$HEX"; do
		mkdir -p "$FILES/$dir"
	done
	cp "$FILES/blob" \
		"$FILES/store/docker/registry/v2/blobs/sha256/${HEX:0:2}/$HEX/data"
	random_file "$FILES/wrong/docker/registry/v2/blobs/sha256/${HEX:0:2}/$HEX/data" \
		$((4 * MiB + 99))
	cp "$FILES/blob" "$FILES/sha256:$HEX"
	WEB=127.0.0.1:$(free_port)
	WEBLOG=$BATS_FILE_TMPDIR/web/access.log
	mkdir -p "$BATS_FILE_TMPDIR/web"
	nginx_start "$BATS_FILE_TMPDIR/web/nginx" "server {
		listen $WEB;
		root $FILES;
		access_log $WEBLOG requests;
		location /signed/ {
			if (\$arg_sig != good) { return 403; }
			alias $FILES/;
		}
		location = /to-link { return 302 http://169.254.169.254/x; }
		location = /to-host { return 302 http://localhost:${WEB#*:}/blob; }
		location = /to-blob { return 302 http://$WEB/blob; }
	}"
	wait_for 20 curl -s -o /dev/null "http://$WEB/"
	export BLOB HEX WEB WEBLOG
}

setup()
{
	case $BATS_TEST_DESCRIPTION in
	*refused*) start_mirror ;;
	*) start_mirror --hosts "$REG" --blobs-allow "$WEB" --tag-fresh 100ms ;;
	esac
	BLOBS=http://$HTTP/blobs
}

# web_stat FIELD PATTERN: as reg_stat, of the web server.
web_stat()
{
	local mark=/settle-$RANDOM$RANDOM
	curl -s -o /dev/null "http://$WEB$mark"
	wait_for 10 grep -q "$mark" "$WEBLOG"
	"$LIB/ranges.py" "$WEBLOG" "$2" --from "${3:-0}" |
		sed -n "s/^$1 //p"
}

web_mark()
{
	web_stat requests nothing >/dev/null
	wc -l <"$WEBLOG"
}

registries_conf()
{
	cat >"$BATS_TEST_TMPDIR/registries.conf" <<-END
		[[registry]]
		location = "$REG"
		insecure = true
		[[registry.mirror]]
		location = "$HTTP"
		insecure = true
	END
	export CONTAINERS_REGISTRIES_CONF=$BATS_TEST_TMPDIR/registries.conf
}

# Whether every request of the registry since line $1 was peerd's.
only_peerd_asked()
{
	settle_log
	tail -n +"$(($1 + 1))" "$REG_LOG" | grep -v settle- |
		jq -r .agent | grep -cv '^peerd/' | grep -qx 0
}

@test "skopeo copies an image through its mirror" {
	registries_conf
	mark=$(reg_mark)
	skopeo --insecure-policy \
		--registries-conf "$CONTAINERS_REGISTRIES_CONF" \
		copy --quiet "docker://$REG/team/app:v1" \
		"dir:$BATS_TEST_TMPDIR/image"
	only_peerd_asked "$mark"
	n=0
	for digest in $(jq -r '.config.digest, .layers[].digest' \
		"$BATS_TEST_TMPDIR/image/manifest.json"); do
		equal "$(digest_of "$BATS_TEST_TMPDIR/image/${digest#*:}")" \
			"$digest"
		n=$((n + 1))
	done
	at_least $n 3
}

@test "buildah pulls an image through its mirror" {
	command -v buildah >/dev/null || missing 'needs buildah'
	need_root_mount
	registries_conf
	mark=$(reg_mark)
	echo '{"default":[{"type":"insecureAcceptAnything"}]}' \
		>"$BATS_TEST_TMPDIR/policy.json"
	store=(--root "$BATS_TEST_TMPDIR/root" --storage-driver vfs
		--runroot "$BATS_TEST_TMPDIR/run")
	buildah "${store[@]}" pull --quiet \
		--signature-policy "$BATS_TEST_TMPDIR/policy.json" \
		"docker://$REG/team/app:v1" 2>&1
	only_peerd_asked "$mark"
	name=$(buildah "${store[@]}" from --pull-never \
		--signature-policy "$BATS_TEST_TMPDIR/policy.json" \
		"$REG/team/app:v1")
	root=$(buildah "${store[@]}" mount "$name")
	equal "$(<"$root/etc/greeting")" 'hello from layer one'
	buildah "${store[@]}" umount "$name" >/dev/null
}

# Without ns: the path tells the registry.
@test "podman pulls from two registries through one mirror" {
	command -v podman >/dev/null || missing 'needs podman'
	need_root_mount
	local one=$REG image id mark
	start_registry other
	push_image team/app v1
	stop_peerd
	start_mirror --hosts "$one" --hosts "$REG"
	mark=$(reg_mark)
	for image in "$one" "$REG"; do
		cat <<-END
			[[registry]]
			location = "$image"
			insecure = true
			[[registry.mirror]]
			location = "$HTTP/${image/:/__}"
			insecure = true
		END
	done >"$BATS_TEST_TMPDIR/registries.conf"
	export CONTAINERS_REGISTRIES_CONF=$BATS_TEST_TMPDIR/registries.conf
	echo '{"default":[{"type":"insecureAcceptAnything"}]}' \
		>"$BATS_TEST_TMPDIR/policy.json"
	for image in "$one" "$REG"; do
		id=$(podman --root "$BATS_TEST_TMPDIR/root" \
			--runroot "$BATS_TEST_TMPDIR/run" --storage-driver vfs \
			pull --quiet \
			--signature-policy "$BATS_TEST_TMPDIR/policy.json" \
			"$image/team/app:v1")
		equal "sha256:$id" "$(curl -sf \
			"http://$image/v2/team/app/manifests/v1" \
			-H 'Accept: application/vnd.oci.image.manifest.v1+json' |
			jq -r .config.digest)"
	done
	settle_log
	tail -n +$((mark + 1)) "$REG_LOG" | grep -q '"agent":"peerd/'
	refute grep -E '"agent":"containers/' <(tail -n +$((mark + 1)) \
		"$REG_LOG")
}

# nbd FILTER-AND-PLUGIN...: a disk served by nbdkit, at NBD.
nbd()
{
	NBD=$BATS_TEST_TMPDIR/nbd-$RANDOM
	background "$NBD.kit" nbdkit -f -U "$NBD" "$@"
	wait_for 20 test -S "$NBD"
}

@test "nbdkit and qemu-img read disk images through /blobs/" {
	nbd curl "url=$BLOBS/http://$WEB/disk.raw" protocols=http
	qemu-img convert -f raw -O raw "nbd:unix:$NBD" \
		"$BATS_TEST_TMPDIR/copy.raw"
	cmp "$BATS_TEST_TMPDIR/copy.raw" "$FILES/disk.raw"
	equal "$(web_stat twice /disk.raw)" 0 'bytes sent twice'
	nbd curl "url=$BLOBS/http://$WEB/disk.qcow2" protocols=http
	qemu-img convert -f qcow2 -O raw "nbd:unix:$NBD" \
		"$BATS_TEST_TMPDIR/copy2.raw"
	cmp "$BATS_TEST_TMPDIR/copy2.raw" "$FILES/disk.raw"
	equal "$(web_stat twice /disk.qcow2)" 0 'bytes sent twice'
}

@test "a block driver that reads little fetches little" {
	random_file "$FILES/large" $((32 * MiB))
	nbd curl "url=$BLOBS/http://$WEB/large" protocols=http
	qemu-img dd -f raw -O raw bs=4096 skip=5000 count=5001 \
		"if=nbd:unix:$NBD" "of=$BATS_TEST_TMPDIR/part"
	cmp <(tail -c 4096 "$BATS_TEST_TMPDIR/part") \
		<(slice "$FILES/large" $((5000 * 4096)) 4096)
	at_most "$(web_stat asked /large)" $((4 * MiB)) 'bytes asked'
}

@test "ranges, HEAD and conditions of /blobs/" {
	url=$BLOBS/http://$WEB/disk.raw
	size=$((24 * MiB))
	clients parts "$FILES/disk.raw" "$url" 0-1,5-9,-3
	equal "$(status_of -r 0-1,5-9,-3 "$url")" 206
	equal "$(header_of Content-Length -I "$url")" $size
	cmp <(curl -sf -r 1000-2000000 "$url") \
		<(slice "$FILES/disk.raw" 1000 1999001)
	refuses 416 RANGE_INVALID -r $size- "$url"
	etag=$(header_of ETag -I "$url")
	matches "$etag" '^"[0-9a-f]{64}"$'
	equal "$(status_of -H "If-None-Match: $etag" "$url")" 304
	# As some clients clean paths.
	cmp <(curl -sf "$BLOBS/http:/$WEB/disk.raw") "$FILES/disk.raw"
	cmp <(curl -sf "$BLOBS/http://$WEB/to-blob") "$FILES/blob"
}

@test "a signature is used, and never written anywhere" {
	url="$BLOBS/http://$WEB/signed/blob?sv=1&sig=good&se=2030-01-01"
	cmp <(curl -sf "$url") "$FILES/blob"
	refuses 403 DENIED "$BLOBS/http://$WEB/signed/disk.raw?sig=b4dsecret"
	cmp <(curl -sf -r 0-99 \
		"$BLOBS/http://$WEB/signed/disk.qcow2?x=y&sig=good") \
		<(slice "$FILES/disk.qcow2" 0 100)
	stop_peerd
	refute grep -raqE 'sig=|b4dsecret|2030-01-01' "$CACHE" "$PEERD_LOG"
	# It was in the requests, so the search would have found it.
	grep -q 'sig=good' "$WEBLOG"
}

@test "two URLs never share content" {
	cmp <(curl -sf "$BLOBS/http://$WEB/a/layer") "$FILES/a/layer"
	cmp <(curl -sf "$BLOBS/http://$WEB/b/layer") "$FILES/b/layer"
	# The same name at another host, with the same length and date.
	touch -d @1700000000 "$FILES/a/layer" "$FILES/b/layer"
	for dir in b a; do
		cmp <(curl -sf "$BLOBS/http://$WEB/$dir/layer") \
			"$FILES/$dir/layer"
	done
}

@test "another ETag is another content" {
	random_file "$FILES/changing" 2500000
	url=$BLOBS/http://$WEB/changing
	cmp <(curl -sf "$url") "$FILES/changing"
	etag=$(header_of ETag -I "$url")
	random_file "$FILES/changing.new" 2500000
	touch -d '+1 minute' "$FILES/changing.new"
	mv "$FILES/changing.new" "$FILES/changing"
	wait_for 20 eval 'curl -sf "$url" | cmp - "$FILES/changing"'
	refute test "$(header_of ETag -I "$url")" = "$etag"
}

@test "a digest in the URL is the key, and is checked" {
	mark=$(web_mark)
	data=docker/registry/v2/blobs/sha256/${HEX:0:2}/$HEX/data
	for path in "sha256:$HEX" "store//$data?se=2030&sig=secret1" \
		"store/$data?X-Amz-Signature=secret2" "sha256%3A$HEX"; do
		cmp <(curl -sf "$BLOBS/http://$WEB/$path") "$FILES/blob"
		equal "$(header_of ETag -I "$BLOBS/http://$WEB/$path")" \
			"\"$BLOB\""
	done
	equal "$(web_stat bytes "$HEX" "$mark")" $((4 * MiB + 99)) 'bytes'
	# It is the mirror's blob, too, and a file's.
	cmp <(curl -sf "http://$HTTP/v2/any/name/blobs/$BLOB") "$FILES/blob"
	cmp "$MNT/blobs/sha256/$HEX" "$FILES/blob"
	peerd ls | grep -q "$HEX"
	# What does not match the digest is never served whole.
	peerd evict --all >/dev/null
	stop_peerd
	CACHE=$BATS_TEST_TMPDIR/cache2
	start_mirror --blobs-allow "$WEB" --read-timeout 3s --mirror-timeout 3s
	expect_errors 'digest|read failed|does not match'
	rc=0
	code=$(curl -s -o "$BATS_TEST_TMPDIR/got" -w '%{http_code}' \
		"$BLOBS/http://$WEB/wrong/$data") || rc=$?
	refute test "$rc $code" = '0 200'
	stop_peerd
	refute grep -raqE 'secret1|secret2|sig=' "$CACHE" \
		"$BATS_TEST_TMPDIR/cache" "$BATS_TEST_TMPDIR"/peerd.*.log
}

@test "targets on this host or link are refused" {
	port=${WEB#*:}
	for target in "http://$WEB/blob" "http://localhost:$port/blob" \
		"http://a.localhost:$port/blob" "http://127.1:$port/blob" \
		"http://2130706433:$port/blob" "http://0x7f000001:$port/blob" \
		"http://0:$port/blob" "http://[::1]:$port/blob" \
		"http://[::ffff:127.0.0.1]:$port/blob" \
		"http://169.254.169.254/latest/meta-data" \
		"http://[fe80::1]/x" "http://0.0.0.0:$port/blob"; do
		refuses '400|403' 'DENIED|NAME_INVALID' -g "$BLOBS/$target"
	done
	for target in file:///etc/passwd ftp://example.com/x gopher://x/ \
		//etc/passwd etc/passwd '' http:// http:///x https://:443/x \
		http://user:pass@example.com/x 'http://exa%6dple.com:99999/'; do
		refuses 400 NAME_INVALID -g "$BLOBS/$target"
	done
	refuses 405 UNSUPPORTED -X POST "$BLOBS/http://example.com/x"
	equal "$(status_of "http://$HTTP/v2/")" 200
}

@test "names that lead to this host are refused" {
	# A name of this test's own, in a mount namespace of its own.
	own=$BATS_TEST_TMPDIR/hosts
	printf '127.0.0.1 localhost inner.example\n' >"$own"
	mount --bind "$own" /etc/hosts 2>/dev/null ||
		missing 'needs a mount namespace'
	port=${WEB#*:}
	equal "$(status_of "http://inner.example:$port/blob")" 200
	mark=$(web_mark)
	refuses 403 DENIED "$BLOBS/http://inner.example:$port/blob"
	equal "$(web_stat requests /blob "$mark")" 0
	# Not in the mount either.
	run cat "$MNT/url/http/inner.example:$port/blob"
	matches "$output" 'Permission denied'
	equal "$(web_stat requests /blob "$mark")" 0
	refuses 403 DENIED "$BLOBS/http://inner.example:$port/a/layer"
	umount /etc/hosts
}

@test "a redirect to this host or link is followed only if allowed" {
	# The redirecting server is named, and so may be asked.
	refuses 403 DENIED "$BLOBS/http://$WEB/to-host"
	refuses 403 DENIED "$BLOBS/http://$WEB/to-link"
	cmp <(curl -sf "$BLOBS/http://$WEB/to-blob") "$FILES/blob"
}
