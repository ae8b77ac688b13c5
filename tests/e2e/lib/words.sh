# The words that stories are written in.

fail() {
  echo "$*" >&2
  exit 1
}

equal() { [ "$1" = "$2" ] || fail "expected '$2', got '$1'"; }
differ() { [ "$1" != "$2" ] || fail "expected something else than '$1'"; }
contains() { [[ $1 == *"$2"* ]] || fail "expected '$2' in: $1"; }
same_file() { cmp "$1" "$2" || fail "$1 and $2 differ"; }

# refused COMMAND...: succeeds when the command fails; $said is what it said.
refused() {
  if said=$("$@" 2>&1); then fail "this was not refused: $*: $said"; fi
}

# The header to authenticate with: -H "$(as builder)".
as() { printf 'Authorization: Bearer %s' "$(token "$1")"; }

# answers STATUS [curl's arguments]: one request; "200 201" means either. Leaves $body and $headers.
answers() {
  local wanted=$1 got
  shift
  got=$(curl -sS --max-time 600 -o "$body" -D "$headers" -w '%{http_code}' "$@") || fail "curl $*: exit $?"
  [[ " $wanted " == *" $got "* ]] || fail "expected $wanted, got $got: curl $*"$'\n'"$(head -c 3000 "$body")"
}

# One header, and one value of the JSON body, of the last answer.
header() { sed -n "s/^$1: *//Ip" "$headers" | tr -d '\r' | tail -n 1; }
json() { jq -er "$1" "$body" || fail "no $1 in: $(head -c 3000 "$body")"; }

# The OCI error code of the last answer.
oci_code() { json '.errors[0].code'; }

digest() { printf 'sha256:%s' "$(sha256sum "$1" | cut -d' ' -f1)"; }
random_file() { head -c "$2" /dev/urandom > "$1"; }

# until_true SECONDS COMMAND...: asks again until the command succeeds.
until_true() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $deadline ] || fail "did not come true: $*"
    sleep 0.05
  done
}

# location ROLE: starts an upload in $repository; prints where it goes on, absolute.
upload_location() {
  answers 202 -X POST -H "$(as "$1")" "$url/v2/$repository/blobs/uploads/"
  absolute "$(header location)"
}
absolute() { case $1 in /*) printf '%s%s' "$url" "$1" ;; *) printf '%s' "$1" ;; esac }
with_digest() { case $1 in *\?*) printf '%s&digest=%s' "$1" "$2" ;; *) printf '%s?digest=%s' "$1" "$2" ;; esac }

# push_file FILE VERSION [query]: stores a file as an artifact; prints its digest.
push_file() {
  answers 201 -T "$1" -H "$(as builder)" \
    "$url/api/v1/artifacts?repository=$repository&version=$2&filename=$(basename "$1")${3:+&$3}"
  json .digest
}

# One request to /api/v1 by a role: api STATUS ROLE METHOD PATH [curl's arguments]
api() {
  local wanted=$1 role=$2 method=$3 path=$4
  shift 4
  answers "$wanted" -X "$method" -H "$(as "$role")" "$url/api/v1/$path" "$@"
}
