#!/usr/bin/env bats
# shellcheck disable=SC2030,SC2031,SC2034,SC2046,SC2119,SC2154
# Members that die or cannot be reached, wrong keys, wrong clocks: readers get
# right bytes, late at worst; no flight is stuck; the registry sees no storm.
# For members that misbehave see 62-bad-members.bats.

load ../lib/common
load ../lib/http
load nodes

setup()
{
	need_root
	need_peers
}

@test "a node is killed in mid-transfer" {
	cluster 4 100mbit
	new_blob $((32 * MiB))
	nodes_start 1 2 3 4
	begin_pull 1 2 3 4
	wait_for "$PATIENCE" got_at_least 1 $((8 * MiB))
	host_die 3
	end_pull 1 2 4
	calm 160 1 2 4
}

@test "all owners of a blob but one die at once" {
	cluster 4 100mbit
	new_blob $((32 * MiB))
	nodes_start 1 2 3 4
	begin_pull 1 2 3 4
	wait_for "$PATIENCE" got_at_least 1 $((6 * MiB))
	host_die 2
	host_die 3
	host_die 4
	end_pull 1
	calm 200 1
}

@test "a host is cut off in mid-transfer, and comes back" {
	cluster 3 100mbit
	new_blob $((24 * MiB))
	nodes_start 1 2 3
	begin_pull 1 2 3
	wait_for "$PATIENCE" got_at_least 1 $((6 * MiB))
	lab_cut 3
	end_pull 1 2
	lab_heal 3
	nodes_meet 1 2 3
	# Its own download is late, or was broken off; the next one is not.
	wait_for 300 ended "$SWARM/blob.3"
	all_pull 3
	calm 260 1 2 3
}

@test "the cluster is split in two, and heals" {
	cluster 4 100mbit
	new_blob $((24 * MiB))
	nodes_start 1 2 3 4
	begin_pull 1 2 3 4
	wait_for "$PATIENCE" got_at_least 1 $((4 * MiB))
	lab_partition '1 2' '3 4'
	end_pull 1 2 3 4
	# Each half for itself.
	calm 280 1 2 3 4
	new_blob $((16 * MiB))
	# While one of them takes the others for owners still, it waits for them
	# in vain, and fetches what another one has fetched by then.
	for i in 1 2 3 4; do
		wait_for "$PATIENCE" misses "$i" 2
	done
	all_pull 1 2 3 4
	calm 220 1 2 3 4
	lab_heal_all
	nodes_meet 1 2 3 4
	new_blob $((16 * MiB))
	all_pull 1 2 3 4
	calm 110 1 2 3 4
}

# found_slow I NAME: by node I.
found_slow()
{
	node_logged "$1" "a member is slow.*\"member\":\"$2\""
}

# Who waits for a member that is gone says nothing meanwhile, and is taken for
# slow. Here one is stopped instead, which looks the same, and another goes.
@test "who was found slow is asked again when a member goes" {
	cluster 3 100mbit
	new_blob $((64 * MiB))
	nodes_start 1 2 3
	begin_pull 1
	wait_for "$PATIENCE" got_at_least 1 $((2 * MiB))
	kill -STOP "$(node_pid 2)"
	wait_for "$PATIENCE" found_slow 1 h2
	kill -CONT "$(node_pid 2)"
	node_kill 3
	end_pull 1
	wait_for "$PATIENCE" misses 1 1
	wait_for "$PATIENCE" misses 2 1
	new_blob $((16 * MiB))
	all_pull 1 2
	calm 125 1 2
	node_logged 1 'a slow member is tried again.*"member":"h2"'
}

@test "members join and leave during a pull" {
	local i
	cluster 5 100mbit
	new_blob $((32 * MiB))
	# Who joins is not on the others' list: it greets them.
	NODE_PEERS=$(addresses_of 1 2 3)
	nodes_start 1 2 3
	begin_pull 1 2 3
	wait_for "$PATIENCE" got_at_least 1 $((4 * MiB))
	node_start 4
	swarm_get 4 lab/data "$DIGEST" 1
	wait_for "$PATIENCE" got_at_least 1 $((12 * MiB))
	node_stop 2
	NODE_PEERS=$(addresses_of 1 2 3 4) node_start 5
	swarm_get 5 lab/data "$DIGEST" 2
	end_pull 1 3 4 5
	calm 170 1 3 4 5
	nodes_meet 1 3 4 5
}

@test "the registry dies when the nodes have it between them" {
	cluster 3 100mbit
	new_blob $((12 * MiB))
	nodes_start 1 2 3
	all_pull 2
	expect_errors 'upstream|registry|connect'
	begin_pull 1 3
	wait_for "$PATIENCE" got_at_least 1 $((2 * MiB))
	origin_stop
	end_pull 1 3
}

# ---- Certificates and clocks ----

# expired_keys DIR NODE: of the cluster's CA, ended yesterday.
expired_keys()
{
	local dir=$1
	mkdir -p "$dir"
	: >"$dir/index"
	echo 01 >"$dir/serial"
	openssl req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 \
		-subj "/CN=$2" -keyout "$dir/$2.key" -out "$dir/$2.csr" \
		2>/dev/null
	cat >"$dir/ca.conf" <<-END
		[ca]
		default_ca = ca1
		[ca1]
		database = $dir/index
		serial = $dir/serial
		new_certs_dir = $dir
		default_md = sha256
		policy = any
		[any]
		commonName = supplied
	END
	openssl ca -batch -config "$dir/ca.conf" -cert "$KEYS/ca.crt" \
		-keyfile "$KEYS/ca.key" -startdate 20200101000000Z \
		-enddate "$(date -u -d yesterday +%Y%m%d%H%M%SZ)" \
		-in "$dir/$2.csr" -out "$dir/$2.crt" -notext 2>/dev/null
}

# strange WHAT DIR: host 3 has the keys of that directory; the others' good
# ones make a cluster without it, and it reads for itself.
strange()
{
	new_blob $((8 * MiB))
	nodes_start 1 2
	if KEYS=$2 node_start 3 2>"$BATS_TEST_TMPDIR/refused"; then
		all_pull 1 2 3
		calm 220 1 2 3
		equal "$(peers_in_state 1 alive)" 1
		equal "$(peers_in_state 3 alive)" 0
		node_logged 1 'certificate|handshake|TLS|SSL|tls'
	else
		echo "# $1: does not start: $(tail -n 1 "$(node_log 3)")" >&3
		all_pull 1 2
		calm 110 1 2
		node_logged 3 'certificate|expired|CA'
	fi
	nodes_stop
	rm -rf "$(node_dir 1)" "$(node_dir 2)" "$(node_dir 3)"
}

@test "a node with another CA's certificate, an expired one, or none" {
	local dir=$BATS_TEST_TMPDIR
	cluster 3
	expect_errors 'certificate|expired'
	"$PEERD" keys init --dir "$dir/other" >/dev/null
	"$PEERD" keys issue --dir "$dir/other" h3 >/dev/null
	strange 'another CA' "$dir/other"
	# It trusts the right CA, but has no certificate of it.
	cp "$KEYS/ca.crt" "$dir/other/"
	strange "another CA's certificate" "$dir/other"
	expired_keys "$dir/expired" h3
	cp "$KEYS/ca.crt" "$dir/expired/"
	strange 'expired' "$dir/expired"
	strange 'none' ''
}

@test "a member with an expired certificate serves nobody" {
	cluster 3
	new_blob $((8 * MiB))
	expired_keys "$BATS_TEST_TMPDIR/expired" bad
	cp "$KEYS/ca.crt" "$BATS_TEST_TMPDIR/expired/"
	KEYS=$BATS_TEST_TMPDIR/expired bad_member 3 garbage
	nodes_start 1 2
	all_pull 1 2
	calm 110 1 2
	refute test -s "$BAD_LOG"
}

@test "a clock that is a day off" {
	local lib days i
	lib=$(find /usr/lib -name libfaketimeMT.so.1 2>/dev/null | head -n 1)
	[[ $lib ]] || missing 'faketime is not installed'
	if grep -q fsanitize "$BUILD/flags" 2>/dev/null; then
		skip 'faketime and sanitizers do not go together'
	fi
	cluster 3
	new_blob $((12 * MiB))
	i=1
	for days in +0 -1d +1d; do
		NODE_PRE=(env "LD_PRELOAD=$lib" "FAKETIME=$days"
			DONT_FAKE_MONOTONIC=1 FAKETIME_DONT_RESET=1)
		node_begin $i
		i=$((i + 1))
	done
	NODE_PRE=()
	for i in 1 2 3; do
		node_wait_ready $i
	done
	nodes_meet 1 2 3
	# The clocks are what they should be.
	refute equal "$(log_day 1)" "$(log_day 2)" 2>/dev/null
	refute equal "$(log_day 1)" "$(log_day 3)" 2>/dev/null
	all_pull 1 2 3
	calm 110 1 2 3
}

log_day()
{
	head -n 1 "$(node_log "$1")" | jq -r '.time[:10]'
}
