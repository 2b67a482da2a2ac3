#!/usr/bin/env bash
# Makes a certificate authority and time-stamp authorities with the openssl command, for tests.
#
#   tsa.sh DIR         writes ca.pem and for each name NAME.pem, NAME.key and NAME.cnf into DIR
#   tsa.sh DIR NAME    answers the request on standard input as the authority NAME, on standard output
#
# rsa, p256, p384, other: good ones. expired, plain (no use named), loose (use not critical), wide (a second use): bad ones.
set -euo pipefail
dir=$1

if [[ $# -gt 1 ]]; then
    query=$(mktemp "$dir/query.XXXXXX")
    trap 'rm -f "$query" "$query.answer"' EXIT
    cat >"$query"
    openssl ts -reply -config "$dir/$2.cnf" -queryfile "$query" -out "$query.answer" 2>/dev/null
    cat "$query.answer"
    exit
fi

mkdir -p "$dir/issued"
: >"$dir/index.txt"
echo 01 >"$dir/serial"
cat >"$dir/ca.cnf" <<CNF
[ca]
default_ca = it
[it]
dir = $dir
database = $dir/index.txt
serial = $dir/serial
new_certs_dir = $dir/issued
certificate = $dir/ca.pem
private_key = $dir/ca.key
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[req]
distinguished_name = dn
[dn]
[ca_ext]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[tsa_ext]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
subjectKeyIdentifier = hash
[plain_ext]
keyUsage = critical, digitalSignature
[loose_ext]
extendedKeyUsage = timeStamping
[wide_ext]
extendedKeyUsage = critical, timeStamping, codeSigning
CNF
openssl ecparam -name prime256v1 -genkey -noout -out "$dir/ca.key"
openssl req -new -x509 -config "$dir/ca.cnf" -extensions ca_ext -key "$dir/ca.key" -subj "/CN=Test authority" -days 3650 -out "$dir/ca.pem"

issue() { # NAME EXTENSIONS FROM TO
    openssl req -new -config "$dir/ca.cnf" -key "$dir/$1.key" -subj "/CN=Test TSA $1" -out "$dir/$1.csr"
    openssl ca -batch -notext -config "$dir/ca.cnf" -extensions "$2" -in "$dir/$1.csr" -out "$dir/$1.pem" \
        -startdate "$3" -enddate "$4" 2>/dev/null
    cat >"$dir/$1.cnf" <<CNF
[tsa]
default_tsa = it
[it]
serial = $dir/$1.serial
signer_cert = $dir/$1.pem
signer_key = $dir/$1.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
clock_precision_digits = 3
ess_cert_id_alg = sha256
CNF
    echo 01 >"$dir/$1.serial"
}

openssl genrsa -out "$dir/rsa.key" 2048 2>/dev/null
openssl ecparam -name secp384r1 -genkey -noout -out "$dir/p384.key"
for name in p256 other expired plain loose wide; do openssl ecparam -name prime256v1 -genkey -noout -out "$dir/$name.key"; done
for name in rsa p256 p384 other; do issue "$name" tsa_ext 20200101000000Z 20991231235959Z; done
issue expired tsa_ext 20200101000000Z 20210101000000Z
for name in plain loose wide; do issue "$name" "${name}_ext" 20200101000000Z 20991231235959Z; done
