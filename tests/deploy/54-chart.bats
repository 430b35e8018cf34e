#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2034,SC2119,SC2120,SC2154
# The chart, the manifests and kind.sh. The chart is rendered with Helm, or with
# Helm's template engine where Helm is not to be had; there is no cluster here.

load ../lib/common

CHART=$ROOT/deploy/helm/peerd
MANIFESTS=$ROOT/deploy/manifests

setup()
{
	cd "$ROOT" || return
}

need_renderer()
{
	command -v helm >/dev/null || [[ -d \
		/usr/share/gocode/src/github.com/Masterminds/sprig ]] ||
		missing 'needs helm, or go and sprig'
}

chart()
{
	python3 "$ROOT/tests/deploy/chart.py" "$@"
}

# values TEXT: a file of values; its path.
values()
{
	local file
	file=$(mktemp "$BATS_TEST_TMPDIR/values-XXXXXX.yaml")
	tr '\t' ' ' <<<"$1" >"$file"
	echo "$file"
}

@test "the manifests have no field that Kubernetes does not have" {
	chart fields "$MANIFESTS"/{peerd,random,ctr}.yaml
	# It would find one.
	sed 's/mountPropagation/mountPropagatoin/' "$MANIFESTS/peerd.yaml" \
		>"$BATS_TEST_TMPDIR/bad.yaml"
	refute chart fields "$BATS_TEST_TMPDIR/bad.yaml"
}

@test "the manifests fit together, and the daemon has the options" {
	chart peerd "$PEERD" "$MANIFESTS/peerd.yaml"
}

@test "the manifests are what the chart renders" {
	need_renderer
	[[ -d /usr/share/gocode/src/github.com/Masterminds/sprig ]] ||
		missing 'needs go and sprig'
	scripts/render-chart --check
}

@test "kubectl takes the manifests" {
	command -v kubectl >/dev/null || missing 'needs kubectl'
	echo token >"$BATS_TEST_TMPDIR/token"
	# kubectl sends no token without TLS.
	cd "$BATS_TEST_TMPDIR"
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
		-days 2 -subj /CN=kubernetes -keyout key -out ca.crt \
		-addext 'subjectAltName=IP:127.0.0.1' 2>/dev/null
	background "$BATS_TEST_TMPDIR/api" "$LIB/kube-api.py" \
		--port-file "$BATS_TEST_TMPDIR/port" --cert ca.crt --key key \
		--token-file "$BATS_TEST_TMPDIR/token"
	wait_for 20 test -s "$BATS_TEST_TMPDIR/port"
	cat >"$BATS_TEST_TMPDIR/config" <<-END
		apiVersion: v1
		kind: Config
		current-context: t
		contexts: [{name: t, context: {cluster: t, user: t}}]
		clusters: [{name: t, cluster:
		  {server: "https://127.0.0.1:$(<"$BATS_TEST_TMPDIR/port")",
		  certificate-authority: "$BATS_TEST_TMPDIR/ca.crt"}}]
		users: [{name: t, user: {token: token}}]
	END
	for file in peerd random ctr; do
		HOME=$BATS_TEST_TMPDIR KUBECONFIG=$BATS_TEST_TMPDIR/config \
			kubectl create --dry-run=client --validate=false \
			-f "$MANIFESTS/$file.yaml" >"$BATS_TEST_TMPDIR/$file"
	done
	for kind in daemonset.apps/peerd service/peerd serviceaccount/peerd \
		role.rbac.authorization.k8s.io/peerd \
		networkpolicy.networking.k8s.io/peerd \
		priorityclass.scheduling.k8s.io/peerd; do
		grep -q "^$kind created" "$BATS_TEST_TMPDIR/peerd"
	done
}

@test "the chart renders with all kinds of values" {
	need_renderer
	export GOCACHE=$BATS_FILE_TMPDIR/go
	n=0
	for text in '{}' \
		'{mount: {enabled: false, path: /x}}' \
		'{mirror: {enabled: false}, containerd: {enabled: false}}' \
		'{hostNetwork: true, zone: z1, logLevel: debug}' \
		'{registry: {configSecret: creds, plainHttp: ["reg.example:5000"]}}' \
		'{ports: {http: 30000, https: 30001, metrics: 30004}}' \
		'{priorityClass: {create: false}, networkPolicy: {enabled: false},
		  serviceAccount: {create: false, name: other}}' \
		'{extraArgs: ["--read-timeout=30s"], maxUnavailable: 1,
		  extraEnv: [{name: https_proxy, value: "http://p:1"}],
		  podLabels: {a: b}, podAnnotations: {c: d},
		  imagePullSecrets: [{name: pull}], image: {tag: v2},
		  mount: {path: /srv/peerd, enabled: true, allowOther: false}}'; do
		n=$((n + 1))
		file=$(values "$text")
		chart values "$CHART/values.schema.json" "$CHART/values.yaml" "$file"
		scripts/render-chart some-release some-space "$file" \
			>"$BATS_TEST_TMPDIR/$n.yaml"
		chart fields "$BATS_TEST_TMPDIR/$n.yaml"
		chart peerd "$PEERD" "$BATS_TEST_TMPDIR/$n.yaml"
		refute grep -n 'no value\|%!' "$BATS_TEST_TMPDIR/$n.yaml"
	done
	grep -q 'priorityClassName' "$BATS_TEST_TMPDIR/1.yaml"
	refute grep -q 'priorityClassName\|^kind: ServiceAccount' \
		"$BATS_TEST_TMPDIR/7.yaml"
}

@test "values that cannot work are refused" {
	python3 -c 'import jsonschema' 2>/dev/null || missing 'needs jsonschema'
	while read -r text; do
		if chart values "$CHART/values.schema.json" \
			"$CHART/values.yaml" "$(values "$text")" >/dev/null; then
			echo "was taken: $text" >&2
			return 1
		fi
	done <<-'END'
		{mnt: {path: /x}}
		{mount: {path: relative, enabled: true}}
		{mount: {path: /, enabled: true}}
		{mount: {path: "/a/../b/..", enabled: true}}
		{mount: {enabled: "yes"}}
		{cache: {size: 50 gigabytes}}
		{cache: {size: 50}}
		{cache: {minFree: -1GiB}}
		{mirror: {enabled: true, hosts: []}}
		{mirror: {hosts: ["https://docker.io"]}}
		{mirror: {hosts: ["docker.io/library"]}}
		{mirror: {hosts: [_default]}}
		{ports: {http: 0}}
		{ports: {https: "5001"}}
		{ports: {metrics: 70000}}
		{image: {repository: ""}}
		{image: {tag: "a b"}}
		{image: {pullPolicy: Sometimes}}
		{logLevel: verbose}
		{tls: {days: 0}}
		{extraArgs: [mount]}
		{maxUnavailable: 0}
		{maxUnavailable: 0%}
		{maxUnavailable: all}
		{resources: {limits: {memory: lots}}}
		{priorityClass: {create: true, value: 2000000000}}
		{terminationGracePeriodSeconds: 0}
		{zone: "a zone"}
	END
}

@test "the chart makes a CA and a certificate, and keeps them" {
	[[ -d /usr/share/gocode/src/github.com/Masterminds/sprig ]] ||
		missing 'needs go and sprig'
	export GOCACHE=$BATS_FILE_TMPDIR/go RENDER_GO=1
	scripts/render-chart peerd peerd >"$BATS_TEST_TMPDIR/first.yaml"
	mkdir "$BATS_TEST_TMPDIR/first" "$BATS_TEST_TMPDIR/second"
	chart keys "$BATS_TEST_TMPDIR/first.yaml" "$BATS_TEST_TMPDIR/first"
	cd "$BATS_TEST_TMPDIR/first"
	openssl verify -x509_strict -purpose sslserver -CAfile ca.crt tls.crt
	openssl verify -purpose sslclient -CAfile ca.crt tls.crt
	equal "$(openssl x509 -in tls.crt -pubkey -noout)" \
		"$(openssl pkey -in tls.key -pubout)" 'key and certificate'
	cd "$ROOT"
	# An upgrade finds the secret of the first installation.
	python3 - "$BATS_TEST_TMPDIR/first.yaml" >"$BATS_TEST_TMPDIR/there" <<-'END'
		import json, sys, yaml
		print(json.dumps([o for o in yaml.safe_load_all(open(sys.argv[1]))
		                  if o and o["kind"] == "Secret"]))
	END
	scripts/render-chart peerd peerd --lookup "$BATS_TEST_TMPDIR/there" \
		>"$BATS_TEST_TMPDIR/second.yaml"
	chart keys "$BATS_TEST_TMPDIR/second.yaml" "$BATS_TEST_TMPDIR/second"
	diff -r "$BATS_TEST_TMPDIR/first" "$BATS_TEST_TMPDIR/second"
	equal "$(cd "$BATS_TEST_TMPDIR/second" && echo *)" \
		'ca.crt tls.crt tls.key'
}

@test "kind.sh: a dry run by default, and hints for what is missing" {
	for command in create deploy random ctr delete; do
		PATH=/usr/bin:/bin scripts/kind.sh "$command" \
			>"$BATS_TEST_TMPDIR/out"
		grep -q '^# dry run' "$BATS_TEST_TMPDIR/out"
		grep -q '^+ ' "$BATS_TEST_TMPDIR/out"
	done
	refute scripts/kind.sh
	refute scripts/kind.sh --nonsense
	refute scripts/kind.sh create delete
	WAIT=x refute scripts/kind.sh create
	# A machine that has nothing.
	mkdir "$BATS_TEST_TMPDIR/bin"
	ln -s /usr/bin/{bash,env,sed,dirname,mktemp} "$BATS_TEST_TMPDIR/bin"
	run env PATH="$BATS_TEST_TMPDIR/bin" scripts/kind.sh -y deploy
	refute test "$status" = 0
	for program in docker kind kubectl; do
		matches "$output" "$program is not installed: "
	done
}

@test "a message of docker is passed on, no cause is guessed" {
	fake_tools
	cat >"$BATS_TEST_TMPDIR/bin/docker" <<-'END'
		#!/bin/bash
		echo 'Cannot connect: no such pipe' >&2
		exit 1
	END
	run scripts/kind.sh -y create
	equal "$status" 1
	equal "$output" 'kind.sh: docker cannot be used: Cannot connect: no such pipe'
	ln -s /usr/bin/{bash,env,sed,dirname,git} "$BATS_TEST_TMPDIR/bin"
	run env PATH="$BATS_TEST_TMPDIR/bin" scripts/build-image
	equal "$status" 1
	matches "$output" '^build-image: docker cannot be used: Cannot connect: no such pipe; podman is not installed; buildah is not installed; on Debian'
}

# A docker, kind and kubectl that note how they are called, and answer as a
# cluster of three nodes does.
fake_tools()
{
	mkdir -p "$BATS_TEST_TMPDIR/bin"
	export CALLS=$BATS_TEST_TMPDIR/calls
	cat >"$BATS_TEST_TMPDIR/bin/docker" <<-'END'
		#!/bin/bash
		echo "docker $*" >>"$CALLS"
	END
	cat >"$BATS_TEST_TMPDIR/bin/kind" <<-'END'
		#!/bin/bash
		echo "kind $*" >>"$CALLS"
		[[ $* != "get clusters" ]] || echo p2p
	END
	cat >"$BATS_TEST_TMPDIR/bin/kubectl" <<-'END'
		#!/bin/bash
		echo "kubectl $*" >>"$CALLS"
		case "$*" in
		*'get secret'* | *'get namespace'*) exit 1 ;;
		*'get daemonset'*) echo 3 3 ;;
		*'get pods'*) echo pod-a pod-b pod-c ;;
		*'get events'*) echo event/1 ;;
		*'apply -f -'*) cat >>"$CALLS.applied"; echo 'daemonset.apps/peerd created' ;;
		*' logs '*) echo '{"level":"info","message":"error rates"}' ;;
		esac
	END
	chmod +x "$BATS_TEST_TMPDIR"/bin/*
	PATH=$BATS_TEST_TMPDIR/bin:$PATH
}

@test "kind.sh: what it does, in order, and what it prints" {
	fake_tools
	scripts/kind.sh -y create
	IMAGE=some/image:1 scripts/kind.sh -y deploy >"$BATS_TEST_TMPDIR/out"
	grep -q '^waiting for pods to connect' "$BATS_TEST_TMPDIR/out"
	grep -q '^pods: pod-a pod-b pod-c' "$BATS_TEST_TMPDIR/out"
	for pod in a b c; do
		grep -q "^checking pod 'pod-$pod' for event 'P2PConnected'" \
			"$BATS_TEST_TMPDIR/out"
	done
	grep -q "^Success: All pods have event 'P2PConnected'." \
		"$BATS_TEST_TMPDIR/out"
	grep -q 'image: "some/image:1"' "$CALLS.applied"
	grep -q 'create secret generic peerd-tls' "$CALLS"
	rm "$CALLS.applied"
	BLOB_URLS='http://a.example/x?b=1&c|d\e http://b.example/y' \
		scripts/kind.sh -y random >"$BATS_TEST_TMPDIR/out"
	python3 - "$CALLS.applied" <<-'END'
		import sys, yaml
		o = yaml.safe_load(open(sys.argv[1]))
		args = o["spec"]["template"]["spec"]["containers"][0]["args"]
		assert args[-2:] == [r"http://a.example/x?b=1&c|d\e",
		                     "http://b.example/y"], args
	END
	grep -q '^Success' "$BATS_TEST_TMPDIR/out"
	rm "$CALLS.applied"
	PULL_IMAGES='reg.example/a:1' scripts/kind.sh -y ctr
	grep -qx " *- 'reg.example/a:1'" "$CALLS.applied"
	scripts/kind.sh -y delete
	grep -q '^kind delete cluster --name p2p' "$CALLS"
}
