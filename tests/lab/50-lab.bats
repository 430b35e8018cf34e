#!/usr/bin/env bats
# shellcheck disable=SC2154,SC2016
# The lab itself: its links, and that nothing of it remains.

load ../lib/common
load ../lib/http
load nodes

setup()
{
	need_root
	command -v tc >/dev/null || missing 'iproute2 is not installed'
}

# meter FROM TO SECONDS: starts a stream; Mbit/s of payload end up in
# $BATS_TEST_TMPDIR/meter.FROM.out.
meter()
{
	local port=$((6000 + $1))
	rm -f "$BATS_TEST_TMPDIR/sink.$1.out"
	background_on "$2" "$BATS_TEST_TMPDIR/sink.$1" \
		python3 "$ROOT/tests/lab/meter.py" sink "$(host_ip "$2")" $port
	wait_for 20 grep -q listening "$BATS_TEST_TMPDIR/sink.$1.out"
	rm -f "$BATS_TEST_TMPDIR/meter.$1.out"
	background_on "$1" "$BATS_TEST_TMPDIR/meter.$1" \
		python3 "$ROOT/tests/lab/meter.py" source "$(host_ip "$2")" \
		$port "$3"
}

mbits()
{
	wait_for 60 ended "$BATS_TEST_TMPDIR/meter.$1"
	cat "$BATS_TEST_TMPDIR/meter.$1.out"
}

# carries "FROM TO MIN MAX"...: Mbit/s of streams at the same time. No
# stream may ever exceed its MAX. A busy machine makes streams slower, so there
# are several tries; in one of them all streams must reach their MIN.
carries()
{
	local try stream from to min max got slow
	for ((try = 0; try < 10; try++)); do
		slow=
		for stream; do
			read -r from to min max <<<"$stream"
			meter "$from" "$to" 4
		done
		for stream; do
			read -r from to min max <<<"$stream"
			got=$(mbits "$from")
			at_most "$got" "$max" 'Mbit/s' || return 1
			((got >= min)) || slow+=" $got of $min"
		done
		[[ $slow ]] || return 0
		echo "Mbit/s:$slow" >&2
	done
	return 1
}

reaches()
{
	in_host "$1" timeout 2 bash -c \
		': <"/dev/tcp/$0/7"' "$(host_ip "$2")" 2>/dev/null
}

listen()
{
	local i
	for i; do
		background_on "$i" "$BATS_TEST_TMPDIR/echo.$i" \
			socat "TCP-LISTEN:7,fork,reuseaddr" /dev/null
	done
	for i; do
		wait_for 20 reaches "$i" "$i"
	done
}

@test "a link carries its rate, both ways at once" {
	lab_up 3 200mbit
	# 95.6 % is what TCP can have.
	carries '1 2 160 195' '2 1 160 195'
	lab_rate 1 20mbit
	carries '1 2 10 20' '2 3 160 195'
}

@test "a kernel that cannot copy packets" {
	mkdir "$BATS_TEST_TMPDIR/bin"
	cat >"$BATS_TEST_TMPDIR/bin/tc" <<-END
		#!/bin/bash
		[[ \$1 != -batch ]] || { echo 'no such action' >&2; exit 1; }
		exec $(command -v tc) "\$@"
	END
	chmod 755 "$BATS_TEST_TMPDIR/bin/tc"
	PATH=$BATS_TEST_TMPDIR/bin:$PATH lab_up 2 200mbit \
		2>"$BATS_TEST_TMPDIR/said"
	equal "$(<"$BATS_TEST_TMPDIR/said")" 'lab: what differs here: connections share links unevenly (no such action)'
	carries '1 2 100 195'
}

# tcp_between SERVER CLIENT: the congestion control at both ends of a connection.
tcp_between()
{
	local file=$BATS_TEST_TMPDIR/server.$RANDOM
	background_on "$1" "$file" python3 -u -c 'import socket, sys
s = socket.create_server((sys.argv[1], 7000))
print("listening")
c, _ = s.accept()
print(c.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
	.rstrip(b"\0").decode())
c.recv(1)' "$(host_ip "$1")"
	wait_for 20 grep -q listening "$file.out"
	in_host "$2" python3 -c 'import socket, sys
c = socket.create_connection((sys.argv[1], 7000))
print(c.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
	.rstrip(b"\0").decode())' "$(host_ip "$1")"
	wait_for 20 ended "$file"
	tail -n +2 "$file.out"
}

@test "hosts have every congestion control of the kernel, allowed or not" {
	local sys=/proc/sys/net/ipv4 allowed tcp
	allowed=$(<$sys/tcp_allowed_congestion_control)
	for tcp in $(<$sys/tcp_available_congestion_control); do
		LAB_TCP=$tcp lab_up 2 2>"$BATS_TEST_TMPDIR/said"
		equal "$(<"$BATS_TEST_TMPDIR/said")" ''
		equal "$(tcp_between 1 2)" "$tcp"$'\n'"$tcp" 'to another host'
		equal "$(tcp_between 1 1)" "$tcp"$'\n'"$tcp" 'to itself'
		lab_down
	done
	equal "$(<$sys/tcp_allowed_congestion_control)" "$allowed"
}

@test "a machine on which no sysctl can be written" {
	local said=$BATS_TEST_TMPDIR/said tcp
	mount --bind /proc/sys /proc/sys
	mount -o remount,bind,ro /proc/sys
	tcp=$(tr ' ' '\n' </proc/sys/net/ipv4/tcp_available_congestion_control |
		grep -vx reno | head -n 1)
	LAB_TCP=$tcp lab_up 2 200mbit 2>"$said"
	equal "$(wc -l <"$said")" 1
	matches "$(<"$said")" '^lab: what differs here: .*Read-only file system'
	refute grep -q 'TCP is' "$said"
	equal "$(tcp_between 1 2)" "$tcp"$'\n'"$tcp"
	carries '1 2 100 195'
}

@test "a kernel without what the lab prefers: one line says so" {
	local said=$BATS_TEST_TMPDIR/said tcp
	tcp=$(</proc/sys/net/ipv4/tcp_congestion_control)
	mkdir "$BATS_TEST_TMPDIR/bin"
	printf '#!/bin/sh\necho "no qdiscs today" >&2\nexit 2\n' \
		>"$BATS_TEST_TMPDIR/bin/tc"
	chmod 755 "$BATS_TEST_TMPDIR/bin/tc"
	LAB_TCP=nonesuch PATH=$BATS_TEST_TMPDIR/bin:$PATH \
		lab_up 2 200mbit 2>"$said"
	equal "$(wc -l <"$said")" 1
	matches "$(<"$said")" 'links have no rate \(no qdiscs today\)'
	matches "$(<"$said")" "TCP is $tcp, not nonesuch \\(.*[Uu]nknown"
	equal "$(tcp_between 1 2)" "$tcp"$'\n'"$tcp"
}

@test "without namespaces there is no lab, and the reason is the kernel's" {
	run setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin \
		bash -c '. "$0"/tests/lab/lab.bash; lab_up 2' "$ROOT"
	equal "$status" 1
	matches "$output" '^lab: no namespace for switch: unshare: .*Operation not permitted$'
	refute compgen -G "$(lab_base)/*"
}

@test "cut, heal, partition" {
	lab_up 4
	listen 0 1 2 3 4
	reaches 1 2
	lab_cut 2
	refute reaches 1 2
	reaches 2 2
	lab_heal 2
	wait_for 20 reaches 1 2
	lab_partition '1 2' '3 4'
	reaches 1 2
	reaches 4 3
	refute reaches 1 3
	refute reaches 4 2
	reaches 1 0
	reaches 4 0
	lab_heal_all
	reaches 1 3
	reaches 4 2
}

@test "two labs do not meet, and the machine's network is not touched" {
	local before one
	before=$(ip -o link; ip -o addr; ip route; ip netns)
	lab_up 2
	one=$LAB_DIR
	listen 1
	lab_up 2
	refute reaches 2 1
	LAB_DIR=$one
	reaches 2 1
	equal "$(ip -o link; ip -o addr; ip route; ip netns)" "$before"
	refute timeout 1 bash -c ": </dev/tcp/$(host_ip 1)/7" 2>/dev/null
}

@test "the command: up, exec, down; sweep removes what its owner left" {
	local lab=$ROOT/tests/lab/lab name
	name=$(bash -c '"$0" up 2 --rate 50mbit; :' "$lab")
	export "${name?}"
	matches "$name" '^LAB=[0-9.]+$'
	equal "$("$lab" exec 1 ip -o -4 addr show eth0 | grep -c 10.99.0.11)" 1
	"$lab" exec 2 sleep 1000 &
	"$lab" list | grep "^${LAB} 2 "
	# Its owner, that bash, is gone.
	"$lab" sweep
	refute "$lab" exec 1 true
	wait $! || equal $? 137
	equal "$("$lab" list)" ''
	refute pgrep -f "lab-holder:.*/$LAB/"
	# Around a command, and when that is interrupted.
	"$lab" up 1 -- bash -c '"$0" exec 1 true' "$lab"
	refute "$lab" up 1 -- false
	"$lab" up 1 -- bash -c 'kill -TERM $PPID; sleep 1' || true
	equal "$("$lab" list)" ''
	refute "$lab" up 0
	refute "$lab" up x
	refute "$lab" down
}

holders_gone()
{
	refute pgrep -f "lab-holder:$1/"
}

@test "a lab ends with its owner, even one that is killed" {
	mkfifo "$BATS_TEST_TMPDIR/fifo"
	background "$BATS_TEST_TMPDIR/owner" bash -c '. "$0"/tests/lab/lab.bash
		lab_up 2
		echo "$LAB_DIR"
		read -r <"$1"' "$ROOT" "$BATS_TEST_TMPDIR/fifo"
	wait_for 20 test -s "$BATS_TEST_TMPDIR/owner.out"
	pgrep -f "lab-holder:$(<"$BATS_TEST_TMPDIR/owner.out")/" >/dev/null
	kill -KILL "$(<"$BATS_TEST_TMPDIR/owner.pid")"
	wait_for 20 holders_gone "$(<"$BATS_TEST_TMPDIR/owner.out")" 2>/dev/null
}

@test "contain removes what is left of a lab" {
	local file=$BATS_TEST_TMPDIR/left
	cat >"$file" <<-END
		#!/bin/bash
		. "$ROOT/tests/lab/lab.bash"
		LAB_KEEP=1 lab_up 2
		echo "\$LAB_DIR"
		in_host 1 sleep 1000 &
	END
	chmod +x "$file"
	env -u TEST_CONTAINED "$BUILD/tests/lib/contain" "$file" \
		>"$file.out" 2>"$file.log"
	refute pgrep -f "lab-holder:$(<"$file.out")/"
	refute test -e "$(<"$file.out")"
}

@test "nodes on hosts: a registry, a download by all, figures, and an end" {
	local digest i
	lab_up 2 400mbit
	origin_start
	random_file "$BATS_TEST_TMPDIR/data" $((8 * MiB + 77))
	digest=$(push_blob lab/data "$BATS_TEST_TMPDIR/data")
	NODE_PEERS=none nodes_start 1 2
	swarm_at
	swarm_get 1 lab/data "$digest"
	swarm_get 2 lab/data "$digest" 0.2
	swarm_wait 1 2
	swarm_check "$digest" 1 2
	for i in 1 2; do
		equal "$(from_source $i upstream)" $((8 * MiB + 77))
		at_least "$(node_kib $i VmHWM)" 1000
	done
	equal "$(origin_bytes "$digest")" $(((8 * MiB + 77) * 2))
	# The interface counts headers too.
	at_least "$(lab_bytes 0 | cut -d ' ' -f 1)" $((8 * MiB * 2))
	node_kill 2
	node_start 2
	node_curl 2 -f -o "$BATS_TEST_TMPDIR/again" \
		"$(node_v2 "lab/data/blobs/$digest")"
	cmp "$BATS_TEST_TMPDIR/again" "$BATS_TEST_TMPDIR/data"
}
