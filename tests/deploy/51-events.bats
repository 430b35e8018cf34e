#!/usr/bin/env bats
# shellcheck disable=SC2034,SC2016,SC2119,SC2120,SC2154
# Events on the daemon's pod, against a small API server (tests/lib/kube-api.py)
# with TLS and bearer tokens; kubectl looks at them where it is installed.

load ../lib/common
load ../lib/http

setup_file()
{
	export API_DIR=$BATS_FILE_TMPDIR/api
	mkdir -p "$API_DIR"
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
		-days 2 -subj /CN=kubernetes -keyout "$API_DIR/key" \
		-addext 'subjectAltName=IP:127.0.0.1' -out "$API_DIR/ca.crt" \
		2>/dev/null
}

setup()
{
	ACCOUNT=$BATS_TEST_TMPDIR/account
	mkdir -p "$ACCOUNT"
	cp "$API_DIR/ca.crt" "$ACCOUNT/"
	echo good-token >"$ACCOUNT/token"
	echo good-token >"$BATS_TEST_TMPDIR/valid"
	printf kube-test >"$ACCOUNT/namespace"
	export KUBERNETES_SERVICE_HOST=127.0.0.1
	export POD_NAME=peerd-x1 POD_UID=11-22 NODE_NAME=node-1
	unset POD_NAMESPACE
}

# start_api: sets API (the URL).
start_api()
{
	background "$BATS_TEST_TMPDIR/api" "$LIB/kube-api.py" \
		--port-file "$BATS_TEST_TMPDIR/port" --cert "$API_DIR/ca.crt" \
		--key "$API_DIR/key" --token-file "$BATS_TEST_TMPDIR/valid"
	wait_for 20 test -s "$BATS_TEST_TMPDIR/port"
	KUBERNETES_SERVICE_PORT=$(<"$BATS_TEST_TMPDIR/port")
	export KUBERNETES_SERVICE_PORT
	API=https://127.0.0.1:$KUBERNETES_SERVICE_PORT
	wait_for 20 api /control/attempts
}

api()
{
	curl -sf --cacert "$API_DIR/ca.crt" "${@:2}" "$API$1"
}

control()
{
	api "/control/$1" -X POST -d '' >/dev/null
}

attempts()
{
	api /control/attempts
}

attempts_are()
{
	(($(attempts) >= $1))
}

# The reasons of the events so far, one a line.
reasons()
{
	api /api/v1/namespaces/kube-test/events \
		-H 'Authorization: Bearer good-token' | jq -r '.items[].reason'
}

has_reason()
{
	reasons | grep -qx "$1"
}

# A member, as yet of itself alone.
start_pod()
{
	A=${A:-127.0.0.1:$(free_port)}
	B=${B:-127.0.0.1:$(free_port)}
	start_mirror --service-account-dir "$ACCOUNT" --https-addr "$A" \
		--peers "$A,$B"
}

# The daemon works: it is ready, and serves.
is_well()
{
	equal "$(status_of "http://$PROM/readyz")" 200
	equal "$(status_of "http://$HTTP/v2/")" 200
}

kubectl_()
{
	HOME=$BATS_TEST_TMPDIR KUBECONFIG=/dev/null kubectl --server "$API" \
		--certificate-authority "$API_DIR/ca.crt" \
		--token good-token -n kube-test "$@"
}

@test "the daemon's state is an event on its pod" {
	start_api
	start_pod
	wait_for "$PATIENCE" has_reason P2PInitializing
	event=$(api /api/v1/namespaces/kube-test/events \
		-H 'Authorization: Bearer good-token' | jq '.items[0]')
	equal "$(jq -r '.involvedObject | .kind, .name, .uid' <<<"$event" |
		xargs)" 'Pod peerd-x1 11-22'
	equal "$(jq -r .source.host <<<"$event")" node-1
	equal "$(curl -sf "http://$HTTP/api/v1/status" |
		jq -r .p2p)" P2PInitializing
}

@test "kubectl shows the events of the pod" {
	command -v kubectl >/dev/null || missing 'needs kubectl'
	start_api
	control pod/kube-test/peerd-x1/11-22
	# Somebody who watches sees it come.
	background "$BATS_TEST_TMPDIR/watch" env HOME="$BATS_TEST_TMPDIR" \
		KUBECONFIG=/dev/null kubectl --server "$API" --token good-token \
		--certificate-authority "$API_DIR/ca.crt" -n kube-test \
		get events --watch -o name
	start_pod
	wait_for "$PATIENCE" has_reason P2PInitializing
	wait_for "$PATIENCE" grep -q 'event/peerd-x1\.' \
		"$BATS_TEST_TMPDIR/watch.out"
	kubectl_ describe pod peerd-x1 >"$BATS_TEST_TMPDIR/describe"
	grep -q 'P2PInitializing' "$BATS_TEST_TMPDIR/describe"
	grep -qE 'From|peerd' "$BATS_TEST_TMPDIR/describe"
}

@test "two members are connected and active" {
	start_api
	start_pod
	first=$PEERD_RUN
	wait_for "$PATIENCE" has_reason P2PInitializing
	(
		unset KUBERNETES_SERVICE_HOST
		CACHE=$BATS_TEST_TMPDIR/cache2 MNT=$BATS_TEST_TMPDIR/mnt2
		start_peerd --https-addr "$B" --peers "$A,$B"
	)
	wait_for "$PATIENCE" has_reason P2PConnected
	wait_for "$PATIENCE" has_reason P2PActive
	equal "$(curl -sf "http://$HTTP/api/v1/status" | jq -r .p2p)" P2PActive
	second=$(tail -n 1 "$BATS_TEST_TMPDIR/runs")
	refute test "$second" = "$first"
	finish "$second" TERM
	wait_for "$PATIENCE" has_reason P2PDisconnected
	equal "$(reasons | xargs)" \
		'P2PInitializing P2PConnected P2PActive P2PDisconnected'
}

@test "without members there is nothing to tell" {
	start_api
	start_mirror --service-account-dir "$ACCOUNT"
	equal "$(curl -sf "http://$HTTP/api/v1/status" | jq -r .p2p)" none
	stop_peerd
	equal "$(attempts)" 0
}

@test "no Kubernetes API there: logged once, and all works" {
	KUBERNETES_SERVICE_PORT=$(free_port)
	export KUBERNETES_SERVICE_PORT
	start_pod
	wait_for "$PATIENCE" logged 'cannot post events'
	is_well
	stop_peerd
	equal "$(grep -c 'cannot post events' "$PEERD_LOG")" 1
}

@test "no rights: 403 and 401 are given up, and logged once" {
	start_api
	control fail/403,403,403,403,403
	start_pod
	wait_for "$PATIENCE" logged 'refuses events'
	is_well
	equal "$(attempts)" 4
	stop_peerd
	equal "$(grep -c 'refuses events' "$PEERD_LOG")" 1
	# Nobody knows this token.
	echo stale >"$ACCOUNT/token"
	control fail/
	start_pod
	wait_for "$PATIENCE" logged 'refuses events.*401'
	is_well
	refute logged stale
	refute logged good-token
}

@test "429, 409, 500 and a lost answer: it comes once" {
	start_api
	control fail/429,500,lost
	start_pod
	wait_for "$PATIENCE" attempts_are 4
	wait_for "$PATIENCE" has_reason P2PInitializing
	wait_for "$PATIENCE" eval '[[ $(api /control/requests |
		jq -r ".[0:4] | join(\" \")") == "429 500 lost 409" ]]'
	equal "$(reasons | grep -c P2PInitializing)" 1
	is_well
}

@test "an API that hangs holds up nothing" {
	start_api
	control fail/hang
	start_pod
	wait_for "$PATIENCE" attempts_are 1
	is_well
	stop_peerd
}

@test "a token that is rotated is read again" {
	start_api
	echo old >"$ACCOUNT/token"
	start_pod
	wait_for "$PATIENCE" attempts_are 1
	# As the kubelet does it.
	echo good-token >"$ACCOUNT/token.new"
	mv "$ACCOUNT/token.new" "$ACCOUNT/token"
	wait_for "$PATIENCE" has_reason P2PInitializing
	refute logged 'refuses events'
}

@test "a server with another CA gets no token" {
	start_api
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
		-days 2 -subj /CN=other -keyout "$BATS_TEST_TMPDIR/key" \
		-out "$ACCOUNT/ca.crt" 2>/dev/null
	start_pod
	wait_for "$PATIENCE" logged 'cannot post events'
	equal "$(attempts)" 0
	is_well
}
