# Sourced by the scripts here: what the tests need, and how it comes onto a fresh Debian 12.

# A skipped check is said aloud; where the gate runs (CI=true) it is a failure.
in_ci_fail() {
    echo "skipped: $1"
    [ "${CI:-}" != true ] || exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# packages COMMAND PACKAGE: installs PACKAGE unless COMMAND is there.
debian() {
    command -v "$1" >/dev/null && return 0
    command -v apt-get >/dev/null || return 1
    echo "installing $2"
    if [ -z "${APT_UPDATED:-}" ]; then
        as_root apt-get -qq update >/dev/null || return 1
        APT_UPDATED=1
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$2" >/dev/null || return 1
    command -v "$1" >/dev/null
}

need_c_compiler() {
    debian cc gcc || { echo "a C compiler is needed (aws-lc): apt-get install gcc" >&2; exit 1; }
}

need_cargo_deny() {
    command -v cargo-deny >/dev/null && return 0
    echo "installing cargo-deny"
    cargo install --quiet --locked cargo-deny --version '^0.20' >/dev/null 2>&1
}
