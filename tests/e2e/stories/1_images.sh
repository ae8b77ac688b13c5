# Images with skopeo and buildah.

docker_types=application/vnd.docker.distribution.manifest.v2+json

_push() { sk builder copy -q "${copy_insecure[@]}" "$@"; }
_remote_digest() { sk reader inspect --tls-verify=false --format '{{.Digest}}' "docker://$1"; }

skopeo_copies_an_image_and_reads_the_same_digest_back() {
  _push --digestfile pushed "oci:$WORK/images/first" "docker://$image:1.0"
  equal "$(_remote_digest "$image:1.0")" "$(cat pushed)"
  sk reader copy -q "${copy_insecure[@]}" "docker://$image:1.0" "oci:again"
  equal "sha256:$(jq -r '.manifests[0].digest' again/index.json | cut -d: -f2)" "$(cat pushed)"
}

skopeo_copies_through_directories_and_archives() {
  _push "oci:$WORK/images/first" "docker://$image:1.0"
  sk reader copy -q "${copy_insecure[@]}" "docker://$image:1.0" dir:directory
  _push dir:directory "docker://$image:from-directory"
  sk reader copy -q "${copy_insecure[@]}" "docker://$image:1.0" oci-archive:archive.tar
  _push oci-archive:archive.tar "docker://$image:from-archive"
  equal "$(_remote_digest "$image:from-directory")" "$(_remote_digest "$image:1.0")"
  equal "$(_remote_digest "$image:from-archive")" "$(_remote_digest "$image:1.0")"
}

skopeo_pushes_docker_s_own_format_and_it_keeps_its_type() {
  _push --format v2s2 "oci:$WORK/images/first" "docker://$image:docker"
  sk reader inspect --raw --tls-verify=false "docker://$image:docker" > raw
  equal "$(jq -r .mediaType raw)" application/vnd.docker.distribution.manifest.v2+json
  answers 200 -I -H "$(as reader)" -H "Accept: $docker_types" "$url/v2/$repository/manifests/docker"
  equal "$(header content-type)" application/vnd.docker.distribution.manifest.v2+json
}

skopeo_inspects_what_was_pushed() {
  _push "oci:$WORK/images/first" "docker://$image:1.0"
  _push "oci:$WORK/images/first" "docker://$image:1.1"
  sk reader inspect --tls-verify=false "docker://$image:1.0" > inspected.json
  equal "$(jq -r .Labels.story inspected.json)" first
  equal "$(jq -c .RepoTags inspected.json)" '["1.0","1.1"]'
  equal "$(sk reader list-tags --tls-verify=false "docker://$image" | jq -c .Tags)" '["1.0","1.1"]'
}

skopeo_cannot_move_a_version_and_hears_the_current_digest() {
  _push --digestfile pushed "oci:$WORK/images/first" "docker://$image:1.0"
  _push "oci:$WORK/images/first" "docker://$image:1.0"
  refused _push "oci:$WORK/images/second" "docker://$image:1.0"
  contains "$said" "$(cat pushed)"
  equal "$(_remote_digest "$image:1.0")" "$(cat pushed)"
}

skopeo_deletes_with_the_right_to_and_not_without() {
  _push --digestfile pushed "oci:$WORK/images/first" "docker://$image:1.0"
  refused sk builder delete --tls-verify=false "docker://$image:1.0"
  _remote_digest "$image:1.0"
  sk admin delete --tls-verify=false "docker://$image:1.0"
  refused _remote_digest "$image:1.0"
  # The name is kept for its digest: no other image takes it, the same one may come back.
  refused _push "oci:$WORK/images/second" "docker://$image:1.0"
  contains "$said" "$(cat pushed)"
  _push "oci:$WORK/images/first" "docker://$image:1.0"
  equal "$(_remote_digest "$image:1.0")" "$(cat pushed)"
}

skopeo_syncs_a_repository_out_and_into_another() {
  _push "oci:$WORK/images/first" "docker://$image:1.0"
  _push "oci:$WORK/images/second" "docker://$image:2.0"
  sk builder sync --src docker --dest dir --src-tls-verify=false "$image" out > sync.log
  sk builder sync --src dir --dest docker --dest-tls-verify=false out "$image/mirror" > sync.log
  local name
  name=$image/mirror/$(basename "$repository")
  equal "$(_remote_digest "$name:1.0")" "$(_remote_digest "$image:1.0")"
  equal "$(_remote_digest "$name:2.0")" "$(_remote_digest "$image:2.0")"
}

skopeo_copies_between_registries_and_formats_and_back() {
  local other
  other=127.0.0.1:$(free_ports 1)
  crane registry serve --address "$other" > other.log 2>&1 &
  other_pid=$!
  trap 'kill $other_pid; wait $other_pid || true; rm -rf "$here"' EXIT
  wait_ready 'the other registry' $other_pid other.log curl -sf "http://$other/v2/"
  _push --digestfile pushed "oci:$WORK/images/first" "docker://$image:1.0"
  sk reader copy -q "${copy_insecure[@]}" "docker://$image:1.0" "docker://$other/mirror:1.0"
  sk builder copy -q "${copy_insecure[@]}" "docker://$other/mirror:1.0" "docker://$image/back:1.0"
  equal "$(_remote_digest "$image/back:1.0")" "$(cat pushed)"
  # Into docker's format there, and into OCI's again here: other manifests of the same layers.
  sk reader copy -q "${copy_insecure[@]}" --format v2s2 "docker://$image:1.0" "docker://$other/mirror:docker"
  sk builder copy -q "${copy_insecure[@]}" --format oci "docker://$other/mirror:docker" "docker://$image/back:oci"
  sk reader inspect --raw --tls-verify=false "docker://$image/back:oci" > again.json
  equal "$(jq -r .mediaType again.json)" application/vnd.oci.image.manifest.v1+json
  equal "$(jq -c '[.layers[].digest]' again.json)" \
    "$(sk reader inspect --raw --tls-verify=false "docker://$image:1.0" | jq -c '[.layers[].digest]')"
}

buildah_builds_pushes_and_pulls_an_image() {
  local container
  printf 'hello from %s\n' "$repository" > greeting
  container=$(bd builder from scratch)
  bd builder copy -q "$container" greeting /greeting
  bd builder config --cmd '["/greeting"]' "$container"
  bd builder commit -q "$container" localhost/e2e-built > id
  bd builder push -q --tls-verify=false --digestfile pushed localhost/e2e-built "docker://$image:1.0"
  bd builder rm "$container"
  bd builder rmi localhost/e2e-built
  bd reader pull -q --tls-verify=false "docker://$image:1.0"
  container=$(bd reader from --pull=never "$image:1.0")
  same_file greeting "$(bd reader mount "$container")/greeting"
  bd reader rm "$container"
  equal "$(_remote_digest "$image:1.0")" "$(cat pushed)"
}

buildah_pushes_a_manifest_list_with_its_images() {
  bd builder manifest create "$repository-list"
  bd builder manifest add "$repository-list" "oci:$WORK/images/first"
  bd builder manifest add "$repository-list" "oci:$WORK/images/foreign"
  bd builder manifest push -q --all --tls-verify=false --digestfile pushed "$repository-list" "docker://$image:1.0"
  bd builder manifest rm "$repository-list"
  sk reader inspect --raw --tls-verify=false "docker://$image:1.0" > list.json
  equal "$(digest list.json)" "$(cat pushed)"
  equal "$(jq -c '[.manifests[].platform.architecture] | sort' list.json)" '["amd64","arm64"]'
  # Both children are there, and a client of each architecture finds its own.
  sk reader copy -q --all "${copy_insecure[@]}" "docker://$image:1.0" oci:everything
  equal "$(sk reader --override-arch arm64 inspect --tls-verify=false --format '{{.Labels.story}}' "docker://$image:1.0")" foreign
}
