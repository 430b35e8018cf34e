#!/bin/bash
# Runs peerd in a kind cluster on this machine. The make targets of the same names
# call it with -y; without -y it only prints the commands.
#
#   scripts/kind.sh [-y] COMMAND
#
#   create       a cluster of three nodes, a control plane and two workers
#   deploy       loads the image peerd:dev (make build-image), makes keys,
#                applies deploy/manifests/peerd.yaml, waits for the event
#                P2PConnected on every pod
#   random       runs the workload `random` on every node and prints its results
#   ctr          the same for the workload `ctr`
#   delete       removes the cluster
#
# Variables: CLUSTER (p2p), IMAGE (peerd:dev), WORKLOADS_IMAGE
# (peerd-workloads:dev), PULL_IMAGES and BLOB_URLS (separated by blanks) for the
# workloads; without BLOB_URLS `random` reads the layers of BLOB_IMAGE, which
# must be public. WAIT (seconds, 300).
set -euo pipefail
cd "$(dirname "$0")/.."

CLUSTER=${CLUSTER:-p2p}
IMAGE=${IMAGE:-peerd:dev}
WORKLOADS_IMAGE=${WORKLOADS_IMAGE:-peerd-workloads:dev}
PULL_IMAGES=${PULL_IMAGES:-docker.io/library/busybox:stable quay.io/prometheus/busybox:latest}
BLOB_URLS=${BLOB_URLS:-}
BLOB_IMAGE=${BLOB_IMAGE:-registry.k8s.io/coredns/coredns:v1.11.1}
WAIT=${WAIT:-300}
NAMESPACE=peerd
MANIFESTS=deploy/manifests
WORKERS=2
apply=

fail()
{
	echo "kind.sh: $*" >&2
	exit 1
}

usage()
{
	sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
}

# need PROGRAM HINT: fails without the program; HINT says where to get it.
need()
{
	command -v "$1" >/dev/null && return
	if [[ ! $apply ]]; then
		echo "# missing: $1 ($2)"
		return
	fi
	echo "kind.sh: $1 is not installed: $2" >&2
	missing=1
}

check_prerequisites()
{
	local said
	missing=
	need docker 'Debian: apt-get install docker.io'
	need kind 'one binary: the Quick Start page of kind tells where'
	need kubectl 'Debian: apt-get install kubernetes-client'
	[[ ! $missing ]] || exit 1
	if [[ $apply ]]; then
		said=$(docker info 2>&1 >/dev/null) ||
			fail "docker cannot be used: $said"
	fi
}

# Prints a command; runs it if -y was given.
run()
{
	local shown
	printf -v shown '%q ' "$@"
	echo "+ ${shown% }"
	[[ ! $apply ]] || "$@"
}

kubectl_()
{
	run kubectl --context "kind-$CLUSTER" -n "$NAMESPACE" "$@"
}

# The same without printing, for commands that only read.
look()
{
	kubectl --context "kind-$CLUSTER" -n "$NAMESPACE" "$@"
}

has_cluster()
{
	local clusters
	[[ $apply ]] || return 0
	clusters=$(kind get clusters) || fail 'kind cannot list its clusters'
	grep -qx "$CLUSTER" <<<"$clusters"
}

need_cluster()
{
	has_cluster || fail "there is no cluster $CLUSTER: make kind-create"
}

need_image()
{
	local said
	[[ ! $apply ]] || said=$(docker image inspect "$1" 2>&1 >/dev/null) ||
		fail "$said (make build-image makes peerd:dev)"
}

cluster_config()
{
	local i
	cat <<-'END'
		kind: Cluster
		apiVersion: kind.x-k8s.io/v1alpha4
		containerdConfigPatches:
		  - |-
		    [plugins."io.containerd.grpc.v1.cri".registry]
		      config_path = "/etc/containerd/certs.d"
		nodes:
		  - role: control-plane
	END
	for ((i = 0; i < WORKERS; i++)); do
		echo '  - role: worker'
	done
}

create()
{
	local file
	if [[ $apply ]] && has_cluster; then
		echo "the cluster $CLUSTER is there already"
		return
	fi
	file=$(mktemp)
	# shellcheck disable=SC2064
	trap "rm -f '$file'" EXIT
	cluster_config >"$file"
	[[ $apply ]] || sed 's/^/# /' "$file"
	run kind create cluster --name "$CLUSTER" --config "$file" \
		--wait "${WAIT}s"
}

delete()
{
	run kind delete cluster --name "$CLUSTER"
}

# Makes the keys once, with the image itself; the cluster's secret keeps them.
make_keys()
{
	local dir
	if [[ $apply ]] && look get secret peerd-tls >/dev/null 2>&1; then
		return
	fi
	dir=$(mktemp -d)
	# shellcheck disable=SC2064
	trap "rm -rf '$dir'" EXIT
	run docker run --rm --user "$UID" -v "$dir:/keys" "$IMAGE" \
		keys init --dir /keys/d
	run docker run --rm --user "$UID" -v "$dir:/keys" "$IMAGE" \
		keys issue --dir /keys/d peerd
	kubectl_ create secret generic peerd-tls \
		--from-file="ca.crt=$dir/d/ca.crt" \
		--from-file="tls.crt=$dir/d/peerd.crt" \
		--from-file="tls.key=$dir/d/peerd.key"
}

# apply_manifest FILE SED-EXPRESSION...
apply_manifest()
{
	local file=$1 expressions=() e
	shift
	for e; do
		expressions+=(-e "$e")
	done
	echo "+ sed ... $file | kubectl apply -f -"
	[[ $apply ]] || return 0
	sed "${expressions[@]}" "$file" |
		kubectl --context "kind-$CLUSTER" -n "$NAMESPACE" apply -f -
}

pods_of()
{
	look get pods -l "$1" -o jsonpath='{.items[*].metadata.name}'
}

# wait_until WHAT COMMAND...
wait_until()
{
	local what=$1 end=$((SECONDS + WAIT))
	shift
	until "$@"; do
		((SECONDS < end)) || fail "gave up waiting: $what"
		sleep 2
	done
}

rolled_out()
{
	local wanted ready
	read -r wanted ready < <(look get daemonset "$1" -o \
		jsonpath='{.status.desiredNumberScheduled} {.status.numberReady}')
	((${wanted:-0} > 0)) && [[ $wanted == "$ready" ]]
}

has_event()
{
	look get events --field-selector \
		"involvedObject.kind=Pod,involvedObject.name=$1,reason=$2" \
		-o name 2>/dev/null | grep -q .
}

wait_connected()
{
	local pods pod
	echo 'waiting for pods to connect'
	[[ $apply ]] || return 0
	wait_until 'pods that are ready' rolled_out peerd
	pods=$(pods_of app.kubernetes.io/name=peerd)
	echo "pods: $pods"
	for pod in $pods; do
		echo "checking pod '$pod' for event 'P2PConnected'"
		wait_until "event P2PConnected of $pod" \
			has_event "$pod" P2PConnected
	done
	echo "Success: All pods have event 'P2PConnected'."
}

deploy()
{
	need_cluster
	need_image "$IMAGE"
	run kind load docker-image --name "$CLUSTER" "$IMAGE"
	if [[ ! $apply ]] || ! kubectl --context "kind-$CLUSTER" get \
		namespace "$NAMESPACE" >/dev/null 2>&1; then
		run kubectl --context "kind-$CLUSTER" create namespace \
			"$NAMESPACE"
	fi
	make_keys
	apply_manifest "$MANIFESTS/peerd.yaml" \
		"s|image: \"peerd:.*\"|image: \"$IMAGE\"|"
	wait_connected
}

done_pod()
{
	look logs "$1" 2>/dev/null | grep -q '"message":"error rates"'
}

# Prints a workload's results of every node. Fails if a read or a pull failed.
workload()
{
	local name=$1 mark=$2 what=$3 item list='' pods pod bad=0
	shift 3
	need_cluster
	need_image "$WORKLOADS_IMAGE"
	(($#)) || fail "nothing to read: set $what"
	for item; do
		# One list item per value, with the manifest's indentation.
		item=${item//\\/\\\\}
		item=${item//&/\\&}
		item=${item//\'/\'\'}
		list+="            - '${item//|/\\|}'\\n"
	done
	run kind load docker-image --name "$CLUSTER" "$WORKLOADS_IMAGE"
	kubectl_ delete daemonset "$name" --ignore-not-found
	apply_manifest "$MANIFESTS/$name.yaml" \
		"s|image: peerd-workloads:dev|image: $WORKLOADS_IMAGE|" \
		"s|^ *- $mark\$|${list%\\n}|"
	[[ $apply ]] || return 0
	wait_until "pods of $name" rolled_out "$name"
	pods=$(pods_of "app=$name")
	for pod in $pods; do
		wait_until "results of $pod" done_pod "$pod"
		look logs "$pod"
		! look logs "$pod" | grep -q '"level":"error"' || bad=1
	done
	((bad == 0)) || fail "there were errors in $name"
	echo "Success: no errors on any node."
}

manifest_types='application/vnd.oci.image.index.v1+json,
application/vnd.docker.distribution.manifest.list.v2+json,
application/vnd.oci.image.manifest.v1+json,
application/vnd.docker.distribution.manifest.v2+json'

# layers_of [http://]HOST/NAME:TAG: prints the URLs of its layers on one line.
layers_of()
{
	local scheme=https image=$1 name tag base manifest digest
	[[ $image != http://* ]] || scheme=http
	image=${image#http://}
	name=${image#*/} tag=${image##*:}
	base=$scheme://${image%%/*}/v2/${name%:*}
	manifest=$(get_manifest "$base" "$tag") || return 1
	digest=$(jq -r '.manifests // [] | map(select(.platform.os == "linux"
		and .platform.architecture == "amd64")) | .[0].digest // empty' \
		<<<"$manifest")
	[[ ! $digest ]] || manifest=$(get_manifest "$base" "$digest") ||
		return 1
	jq -r --arg b "$base" '[.layers[] | "\($b)/blobs/\(.digest)"] | join(" ")' \
		<<<"$manifest"
}

get_manifest()
{
	curl -sSfL -H "Accept: ${manifest_types//$'\n'/}" "$1/manifests/$2"
}

random()
{
	local urls=()
	if [[ ! $BLOB_URLS ]]; then
		need curl 'Debian: apt-get install curl'
		need jq 'Debian: apt-get install jq'
		echo "+ the layers of $BLOB_IMAGE"
		BLOB_URLS=URL
		[[ ! $apply ]] || BLOB_URLS=$(layers_of "$BLOB_IMAGE") ||
			fail "cannot get the manifest of $BLOB_IMAGE: set BLOB_URLS"
	fi
	read -ra urls <<<"$BLOB_URLS"
	workload random URLS BLOB_URLS "${urls[@]}"
}

command=
for argument; do
	case $argument in
	-y) apply=1 ;;
	-h | --help) usage && exit 0 ;;
	create | deploy | random | ctr | delete)
		[[ ! $command ]] || fail 'one command at a time (see --help)'
		command=$argument
		;;
	*) fail "what is $argument? (see --help)" ;;
	esac
done
[[ $command ]] || {
	usage >&2
	exit 2
}
[[ $WAIT =~ ^[1-9][0-9]*$ ]] || fail 'WAIT is a number of seconds'
check_prerequisites
[[ $apply ]] || echo '# dry run; -y does it'
read -ra images <<<"$PULL_IMAGES"
case $command in
create) create ;;
deploy) deploy ;;
random) random ;;
ctr) workload ctr IMAGES PULL_IMAGES "${images[@]}" ;;
delete) delete ;;
esac
