#!/usr/bin/env bash
# Finds or builds the pinned servers and build tools, once, and prints where they are.
#
#   ensure.sh [NAME ...]                              cometbft, nats-server (the default two), cargo-deny, helm, kubeconform, tessera,
#                                                     ferretdb, kafka (a folder of jars); one path a line
#   ensure.sh --dir                                   one folder that holds both servers under their plain names
#   ensure.sh --toolchain                             only checks Rust and the C compiler
#
# Everything is kept by version in ${XDG_CACHE_HOME:-~/.cache}/concordat/servers. Standard output carries paths and
# nothing else; what happens meanwhile goes to standard error. Whatever is missing is one sentence and exit code 1.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=versions.env
. "$here/versions.env"
cache=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME}/.cache}/concordat/servers

fail() {
    printf 'concordat: %s\n' "$1" >&2
    exit 1
}

# at_least HAVE WANT: dotted numbers, compared number by number; a pre-release ("1.26rc1") counts as its release.
at_least() {
    local -a have want
    local i
    IFS=. read -r -a have <<<"${1%%[!0-9.]*}"
    IFS=. read -r -a want <<<"$2"
    for i in 0 1 2; do
        ((10#${have[i]:-0} > 10#${want[i]:-0})) && return 0
        ((10#${have[i]:-0} < 10#${want[i]:-0})) && return 1
    done
    return 0
}

need_go() { # NAME
    command -v go >/dev/null ||
        fail "$1 is built with Go, which is not installed: install Go $GO_VERSION_MIN or later (https://go.dev/dl) and run this again."
    local have
    have=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || have=
    have=${have#go}
    at_least "$have" "$GO_VERSION_MIN" && return
    # From 1.21 on, Go fetches the newer toolchain a module asks for by itself, unless it is told to stay local.
    if at_least "$have" 1.21 && [[ $(go env GOTOOLCHAIN) != local* ]]; then return; fi
    fail "$1 needs Go $GO_VERSION_MIN or later and this machine has ${have:-an unknown version}: install a newer Go (https://go.dev/dl) and run this again."
}

need_rust() {
    local want have
    want=$(sed -n 's/^rust-version *= *"\(.*\)".*/\1/p' "$here/../../Cargo.toml" | head -n 1)
    command -v cargo >/dev/null && command -v rustc >/dev/null ||
        fail "Rust is not installed: install Rust ${want:-1.95} or later (https://rustup.rs) and run this again."
    have=$(rustc --version 2>/dev/null | cut -d ' ' -f 2) || have=
    at_least "$have" "${want:-1.95}" ||
        fail "Concordat needs Rust ${want:-1.95} or later and this machine has ${have:-an unknown version}: run 'rustup update stable' and try again."
}

need_cc() {
    local cc=${CC:-cc}
    command -v "${cc%% *}" >/dev/null ||
        fail "No C compiler was found (looked for '$cc'): install one (Debian and Ubuntu: apt install build-essential; macOS: xcode-select --install) and run this again."
}

# The version a binary reports, bare ("0.38.25"), or nothing.
reported() { # NAME PATH
    case $1 in
    cometbft) "$2" version 2>/dev/null ;;
    nats-server | cargo-deny | ferretdb) "$2" --version 2>/dev/null ;;
    # Built by `go install` these do not know their own version; their module does.
    helm | kubeconform | tessera) go version -m "$2" 2>/dev/null | awk '$1 == "mod" { print $3 }' ;;
    esac | head -n 1 | sed -n 's/^[^0-9]*\([0-9][0-9.]*\).*/\1/p'
}

# A Go binary names the module it was built from and that module's checksum; the pin is compared where Go is at hand.
sum_is() { # PATH SUM
    command -v go >/dev/null || return 0
    [[ $(go version -m "$1" 2>/dev/null | awk '$1 == "mod" { print $4 }') == "$2" ]]
}

build_go() { # NAME MODULE VERSION INTO
    need_go "$1"
    echo "concordat: building $1 $3 with go install (about a minute, once)" >&2
    GOBIN=$4 go install "$2@v$3" >"$4/build.log" 2>&1 || {
        tail -n 20 "$4/build.log" >&2
        fail "$1 $3 could not be built: 'go install $2@v$3' failed as shown above; check the network and GOPROXY ($(go env GOPROXY)) and run this again."
    }
}

# A program of our own over a pinned module: `go install` of the module itself is refused by its author.
build_local() { # NAME VERSION INTO
    need_go "$1"
    echo "concordat: building $1 $2 from tests/servers/$1 (some minutes, once)" >&2
    (cd "$here/$1" && go build -trimpath -mod=readonly -o "$3/$1" .) >"$3/build.log" 2>&1 || {
        tail -n 20 "$3/build.log" >&2
        fail "$1 $2 could not be built: 'go build' in tests/servers/$1 failed as shown above; check the network and GOPROXY ($(go env GOPROXY)) and run this again."
    }
}

build_cargo() { # NAME VERSION INTO
    need_rust
    need_cc
    echo "concordat: building $1 $2 with cargo install (some minutes, once)" >&2
    # The tool's own release profile (fat LTO, one unit) doubles its build time and buys nothing here.
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
        cargo install --locked --quiet "$1" --version "=$2" --root "$3" --target-dir "$3/target" >"$3/build.log" 2>&1 || {
        tail -n 20 "$3/build.log" >&2
        fail "$1 $2 could not be built: 'cargo install --locked $1 --version $2' failed as shown above; check the network and run this again."
    }
    mv "$3/bin/$1" "$3/$1"
}

ensure() { # NAME: prints the path
    local name=$1 version module= sum= dir path tmp have
    case $name in
    cometbft) version=$COMETBFT_VERSION module=$COMETBFT_MODULE sum=$COMETBFT_SUM ;;
    nats-server) version=$NATS_SERVER_VERSION module=$NATS_SERVER_MODULE sum=$NATS_SERVER_SUM ;;
    cargo-deny) version=$CARGO_DENY_VERSION ;;
    ferretdb) version=$FERRETDB_VERSION ;;
    tessera) version=$TESSERA_VERSION module=$TESSERA_MODULE sum=$TESSERA_SUM ;;
    helm) version=$HELM_VERSION module=$HELM_MODULE sum=$HELM_SUM ;;
    kubeconform) version=$KUBECONFORM_VERSION module=$KUBECONFORM_MODULE sum=$KUBECONFORM_SUM ;;
    *) fail "'$name' is not a pinned server or tool: ask for cometbft, nats-server, cargo-deny, helm, kubeconform, tessera, ferretdb or kafka." ;;
    esac
    dir=$cache/$name-$version path=$cache/$name-$version/$name
    if [[ ! -x $path ]]; then
        mkdir -p "$dir" 2>/dev/null || fail "the cache folder '$dir' cannot be created: set XDG_CACHE_HOME to a folder you can write."
        # Two runs at once: the second waits and finds the first one's work. Without flock (macOS) both build, and the
        # rename below still leaves one whole binary.
        exec 9>"$dir/lock"
        if command -v flock >/dev/null; then
            flock 9
            rm -rf "$dir"/tmp.* # left by a run that was killed
        fi
        if [[ ! -x $path ]]; then
            tmp=$(mktemp -d "$dir/tmp.XXXXXX")
            # shellcheck disable=SC2064
            trap "rm -rf '$tmp'" EXIT
            if [[ -n $module ]]; then
                build_go "$name" "$module" "$version" "$tmp"
                # Go names a program after the last part of its path.
                [[ ${module##*/} == "$name" || ! -x $tmp/${module##*/} ]] || mv "$tmp/${module##*/}" "$tmp/$name"
                sum_is "$tmp/$name" "$sum" ||
                    fail "$name $version was built from a module whose checksum is not the pinned $sum: do not use it; compare tests/servers/versions.env with the Go checksum database."
            elif [[ -f $here/$name/go.mod ]]; then
                build_local "$name" "$version" "$tmp"
            else
                build_cargo "$name" "$version" "$tmp"
            fi
            mv -f "$tmp/$name" "$path"
            rm -rf "$tmp"
            trap - EXIT
        fi
        exec 9>&-
    fi
    have=$(reported "$name" "$path") || have=
    [[ $have == "$version" ]] ||
        fail "'$path' reports version '${have:-none}' instead of $version: delete the folder '$dir' and run this again."
    printf '%s\n' "$path"
}

# The jars of kafka.jars in one folder: what is there and right stays, the rest is fetched.
ensure_kafka() {
    local dir=$cache/kafka-$KAFKA_VERSION sum path file tmp
    command -v java >/dev/null || fail "Kafka runs by Java, which is not installed: install Java 17 or later (Debian: openjdk-17-jre-headless) and run this again."
    command -v curl >/dev/null || fail "the jars of Kafka are fetched with curl, which is not installed: install it and run this again."
    mkdir -p "$dir" 2>/dev/null || fail "the cache folder '$dir' cannot be created: set XDG_CACHE_HOME to a folder you can write."
    while read -r sum path; do
        [[ -n $sum && $sum != \#* ]] || continue
        file=$dir/${path##*/}
        if is_sum "$file" "$sum"; then continue; fi
        echo "concordat: fetching ${path##*/}" >&2
        tmp=$(mktemp "$dir/tmp.XXXXXX")
        curl -fsSL --retry 3 -o "$tmp" "https://repo1.maven.org/maven2/$path" || {
            rm -f "$tmp"
            fail "'https://repo1.maven.org/maven2/$path' could not be fetched: check the network and run this again."
        }
        is_sum "$tmp" "$sum" || {
            rm -f "$tmp"
            fail "'https://repo1.maven.org/maven2/$path' is not the pinned file (SHA-256 $sum): do not use it."
        }
        mv -f "$tmp" "$file"
    done <"$here/kafka.jars"
    printf '%s\n' "$dir"
}

is_sum() { # FILE SHA256
    [[ -f $1 && $({ sha256sum "$1" 2>/dev/null || shasum -a 256 "$1"; } | cut -d ' ' -f 1) == "$2" ]]
}

# One folder a set of pins, so that two checkouts with different pins never share links.
server_dir() {
    local set=$cache/set-$COMETBFT_VERSION-$NATS_SERVER_VERSION name path
    mkdir -p "$set"
    for name in cometbft nats-server; do
        path=$(ensure "$name")
        ln -sfn "$path" "$set/$name.$$" && mv -f "$set/$name.$$" "$set/$name"
    done
    printf '%s\n' "$set"
}

case ${1:-} in
--dir) server_dir ;;
--toolchain)
    need_rust
    need_cc
    ;;
-h | --help) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" ;;
*)
    (($#)) || set -- cometbft nats-server
    for name in "$@"; do
        if [[ $name == kafka ]]; then ensure_kafka; else ensure "$name"; fi
    done
    ;;
esac
