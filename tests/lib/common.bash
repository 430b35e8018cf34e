# shellcheck shell=bash disable=SC2034,SC2016
# For the tests of the daemon as a whole: real registries, real mounts.
#
# A test file loads this, starts what it needs (start_registry, start_peerd),
# and need not stop anything: teardown() stops every daemon that the test
# started and fails the test if one of them crashed, would not stop, or logged
# an error the test did not announce (expect_errors). Nothing waits by time
# alone: wait_for() polls for a condition within a limit.

# The benchmarks use this file too, without bats.
[[ ! ${BATS_VERSION:-} ]] || bats_require_minimum_version 1.5.0

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
LIB=$ROOT/tests/lib
BUILD=${BUILD:-build}
BIN=${BIN:-bin}
[[ $BUILD == /* ]] || BUILD=$ROOT/$BUILD
[[ $BIN == /* ]] || BIN=$ROOT/$BIN
PEERD=$BIN/peerd
MiB=$((1024 * 1024))
# Several daemons run at once; a test that wants HTTP gives an address.
export PEERD_HTTP_ADDR=none PEERD_PROM_ADDR=none
# Sanitizers are slow; nothing here measures time closely.
PATIENCE=${PATIENCE:-60}

ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:exitcode=99
UBSAN_OPTIONS=print_stacktrace=1
TSAN_OPTIONS=halt_on_error=0:exitcode=99:second_deadlock_stack=1
TSAN_OPTIONS+=:suppressions=$ROOT/tests/lib/tsan.supp
# In a test reports go to files, so that none is lost with the output of a
# command that was expected to fail.
if [[ ${BATS_RUN_TMPDIR:-} ]]; then
	REPORT=$BATS_RUN_TMPDIR/sanitizer
	ASAN_OPTIONS+=:log_path=$REPORT
	UBSAN_OPTIONS+=:log_path=$REPORT
	TSAN_OPTIONS+=:log_path=$REPORT
fi
export ASAN_OPTIONS UBSAN_OPTIONS TSAN_OPTIONS

# ---- Small things ----

# wait_for SECONDS COMMAND...: until it succeeds. It waits at
# least $PATIENCE seconds, because a slow machine or disk is no failure.
wait_for()
{
	local end=$((SECONDS + ($1 > PATIENCE ? $1 : PATIENCE)))
	shift
	until "$@" >/dev/null 2>&1; do
		if ((SECONDS > end)); then
			echo "gave up waiting for: $*" >&2
			return 1
		fi
		sleep 0.05
	done
}

# Bash ignores "! command" under set -e.
refute()
{
	if "$@"; then
		echo "succeeded, but should not have: $*" >&2
		return 1
	fi
}

equal()
{
	if [[ $1 != "$2" ]]; then
		printf '%s: "%s" is not "%s"\n' "${3:-values differ}" "$1" \
			"$2" >&2
		return 1
	fi
}

at_most()
{
	if (($1 > $2)); then
		echo "${3:-too much}: $1 is more than $2" >&2
		return 1
	fi
}

at_least()
{
	if (($1 < $2)); then
		echo "${3:-too little}: $1 is less than $2" >&2
		return 1
	fi
}

matches()
{
	if ! [[ $1 =~ $2 ]]; then
		printf '"%s" does not match %s\n' "$1" "$2" >&2
		return 1
	fi
}

# missing WHAT: skips the test, or fails it when STRICT is set.
missing()
{
	if [[ ${STRICT:-} ]]; then
		echo "skipped under STRICT: $1" >&2
		return 1
	fi
	skip "$1"
}

need_root()
{
	((EUID == 0)) || missing 'needs root'
}

# buildah and runc change the propagation of /, which has to be a mount for that.
need_root_mount()
{
	mountpoint -q / || missing 'needs / to be a mount: in a plain chroot it'\
' is none (mount --bind the directory on itself, as scripts/test-in-root does)'
}

# Below the ephemeral ports: the kernel could give one of those to a connection
# before the server listens.
free_port()
{
	python3 -c 'import random, socket
for port in random.sample(range(10000, 32768), 100):
    try:
        socket.socket().bind(("127.0.0.1", port))
        print(port)
        break
    except OSError:
        pass
else:
    raise SystemExit("no port is free")'
}

# random_file PATH BYTES: incompressible, and different each time.
random_file()
{
	head -c "$2" /dev/zero |
		openssl enc -aes-128-ctr -nosalt -pass "pass:$RANDOM$$$SRANDOM" \
			-md sha256 2>/dev/null >"$1"
}

# Much faster than sha256sum where the processor knows SHA.
digest_of()
{
	local sum
	sum=$(openssl dgst -sha256 -r -- "$1")
	echo "sha256:${sum%% *}"
}

now_ms()
{
	echo $((${EPOCHREALTIME/./} / 1000))
}

# Milliseconds since a now_ms() of before.
since_ms()
{
	echo $(($(now_ms) - $1))
}

# bats waits for whoever holds its descriptors, whatever their numbers.
close_inherited()
{
	local fd
	for fd in /proc/"$BASHPID"/fd/*; do
		fd=${fd##*/}
		((fd <= 2)) || eval "exec $fd>&-"
	done
}

# background FILE COMMAND...: PID in FILE.pid, status in FILE.rc when it ends,
# whichever process waits for it. Its output goes to FILE.out and FILE.log.
background()
{
	local name=$1
	shift
	rm -f "$name.rc" "$name.pid"
	(
		close_inherited
		"$@" >>"$name.out" 2>>"$name.log" &
		echo $! >"$name.pid.new"
		mv "$name.pid.new" "$name.pid"
		rc=0
		wait $! || rc=$?
		echo $rc >"$name.rc.new"
		mv "$name.rc.new" "$name.rc"
	) </dev/null >/dev/null 2>&1 &
	wait_for 10 test -s "$name.pid"
}

ended()
{
	[[ -s $1.rc ]]
}

# finish FILE SIGNAL [SECONDS]: ends what background() started; its status.
finish()
{
	if ! ended "$1"; then
		kill "-$2" "$(<"$1.pid")" 2>/dev/null || true
	fi
	if ! wait_for "${3:-$PATIENCE}" ended "$1"; then
		kill -KILL "$(<"$1.pid")" || true
		return 200
	fi
	return "$(<"$1.rc")"
}

# ---- Registries ----

log_format='{"time":$msec,"method":"$request_method","uri":"$request_uri",'
log_format+='"status":$status,"range":"$http_range",'
log_format+='"content_range":"$sent_http_content_range",'
log_format+='"length":"$sent_http_content_length","sent":$body_bytes_sent,'
log_format+='"agent":"$http_user_agent","auth":"$http_authorization"}'

# nginx_start NAME SERVERS: an nginx with these server blocks.
nginx_start()
{
	local name=$1 dir=$1.nginx
	mkdir -p "$dir"
	cat >"$name.conf" <<-END
		daemon off;
		master_process off;
		pid $dir/pid;
		error_log stderr error;
		events { worker_connections 1024; }
		http {
			client_body_temp_path $dir/body;
			proxy_temp_path $dir/proxy;
			fastcgi_temp_path $dir/fastcgi;
			uwsgi_temp_path $dir/uwsgi;
			scgi_temp_path $dir/scgi;
			client_max_body_size 0;
			proxy_max_temp_file_size 0;
			proxy_http_version 1.1;
			proxy_set_header Host \$http_host;
			proxy_set_header Connection "";
			log_format requests escape=json '$log_format';
			$2
		}
	END
	background "$name" nginx -p "$dir" -c "$name.conf"
}

# start_registry [--htpasswd USER PASSWORD] [--redirect] [NAME]
#
# docker-registry behind an nginx that logs every request. Sets REG (host:port
# for readers), REG_BACK (host:port of docker-registry itself, for pushing),
# REG_DIR and REG_LOG. With --redirect blobs are answered 307 to a second
# server, which wants a signature in the query and refuses an Authorization
# header; its log is TARGET_LOG, and rotate_signature() makes old ones invalid.
# REG_LOCATIONS, if set, are locations of that nginx, before its own. REG_RATE,
# if set, limits each connection ("4m": MiB/s).
start_registry()
{
	local user='' password='' redirect='' name=registry auth='' middle=''
	while (($#)); do
		case $1 in
		--htpasswd) user=$2 password=$3; shift 2 ;;
		--redirect) redirect=1 ;;
		*) name=$1 ;;
		esac
		shift
	done
	REG_DIR=${BATS_TEST_TMPDIR:-$BATS_FILE_TMPDIR}/$name
	mkdir -p "$REG_DIR"
	REG=127.0.0.1:$(free_port)
	REG_BACK=127.0.0.1:$(free_port)
	REG_LOG=$REG_DIR/access.log
	REG_USER=''
	TARGET=''
	if [[ $user ]]; then
		REG_USER=$user:$password
		htpasswd -Bbn -C 4 "$user" "$password" >"$REG_DIR/htpasswd"
		auth="auth: {htpasswd: {realm: tests, path: $REG_DIR/htpasswd}}"
	fi
	if [[ $redirect ]]; then
		TARGET=127.0.0.1:$(free_port)
		TARGET_LOG=$REG_DIR/target.log
		middle="middleware: {storage: [{name: redirect,
			options: {baseurl: 'http://$TARGET/'}}]}"
	fi
	export REG REG_BACK REG_LOG REG_DIR REG_USER TARGET TARGET_LOG
	cat >"$REG_DIR/config.yml" <<-END
		version: 0.1
		log: {level: error, accesslog: {disabled: true}}
		storage:
		  filesystem: {rootdirectory: $REG_DIR/store, maxthreads: 100}
		  delete: {enabled: true}
		http: {addr: $REG_BACK}
		$auth
		${middle//$'\n'/}
	END
	echo first >"$REG_DIR/signature"
	start_registry_again
}

# With what it held before stop_registry().
start_registry_again()
{
	background "$REG_DIR/distribution" \
		docker-registry serve "$REG_DIR/config.yml"
	front_start
	wait_for 30 curl -sf -u "$REG_USER" "http://$REG/v2/"
}

front_start()
{
	local servers signature
	signature=$(<"$REG_DIR/signature")
	servers="server {
		listen $REG;
		access_log $REG_LOG requests;
		location = /front-status { stub_status; access_log off; }
		${REG_RATE:+limit_rate $REG_RATE;}
		${REG_LOCATIONS:-}
		location / {
			proxy_pass http://$REG_BACK;
			${TARGET:+proxy_redirect ~^(http://$TARGET/.*)\$
				\$1?sig=$signature&x=%2F;}
		}
	}"
	if [[ $TARGET ]]; then
		servers+="
		server {
			listen $TARGET;
			access_log $TARGET_LOG requests;
			if (\$arg_sig != $signature) { return 403; }
			if (\$http_authorization) { return 400; }
			root $REG_DIR/store;
		}"
	fi
	nginx_start "$REG_DIR/front" "$servers"
	wait_for 30 curl -s -o /dev/null "http://$REG/"
}

stop_registry()
{
	finish "$REG_DIR/front" KILL 10 || true
	finish "$REG_DIR/distribution" KILL 10 || true
}

# From now on the redirecting registry signs with another secret.
rotate_signature()
{
	finish "$REG_DIR/front" KILL 10 || true
	echo "$1" >"$REG_DIR/signature"
	front_start
}

# Every finished request is in the log when this returns: nginx is one process
# and writes its log in order.
settle_log()
{
	local mark=/settle-$RANDOM$RANDOM
	curl -s -o /dev/null "http://$REG$mark"
	wait_for 10 grep -q "$mark" "$REG_LOG"
}

# After a client died: its unfinished requests are in the log too.
front_idle()
{
	curl -s "http://$REG/front-status" | grep -qx 'Active connections: 1 '
}

# reg_stat FIELD PATTERN [FIRST LINE]: see ranges.py. Fields: requests, bytes,
# asked, twice, largest.
reg_stat()
{
	settle_log
	"$LIB/ranges.py" "$REG_LOG" "$2" --from "${3:-0}" |
		sed -n "s/^$1 //p"
}

# The number of lines now, for the argument FIRST LINE.
reg_mark()
{
	settle_log
	wc -l <"$REG_LOG"
}

back_curl()
{
	curl -sS -f ${REG_USER:+-u "$REG_USER"} "$@"
}

# push_blob REPOSITORY FILE: prints the digest.
push_blob()
{
	local location digest
	digest=$(digest_of "$2")
	location=$(back_curl -X POST -D - -o /dev/null \
		"http://$REG_BACK/v2/$1/blobs/uploads/" |
		tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
	back_curl -X PUT -T "$2" -H 'Content-Type: application/octet-stream' \
		"$location&digest=$digest" >&2
	echo "$digest"
}

# push_manifest REPOSITORY TAG FILE [TYPE]: prints the digest.
push_manifest()
{
	back_curl -X PUT -T "$3" \
		-H "Content-Type: ${4:-application/vnd.oci.image.manifest.v1+json}" \
		"http://$REG_BACK/v2/$1/manifests/$2" >&2
	digest_of "$3"
}

# push_artifact REPOSITORY TAG [TITLE=]FILE...: an artifact whose layers are
# the files, under their titles. Prints the manifest's digest.
push_artifact()
{
	local repo=$1 tag=$2 dir layers='[]' config file title digest
	dir=$(mktemp -d)
	shift 2
	printf '{}' >"$dir/config"
	config=$(push_blob "$repo" "$dir/config")
	for file; do
		title=$(basename "$file")
		[[ $file != *=* ]] || title=${file%%=*} file=${file#*=}
		digest=$(push_blob "$repo" "$file")
		layers=$(jq -c --arg t "$title" --arg d "$digest" \
			--argjson s "$(stat -c %s "$file")" '. + [{
			mediaType: "application/octet-stream",
			digest: $d, size: $s, annotations:
			{"org.opencontainers.image.title": $t}}]' <<<"$layers")
	done
	jq -n --arg c "$config" --argjson l "$layers" '{schemaVersion: 2,
		mediaType: "application/vnd.oci.image.manifest.v1+json",
		config: {mediaType: "application/vnd.oci.empty.v1+json",
			digest: $c, size: 2}, layers: $l}' >"$dir/manifest"
	push_manifest "$repo" "$tag" "$dir/manifest"
	rm -r "$dir"
}

# push_image REPOSITORY TAG: a two-layer image made with umoci, pushed with
# skopeo; its files are in $REG_DIR/image/.
push_image()
{
	local dir=$REG_DIR/image
	mkdir -p "$dir"
	(
		cd "$dir"
		umoci init --layout oci
		umoci new --image oci:x
		umoci unpack --image oci:x one
		mkdir -p one/rootfs/etc
		echo "hello from layer one" >one/rootfs/etc/greeting
		random_file one/rootfs/blob 3000000
		umoci repack --image oci:x one
		umoci unpack --image oci:x two
		random_file two/rootfs/second 2000000
		umoci repack --image oci:x two
		skopeo --insecure-policy copy --quiet --dest-tls-verify=false \
			${REG_USER:+--dest-creds "$REG_USER"} \
			oci:oci:x "docker://$REG_BACK/$1:$2"
	) >"$dir/log" 2>&1 || {
		cat "$dir/log" >&2
		return 1
	}
}

# docker_config USER PASSWORD [HOST]: a config.json; prints its path.
docker_config()
{
	local file
	file=$(mktemp "$BATS_TEST_TMPDIR/config-XXXXXX.json")
	jq -n --arg h "${3:-$REG}" \
		--arg a "$(printf '%s:%s' "$1" "$2" | base64 -w 0)" \
		'{auths: {($h): {auth: $a}}}' >"$file"
	echo "$file"
}

# start_liar: sets LIAR (host:port); see liar.py.
start_liar()
{
	local dir=${BATS_TEST_TMPDIR:-$BATS_FILE_TMPDIR}/liar
	mkdir -p "$dir"
	background "$dir/liar" "$LIB/liar.py" --port-file "$dir/port" \
		--log "$dir/requests.log"
	wait_for 20 test -s "$dir/port"
	LIAR=127.0.0.1:$(<"$dir/port")
	export LIAR LIAR_DIR=$dir
}

stop_liar()
{
	finish "$LIAR_DIR/liar" KILL 10 || true
}

liar()
{
	curl -sf "http://$LIAR/liar/$1/$2"
}

# ---- The daemon ----

# start_peerd [OPTION...]: sets MNT, CACHE (unless set before), PEERD_RUN and
# PEERD_LOG, and returns when the mount can be used. NO_MOUNT=1: without mount.
start_peerd()
{
	start_peerd_unready "$@"
	if ! wait_for "$PATIENCE" peerd_ready_or_dead || ! peerd_ready; then
		echo 'peerd did not become ready:' >&2
		tail -n 20 "$PEERD_LOG" >&2
		return 1
	fi
}

start_peerd_unready()
{
	local n
	touch "$BATS_TEST_TMPDIR/runs"
	n=$(wc -l <"$BATS_TEST_TMPDIR/runs")
	CACHE=${CACHE:-$BATS_TEST_TMPDIR/cache}
	MNT=${MNT:-$BATS_TEST_TMPDIR/mnt}
	PEERD_RUN=$BATS_TEST_TMPDIR/peerd.$n
	PEERD_LOG=$PEERD_RUN.log
	mkdir -p "$MNT" 2>/dev/null || true
	echo "$PEERD_RUN" >>"$BATS_TEST_TMPDIR/runs"
	background "$PEERD_RUN" "$PEERD" run --cache-dir "$CACHE" \
		--mount "$MNT" --cache-min-free 0 --log-level debug "$@"
}

peerd_ready()
{
	grep -q '"message":"ready"' "$PEERD_LOG"
}

peerd_ready_or_dead()
{
	peerd_ready || ended "$PEERD_RUN"
}

# Ends it as systemd does; it must leave with 0 and take its mount with it.
stop_peerd()
{
	finish "$PEERD_RUN" TERM || {
		echo "peerd ended with status $?:" >&2
		tail -n 20 "$PEERD_LOG" >&2
		return 1
	}
	refute mounted "$MNT"
}

kill_peerd()
{
	finish "$PEERD_RUN" KILL 20 || true
}

peerd_pid()
{
	cat "$PEERD_RUN.pid"
}

# Without touching it: a dead daemon's mount gives errors, a hung one hangs.
mounted()
{
	grep -qF " $1 fuse.peerd " /proc/self/mounts
}

# The command line, as a user would call it.
peerd()
{
	local command=$1
	shift
	"$PEERD" "$command" --cache-dir "$CACHE" "$@"
}

# logged PATTERN [COUNT]: at least so many lines of this run's log.
logged()
{
	(($(grep -cE -- "$1" "$PEERD_LOG") >= ${2:-1}))
}

# expect_errors PATTERN: lines of level error (or reports) that match it are
# part of the test.
expect_errors()
{
	echo "$1" >>"$BATS_TEST_TMPDIR/expected"
}

bad_words='"level":"error"|AddressSanitizer|ThreadSanitizer|LeakSanitizer'
bad_words+='|runtime error:|BUG_ON|BUG:|Assertion|stack smashing'

unexpected_lines()
{
	local file=$BATS_TEST_TMPDIR/expected
	[[ -e $file ]] || echo 'no error is expected' >"$file"
	grep -hE "$bad_words" "$@" | grep -vE -f "$file"
}

teardown()
{
	local bad=0
	[[ ! -e $BATS_TEST_TMPDIR/runs ]] || check_runs || bad=1
	unmount_dead
	kill_services "$BATS_TEST_TMPDIR"
	no_reports || bad=1
	return "$bad"
}

no_reports()
{
	local file bad=0
	for file in "$REPORT".*; do
		[[ -e $file ]] || continue
		sed "s/^/${file##*/}: /" "$file" >&2
		rm "$file"
		bad=1
	done
	return "$bad"
}

# Left by daemons that a test has killed.
unmount_dead()
{
	local point
	while read -r point; do
		umount -l "$point" || fusermount3 -uz "$point" || true
	done < <(awk -v dir="$BATS_TEST_TMPDIR/" '$3 == "fuse.peerd" &&
		index($2, dir) == 1 { print $2 }' /proc/self/mounts)
}

check_runs()
{
	local run bad=0
	while read -r run; do
		if [[ $run != "${PEERD_RUN:-}" ]] || ended "$run"; then
			ended "$run" || finish "$run" KILL || true
			continue
		fi
		stop_peerd || bad=1
	done <"$BATS_TEST_TMPDIR/runs"
	# Crashes show as a status even where no line says so.
	for run in "$BATS_TEST_TMPDIR"/peerd.*.rc; do
		case $(<"$run") in
		99 | 132 | 134 | 135 | 136 | 139)
			echo "$run: crashed: $(<"$run")" >&2
			bad=1
			;;
		esac
	done
	if unexpected_lines "$BATS_TEST_TMPDIR"/peerd.*.log >&2; then
		echo 'lines above were not expected in the log' >&2
		bad=1
	fi
	if ((bad)) || [[ ! ${BATS_TEST_COMPLETED:-} ]]; then
		for run in "$BATS_TEST_TMPDIR"/peerd.*.log; do
			echo "--- the end of $run:" >&2
			grep -v '"level":"debug"' "$run" | tail -n 15 >&2
		done
	fi
	return "$bad"
}

# Services of a whole file (started in setup_file) end with it.
teardown_file()
{
	kill_services "$BATS_FILE_TMPDIR"
}

# All that background() started with a FILE in this directory or one below.
kill_services()
{
	local pid
	for pid in "$1"/*.pid "$1"/*/*.pid; do
		[[ -e $pid ]] || continue
		ended "${pid%.pid}" || kill -KILL "$(<"$pid")" 2>/dev/null || true
	done
	for pid in "$1"/*.pid "$1"/*/*.pid; do
		[[ ! -e $pid ]] || wait_for 20 ended "${pid%.pid}" || true
	done
}

# ---- Looking at files of the mount ----

# repo_dir REPOSITORY [HOST]
repo_dir()
{
	echo "$MNT/registry/${2:-$REG}/$1"
}

# blob_path REPOSITORY DIGEST [HOST]
blob_path()
{
	echo "$MNT/registry/${3:-$REG}/$1/blobs/$2"
}

# read_at FILE OFFSET LENGTH
read_at()
{
	dd if="$1" bs="$3" iflag=skip_bytes,fullblock skip="$2" count=1 \
		status=none
}

# same_at FILE ORIGINAL OFFSET LENGTH
same_at()
{
	cmp <(read_at "$1" "$3" "$4") <(read_at "$2" "$3" "$4")
}

xattr()
{
	getfattr --absolute-names --only-values -n "user.peerd.$1" "$2"
}

is_verified()
{
	[[ $(xattr verified "$1") == yes ]]
}

cached_at_least()
{
	(($(xattr cached "$1") >= $2))
}

# What is stored of it, in bytes, as du sees it.
stored()
{
	echo $(($(stat -c %b "$1") * 512))
}

# Forgets what the kernel holds of files, so that reads reach the daemon.
drop_caches()
{
	sync
	echo 3 >/proc/sys/vm/drop_caches
}
