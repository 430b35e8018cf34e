#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2034,SC2154
# The Debian package.

load ../lib/common

setup_file()
{
	command -v dpkg-shlibdeps >/dev/null || missing 'needs dpkg-dev'
	cd "$ROOT" || return
	# As from a tarball: nothing is known of git, nor of a user.
	unset MAINTAINER SOURCE_DATE_EPOCH
	BUILD=$BATS_FILE_TMPDIR/build VERSION=1.2.3 GIT_DIR=/nonexistent \
		GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 \
		scripts/build-deb "$BATS_FILE_TMPDIR" >"$BATS_FILE_TMPDIR/name" \
		2>"$BATS_FILE_TMPDIR/log" || {
		tail -n 20 "$BATS_FILE_TMPDIR/log" >&2
		return 1
	}
	DEB=$(<"$BATS_FILE_TMPDIR/name")
	export DEB TREE=$BATS_FILE_TMPDIR/tree
	dpkg-deb -R "$DEB" "$TREE"
}

@test "lintian finds nothing" {
	command -v lintian >/dev/null || missing 'needs lintian'
	run lintian --allow-root --fail-on warning,error "$DEB"
	equal "$status" 0 "$output"
}

@test "what is in it" {
	equal "$(dpkg-deb -f "$DEB" Package Version | xargs)" \
		'Package: peerd Version: 1.2.3'
	matches "$(dpkg-deb -f "$DEB" Maintainer)" \
		'^The peerd authors <.*@.*\.invalid>$'
	# Debian 12's names and Debian 13's.
	for library in 'libfuse3-[34]' libcurl4 libssl3 libuv1 liblmdb0 libjansson4; do
		matches "$(dpkg-deb -f "$DEB" Depends)" "$library"
	done
	equal "$("$TREE/usr/bin/peerd" version)" 'peerd 1.2.3'
	# The unit starts what the package installs.
	grep -qx 'ExecStart=/usr/bin/peerd run --config /etc/peerd/config.json' \
		"$TREE/usr/lib/systemd/system/peerd.service"
	equal "$(<"$TREE/DEBIAN/conffiles")" /etc/peerd/config.json
	(cd "$TREE" && md5sum --quiet -c DEBIAN/md5sums)
	grep -q 'Permission is hereby granted' \
		"$TREE/usr/share/doc/peerd/copyright"
	refute grep -q '@' "$TREE/usr/share/doc/peerd/copyright"
}

@test "the configuration that comes with it is taken" {
	# Only the directories are other ones here.
	jq --arg d "$BATS_TEST_TMPDIR" '.mount = $d + "/mnt" |
		. + {"cache-dir": ($d + "/cache")}' \
		"$TREE/etc/peerd/config.json" >"$BATS_TEST_TMPDIR/config.json"
	CACHE=$BATS_TEST_TMPDIR/cache MNT=$BATS_TEST_TMPDIR/mnt
	PEERD=$TREE/usr/bin/peerd
	start_peerd --config "$BATS_TEST_TMPDIR/config.json"
	test -d "$MNT/registry"
}

@test "the maintainer scripts run where there is no systemd" {
	for script in postinst prerm postrm; do
		sh -n "$TREE/DEBIAN/$script"
	done
	sh "$TREE/DEBIAN/postinst" triggered
	sh "$TREE/DEBIAN/prerm" upgrade 1.2.4
	sh "$TREE/DEBIAN/postrm" upgrade 1.2.4
}
