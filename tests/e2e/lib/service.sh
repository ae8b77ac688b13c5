# Starting and stopping what the stories talk to. Every process started here is ended here, by its
# id; readiness is asked for, never waited for by the clock.

free_ports() {
  python3 - "$1" <<'P'
import socket, sys
held = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in held: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in held))
P
}

# wait_ready WHAT PID LOG COMMAND...
wait_ready() {
  local what=$1 pid=$2 log=$3 deadline=$((SECONDS + 60))
  shift 3
  until "$@" > /dev/null 2>&1; do
    if ! kill -0 "$pid" 2> /dev/null || [ $SECONDS -ge $deadline ]; then
      echo "$what did not become ready; the end of $log:" >&2
      tail -n 30 "$log" >&2
      exit 1
    fi
    sleep 0.05
  done
}

# ---- storage

start_storage() {
  mkdir -p "$WORK/$1"
  case $1 in
    file) storage_url=file://$WORK/file/objects ;;
    s3)
      start_seaweedfs
      storage_url=s3://proofmark/e2e
      ;;
    *) echo "a storage is file or s3, not $1" >&2; exit 2 ;;
  esac
  export storage=$1 storage_url
}

start_seaweedfs() {
  local ports key=proofmark secret=proofmark-e2e directory=$WORK/seaweedfs
  read -ra ports <<< "$(free_ports 8)"
  mkdir -p "$directory"
  jq -n --arg key $key --arg secret $secret '{identities: [{name: "proofmark",
    credentials: [{accessKey: $key, secretKey: $secret}],
    actions: ["Admin", "Read", "Write", "List", "Tagging"]}]}' > "$WORK/s3.json"
  # It ends with this shell, however that ends.
  setpriv --pdeathsig=INT -- weed server -dir="$directory" -ip=127.0.0.1 -ip.bind=127.0.0.1 -master.telemetry=false \
    -master.port="${ports[0]}" -master.port.grpc="${ports[1]}" -master.volumeSizeLimitMB=256 \
    -volume.port="${ports[2]}" -volume.port.grpc="${ports[3]}" -volume.max=100 -volume.minFreeSpace=200MiB \
    -filer.port="${ports[4]}" -filer.port.grpc="${ports[5]}" \
    -s3 -s3.port="${ports[6]}" -s3.port.grpc="${ports[7]}" -s3.port.iceberg=0 -s3.port.lance=0 \
    -s3.config="$WORK/s3.json" > "$WORK/seaweedfs.log" 2>&1 &
  storage_pid=$!
  export AWS_ENDPOINT=http://127.0.0.1:${ports[6]} AWS_ALLOW_HTTP=true AWS_REGION=us-east-1
  export AWS_ACCESS_KEY_ID=$key AWS_SECRET_ACCESS_KEY=$secret
  wait_ready SeaweedFS "$storage_pid" "$WORK/seaweedfs.log" \
    curl -sf --aws-sigv4 aws:amz:us-east-1:s3 --user $key:$secret -X PUT "$AWS_ENDPOINT/proofmark"
}

stop_storage() {
  if [ -n "${storage_pid:-}" ]; then
    kill "$storage_pid" && wait "$storage_pid" || true
    storage_pid=''
    unset AWS_ENDPOINT AWS_ALLOW_HTTP AWS_REGION AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
  fi
}

# ---- the service

# start_proofmark [PORT]: on data of the current storage, new or (after a stop) the same again.
start_proofmark() {
  export server url
  server=127.0.0.1:${1:-$(free_ports 1)} url=http://$server
  local data=$WORK/$storage/data trust_file=$WORK/$storage/data/trust.json
  service_log=$WORK/$storage/proofmark.log
  local settings=(
    PROOFMARK_LISTEN="$server" PROOFMARK_DATA="$data" PROOFMARK_STORAGE="$storage_url"
    PROOFMARK_ADMIN_TOKEN_FILE="$WORK/$storage/admin.token" PROOFMARK_LOG_FORMAT=json
    PROOFMARK_PUBLIC_NAME=registry.example
  )
  if [ -n "${E2E_DATABASE_URL:-}" ]; then
    own_database
    trust_file=$WORK/$storage/trust.json
    settings+=(DATABASE_URL="$database" PROOFMARK_KEYS="$WORK/$storage/keys" PROOFMARK_TRUST_FILE="$trust_file")
    [ -e "$trust_file" ] || {
      "$PROOFMARK_BIN" key init "$WORK/$storage/keys"
      "$PROOFMARK_BIN" key root init "$WORK/$storage/root.json"
      "$PROOFMARK_BIN" key trust init "$trust_file" --public-name registry.example --keys "$WORK/$storage/keys" \
        --root "$WORK/$storage/root.json"
    } > /dev/null
  fi
  # As deploy/proofmark.service has it: what is freed is not counted as held.
  env -u DATABASE_URL MALLOC_MMAP_THRESHOLD_=131072 "${settings[@]}" "$PROOFMARK_BIN" serve >> "$service_log" 2>&1 &
  service_pid=$!
  echo $service_pid > "$WORK/proofmark.pid"
  wait_ready proofmark $service_pid "$service_log" curl -sf "$url/readyz"
  pin_trust
}

# As each user does once: pins the trust file, by the fingerprint that the operator has.
pin_trust() {
  root_fingerprint=$("$PROOFMARK_BIN" key trust show "$trust_file" --json | jq -er .fingerprint)
  export root_fingerprint
  "$PROOFMARK_BIN" trust pin --server "$url" --fingerprint "$root_fingerprint" > /dev/null
}

# With a given Postgres: a database of this run's own.
own_database() {
  local name
  name=e2e_${storage}_$(basename "$WORK" | tr -dc 'a-zA-Z0-9' | tr A-Z a-z)
  database=${E2E_DATABASE_URL%/*}/$name
  psql -q "$E2E_DATABASE_URL" -c "create database $name" 2> /dev/null || true
}

# Asks it to end and says how it ended.
stop_proofmark() {
  [ -n "${service_pid:-}" ] || return 0
  local status=0
  kill -TERM "$service_pid" 2> /dev/null || true
  wait "$service_pid" || status=$?
  service_pid=''
  if [ $status -ne 0 ]; then
    echo "proofmark ended with $status; the end of $service_log:" >&2
    tail -n 20 "$service_log" >&2
    return 1
  fi
}

stop_everything() {
  local status=$?
  stop_proofmark || true
  stop_storage
  if [ $status -eq 0 ] && [ "${E2E_KEEP:-0}" != 1 ]; then
    chmod -R u+w "$WORK" 2> /dev/null
    rm -rf "$WORK"
  fi
}

# ---- who calls

token() { cat "$WORK/$storage/$1.token"; }

# make_principal NAME ROLES [REPOSITORIES]: a token with these roles.
make_principal() {
  local name=$1 roles=$2 repositories=${3:-**} document
  document=$(jq -n --arg name "$name" --arg roles "$roles" --arg repositories "$repositories" \
    '{principal: $name, grants: [$roles / " " | .[] | {role: ., repositories: $repositories}]}')
  curl -sS --fail-with-body -H "Authorization: Bearer $(token admin)" -H 'Content-Type: application/json' \
    --data-binary "$document" "$url/api/v1/tokens" > "$WORK/answer.json" || {
    echo "cannot make a token for $name: $(cat "$WORK/answer.json")" >&2
    exit 1
  }
  jq -er .token "$WORK/answer.json" > "$WORK/$storage/$name.token"
}

make_principals() {
  make_principal builder 'pusher attester'
  make_principal scanner scanner
  make_principal approver approver
  make_principal promoter promoter
  make_principal deployer deployer
  make_principal auditor auditor
  make_principal reader reader
  make_principal outsider pusher 'elsewhere/**'
}
