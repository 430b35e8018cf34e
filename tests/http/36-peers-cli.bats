#!/usr/bin/env bats
# shellcheck disable=SC2030,SC2031,SC2034,SC2119,SC2154
# `peerd keys` and `peerd peers`, options of peers that do not fit together, and
# the daemon's config file in the hands of other commands.

load ../lib/common
load ../lib/http

# fails STATUS PATTERN COMMAND...: one sentence on standard error.
fails()
{
	local want=$1 pattern=$2
	shift 2
	run --separate-stderr "-$want" "$@"
	matches "$stderr" "$pattern"
	equal "$output" ''
}

# ---- keys ----

mode_of()
{
	stat -c %a "$1"
}

@test "keys init: a CA, once" {
	local dir=$BATS_TEST_TMPDIR/keys before
	run -0 "$PEERD" keys init --dir "$dir"
	matches "$output" "$dir/ca.crt.*$dir/ca.key"
	equal "$(mode_of "$dir") $(mode_of "$dir/ca.key")" '700 600'
	equal "$(cd "$dir" && echo *)" 'ca.crt ca.key'
	openssl x509 -in "$dir/ca.crt" -noout -text |
		grep -q 'CA:TRUE, pathlen:0'
	before=$(digest_of "$dir/ca.key")
	fails 1 'there is a CA already' "$PEERD" keys init --dir "$dir"
	# Half of one is not overwritten either.
	rm "$dir/ca.crt"
	fails 1 'there is a CA already' "$PEERD" keys init --dir "$dir"
	equal "$(digest_of "$dir/ca.key")" "$before"
	refute test -e "$dir/ca.crt"
	fails 1 'nowhere/keys: No such file' \
		"$PEERD" keys init --dir "$BATS_TEST_TMPDIR/nowhere/keys"
}

@test "keys issue: a node's two files, and their renewal" {
	local dir=$BATS_TEST_TMPDIR/keys before purpose
	"$PEERD" keys init --dir "$dir"
	run -0 "$PEERD" keys issue --dir "$dir" node1 --days 30
	matches "$output" "$dir/node1.crt, $dir/node1.key: valid until 2"
	equal "$(mode_of "$dir/node1.key")" 600
	for purpose in sslserver sslclient; do
		openssl verify -CAfile "$dir/ca.crt" -purpose $purpose \
			"$dir/node1.crt"
	done
	matches "$(openssl x509 -in "$dir/node1.crt" -noout -subject)" \
		'CN ?= ?node1$'
	openssl x509 -in "$dir/node1.crt" -noout -checkend $((29 * 86400))
	refute openssl x509 -in "$dir/node1.crt" -noout \
		-checkend $((31 * 86400))
	before=$(<"$dir/node1.crt")
	PEERD_DIR=$dir "$PEERD" keys issue node1
	refute test "$before" = "$(<"$dir/node1.crt")"
	openssl verify -CAfile "$dir/ca.crt" "$dir/node1.crt"
	# Certificate and key belong together.
	equal "$(openssl x509 -in "$dir/node1.crt" -noout -pubkey)" \
		"$(openssl pkey -in "$dir/node1.key" -pubout)"
	equal "$(cd "$dir" && echo *)" 'ca.crt ca.key node1.crt node1.key'
}

@test "keys: what is wrong is said, and nothing is written" {
	local dir=$BATS_TEST_TMPDIR/keys name
	mkdir "$dir"
	fails 1 'ca.crt' "$PEERD" keys issue --dir "$dir" node1
	equal "$(ls -A "$dir")" ''
	"$PEERD" keys init --dir "$dir"
	for name in ca .hidden ../up a/b $'a\nb' "$(printf 'x%.0s' {1..65})" ''
	do
		fails 1 "the node's name" \
			"$PEERD" keys issue --dir "$dir" "$name"
	done
	equal "$(ls -A "$dir" | sort | xargs)" 'ca.crt ca.key'
	for name in 0 3651 x; do
		fails 2 '--days: "'$name'" is not' \
			"$PEERD" keys issue --dir "$dir" --days $name node1
	done
	fails 2 'use keys init or keys issue NODE' "$PEERD" keys
	fails 2 'use keys init or keys issue NODE' "$PEERD" keys renew
	fails 2 'dir DIR is missing' "$PEERD" keys init
	fails 2 'dir DIR is missing' "$PEERD" keys issue node1
	fails 2 'takes no NODE' "$PEERD" keys init --dir "$dir" node1
	fails 2 'takes one NODE' "$PEERD" keys issue --dir "$dir"
	fails 2 'takes one NODE' "$PEERD" keys issue --dir "$dir" node1 node2
	fails 2 '--dri: no such option; did you mean --dir' \
		"$PEERD" keys init --dri x
	equal "$(ls -A "$dir" | sort | xargs)" 'ca.crt ca.key'
	run -0 "$PEERD" keys --help
	matches "$output" 'issue --dir DIR NODE'
	# Another cluster's files, or a key that is none of theirs.
	"$PEERD" keys init --dir "$dir.2"
	cp "$dir.2/ca.key" "$dir/"
	fails 1 'ca.key is not the key of ca.crt' \
		"$PEERD" keys issue --dir "$dir" node1
	echo nothing >"$dir/ca.key"
	fails 1 'ca.key' "$PEERD" keys issue --dir "$dir" node1
}

# ---- Options that do not fit together ----

# not_started WHY OPTION...: the daemon says why, and ends.
not_started()
{
	local why=$1
	shift
	fails "${STATUS:-2}" '"message":"cannot start".*"why":"[^"]*'"$why" \
		timeout "$PATIENCE" "$PEERD" run --log-format json \
		--cache-dir "$BATS_TEST_TMPDIR/cache" --cache-min-free 0 "$@"
}

@test "peers off this host without keys are refused" {
	local at
	at=127.0.0.1:$(free_port)
	not_started 'insecure-peers' --peers 192.0.2.1:5001 --https-addr "$at"
	not_started 'insecure-peers' --peers dns:peerd.invalid --https-addr "$at"
	not_started 'insecure-peers' --peers "127.0.0.1:1,[2001:db8::1]" \
		--https-addr "$at"
	# The listener counts too, and :5001 is for everybody.
	not_started 'peerd keys' --peers 127.0.0.1:5001
	not_started 'peerd keys' --https-addr 0.0.0.0:0
	not_started 'listener' --peers 127.0.0.1:5001 --https-addr none
	# All of it is well when it is wished.
	start_peerd --insecure-peers --https-addr ":$(free_port)" \
		--peers 127.0.0.1:1
	logged 'neither encrypted nor authenticated'
}

@test "keys are given together, and can be read" {
	local dir=$BATS_TEST_TMPDIR/keys at some
	local ca=(--tls-ca "$dir/ca.crt") cert=(--tls-cert "$dir/n.crt")
	local key=(--tls-key "$dir/n.key")
	at=127.0.0.1:$(free_port)
	"$PEERD" keys init --dir "$dir"
	"$PEERD" keys issue --dir "$dir" n
	for some in "${ca[*]}" "${cert[*]}" "${key[*]}" "${ca[*]} ${cert[*]}" \
		"${ca[*]} ${key[*]}" "${cert[*]} ${key[*]}"; do
		# shellcheck disable=SC2086
		not_started 'must all be given' --https-addr "$at" $some
	done
	STATUS=1 not_started "$dir/none.crt" --https-addr "$at" --tls-ca \
		"$dir/none.crt" "${cert[@]}" "${key[@]}"
	STATUS=1 not_started "$dir/ca.key" --https-addr "$at" "${ca[@]}" "${cert[@]}" \
		--tls-key "$dir/ca.key"
	STATUS=1 not_started "$dir/n.key" --https-addr "$at" "${ca[@]}" \
		--tls-cert "$dir/n.key" "${key[@]}"
	refute test -e "$BATS_TEST_TMPDIR/cache/peerd.sock"
	start_peerd --https-addr "$at" "${ca[@]}" "${cert[@]}" "${key[@]}"
	logged '"message":"listening for members".*"tls":true'
}

@test "malformed peers are named" {
	local at bad
	at=127.0.0.1:$(free_port)
	for bad in 127.0.0.1:0 127.0.0.1:65536 127.0.0.1:x 127.0.0.1:5001:1; do
		not_started "$bad" --https-addr "$at" --peers "$bad"
	done
	for bad in 'a b:1' 10.0.0 224.0.0.1 ::1 '\[::1' '\[::g\]:1' dns: \
		dns:a..b srv:name 'srv:_peerd._tcp' srv:_peerd._tcp.name:5001 \
		http://host; do
		not_started "${bad//\//.}" --https-addr "$at" --insecure-peers \
			--peers "${bad//\\/}"
	done
	not_started 'zone' --https-addr "$at" --zone 'a b'
	not_started 'name' --https-addr "$at" --node-name 'a b'
	fails 2 '--upload-slots: "0" is not' "$PEERD" run --upload-slots 0
	fails 2 '--peers: needs a value' "$PEERD" run --peers
}

# ---- peers ----

# peers_say CACHE JQ-FILTER
peers_say()
{
	"$PEERD" peers --json --cache-dir "$1" | jq -e "$2"
}

@test "peers: a table for people, JSON for others" {
	local port one=$BATS_TEST_TMPDIR/one two=$BATS_TEST_TMPDIR/two line dir
	port=$(free_port)
	start_registry
	random_file "$BATS_TEST_TMPDIR/f" $((4 * MiB))
	push_artifact cli/data v1 "$BATS_TEST_TMPDIR/f" >/dev/null
	CACHE=$one MNT=$BATS_TEST_TMPDIR/mnt1 start_peerd --node-name one \
		--https-addr "127.0.0.2:$port" --peers "127.0.0.3:$port"
	CACHE=$two MNT=$BATS_TEST_TMPDIR/mnt2
	start_peerd --node-name two --zone east \
		--https-addr "127.0.0.3:$port" --peers "127.0.0.2:$port"
	for dir in "$one" "$two"; do
		wait_for "$PATIENCE" peers_say "$dir" \
			'[.peers[] | select(.state == "alive")] | length == 1'
	done
	run -0 "$PEERD" peers --cache-dir "$one"
	matches "${lines[0]}" '^NODE +ADDRESS +ZONE +STATE +RTT +FROM IT +TO IT'
	line=$(grep '^two ' <<<"$output")
	matches "$line" "^two +127\.0\.0\.3:$port +east +alive +[0-9.]+ ms +0 B"
	line=$("$PEERD" peers --cache-dir "$two" | grep '^one ')
	matches "$line" "^one +127\.0\.0\.2:$port +- +alive "
	equal "$(peers_say "$one" '.self.name')" '"one"'
	equal "$(peers_say "$two" '.self.zone')" '"east"'
	equal "$(peers_say "$one" '.peers[] | select(.name == "two") | .id')" \
		"$(peers_say "$two" .self.id)"
	# What comes from another is told of.
	"$PEERD" pull --cache-dir "$one" "$REG/cli/data:v1"
	"$PEERD" pull --cache-dir "$two" "$REG/cli/data:v1"
	wait_for "$PATIENCE" peers_say "$two" \
		'[.peers[].received_bytes] | add > 0'
	wait_for "$PATIENCE" peers_say "$one" '[.peers[].sent_bytes] | add > 0'
	"$PEERD" status --cache-dir "$one" | grep -q '^peers  *1 alive'
	# One that ends is not alive for long, and why is told.
	stop_peerd
	wait_for "$PATIENCE" peers_say "$one" \
		'.peers[] | select(.name == "two") | .state == "gone"'
	line=$("$PEERD" peers --cache-dir "$one" | grep '^two ')
	matches "$line" ' gone .* B +[^ ].*'
}

@test "peers: no daemon, or one that is alone" {
	fails 1 'no daemon has its socket' "$PEERD" peers \
		--cache-dir "$BATS_TEST_TMPDIR/none"
	fails 2 'unexpected argument' "$PEERD" peers two
	start_peerd
	run -0 peerd peers
	equal "${#lines[@]}" 1
	equal "$(peerd peers --json)" '{"peers":[]}'
}

# ---- A config file that is the daemon's ----

@test "PEERD_CONFIG is the daemon's file: other commands take their part" {
	local file=$BATS_TEST_TMPDIR/config.json dir=$BATS_TEST_TMPDIR/keys
	local command
	export PEERD_CONFIG=$file
	jq -n --arg c "$BATS_TEST_TMPDIR/cache" --arg m "$BATS_TEST_TMPDIR/m" \
		--arg a "127.0.0.1:$(free_port)" '{"cache-dir": $c,
		"cache-min-free": 0, mount: $m, "https-addr": $a,
		peers: [$a, "127.0.0.1:1"], zone: "here", "log-level": "debug",
		hosts: ["registry.example"], "plain-http": []}' >"$file"
	MNT=$BATS_TEST_TMPDIR/m start_peerd
	for command in status ls peers; do
		run -0 "$PEERD" $command
		run -0 "$PEERD" $command --json
		jq -e . <<<"$output"
	done
	run -0 "$PEERD" verify --all
	run -0 "$PEERD" evict --all
	run -0 "$PEERD" hosts add --containerd-hosts-config-path \
		"$BATS_TEST_TMPDIR/certs.d"
	test -e "$BATS_TEST_TMPDIR/certs.d/registry.example/hosts.toml"
	run -0 "$PEERD" keys init --dir "$dir"
	run -0 "$PEERD" version
	# A flag wins over the file.
	fails 1 'no daemon has its socket at /nowhere' \
		"$PEERD" status --cache-dir /nowhere
	# What is wrong in their part is still told, and all of it to run.
	echo '{"cache-dir": 7}' >"$file"
	fails 2 'cache-dir' "$PEERD" status
	echo '{' >"$file"
	fails 2 "$file" "$PEERD" status
	echo '{"peer": []}' >"$file"
	fails 2 'did you mean peers' "$PEERD" run
	rm "$file"
	fails 2 "$file" "$PEERD" status
}
