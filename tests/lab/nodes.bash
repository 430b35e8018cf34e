# shellcheck shell=bash disable=SC2034,SC2119,SC2120,SC2154
# A registry and daemons on the hosts of a lab; to be loaded after common.bash
# (whose functions for registries then work on the origin) and http.bash.
#
#   origin_start [--direct]     a registry on host 0; sets REG and the others
#                               of start_registry()
#   origin_stop, origin_start_again
#   origin_bytes PATTERN [MARK] body bytes it sent, by its own log
#   node_start I [OPTION...]    peerd on host I, ready when this returns
#   node_stop I, node_kill I, nodes_stop
#   nodes_meet I...             waits until each of these knows all the others
#   swarm_at, swarm_get, swarm_wait, swarm_check   downloads by many at once
#
# Every node listens where a user's would: 127.0.0.1:5000 and :5004 on its own
# host, :5001 on its address for the others. Its files are below node_dir(),
# its log is node_log().
#
#   NODE_PEERS   what --peers says (all hosts of the lab); "none": no peers
#   KEYS         a directory with keys for h1, h2, …; empty: --insecure-peers
#   NODE_LEVEL   of the log (debug)
#   NODE_PRE     an array: words before peerd's name (faketime …)
#   NODES_DIR    where caches are (BATS_TEST_TMPDIR)
#   NODE_OPTIONS an array: options for all that nodes_start starts

# shellcheck source=tests/lab/lab.bash
. "$ROOT/tests/lab/lab.bash"

declare -gA NODE_RUN=()
declare -ga NODE_OPTIONS=() NODE_PRE=()
NODE_PEERS='' KEYS='' HOSTS_BOUND=''

# ---- The origin ----

# These functions of common.bash ask where they are.
back_curl()
{
	in_host 0 curl -sS -f ${REG_USER:+-u "$REG_USER"} "$@"
}

settle_log()
{
	local mark=/settle-$RANDOM$RANDOM
	in_host 0 curl -s -o /dev/null "http://$REG$mark"
	wait_for 20 grep -q "$mark" "$REG_LOG"
}

front_idle()
{
	in_host 0 curl -s "http://$REG/front-status" |
		grep -qx 'Active connections: 1 '
}

# background_on I FILE COMMAND...: as background(), on that host.
background_on()
{
	local host=$1 file=$2
	shift 2
	background "$file" host_exec "$host" "$@"
}

# --direct: blobs come from the registry's files by nginx itself, for less of
# the processor.
origin_start()
{
	REG=$(host_ip 0):5000
	REG_BACK=127.0.0.1:5001
	REG_DIR=${NODES_DIR:-$BATS_TEST_TMPDIR}/origin
	REG_LOG=$REG_DIR/access.log
	REG_USER=''
	ORIGIN_DIRECT=${1:-}
	mkdir -p "$REG_DIR"
	cat >"$REG_DIR/config.yml" <<-END
		version: 0.1
		log: {level: error, accesslog: {disabled: true}}
		storage:
		  filesystem: {rootdirectory: $REG_DIR/store, maxthreads: 100}
		  delete: {enabled: true}
		http: {addr: $REG_BACK}
	END
	origin_start_again
}

origin_start_again()
{
	local blobs='' files=$REG_DIR/store/docker/registry/v2/blobs
	if [[ $ORIGIN_DIRECT ]]; then
		blobs="location ~ \"^/v2/.+/blobs/sha256:((..)[0-9a-f]{62})\$\" {
			alias $files/sha256/\$2/\$1/data;
			default_type application/octet-stream;
			sendfile on;
			tcp_nopush on;
		}"
	fi
	background_on 0 "$REG_DIR/distribution" \
		docker-registry serve "$REG_DIR/config.yml"
	# nginx_start() starts a "nginx".
	# shellcheck disable=SC2317
	nginx() { host_exec 0 nginx "$@"; }
	nginx_start "$REG_DIR/front" "server {
		listen $REG;
		access_log $REG_LOG requests;
		location = /front-status { stub_status; access_log off; }
		$blobs
		location / { proxy_pass http://$REG_BACK; }
	}"
	unset -f nginx
	wait_for 30 in_host 0 curl -sf "http://$REG/v2/"
}

origin_stop()
{
	stop_registry
}

origin_bytes()
{
	reg_stat bytes "$@"
}

# All GETs and HEADs that reached it, refused ones too: what a storm is.
origin_requests()
{
	settle_log
	tail -n +"$((${1:-0} + 1))" "$REG_LOG" | grep -vc '"uri":"/settle-'
}

# ---- Daemons ----

# The option is in the build.
have_peers()
{
	[[ ${HAVE_PEERS:=$("$PEERD" run --help 2>&1 |
		grep -e --https-addr >/dev/null && echo yes || echo no)} == yes ]]
}

need_peers()
{
	have_peers || missing 'peerd has no peers in this build'
}

node_dir()
{
	echo "${NODES_DIR:-$BATS_TEST_TMPDIR}/h$1"
}

node_log()
{
	echo "${NODE_RUN[$1]}.log"
}

node_addr()
{
	echo "$(host_ip "$1"):5001"
}

# addresses_of I...: for --peers.
addresses_of()
{
	local i all=''
	for i; do
		all+=,$(node_addr "$i")
	done
	echo "${all#,}"
}

# make_keys NAME...: for hosts h1…hN besides; sets KEYS.
make_keys()
{
	local name
	KEYS=${NODES_DIR:-$BATS_TEST_TMPDIR}/keys
	mkdir -p "$KEYS"
	"$PEERD" keys init --dir "$KEYS" >/dev/null
	for name in $(seq -f 'h%.0f' 1 "$(lab_size)") "$@"; do
		"$PEERD" keys issue --dir "$KEYS" "$name" >/dev/null
	done
}

peer_options()
{
	PEER_OPTIONS=()
	if ! have_peers || [[ ${NODE_PEERS:-} == none ]]; then
		return
	fi
	# shellcheck disable=SC2046
	PEER_OPTIONS=(--https-addr "$(node_addr "$1")" --peers
		"${NODE_PEERS:-$(addresses_of $(lab_hosts))}")
	if [[ ${KEYS:-} ]]; then
		PEER_OPTIONS+=(--tls-ca "$KEYS/ca.crt"
			--tls-cert "$KEYS/h$1.crt" --tls-key "$KEYS/h$1.key")
	else
		PEER_OPTIONS+=(--insecure-peers)
	fi
}

# node_begin I [OPTION...]: does not wait.
node_begin()
{
	local i=$1 n=0
	shift
	mkdir -p "$(node_dir "$i")"
	while [[ -e $BATS_TEST_TMPDIR/peerd.h$i.$n.log ]]; do
		n=$((n + 1))
	done
	NODE_RUN[$i]=$BATS_TEST_TMPDIR/peerd.h$i.$n
	peer_options "$i"
	background_on "$i" "${NODE_RUN[$i]}" "${NODE_PRE[@]}" \
		"$PEERD" run --node-name "h$i" \
		--cache-dir "$(node_dir "$i")/cache" --cache-min-free 0 \
		--http-addr 127.0.0.1:5000 --prom-addr 127.0.0.1:5004 \
		--plain-http "$REG" --log-level "${NODE_LEVEL:-debug}" \
		"${PEER_OPTIONS[@]}" "$@"
}

node_ready()
{
	grep -q '"message":"ready"' "$(node_log "$1")"
}

node_ready_or_dead()
{
	node_ready "$1" || ended "${NODE_RUN[$1]}"
}

node_wait_ready()
{
	if ! wait_for "$PATIENCE" node_ready_or_dead "$1" ||
		! node_ready "$1"; then
		echo "peerd on host $1 did not become ready" \
			"($(cat "${NODE_RUN[$1]}.rc" 2>/dev/null)):" >&2
		tail -n 20 "$(node_log "$1")" >&2
		return 1
	fi
}

node_start()
{
	node_begin "$@"
	node_wait_ready "$1"
}

# nodes_start I...: with the same options ("${NODE_OPTIONS[@]}"), and until
# they know each other.
nodes_start()
{
	local i
	for i; do
		node_begin "$i" "${NODE_OPTIONS[@]}"
	done
	for i; do
		node_wait_ready "$i"
	done
	nodes_meet "$@"
}

node_pid()
{
	cat "${NODE_RUN[$1]}.pid"
}

# It must end by itself, once told to.
node_stop()
{
	local rc=0
	finish "${NODE_RUN[$1]}" TERM || rc=$?
	node_judge "$1" "$rc"
}

node_judge()
{
	((!$2)) || {
		echo "peerd on host $1 ended with status $2:" >&2
		tail -n 20 "$(node_log "$1")" >&2
		return 1
	}
}

node_kill()
{
	finish "${NODE_RUN[$1]}" KILL 20 || true
}

# The machine stops: the daemon, its clients, all at once.
host_die()
{
	local pids
	pids=$(host_pids "$1")
	# shellcheck disable=SC2086
	kill -KILL $pids 2>/dev/null || true
	node_kill "$1"
}

# All at once. Those that have ended before were judged then.
nodes_stop()
{
	local i rc bad=0 running=()
	for i in "${!NODE_RUN[@]}"; do
		! ended "${NODE_RUN[$i]}" || continue
		running+=("$i")
		kill -TERM "$(node_pid "$i")" 2>/dev/null || true
	done
	for i in "${running[@]}"; do
		rc=0
		# Signal 0: a second SIGTERM ends it at once.
		finish "${NODE_RUN[$i]}" 0 || rc=$?
		node_judge "$i" "$rc" || bad=1
	done
	return "$bad"
}

# ---- Asking a node ----

node_curl()
{
	local i=$1
	shift
	in_host "$i" curl -sS "$@"
}

# node_v2 PATH: the mirror's URL, on any node.
node_v2()
{
	echo "http://127.0.0.1:5000/v2/$1?ns=$REG"
}

# node_metric I NAME [PATTERN]: see metric().
node_metric()
{
	node_curl "$1" -f http://127.0.0.1:5004/metrics/prometheus |
		awk -v name="$2" -v pattern="${3:-.}" '
		$0 ~ "^" name "[ {]" && $0 ~ pattern { sum += $NF }
		END { printf "%.0f\n", sum }'
}

# from_source I upstream|peers
from_source()
{
	node_metric "$1" peerd_fetched_bytes_total "source=\"$2\""
}

nodes_metric()
{
	local i sum=0
	for i in $1; do
		sum=$((sum + $(node_metric "$i" "${@:2}")))
	done
	echo "$sum"
}

node_quiet()
{
	node_curl "$1" -f http://127.0.0.1:5000/api/v1/status |
		jq -e '.fetch.flights == 0'
}

# peers_in_state I STATE: how many.
peers_in_state()
{
	node_curl "$1" -f http://127.0.0.1:5000/api/v1/peers |
		jq --arg s "$2" '[.. | objects | select(.state? == $s)] |
			length'
}

# knows I COUNT: so many others are alive.
knows()
{
	[[ $(peers_in_state "$1" alive) == "$2" ]]
}

# misses I N: node I has given up so many members.
misses()
{
	[[ $(peers_in_state "$1" gone) == "$2" ]]
}

nodes_meet()
{
	local i n=$#
	have_peers || return 0
	[[ ${NODE_PEERS:-} != none ]] || return 0
	for i; do
		wait_for "$PATIENCE" knows "$i" $((n - 1)) || {
			echo "host $i knows:" >&2
			node_curl "$i" http://127.0.0.1:5000/api/v1/peers |
				jq -c '.peers[:10][]' >&2
			return 1
		}
	done
}

node_kib()
{
	awk -v key="$2:" '$1 == key { print $2 }' \
		"/proc/$(node_pid "$1")/status"
}

node_logged()
{
	(($(grep -cE -- "$2" "$(node_log "$1")") >= ${3:-1}))
}

# ---- Members that are none of ours ----

# bad_member I MODE [OPTION...]: on that host, for the blob $DATA; see
# badpeer.py. Its requests are in BAD_LOG.
bad_member()
{
	local name=${KEYS:+bad} keys=()
	BAD_HOST=$1
	BAD_RUN=$BATS_TEST_TMPDIR/bad.$2
	BAD_LOG=$BAD_RUN.requests
	if [[ $name ]]; then
		[[ -e $KEYS/bad.crt ]] ||
			"$PEERD" keys issue --dir "$KEYS" bad >/dev/null
		keys=(--ca "$KEYS/ca.crt" --cert "$KEYS/bad.crt"
			--key "$KEYS/bad.key")
	fi
	background_on "$1" "$BAD_RUN" "$ROOT/tests/lab/badpeer.py" \
		"$(host_ip "$1")" 5001 "$2" --log "$BAD_LOG" --file "$DATA" \
		"${keys[@]}" "${@:3}"
	wait_for 20 grep -q listening "$BAD_RUN.out"
}

# nodes_start_beside_bad I...: they know the bad one too, if it greets.
nodes_start_beside_bad()
{
	local i known=$#
	[[ $BAD_RUN != *.deaf ]] || known=$(($# - 1))
	for i; do
		node_begin "$i" "${NODE_OPTIONS[@]}"
	done
	for i; do
		node_wait_ready "$i"
	done
	for i; do
		wait_for "$PATIENCE" knows "$i" "$known"
	done
}

# ---- Many downloads at once ----

# swarm_at [SECONDS]: the moment at which the downloads begin, which is so far
# away; sets SWARM (a directory of its own) and SWARM_AT.
swarm_at()
{
	SWARM=$(mktemp -d "${NODES_DIR:-$BATS_TEST_TMPDIR}/swarm-XXXXXX")
	SWARM_AT=$(awk -v t="$EPOCHREALTIME" -v s="${1:-0.5}" \
		'BEGIN { printf "%.6f", t + s }')
}

sleep_until()
{
	local left
	left=$(awk -v a="$1" -v b="$EPOCHREALTIME" \
		'BEGIN { printf "%.6f", (a > b) ? a - b : 0 }')
	sleep "$left"
}

# swarm_run I NAME DELAY COMMAND...: on host I, DELAY seconds after SWARM_AT.
# $SWARM/NAME.I gets "BEGAN ENDED STATUS", in seconds since SWARM_AT.
swarm_run()
{
	local i=$1 file=$SWARM/$2.$1 delay=$3
	shift 3
	background "$file" swarm_runner "$i" "$file" "$delay" "$@"
}

swarm_runner()
{
	local i=$1 file=$2 delay=$3 began rc=0 at
	shift 3
	at=$(awk -v a="$SWARM_AT" -v d="$delay" \
		'BEGIN { printf "%.6f", a + d }')
	sleep_until "$at"
	began=$EPOCHREALTIME
	in_host "$i" "$@" || rc=$?
	awk -v t="$SWARM_AT" -v a="$began" -v b="$EPOCHREALTIME" -v r="$rc" \
		'BEGIN { printf "%.3f %.3f %d\n", a - t, b - t, r }' \
		>"$file.took"
	return "$rc"
}

# swarm_get I REPOSITORY DIGEST [DELAY [NAME]]: into $SWARM/blob[NAME].I.
swarm_get()
{
	local name=blob${5:-}
	swarm_run "$1" "$name" "${4:-0}" curl -sS -f --max-time 600 \
		-o "$SWARM/$name.$1" "$(node_v2 "$2/blobs/$3")"
}

# swarm_wait I...: all downloads by these hosts have ended. Fails if one failed.
swarm_wait()
{
	local i pid bad=0
	for i; do
		for pid in "$SWARM"/*."$i".pid; do
			wait_for "${SWARM_PATIENCE:-300}" ended "${pid%.pid}" ||
				true
			[[ $(cat "${pid%.pid}.rc") != 0 ]] || continue
			echo "host $i: ${pid%.pid} failed:" >&2
			cat "${pid%.pid}.log" >&2
			bad=1
		done
	done
	return "$bad"
}

# swarm_check DIGEST [NAME] I...: what they got is it.
swarm_check()
{
	local digest=$1 i bad=0
	shift
	for i; do
		equal "$(digest_of "$SWARM/blob.$i")" "$digest" \
			"host $i got other bytes" || bad=1
	done
	return "$bad"
}

# swarm_last I...: seconds until the last of them had it all.
swarm_last()
{
	local i
	for i; do
		cat "$SWARM"/*."$i".took
	done | awk '$2 > t { t = $2 } END { printf "%.3f\n", t }'
}

# swarm_longest I...: seconds that one of them took at most.
swarm_longest()
{
	local i
	for i; do
		cat "$SWARM"/*."$i".took
	done | awk '$2 - $1 > t { t = $2 - $1 } END { printf "%.3f\n", t }'
}

# ---- What most tests do ----

# cluster N [RATE]: hosts 1..N with keys, and a registry; no daemon yet.
cluster()
{
	lab_up "$1" "${2:-400mbit}"
	origin_start
	make_keys
}

# new_blob BYTES: pushed; sets DATA, DIGEST, SIZE, and MARK for reg_stat().
new_blob()
{
	SIZE=$1
	DATA=$BATS_TEST_TMPDIR/data.$RANDOM
	random_file "$DATA" "$SIZE"
	DIGEST=$(push_blob lab/data "$DATA")
	MARK=$(reg_mark)
}

begin_pull()
{
	local i
	swarm_at
	for i; do
		swarm_get "$i" lab/data "$DIGEST"
	done
}

end_pull()
{
	swarm_wait "$@"
	swarm_check "$DIGEST" "$@"
	rm -f "$SWARM"/blob.?
}

all_pull()
{
	begin_pull "$@"
	end_pull "$@"
}

# got_at_least I BYTES: of a pull that is under way.
got_at_least()
{
	(($(stat -c %s "$SWARM/blob.$1" 2>/dev/null || echo 0) >= $2))
}

none_in_flight()
{
	local i
	for i; do
		wait_for "$PATIENCE" node_quiet "$i"
	done
}

# calm PERCENT I...: the registry sent so much of the blob at most, in requests
# of which there were not many more than chunks; and no flight is stuck.
calm()
{
	local percent=$1
	shift
	none_in_flight "$@"
	at_most "$(origin_bytes "$DIGEST" "$MARK")" $((SIZE * percent / 100)) \
		'bytes the registry sent'
	at_most "$(origin_requests "$MARK")" \
		$((SIZE * percent / MiB / 100 + 20 + 5 * $#)) \
		'requests to the registry'
}

# ---- The end of a test ----

if [[ ${BATS_VERSION:-} ]]; then

teardown()
{
	local bad=0
	touch "$BATS_TEST_TMPDIR/runs"
	if [[ ${SWARM:-} ]]; then
		kill_services "$SWARM"
	fi
	nodes_stop || bad=1
	if ((${#NODE_RUN[@]})); then
		check_runs || bad=1
	fi
	unmount_dead
	[[ ! ${HOSTS_BOUND:-} ]] || umount /etc/hosts || true
	kill_services "$BATS_TEST_TMPDIR"
	for LAB_DIR in "$(lab_base)"/*; do
		lab_down
	done
	no_reports || bad=1
	return "$bad"
}

fi
