#!/bin/bash
# The workload `ctr`: pulls images into containerd through peerd's mirror, and
# prints JSON lines: how fast each pull was, what failed, and where the bytes
# came from that peerd served meanwhile.
#
#   ctr.sh [OPTION]... IMAGE...
#
#   --address PATH      containerd's socket (/run/containerd/containerd.sock)
#   --namespace NAME    of containerd (peerd-ctr); pulled images are removed
#   --hosts-dir DIR     with the hosts.toml files (/etc/containerd/certs.d)
#   --snapshotter NAME  what images are unpacked with (containerd's default)
#   --http URL          peerd (http://127.0.0.1:5000)
#   --metrics URL       its metrics (the same, /metrics/prometheus)
#   --state STATE       waits for it (P2PActive); "ready": whatever the peers do
#   --wait SECONDS      for that (300)
#   --rounds N          pulls of each image (1); it is removed before the next
#   --keep              do not remove the images after the last round
#   --node NAME         in what is printed (the host name)
#   --stay              do not end, so that a DaemonSet does not begin again
#
# Speeds are of whole pulls, unpacking included, in MB/s (1 MB is 1,000,000
# bytes) of the image's size. Percentiles are of speed, from the fastest on:
# p100 is the slowest. Status: 0 all images came, 1 not all, 2 wrong options.
set -euo pipefail
export LC_ALL=C

address=/run/containerd/containerd.sock
namespace=peerd-ctr
hosts_dir=/etc/containerd/certs.d
snapshotter=
http=http://127.0.0.1:5000
metrics=
state=P2PActive
wait=300
rounds=1
keep=
stay=
node=${NODE_NAME:-$(uname -n)}

usage()
{
	sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
}

bad()
{
	echo "ctr.sh: $*" >&2
	exit 2
}

while (($#)); do
	case $1 in
	--address | --namespace | --hosts-dir | --snapshotter | --http | \
		--metrics | --state | --wait | --rounds | --node)
		(($# > 1)) || bad "$1 wants a value"
		name=${1#--}
		printf -v "${name//-/_}" %s "$2"
		shift 2
		;;
	--keep) keep=1 && shift ;;
	--stay) stay=1 && shift ;;
	--help | -h) usage && exit 0 ;;
	--) shift && break ;;
	-*) bad "no option $1 (see --help)" ;;
	*) break ;;
	esac
done
(($#)) || bad 'no image (see --help)'
[[ $rounds =~ ^[1-9][0-9]*$ && $wait =~ ^[0-9]+$ ]] ||
	bad '--rounds and --wait want numbers'
metrics=${metrics:-$http/metrics/prometheus}
for program in ctr curl awk; do
	command -v "$program" >/dev/null || bad "needs $program"
done

# say LEVEL MESSAGE [KEY JSON-VALUE]...
say()
{
	local line
	line="{\"level\":\"$1\",\"node\":\"$node\",\"time\":"
	line+="\"$(date -u +%Y-%m-%dT%H:%M:%SZ)\",\"message\":\"$2\""
	shift 2
	while (($#)); do
		line+=",\"$1\":$2"
		shift 2
	done
	echo "$line}"
}

# A JSON string.
quoted()
{
	local s=${1//\\/\\\\}
	s=${s//\"/\\\"}
	s=${s//[$'\t\r\n']/ }
	echo "\"$s\""
}

p2p_state()
{
	if [[ $state == ready ]]; then
		curl -sf -o /dev/null -m 5 "$http/readyz" && echo ready
	else
		curl -sf -m 5 "$http/api/v1/status" |
			sed -n 's/.*"p2p": *"\([^"]*\)".*/\1/p'
	fi
}

wait_state()
{
	local now='' end=$((SECONDS + wait))
	until now=$(p2p_state) && [[ $now == "$state" ]]; do
		if ((SECONDS >= end)); then
			say error 'peerd is not in that state' \
				wanted "$(quoted "$state")" \
				state "$(quoted "${now:-no answer}")"
			return 1
		fi
		sleep 0.5
	done
	say info "peerd is $state"
}

# The bytes fetched so far: "SOURCE BYTES" lines.
by_source()
{
	curl -sf -m 30 "$metrics" | awk '
		/^peerd_fetched_bytes_total\{/ {
			if (match($0, /source="[^"]*"/))
				n[substr($0, RSTART + 8, RLENGTH - 9)] += $NF
		}
		END { for (s in n) printf "%s %.0f\n", s, n[s] }'
}

ctr_()
{
	ctr --address "$address" --namespace "$namespace" "$@"
}

# The image's size as containerd has it, in bytes: "4.7 MiB".
size_of()
{
	ctr_ images ls "name==$1" | awk 'NR == 2 {
		for (i = 3; i < NF; i++)
			if (match($(i + 1), /^([KMGT]i)?B$/)) {
				u = index("KMGT", substr($(i + 1), 1, 1))
				printf "%.0f\n", $i * 1024 ^ u
				exit
			}
	}'
}

speeds=()
pulls=0
errors=0
out=$(mktemp)
trap 'rm -f "$out"' EXIT

pull()
{
	local image=$1 from to size speed
	pulls=$((pulls + 1))
	say info 'pulling image' image "$(quoted "$image")"
	from=${EPOCHREALTIME/./}
	if ! ctr_ images pull --hosts-dir "$hosts_dir" \
		${snapshotter:+--snapshotter "$snapshotter"} "$image" \
		>"$out" 2>&1 </dev/null; then
		errors=$((errors + 1))
		say error 'pull failed' image "$(quoted "$image")" \
			why "$(quoted "$(tail -n 1 "$out")")"
		return 0
	fi
	to=${EPOCHREALTIME/./}
	size=$(size_of "$image")
	speed=$(awk -v b="${size:-0}" -v us=$((to - from)) \
		'BEGIN { printf "%.3f", b / (us > 0 ? us : 1) }')
	speeds+=("$speed")
	say info 'pulled image' image "$(quoted "$image")" \
		size "${size:-0}" ms $(((to - from) / 1000)) speed "$speed"
}

remove()
{
	ctr_ images rm --sync "$1" >/dev/null 2>&1 || true
}

work()
{
	local before after round image keys=() p rank n
	wait_state || return 1
	before=$(by_source) || before=
	for ((round = 1; round <= rounds; round++)); do
		for image; do
			pull "$image"
			[[ $keep && $round == "$rounds" ]] || remove "$image"
		done
	done
	n=${#speeds[@]}
	if ((n)); then
		mapfile -t speeds < <(printf '%s\n' "${speeds[@]}" | sort -rn)
		for p in 50 75 90 95 100; do
			rank=$(((n * p + 99) / 100))
			keys+=("pull.p$p" "${speeds[rank - 1]}")
		done
		say info 'speeds (MB/s)' "${keys[@]}"
	fi
	say info 'error rates' pull.error_rate \
		"$(awk -v e="$errors" -v n="$pulls" 'BEGIN { print e / n }')"
	if after=$(by_source); then
		# What there was before counts negative.
		mapfile -t keys < <(awk 'FNR == 1 { file++ }
			NF == 2 { n[$1] += file == 1 ? -$2 : $2 }
			END { for (s in n) printf "%s\n%.0f\n", s, n[s] }' \
			<(echo "$before") <(echo "$after"))
		say info 'bytes by source' "${keys[@]}"
	else
		say warn 'no metrics' url "$(quoted "$metrics")"
	fi
	((errors == 0))
}

rc=0
work "$@" || rc=$?
[[ ! $stay ]] || exec sleep infinity
exit "$rc"
