# Blobs and manifests with curl, byte for byte as the specification says.

_blob() { answers "$1" -H "$(as reader)" "$url/v2/$repository/blobs/$2" "${@:3}"; }

a_blob_goes_up_in_one_post() {
  random_file blob 100000
  answers 201 -X POST -H "$(as builder)" -H 'Content-Type: application/octet-stream' --data-binary @blob \
    "$url/v2/$repository/blobs/uploads/?digest=$(digest blob)"
  answers 200 -H "$(as reader)" "$(absolute "$(header location)")"
  same_file "$body" blob
  equal "$(header docker-content-digest)" "$(digest blob)"
}

a_blob_goes_up_in_a_post_and_one_put() {
  random_file blob 3000000
  local location
  location=$(upload_location builder)
  answers 201 -X PUT -H "$(as builder)" -T blob "$(with_digest "$location" "$(digest blob)")"
  _blob 200 "$(digest blob)"
  same_file "$body" blob
}

a_blob_goes_up_in_one_patch_that_names_no_range() {
  random_file blob 9000000
  local location
  location=$(upload_location builder)
  # Chunked transfer: neither a length nor a range is known before the end.
  answers 202 -X PATCH -H "$(as builder)" -H 'Transfer-Encoding: chunked' -H 'Content-Type: application/octet-stream' \
    -T - "$location" < blob
  equal "$(header range)" 0-8999999
  location=$(absolute "$(header location)")
  answers 201 -X PUT -H "$(as builder)" -H 'Content-Length: 0' "$(with_digest "$location" "$(digest blob)")"
  _blob 200 "$(digest blob)"
  same_file "$body" blob
}

a_blob_goes_up_in_chunks_and_in_no_other_order() {
  random_file blob 12000000
  head -c 7000000 blob > one
  tail -c 5000000 blob > two
  local location
  location=$(upload_location builder)
  answers 416 -X PATCH -H "$(as builder)" -H 'Content-Range: 7000000-11999999' --data-binary @two "$location"
  answers 202 -X PATCH -H "$(as builder)" -H 'Content-Range: 0-6999999' --data-binary @one "$location"
  location=$(absolute "$(header location)")
  answers 416 -X PATCH -H "$(as builder)" -H 'Content-Range: 0-6999999' --data-binary @one "$location"
  answers 204 -H "$(as builder)" "$location"
  equal "$(header range)" 0-6999999
  answers 202 -X PATCH -H "$(as builder)" -H 'Content-Range: 7000000-11999999' --data-binary @two "$location"
  location=$(absolute "$(header location)")
  answers 201 -X PUT -H "$(as builder)" -H 'Content-Length: 0' "$(with_digest "$location" "$(digest blob)")"
  _blob 200 "$(digest blob)"
  same_file "$body" blob
}

the_last_chunk_may_come_with_the_put() {
  random_file blob 6000000
  head -c 5500000 blob > one
  tail -c 500000 blob > two
  local location
  location=$(upload_location builder)
  answers 202 -X PATCH -H "$(as builder)" --data-binary @one "$location"
  location=$(absolute "$(header location)")
  answers 201 -X PUT -H "$(as builder)" -H 'Content-Range: 5500000-5999999' --data-binary @two \
    "$(with_digest "$location" "$(digest blob)")"
  _blob 200 "$(digest blob)"
  same_file "$body" blob
}

a_wrong_digest_is_refused_and_nothing_is_stored() {
  random_file blob 100000
  random_file other 100
  answers 400 -X POST -H "$(as builder)" --data-binary @blob \
    "$url/v2/$repository/blobs/uploads/?digest=$(digest other)"
  equal "$(oci_code)" DIGEST_INVALID
  _blob 404 "$(digest other)"
  _blob 404 "$(digest blob)"
  answers 400 -X POST -H "$(as builder)" --data-binary @blob "$url/v2/$repository/blobs/uploads/?digest=sha256:abc"
  equal "$(oci_code)" DIGEST_INVALID
}

a_blob_is_read_in_ranges() {
  random_file blob 2000000
  answers 201 -X POST -H "$(as builder)" --data-binary @blob "$url/v2/$repository/blobs/uploads/?digest=$(digest blob)"
  _blob 206 "$(digest blob)" -H 'Range: bytes=1000-1999'
  equal "$(header content-range)" 'bytes 1000-1999/2000000'
  dd if=blob of=part bs=1000 skip=1 count=1 status=none
  same_file "$body" part
  _blob 206 "$(digest blob)" -H 'Range: bytes=-500'
  tail -c 500 blob > part
  same_file "$body" part
  _blob 206 "$(digest blob)" -H 'Range: bytes=1999000-9999999'
  equal "$(header content-range)" 'bytes 1999000-1999999/2000000'
  _blob 416 "$(digest blob)" -H 'Range: bytes=2000000-'
}

curl_resumes_a_download_that_broke() {
  random_file blob 2000000
  answers 201 -X POST -H "$(as builder)" --data-binary @blob "$url/v2/$repository/blobs/uploads/?digest=$(digest blob)"
  head -c 700000 blob > again
  curl -sS --fail -C - -o again -H "$(as reader)" "$url/v2/$repository/blobs/$(digest blob)"
  same_file again blob
}

head_says_what_get_would() {
  random_file blob 123456
  answers 201 -X POST -H "$(as builder)" --data-binary @blob "$url/v2/$repository/blobs/uploads/?digest=$(digest blob)"
  _blob 200 "$(digest blob)" -I
  equal "$(header content-length)" 123456
  equal "$(header docker-content-digest)" "$(digest blob)"
  equal "$(header docker-distribution-api-version)" registry/2.0
  random_file other 10
  _blob 404 "$(digest other)" -I
}

a_blob_is_mounted_from_where_the_caller_may_read_and_not_from_elsewhere() {
  random_file blob 200000
  local d
  d=$(digest blob)
  answers 201 -X POST -H "$(as builder)" --data-binary @blob "$url/v2/$repository/blobs/uploads/?digest=$d"
  answers 201 -X POST -H "$(as builder)" -H 'Content-Length: 0' \
    "$url/v2/$repository-copy/blobs/uploads/?mount=$d&from=$repository"
  answers 200 -H "$(as reader)" "$url/v2/$repository-copy/blobs/$d"
  same_file "$body" blob
  # Who may not read the source gets a session, as if the blob were not there.
  answers 202 -X POST -H "$(as outsider)" -H 'Content-Length: 0' \
    "$url/v2/elsewhere/$repository/blobs/uploads/?mount=$d&from=$repository"
  answers 404 -H "$(as outsider)" "$url/v2/elsewhere/$repository/blobs/$d"
}

a_manifest_that_names_a_blob_nobody_pushed_is_refused() {
  jq -n --arg d "sha256:$(printf '%064d' 7)" '{schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: {mediaType: "application/vnd.oci.empty.v1+json", digest: $d, size: 2}, layers: []}' > manifest.json
  answers 404 -X PUT -H "$(as builder)" -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' \
    --data-binary @manifest.json "$url/v2/$repository/manifests/1.0"
  equal "$(oci_code)" MANIFEST_BLOB_UNKNOWN
  answers 400 -X PUT -H "$(as builder)" -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' \
    --data-binary 'not json' "$url/v2/$repository/manifests/1.0"
  equal "$(oci_code)" MANIFEST_INVALID
}

a_client_that_goes_away_leaves_a_session_that_goes_on() {
  random_file blob 40000000
  local location from
  location=$(upload_location builder)
  # 24 MiB are more than the sockets hold: the service has read some of them when the client ends.
  python3 "$E2E/lib/slow.py" PATCH "$location" "$(token builder)" blob $((24 << 20)) <<< leave
  # The session is free again once the service has noticed; what it keeps, it says.
  until_true 30 _session_is_free "$location"
  equal "$(_blob 404 "$(digest blob)"; oci_code)" BLOB_UNKNOWN
  answers 204 -H "$(as builder)" "$location"
  from=$(header range)
  from=$((${from#0-} == 0 ? 0 : ${from#0-} + 1))
  tail -c +$((from + 1)) blob > rest
  answers 201 -X PUT -H "$(as builder)" -H "Content-Range: $from-39999999" -T rest \
    "$(with_digest "$location" "$(digest blob)")"
  _blob 200 "$(digest blob)"
  same_file "$body" blob
}
# An empty chunk is taken only when nobody holds the session.
_session_is_free() {
  curl -sSf -o /dev/null -X PATCH -H "$(as builder)" -H 'Content-Length: 0' "$1"
}
