# Any file, with curl alone and with oras.

_oras() {
  local role=$1
  shift
  oras "$@" --plain-http --registry-config "$(auth_file "$role")"
}

curl_t_stores_a_file_and_oras_and_skopeo_read_it() {
  random_file disk.img 3000000
  local pushed
  pushed=$(push_file disk.img 1.0 artifact_type=application/vnd.example.disk)
  _oras reader pull -o pulled "$image:1.0"
  same_file pulled/disk.img disk.img
  sk reader inspect --raw --tls-verify=false "docker://$image:1.0" > manifest.json
  equal "$(digest manifest.json)" "$pushed"
  equal "$(jq -r .artifactType manifest.json)" application/vnd.example.disk
  sk reader copy -q "${copy_insecure[@]}" "docker://$image:1.0" oci:layout
  same_file "layout/blobs/sha256/$(digest disk.img | cut -d: -f2)" disk.img
}

the_same_put_twice_is_one_artifact() {
  random_file file.bin 100000
  local once twice
  once=$(push_file file.bin 1.0)
  twice=$(push_file file.bin 1.0)
  equal "$twice" "$once"
  api 200 reader GET "artifacts?repository=$repository"
  equal "$(json '.items | length')" 1
}

a_version_that_is_taken_is_refused_with_the_current_digest() {
  random_file one.bin 100000
  random_file two.bin 100000
  local first
  first=$(push_file one.bin 1.0)
  api 409 builder PUT "artifacts?repository=$repository&version=1.0&filename=two.bin" -T two.bin
  equal "$(header content-type)" application/problem+json
  contains "$(cat "$body")" "$first"
  api 200 reader GET "artifacts/$first/content?repository=$repository"
  same_file "$body" one.bin
}

a_body_with_another_digest_than_it_says_is_refused() {
  random_file one.bin 100000
  random_file two.bin 100000
  api 400 builder PUT "artifacts?repository=$repository&version=1.0&filename=one.bin&digest=$(digest two.bin)" -T one.bin
  equal "$(header content-type)" application/problem+json
  api 404 builder GET "artifacts?repository=$repository-none"
  answers 404 -I -H "$(as reader)" "$url/v2/$repository/manifests/1.0"
}

the_record_of_an_artifact_says_who_pushed_what() {
  random_file file.bin 4321
  local pushed
  pushed=$(push_file file.bin 2.3.4)
  api 200 reader GET "artifacts/$pushed?repository=$repository"
  equal "$(json .digest)" "$pushed"
  equal "$(json .pushed_by)" builder
  equal "$(json '.versions[0] | .version? // .')" 2.3.4
}

oras_pushes_pulls_attaches_and_discovers() {
  random_file model.bin 500000
  printf '{"note": "of %s"}\n' "$repository" > note.json
  _oras builder push --artifact-type application/vnd.example.model "$image:1.0" model.bin:application/octet-stream
  _oras reader pull -o pulled "$image:1.0"
  same_file pulled/model.bin model.bin
  _oras builder attach --artifact-type application/vnd.example.note "$image:1.0" note.json:application/json
  _oras reader discover --format json "$image:1.0" > found.json
  equal "$(jq -r '(.referrers // .manifests)[0].artifactType' found.json)" application/vnd.example.note
  local referrer
  referrer=$(jq -r '(.referrers // .manifests)[0].digest' found.json)
  _oras reader pull -o note "$image@$referrer"
  same_file note/note.json note.json
  _oras reader repo tags "$image" > tags
  contains "$(cat tags)" 1.0
}

oras_cannot_move_a_version() {
  random_file one.bin 1000
  random_file two.bin 1000
  _oras builder push "$image:1.0" one.bin
  refused _oras builder push "$image:1.0" two.bin
  _oras reader pull -o pulled "$image:1.0"
  same_file pulled/one.bin one.bin
}

a_repository_whose_rule_says_so_lets_its_tags_float() {
  api 201 admin PUT repositories -H 'Content-Type: application/json' \
    --data-binary "{\"name\": \"$repository\", \"tags\": {\"floating\": [\"latest\"]}}"
  sk builder copy -q "${copy_insecure[@]}" "oci:$WORK/images/first" "docker://$image:latest"
  sk builder copy -q "${copy_insecure[@]}" --digestfile second "oci:$WORK/images/second" "docker://$image:latest"
  equal "$(sk reader inspect --tls-verify=false --format '{{.Digest}}' "docker://$image:latest")" "$(cat second)"
}

a_large_blob_passes_through_with_memory_flat() {
  local mib=256 rest
  [ "$E2E_LONG" = 0 ] || mib=5120
  # One round first: what the service takes once for all stays out of the figure.
  _endless 128 > warm
  answers 201 -T - -H "$(as builder)" "$url/api/v1/artifacts?repository=$repository&version=0.0&filename=warm" < warm
  answers 200 -H "$(as reader)" "$url/v2/$repository/blobs/$(digest warm)"
  rest=$(_memory VmRSS)
  _forget_peak
  mkfifo stream
  _endless "$mib" | tee stream | answers 201 -T - -H "$(as builder)" \
    "$url/api/v1/artifacts?repository=$repository&version=1.0&filename=large" &
  sha256sum < stream | cut -d' ' -f1 > sent
  wait $!
  _flat 'taking it in' "$rest"
  _forget_peak
  curl -sS --fail -H "$(as reader)" "$url/v2/$repository/blobs/sha256:$(cat sent)" | sha256sum | cut -d' ' -f1 > read
  equal "$(cat read)" "$(cat sent)"
  _flat 'giving it out' "$rest"
}
large_manifests_are_forgotten_when_they_are_stored() {
  local rest left number config empty
  printf '{}' > config.json
  config=$(digest config.json)
  answers 201 -H "$(as builder)" --data-binary @config.json "$url/v2/$repository/blobs/uploads/?digest=$config"
  empty='"mediaType": "application/vnd.oci.empty.v1+json", "digest": "'$config'", "size": 2'
  head -c 12000000 /dev/zero | tr '\0' x > text
  rest=$(_memory VmRSS)
  for number in {1..24}; do
    _large_referrer &
    [ $((number % 8)) != 0 ] || wait
  done
  left=$(_memory VmRSS)
  echo "before 24 manifests of 12 MB $rest KiB, after them $left KiB"
  answers 200 -H "$(as reader)" "$url/v2/$repository/tags/list"
  equal "$(json '.tags | length')" 24
  # 64 MiB of them may be kept, to be given out again.
  [ $((left - rest)) -le $((112 << 10)) ] || fail "24 large manifests left $(((left - rest) >> 10)) MiB behind"
}
_large_referrer() {
  {
    printf '{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": {%s},' "$empty"
    printf '"layers": [], "subject": {%s}, "artifactType": "text/plain", "annotations": {"%s": "' "$empty" "$number"
    cat text
    printf '"}}'
  } | curl -sS --fail -o /dev/null -T - -H "$(as builder)" "$url/v2/$repository/manifests/$number" \
    -H 'Content-Type: application/vnd.oci.image.manifest.v1+json'
}
_memory() { awk -v field="$1:" '$1 == field { print $2 }' "/proc/$(cat "$WORK/proofmark.pid")/status"; }
_forget_peak() { echo 5 > "/proc/$(cat "$WORK/proofmark.pid")/clear_refs"; }
_flat() {
  local peak
  peak=$(_memory VmHWM)
  echo "$1: at rest $2 KiB, at the most $peak KiB"
  [ $((peak - $2)) -le $((32 << 10)) ] || fail "$1 took $(((peak - $2) >> 10)) MiB more than at rest"
}
_endless() {
  openssl enc -aes-128-ctr -nosalt -K "$(openssl rand -hex 16)" -iv 0 -in /dev/zero 2> /dev/null | head -c "$1M" || true
}
