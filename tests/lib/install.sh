# What the tests need from the machine beside Rust.

# Debian's packages for whatever is missing; elsewhere it says what to install.
install_missing() {
  local packages=()
  [ -n "$(postgres_programs)" ] || packages+=(postgresql)
  command -v cc > /dev/null || packages+=(gcc libc6-dev)
  command -v curl > /dev/null || packages+=(curl)
  command -v openssl > /dev/null || packages+=(openssl)
  command -v npm > /dev/null || packages+=(nodejs npm)
  python3 -c 'import ensurepip' 2> /dev/null || packages+=(python3 python3-venv)
  [ ${#packages[@]} -gt 0 ] || return 0
  if ! command -v apt-get > /dev/null; then
    echo "tests/run needs a Postgres server (15 or newer), a C compiler, curl, openssl, Node with npm and Python 3 with venv: install them first" >&2
    return 1
  fi
  echo "installing ${packages[*]}"
  local sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo)
  local apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends)
  "${apt[@]}" update || return 1
  if [[ " ${packages[*]} " == *' postgresql '* ]]; then
    # Only the programs are wanted: the package would otherwise start a cluster of its own.
    "${apt[@]}" install postgresql-common > /dev/null &&
      "${sudo[@]}" sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' \
        /etc/postgresql-common/createcluster.conf || return 1
  fi
  "${apt[@]}" install "${packages[@]}" > /dev/null
}

# cargo-deny, built once and kept outside the tree; prints its path.
cargo_deny() {
  local version=0.20.2 root=${PROOFMARK_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/proofmark/tools}
  root=$root/cargo-deny-$version
  if [ ! -x "$root/bin/cargo-deny" ]; then
    echo "building cargo-deny $version" >&2
    # Unoptimised: it runs for a second, and so builds in half the time.
    cargo install --quiet --locked --debug --root "$root" --target-dir "$root/target" \
      "cargo-deny@$version" >&2 || return 1
    rm -rf "$root/target"
  fi
  printf '%s' "$root/bin/cargo-deny"
}
