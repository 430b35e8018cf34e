# shellcheck shell=bash disable=SC2034,SC2154
# For the tests of what peerd shows over HTTP; to be loaded after common.bash.

HTTPDIR=$ROOT/tests/http

# start_mirror [OPTION...]: a peerd that serves HTTP. Sets HTTP and PROM
# (host:port), and what start_peerd() sets. Called again: the same addresses.
start_mirror()
{
	HTTP=${HTTP:-127.0.0.1:$(free_port)}
	PROM=${PROM:-127.0.0.1:$(free_port)}
	start_peerd --http-addr "$HTTP" --prom-addr "$PROM" "$@"
}

# v2 PATH [REGISTRY]: the mirror's URL of PATH.
v2()
{
	echo "http://$HTTP/v2/$1?ns=${2:-$REG}"
}

# status_of CURL-ARGUMENT...: the status alone; 000 if there was none.
status_of()
{
	curl -s -o /dev/null -m "$PATIENCE" -w '%{http_code}' "$@" || true
}

# header_of NAME CURL-ARGUMENT...: the value of one response header.
header_of()
{
	local name=$1
	shift
	curl -s -o /dev/null -m "$PATIENCE" -D - "$@" | tr -d '\r' |
		sed -n "s/^$name: //Ip" | tail -n 1
}

# refuses STATUS CODE CURL-ARGUMENT...: answered with that status, and with a
# body in the registries' error format. STATUS and CODE are regular expressions.
refuses()
{
	local status=$1 code=$2 got
	shift 2
	got=$(curl -s -m "$PATIENCE" -o "$BATS_TEST_TMPDIR/refusal" \
		-w '%{http_code} %{content_type}' --path-as-is "$@")
	matches "$got" "^($status) application/json" || {
		echo "for: $*" >&2
		return 1
	}
	matches "$(jq -r '.errors[0].code' "$BATS_TEST_TMPDIR/refusal")" \
		"^($code)\$" || {
		echo "for: $*" >&2
		return 1
	}
	jq -e '.errors[0].message | length > 0' \
		"$BATS_TEST_TMPDIR/refusal" >/dev/null
}

# metric NAME [PATTERN]: the sum of the series whose line matches PATTERN.
metric()
{
	curl -sf "http://$PROM/metrics/prometheus" |
		awk -v name="$1" -v pattern="${2:-.}" '
		$0 ~ "^" name "[ {]" && $0 ~ pattern {
			sum += $NF; n++
		}
		END { printf "%.0f\n", sum }'
}

# Nothing is being fetched.
quiet()
{
	curl -sf "http://$HTTP/api/v1/status" | jq -e '.fetch.flights == 0'
}

# slice FILE OFFSET LENGTH
slice()
{
	tail -c +"$(($2 + 1))" "$1" | head -c "$3" || true
}

# clients SUBCOMMAND ...: see clients.py.
clients()
{
	python3 "$HTTPDIR/clients.py" "$@"
}

# Resident memory of the daemon, in KiB, without pages of files.
anon_kib()
{
	awk '$1 == "RssAnon:" { print $2 }' "/proc/$(peerd_pid)/status"
}
