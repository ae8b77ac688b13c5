# The service as its operators see it.

every_answer_carries_its_request_id() {
  answers 200 "$url/livez"
  local one
  one=$(header x-request-id)
  [ -n "$one" ] || fail 'no request id'
  answers 404 "$url/api/v1/nothing-here"
  differ "$(header x-request-id)" "$one"
  equal "$(json .request_id)" "$(header x-request-id)"
  grep -q "$(header x-request-id)" "$WORK/$storage/proofmark.log" || fail 'the log does not know the request'
}

metrics_and_probes_answer_without_a_credential() {
  answers 200 "$url/livez"
  answers 200 "$url/readyz"
  answers 200 "$url/metrics"
  contains "$(cat "$body")" proofmark_http_requests_total
  answers 200 "$url/api/v1/openapi.json"
  json '.paths | keys | length' > /dev/null
}

bodies_over_the_limit_are_refused_as_their_door_says() {
  head -c 17000000 /dev/zero > large
  answers 413 -X PUT -H "$(as builder)" -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' \
    --data-binary @large "$url/v2/$repository/manifests/1.0"
  json '.errors[0].code' > /dev/null
  answers 413 -X PUT -H "$(as builder)" -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' \
    -H 'Transfer-Encoding: chunked' -T large "$url/v2/$repository/manifests/1.0"
}

sigterm_finishes_the_upload_in_flight() {
  # A service of its own, since this one ends.
  local main=$storage
  export storage=$main-ending storage_url=$storage_url-ending
  mkdir -p "$WORK/$storage"
  trap 'stop_proofmark || true; rm -rf "$here"' EXIT
  start_proofmark
  make_principal builder pusher
  random_file blob 40000000
  local location client
  location=$(upload_location builder)
  mkfifo words
  touch said
  python3 "$E2E/lib/slow.py" PUT "$(with_digest "$location" "$(digest blob)")" "$(token builder)" \
    blob $((24 << 20)) < words > said &
  client=$!
  exec 9> words
  until_true 60 grep -q sent said
  kill -TERM "$service_pid"
  # It takes no new work from here on ...
  until_true 60 _refuses_connections
  kill -0 "$service_pid" || fail 'it did not wait for the upload'
  # ... and finishes what it has.
  echo go >&9
  wait $client
  equal "$(tail -n 1 said)" 201
  stop_proofmark
  start_proofmark "${server##*:}"
  answers 200 -H "$(as builder)" "$url/v2/$repository/blobs/$(digest blob)"
  same_file "$body" blob
  stop_proofmark
}
_refuses_connections() { ! curl -s -o /dev/null --max-time 5 "$url/livez"; }

nothing_went_wrong_inside() {
  ! grep -E '"internal error"|panicked' "$WORK/$storage/proofmark.log" || fail 'internal errors are in the log'
}

fsck_finds_the_house_in_order() {
  "$PROOFMARK_BIN" --help | grep fsck > /dev/null || fail 'there is no proofmark fsck'
  fsck
}
