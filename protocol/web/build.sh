#!/usr/bin/env bash
# Builds the verifier as one HTML file that opens from a disk: dist/verify.html. Needs Rust with the target
# wasm32-unknown-unknown (rustup target add wasm32-unknown-unknown).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

target=${CARGO_TARGET_DIR:-../../target}/web
# Versions are the main workspace's: its lock is the start, and cargo only drops what is not needed here.
cp ../../Cargo.lock Cargo.lock
CARGO_TARGET_DIR=$target cargo build --quiet --release --target wasm32-unknown-unknown --lib
wasm=$target/wasm32-unknown-unknown/release/concordat_verify_web.wasm

hash_of() { openssl dgst -sha256 -binary "$1" | base64 -w0; }

mkdir -p dist
script=$(hash_of page/page.js) style=$(hash_of page/page.css)
{
    while IFS= read -r line || [[ -n $line ]]; do
        case $line in
        '<!--style-->') printf '<style>' && cat page/page.css && printf '</style>\n' ;;
        '<!--script-->') printf '<script>' && cat page/page.js && printf '</script>\n' ;;
        '<!--wasm-->')
            printf '<script type="application/wasm" id="wasm">' && base64 -w0 "$wasm" && printf '</script>\n'
            ;;
        *) line=${line//@script@/$script} && printf '%s\n' "${line//@style@/$style}" ;;
        esac
    done <page/page.html
} >dist/verify.html
printf 'concordat: dist/verify.html, %s bytes\n' "$(wc -c <dist/verify.html)" >&2
