#!/usr/bin/env bash
# Finds SoftHSM2, a PKCS#11 token in software, or fetches Debian's packages without installing them, and prints two lines:
# the module (libsofthsm2.so) and the program softhsm2-util. Only tests use it. When it cannot be had: one sentence and exit
# code 1; the tests then say SKIPPED.
set -euo pipefail

cache=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME}/.cache}/concordat/servers/softhsm2

fail() {
    printf 'concordat: %s\n' "$1" >&2
    exit 1
}

found() { # ROOT: prints both, where both are there
    local module util
    for module in "$1"/usr/lib/softhsm/libsofthsm2.so "$1"/usr/lib/*/softhsm/libsofthsm2.so "$1"/usr/local/lib/softhsm/libsofthsm2.so; do
        for util in "$1"/usr/bin/softhsm2-util "$1"/usr/local/bin/softhsm2-util; do
            [[ -e $module && -x $util ]] || continue
            printf '%s\n%s\n' "$module" "$util"
            return 0
        done
    done
    return 1
}

found "" && exit 0
found "$cache" && exit 0
command -v apt-get >/dev/null && command -v dpkg >/dev/null ||
    fail "SoftHSM2 is not installed and this is no Debian: install it (softhsm2) to run the tests of tokens."
mkdir -p "$cache"
tmp=$(mktemp -d "$cache/tmp.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
(cd "$tmp" && apt-get download softhsm2 libsofthsm2) >"$tmp/log" 2>&1 ||
    fail "SoftHSM2 could not be fetched (apt-get download softhsm2 libsofthsm2): install it to run the tests of tokens."
for package in "$tmp"/*.deb; do dpkg -x "$package" "$tmp/root"; done
# Another run may have been faster: its files are the same.
cp -an "$tmp/root/usr" "$cache/" 2>/dev/null || true
found "$cache" || fail "Debian's packages of SoftHSM2 do not hold what was expected: install it to run the tests of tokens."
