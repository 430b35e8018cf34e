# shellcheck shell=bash
# For tests/run, the benchmarks and the demo: from here on nothing of the
# caller's environment counts but what stands in this list. A test that is about
# a variable sets it itself. What contain.c gives each test besides (HOME,
# TMPDIR, signals) stands there.

# For tests/deploy/make-image, which goes to Debian's mirror.
[[ ! ${http_proxy:-} ]] || export OUTSIDE_PROXY=$http_proxy

environment=(
	PATH TERM TMPDIR LD_LIBRARY_PATH PKG_CONFIG_PATH
	# make
	BUILD BIN CC CFLAGS LDFLAGS DEV SANITIZE V
	# tests/run, the tests
	STRICT TEST_TIMEOUT TEST_KEEP TEST_CACHE TEST_CONTAINED JOBS PROVE
	OUTSIDE_PROXY PATIENCE SANITIZED VERBOSE SHOW LAB_TCP LAB_QUEUE NODE_LEVEL
	# benchmarks
	BENCH BENCH_DIR ROUNDS RUNS QUICK SYSTEMS KEEP_LOGS
	# the demo
	KEEP LOOPBACK HOME
)
for name in $(compgen -e); do
	# Some (SHELLOPTS) can only be kept from others.
	[[ " ${environment[*]} " == *" $name "* ]] ||
		unset "$name" 2>/dev/null || export -n "${name?}"
done
for name in $(declare -Fx | cut -d ' ' -f 3); do
	unset -f "$name"
done
unset environment name

# Sorting, decimal points, messages, and what a byte is.
export LC_ALL=C.UTF-8 TZ=UTC
# Debian has its servers' and the kernel's tools there; not every root does.
export PATH=${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/sbin:/sbin
export HOME=${HOME:-/}
umask 022
# Neither so few files that a registry fails, nor so many that programs that
# close all they could have are at it for minutes.
ulimit -n 8192 2>/dev/null || ulimit -Sn "$(ulimit -Hn)"
ulimit -c 0
