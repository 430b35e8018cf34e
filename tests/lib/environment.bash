# shellcheck shell=bash
# For tests/run, the benchmarks and the demo: unsets every variable of the
# caller's environment that is not in the list below, and sets locale, time zone,
# umask and limits. A test that needs another variable sets it. contain.c sets
# HOME, TMPDIR and signals for each test.

# tests/deploy/make-image alone uses a network, to reach Debian's mirror.
[[ ! ${http_proxy:-} ]] || export OUTSIDE_PROXY=$http_proxy

environment=(
	PATH PWD TERM TMPDIR LD_LIBRARY_PATH PKG_CONFIG_PATH
	# make
	BUILD BIN CC CFLAGS LDFLAGS DEV SANITIZE V
	# tests/run, the tests
	STRICT TOOLS TEST_TIMEOUT TEST_KEEP TEST_CACHE TEST_CONTAINED JOBS PROVE
	SOAK_SECONDS SOAK_SEED OUTSIDE_PROXY PATIENCE SANITIZED VERBOSE SHOW LAB_TCP LAB_QUEUE NODE_LEVEL
	# benchmarks
	BENCH BENCH_DIR ROUNDS RUNS QUICK SYSTEMS KEEP_LOGS
	# the demo
	KEEP LOOPBACK HOME
)
for name in $(compgen -e); do
	# SHELLOPTS and the like are read-only.
	[[ " ${environment[*]} " == *" $name "* ]] ||
		unset "$name" 2>/dev/null || export -n "${name?}"
done
for name in $(declare -Fx | cut -d ' ' -f 3); do
	unset -f "$name"
done
unset environment name

# For sorting, decimal points, and messages.
export LC_ALL=C.UTF-8 TZ=UTC
# nginx, ip and tc are there; not every root's PATH has it.
export PATH=${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/sbin:/sbin
export HOME=${HOME:-/}
umask 022
# A registry needs some hundreds of files. With a limit of 10^9, programs that
# close every possible file take minutes.
ulimit -Sn 8192 2>/dev/null || ulimit -n 8192 2>/dev/null ||
	ulimit -Sn "$(ulimit -Hn)"
ulimit -c 0
