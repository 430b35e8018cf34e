# shellcheck shell=bash
# Hosts on one machine: network namespaces on a bridge, each with its own
# address and link rate. For root; works in any network namespace and touches
# nothing of it: bridge, hosts and links are all in namespaces of their own,
# without names, kept by a process each (a holder). When the holders are gone,
# so is the lab.
#
#   lab_up N [RATE [ORIGIN RATE]]   hosts 1..N, and host 0, the origin
#   lab_down
#   in_host I COMMAND...            runs it there, here in the foreground
#   host_exec I COMMAND...          the same in place of this (sub)shell; also
#                                   what background() wants
#   lab_rate I RATE [RATE IN]       of a link from now on; "none": as it can
#   lab_cut I...; lab_heal I...     unplugs hosts, plugs them in again
#   lab_partition "1 2" "3 4"...    no host of one list reaches one of another
#                                   (a host on no list reaches all)
#   lab_heal_all                    no cuts, no partition
#   lab_bytes I                     "SENT RECEIVED" by the host's interface
#   lab_differs                     what this machine would not do, a line each
#   lab_sweep                       removes labs whose owners are gone
#   host_ip I, host_pids I
#
# A lab needs namespaces, veth pairs and a bridge. If the kernel refuses anything
# else (rates, a congestion control, a sysctl), the lab goes on without it, and
# lab_up prints one line with the differences and the messages of the commands
# that failed.
#
# LAB_DIR is the lab: set by lab_up, or by who wants another one. The holders
# end with the shell that called lab_up, however it ends (LAB_KEEP=1: not).
#
# Each link is one veth pair, "wire" in the host, with a token bucket at both
# ends, so that a host sends and receives at RATE at once. MTU 1500, of which TCP
# has 1448 payload in 1514 on the wire: 95.6 %. Bursts are of 256 KiB, so that
# the kernel's large segments pass in one piece (two processors carry gigabits
# then), and a full queue is LAB_QUEUE long.
#
# The host's address is on eth0, and what goes there is copied to the wire: a
# packet that crosses a veth pair still belongs to the socket that sent it (Linux
# since 4.19), and a socket sends no more while two of its packets wait in a
# queue, be it in the switch (TCP small queues). A connection that is slow then
# sends packets of two segments, two of them at a time, and stays slow for ever
# among fast ones, as on no real network. A copy belongs to nobody.

LAB_QUEUE=${LAB_QUEUE:-30ms}
# The congestion control: what Linux has unless told otherwise; empty: the
# machine's.
LAB_TCP=${LAB_TCP-cubic}
# Frames to it end in the bridge.
lab_nowhere=02:00:00:00:de:ad

lab_base()
{
	if [[ ${TEST_CONTAINED:-} ]]; then
		echo "${TMPDIR:-/tmp}/lab"
	else
		echo /run/peerd-lab
	fi
}

host_ip()
{
	echo "10.99.$(($1 / 200)).$((10 + $1 % 200))"
}

# The number of hosts without the origin.
lab_size()
{
	cat "$LAB_DIR/size"
}

lab_hosts()
{
	seq 1 "$(lab_size)"
}

# ---- Holders ----

# holder NAME: a process in a network namespace of its own; its id is in
# $LAB_DIR/NAME. Its name tells it from a later process with the same id.
holder()
{
	local tied=() pid
	[[ ${LAB_KEEP:-} ]] || tied=(setpriv --pdeathsig KILL)
	# bats and prove wait for whoever holds their descriptors.
	(
		for fd in /proc/"$BASHPID"/fd/*; do
			fd=${fd##*/}
			((fd <= 2)) || eval "exec $fd>&-"
		done
		# Without a setsid the terminal's ^C would end it first.
		exec setsid "${tied[@]}" unshare --net bash -c \
			'exec -a "$0" sleep infinity 2>/dev/null' \
			"lab-holder:$LAB_DIR/$1"
	) </dev/null >/dev/null 2>"$LAB_DIR/said.$1" &
	pid=$!
	disown "$pid"
	echo "$pid" >"$LAB_DIR/$1"
}

# The holder's id, once it is one.
holder_pid()
{
	local pid name
	[[ -s $LAB_DIR/$1 ]] || return 1
	pid=$(<"$LAB_DIR/$1")
	{ IFS= read -r -d '' name <"/proc/$pid/cmdline"; } 2>/dev/null ||
		return 1
	[[ $name == "lab-holder:$LAB_DIR/$1" ]] || return 1
	echo "$pid"
}

await_holder()
{
	local pid end=$((SECONDS + 60))
	pid=$(<"$LAB_DIR/$1")
	until holder_pid "$1" >/dev/null; do
		if ! kill -0 "$pid" 2>/dev/null || ((SECONDS > end)); then
			echo "lab: no namespace for $1:" \
				"$(<"$LAB_DIR/said.$1")" >&2
			return 1
		fi
		sleep 0.01
	done
}

# ---- Going there ----

host_exec()
{
	local pid
	pid=$(holder_pid "host$1") || {
		echo "lab: there is no host $1" >&2
		return 1
	}
	shift
	exec nsenter --net="/proc/$pid/ns/net" -- "$@"
}

in_host()
{
	(host_exec "$@")
}

in_switch()
{
	local pid
	pid=$(holder_pid switch) || {
		echo 'lab: there is no lab' >&2
		return 1
	}
	nsenter --net="/proc/$pid/ns/net" -- "$@"
}

# Every process there, but for the holder.
host_pids()
{
	local pid ns entry
	pid=$(holder_pid "host$1") || return 0
	ns=$(readlink "/proc/$pid/ns/net")
	for entry in /proc/[0-9]*; do
		[[ $(readlink "$entry/ns/net" 2>/dev/null) == "$ns" ]] ||
			continue
		[[ ${entry##*/} == "$pid" ]] || echo "${entry##*/}"
	done
}

# ---- Up and down ----

# prefer WHAT COMMAND...: if it fails the lab goes on, and WHAT differs.
prefer()
{
	local what=$1 said
	shift
	said=$("$@" 2>&1) || {
		said=${said%%$'\n'*}
		echo "$what (${said:-"$* failed"})" >>"$LAB_DIR/differs"
		return 1
	}
}

# set_sysctl FILE VALUE WHAT: WHAT differs if it cannot be set.
set_sysctl()
{
	[[ $(cat "$1" 2>/dev/null) == "$2" ]] ||
		prefer "$3" write_file "$1" "$2" || :
}

write_file()
{
	tee "$1" <<<"$2" >/dev/null
}

lab_differs()
{
	[[ ! -e $LAB_DIR/differs ]] || awk '!said[$0]++' "$LAB_DIR/differs"
}

shape()
{
	local rate=$1 device=$2
	if [[ $rate == none ]]; then
		tc qdisc del dev "$device" root 2>/dev/null || true
	else
		tc qdisc replace dev "$device" root tbf rate "$rate" \
			burst 256k latency "$LAB_QUEUE"
	fi
}

# "trap" is what tc calls: with the copy all is done.
copy_to_wire()
{
	local every='protocol all u32 match u32 0 0' mac
	mac=$(ip -br link show dev wire | awk '{ print $3 }')
	ip link set dev eth0 address "$mac" && tc -batch - <<-END
		qdisc add dev eth0 clsact
		qdisc add dev wire clsact
		filter add dev wire ingress $every action mirred ingress \
			redirect dev eth0
		filter add dev eth0 egress $every action mirred egress mirror \
			dev wire trap
	END
}

# For kernels that cannot copy: all as it should be but for the queues.
bridge_to_wire()
{
	tc qdisc del dev eth0 clsact 2>/dev/null || true
	tc qdisc del dev wire clsact 2>/dev/null || true
	ip -batch - <<-END
		link set dev eth0 address 02:$(od -An -N5 -tx1 /dev/urandom |
			sed 's/^ //; s/ /:/g')
		link add yard type bridge
		link set edge master yard
		link set wire master yard
		link set yard up
	END
}

# The kernel lets a namespace choose its default only from
# net.ipv4.tcp_allowed_congestion_control, which belongs to the machine. A route
# may have any congestion control of the kernel, and it ends with the namespace.
choose_tcp()
{
	local ip=$1
	ip -batch - <<-END
		route replace 10.99.0.0/16 dev eth0 src $ip congctl $LAB_TCP
		route replace local $ip dev eth0 table local src $ip \
			congctl $LAB_TCP
		route replace local 127.0.0.0/8 dev lo table local \
			src 127.0.0.1 congctl $LAB_TCP
		route replace local 127.0.0.1 dev lo table local \
			src 127.0.0.1 congctl $LAB_TCP
	END
}

no_ipv6()
{
	local file=/proc/sys/net/ipv6/conf/all/disable_ipv6
	[[ ! -e $file ]] || set_sysctl "$file" 1 'there is IPv6'
}

# Run in the host's namespace.
set_up_host()
{
	local i=$1 rate=$2 ip sys=/proc/sys/net/ipv4
	ip=$(host_ip "$i")
	no_ipv6
	# What the last connection learnt is not to help the next scenario.
	set_sysctl $sys/tcp_no_metrics_save 1 'connections learn from others'
	# A timer's interrupt for every other segment is not what is measured.
	set_sysctl $sys/tcp_min_tso_segs 8 'TCP sends segments one by one'
	ip -batch - <<-END
		link set lo up
		link set wire up
		link add eth0 type veth peer name edge
		link set edge up
		link set eth0 up
	END
	prefer 'connections share links unevenly' copy_to_wire || bridge_to_wire
	ip addr add "$ip/16" dev eth0
	[[ ! $LAB_TCP ]] ||
		prefer "TCP is $(<$sys/tcp_congestion_control), not $LAB_TCP" \
			choose_tcp "$ip" || :
	set_rate "$rate" wire
}

set_rate()
{
	prefer 'links have no rate' shape "$@" || :
}

set_up_switch()
{
	local n=$1 rate=$2 origin_rate=$3 i
	local tables=/proc/sys/net/bridge/bridge-nf-call-iptables
	no_ipv6
	[[ ! -e $tables ]] ||
		set_sysctl "$tables" 0 'frames pass the machine'"'"'s iptables'
	{
		echo 'link add br0 type bridge'
		echo 'link set br0 up'
		for ((i = 0; i <= n; i++)); do
			echo "link add h$i type veth peer name wire" \
				"netns $(holder_pid "host$i")"
			echo "link set h$i master br0 up"
		done
	} | ip -batch -
	bridge fdb add "$lab_nowhere" dev br0 self local
	set_rate "$origin_rate" h0
	for ((i = 1; i <= n; i++)); do
		set_rate "$rate" "h$i"
	done
}

# with_lab in_host I|in_switch FUNCTION...: a function of this file, there.
with_lab()
{
	local go=("$1")
	shift
	if [[ ${go[0]} == in_host ]]; then
		go+=("$1")
		shift
	fi
	"${go[@]}" bash -ec '. "$0"; "$@"' "${BASH_SOURCE[0]}" "$@"
}

lab_up()
{
	local n=$1 rate=${2:-200mbit} origin_rate i
	origin_rate=${3:-$rate}
	[[ $n =~ ^[1-9][0-9]{0,3}$ ]] || {
		echo "lab: not a number of hosts: '$n'" >&2
		return 2
	}
	mkdir -p "$(lab_base)"
	LAB_DIR=$(lab_base)/${LAB_NAME:-$$.$SRANDOM}
	mkdir "$LAB_DIR" || return 1
	export LAB_DIR LAB_QUEUE LAB_TCP
	echo "$n" >"$LAB_DIR/size"
	process_mark "${LAB_OWNER:-$$}" >"$LAB_DIR/owner"
	holder switch
	for ((i = 0; i <= n; i++)); do
		holder "host$i"
	done
	for i in switch $(seq -f 'host%.0f' 0 "$n"); do
		await_holder "$i" || { lab_down; return 1; }
	done
	with_lab in_switch set_up_switch "$n" "$rate" "$origin_rate" ||
		{ lab_down; return 1; }
	with_lab in_host 0 set_up_host 0 "$origin_rate" ||
		{ lab_down; return 1; }
	for ((i = 1; i <= n; i++)); do
		with_lab in_host "$i" set_up_host "$i" "$rate" ||
			{ lab_down; return 1; }
	done
	[[ ! -e $LAB_DIR/differs ]] || echo "lab: what differs here:" \
		"$(lab_differs | paste -sd ';' | sed 's/;/; /g')" >&2
}

# Ends every process in the hosts. Nothing to do is no error.
lab_down()
{
	local file pid pids again
	[[ ${LAB_DIR:-} && -d $LAB_DIR ]] || return 0
	for ((again = 0; again < 100; again++)); do
		pids=$(for file in "$LAB_DIR"/host*; do
			host_pids "${file##*/host}"
		done)
		[[ $pids ]] || break
		# shellcheck disable=SC2086
		kill -KILL $pids 2>/dev/null || true
		sleep 0.02
	done
	for file in "$LAB_DIR"/host* "$LAB_DIR/switch"; do
		pid=$(holder_pid "${file##*/}") || continue
		kill -KILL "$pid" 2>/dev/null || true
	done
	rm -rf "$LAB_DIR"
	rmdir "$(lab_base)" 2>/dev/null || true
	unset LAB_DIR
}

# A process id, and when it started: ids come again.
process_mark()
{
	local stat
	stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
	stat=${stat##*) }
	# shellcheck disable=SC2086
	set -- "$1" $stat
	echo "$1 ${21}"
}

lab_sweep()
{
	local dir owner
	for dir in "$(lab_base)"/*/; do
		[[ -e ${dir}owner ]] || continue
		owner=$(<"${dir}owner")
		[[ $(process_mark "${owner%% *}") != "$owner" ]] || continue
		(
			LAB_DIR=${dir%/}
			lab_down
		)
	done
}

# ---- Bad luck ----

# lab_rate I RATE [RATE IN]: what it sends, and what it receives if that differs.
lab_rate()
{
	with_lab in_host "$1" shape "$2" wire
	with_lab in_switch shape "${3:-$2}" "h$1"
}

lab_cut()
{
	local i
	for i; do
		in_switch ip link set "h$i" nomaster
	done
}

lab_heal()
{
	local i
	for i; do
		in_switch ip link set "h$i" master br0
	done
}

lab_partition()
{
	local mine theirs i j
	for mine; do
		for i in $mine; do
			for theirs; do
				[[ $theirs != "$mine" ]] || continue
				for j in $theirs; do
					echo "neigh replace $(host_ip "$j")" \
						"lladdr $lab_nowhere" \
						"nud permanent dev eth0"
				done
			done | in_host "$i" ip -batch -
		done
	done
}

lab_heal_all()
{
	local i
	for i in 0 $(lab_hosts); do
		lab_heal "$i"
		in_host "$i" ip neigh flush nud permanent dev eth0
	done
}

lab_bytes()
{
	in_host "$1" awk '$1 == "wire:" { print $10, $2 }' /proc/net/dev
}
