#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2154
# Tests give the same results in any environment: tests/lib/environment.bash and
# tests/lib/contain.c replace it by one of their own.

load ../lib/common

setup()
{
	need_root
	mkdir "$BATS_TEST_TMPDIR/home"
	echo 'proxy = http://127.0.0.1:1' >"$BATS_TEST_TMPDIR/home/.curlrc"
	# Too long for the name of a socket.
	LONG="$BATS_TEST_TMPDIR/with spaces, and long$(printf '.%.0s' {1..100})"
	mkdir "$LONG"
	# A locale with a decimal comma.
	mkdir "$BATS_TEST_TMPDIR/locale"
	localedef -i de_DE -f UTF-8 "$BATS_TEST_TMPDIR/locale/de_DE.UTF-8" ||
		missing 'needs the package locales'
	cd "$ROOT" || return
}

# plain [NAME=VALUE]... COMMAND...
plain()
{
	# bats puts a directory with an inner program "bats" in front.
	env -i PATH="${PATH//"$BATS_LIBEXEC:"/}" BUILD="$BUILD" BIN="$BIN" \
		PATIENCE="$PATIENCE" SANITIZED="${SANITIZED:-}" "$@"
}

unusual()
(
	umask 077
	ulimit -Sn 64
	trap '' PIPE HUP INT QUIT
	plain http_proxy=http://127.0.0.1:1 HTTPS_PROXY=http://127.0.0.1:1 \
		all_proxy=socks5://127.0.0.1:1 no_proxy='' \
		CURL_HOME="$BATS_TEST_TMPDIR/home" TZ=Asia/Kathmandu \
		TMPDIR="$LONG" CDPATH=/ POSIXLY_CORRECT=1 SHELLOPTS=noglob \
		LC_ALL=de_DE.UTF-8 LOCPATH="$BATS_TEST_TMPDIR/locale" \
		LANGUAGE=de PEERD_LOG_LEVEL=loud \
		PEERD_CACHE_DIR=/nonexistent \
		"BASH_FUNC_curl%%=() { echo 'the caller'\''s curl'; }" "$@"
)

@test "a test sees nothing of an unusual environment" {
	local file=$BATS_TEST_TMPDIR/look
	cat >"$file" <<-END
		#!/bin/bash
		exec >"$file.seen" 2>&1
		env | grep -v '^_=' | sort
		echo "\$-"
		umask
		ulimit -Sn
		ulimit -c
		date +%Z
		awk 'BEGIN { printf "%.1f\n", 1.5 }'
		printf '%.1f\n' 1.5
		[[ \$EPOCHREALTIME == *.* ]] || echo "\$EPOCHREALTIME"
		cat /nonexistent
		(kill -PIPE \$BASHPID; echo 'SIGPIPE is ignored')
		type curl
		ls -A "\$HOME"
		echo \$((\${#TMPDIR} < 40))
	END
	chmod 755 "$file"
	plain PROVE=-Q tests/run "$file" || true # it prints no plan
	mv "$file.seen" "$file.plain"
	unusual PROVE=-Q tests/run "$file" || true
	# mkdtemp() has chosen the last letters.
	sed -i 's/peerd-test-....../peerd-test/' "$file.plain" "$file.seen"
	grep -qx 'LC_ALL=C.UTF-8' "$file.plain"
	# tests/deploy/make-image alone uses it.
	grep -qx 'OUTSIDE_PROXY=http://127.0.0.1:1' "$file.seen"
	sed -i '/^OUTSIDE_PROXY=/d' "$file.seen"
	diff -u "$file.plain" "$file.seen"
}

@test "tests pass in an unusual environment, and leave nothing there" {
	unusual tests/run "$BUILD"/tests/unit/test_{keys,hosts,log} \
		tests/mount/01-read.bats >"$BATS_TEST_TMPDIR/out" 2>&1 || {
		cat "$BATS_TEST_TMPDIR/out" >&2
		return 1
	}
	equal "$(ls -A "$LONG")" ''
}

@test "everybody can read the installed files, whatever the umask" {
	local to=$BATS_TEST_TMPDIR/to
	mkdir -m 755 "$to"
	# All is built.
	unusual make -s -o all BUILD="$BUILD" BIN="$BIN" DESTDIR="$to" install
	grep -q ^ExecStart "$to/usr/local/lib/systemd/system/peerd.service"
	equal "$(find "$to" -type d ! -perm 755 -o -type f ! -perm -444)" ''
}

@test "a lab in an unusual environment" {
	unusual tests/lab/lab up 2 -- tests/lab/lab exec 1 \
		ip -o addr show eth0 >"$BATS_TEST_TMPDIR/out"
	grep -q 10.99.0.11 "$BATS_TEST_TMPDIR/out"
}

# They are copied, since that user may not be allowed to read the sources.
@test "unit tests as a user without a name or a home" {
	local name all=()
	mount -t tmpfs -o mode=1777 none /mnt
	cp "$BUILD/tests/lib/contain" /mnt
	for name in store keys log index options http_server; do
		cp "$BUILD/tests/unit/test_$name" /mnt
		all+=("/mnt/test_$name")
	done
	chmod 755 /mnt/*
	refute getent passwd 54321
	(
		cd /mnt
		plain TMPDIR=/mnt setpriv --reuid 54321 --regid 54321 \
			--clear-groups prove --exec /mnt/contain "${all[@]}"
	) >"$BATS_TEST_TMPDIR/out" 2>&1 || {
		cat "$BATS_TEST_TMPDIR/out" >&2
		return 1
	}
}

# make bench takes minutes, and no other test runs it.
@test "the benchmarks run, and print their tables" {
	local file
	for file in run http; do
		unusual BENCH=quick ROUNDS=1 tests/bench/$file memory \
			>"$BATS_TEST_TMPDIR/out" 2>&1 || {
			cat "$BATS_TEST_TMPDIR/out" >&2
			return 1
		}
		matches "$(<"$BATS_TEST_TMPDIR/out")" \
			'resident memory[^\n]* (met|MISSED)'
	done
}
