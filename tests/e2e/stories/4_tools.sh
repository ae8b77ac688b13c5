# The tools that pipelines use on images where they lie: crane, regctl, oras, syft and helm.

_crane() {
  local role=$1
  shift
  DOCKER_CONFIG=$(docker_config "$role") crane "$@"
}

# A tarball of one layer with a file in it.
_layer() {
  mkdir -p "$(dirname "root/$1")"
  printf '%s\n' "$2" > "root/$1"
  tar --sort=name --mtime=@0 --owner=0 --group=0 -C root -cf "$3" "$1"
  rm -rf root
}

crane_appends_mutates_copies_and_validates() {
  _layer etc/first one layer1.tar
  _layer etc/second two layer2.tar
  _crane builder append --oci-empty-base -f layer1.tar -t "$image:1.0"
  _crane builder append -b "$image:1.0" -f layer2.tar -t "$image:1.1"
  _crane builder mutate "$image:1.1" --label story=crane --tag "$image:1.2"
  equal "$(_crane reader config "$image:1.2" | jq -r .config.Labels.story)" crane
  equal "$(_crane reader manifest "$image:1.1" | jq '.layers | length')" 2
  equal "$(_crane reader ls "$image" | sort | tr '\n' ' ')" '1.0 1.1 1.2 '
  _crane reader validate --remote "$image:1.2"
  equal "$(_crane reader export "$image:1.1" - | tar -xO etc/second)" two
  # A copy to another repository mounts the layers, and keeps the digest.
  _crane builder copy "$image:1.2" "$image/copy:1.2"
  equal "$(_crane reader digest "$image/copy:1.2")" "$(_crane reader digest "$image:1.2")"
  _crane reader pull --format oci "$image/copy:1.2" pulled
  equal "$(jq -r '.manifests[0].digest' pulled/index.json)" "$(_crane reader digest "$image:1.2")"
}

crane_tags_deletes_and_cannot_move_a_version() {
  _layer which one layer1.tar
  _layer which two layer2.tar
  _crane builder append --oci-empty-base -f layer1.tar -t "$image:1.0"
  _crane builder append --oci-empty-base -f layer2.tar -t "$image:2.0"
  _crane builder tag "$image:1.0" 1.0.0
  equal "$(_crane reader digest "$image:1.0.0")" "$(_crane reader digest "$image:1.0")"
  refused _crane builder tag "$image:2.0" 1.0
  contains "$said" "$(_crane reader digest "$image:1.0")"
  refused _crane builder delete "$image:1.0.0"
  _crane admin delete "$image:1.0.0"
  refused _crane reader digest "$image:1.0.0"
  equal "$(_crane reader ls "$image" | sort | tr '\n' ' ')" '1.0 2.0 '
  # It is read to its end: crane fails when nobody reads on.
  _crane reader catalog "$server" | grep -x "$repository" > /dev/null || fail 'the catalog does not list it'
}

_regctl() {
  local role=$1
  shift
  regctl --host "reg=$server,user=$role,pass=$(token "$role"),tls=disabled" "$@"
}

# One of the images on disk, as regctl names it.
_layout() { printf 'ocidir://%s@%s' "$WORK/images/$1" "$(jq -r '.manifests[0].digest' "$WORK/images/$1/index.json")"; }

regctl_imports_copies_indexes_and_gets_files() {
  _regctl builder image copy "$(_layout first)" "$image:first"
  _regctl builder image copy "$(_layout foreign)" "$image:foreign"
  _regctl builder index create "$image:1.0" --ref "$image:first" --ref "$image:foreign" \
    --platform linux/amd64 --platform linux/arm64
  _regctl reader manifest get --format raw-body "$image:1.0" > index.json
  equal "$(digest index.json)" "$(_regctl reader image digest "$image:1.0")"
  equal "$(_regctl reader tag ls "$image" | tr '\n' ' ')" '1.0 first foreign '
  _regctl builder image copy "$image:1.0" "$image/copy:1.0"
  equal "$(_regctl reader image digest "$image/copy:1.0")" "$(_regctl reader image digest "$image:1.0")"
  _regctl reader image get-file "$image:first" /data data
  same_file data "$WORK/images/first.data"
  _regctl reader image export "$image:first" exported.tar
  _regctl builder image import "$image:imported" exported.tar
  equal "$(_regctl reader image digest "$image:imported")" "$(_regctl reader image digest "$image:first")"
}

regctl_attaches_artifacts_and_finds_them_by_their_type() {
  _regctl builder image copy "$(_layout first)" "$image:1.0"
  printf '{"about": "%s"}\n' "$repository" > note.json
  _regctl builder artifact put --artifact-type application/vnd.example.note --subject "$image:1.0" < note.json
  _regctl builder artifact put --artifact-type application/vnd.example.other --subject "$image:1.0" < note.json
  _regctl reader artifact list --format raw-body "$image:1.0" > all.json
  equal "$(jq '.manifests | length' all.json)" 2
  _regctl reader artifact list --filter-artifact-type application/vnd.example.note --format raw-body "$image:1.0" > notes.json
  equal "$(jq '.manifests | length' notes.json)" 1
  _regctl reader artifact get --subject "$image:1.0" --filter-artifact-type application/vnd.example.note > got.json
  same_file got.json note.json
  contains "$(_regctl reader artifact tree "$image:1.0")" application/vnd.example.note
  # With the image go the artifacts that speak of it.
  _regctl builder image copy --referrers "$image:1.0" "$image/copy:1.0"
  equal "$(_regctl reader artifact list --format raw-body "$image/copy:1.0" | jq '.manifests | length')" 2
}

regctl_moves_blobs_by_hand() {
  random_file blob 3000000
  equal "$(_regctl builder blob put "$image" < blob)" "$(digest blob)"
  _regctl reader blob get "$image" "$(digest blob)" > got
  same_file got blob
  _regctl builder blob copy "$image" "$image/copy" "$(digest blob)"
  _regctl reader blob head "$image/copy" "$(digest blob)"
  _regctl admin blob delete "$image/copy" "$(digest blob)"
  refused _regctl reader blob head "$image/copy" "$(digest blob)"
  _regctl reader blob head "$image" "$(digest blob)"
}

_oras() {
  local role=$1
  shift
  oras "$@" --registry-config "$(auth_file "$role")"
}

_oras_cp() {
  local auth
  auth=$(auth_file "$1")
  oras cp -r --from-registry-config "$auth" --to-registry-config "$auth" "${@:2}"
}

oras_copies_an_artifact_with_all_that_refers_to_it() {
  random_file model.bin 100000
  printf 'one\n' > note
  local subject
  subject=$(_oras builder push --plain-http --format 'go-template={{.digest}}' \
    --artifact-type application/vnd.example.model "$image:1.0,1.0.0" model.bin)
  equal "$(_oras reader resolve --plain-http "$image:1.0.0")" "$subject"
  _oras builder attach --plain-http --artifact-type application/vnd.example.note "$image:1.0" note
  _oras_cp builder --from-plain-http --to-plain-http "$image:1.0" "$image/copy:1.0"
  _oras reader discover --plain-http --format json "$image/copy:1.0" > found.json
  equal "$(jq -r '(.referrers // .manifests)[0].artifactType' found.json)" application/vnd.example.note
  # Into a layout on disk and out of it again.
  _oras_cp reader --from-plain-http --to-oci-layout "$image:1.0" layout:1.0
  _oras_cp builder --from-oci-layout --to-plain-http layout:1.0 "$image/again:1.0"
  equal "$(_oras reader resolve --plain-http "$image/again:1.0")" "$subject"
  refused _oras builder tag --plain-http "$image@$(jq -r '(.referrers // .manifests)[0].digest' found.json)" 1.0
}

syft_catalogues_an_image_where_it_lies() {
  # An image whose package database names two packages.
  _layer var/lib/dpkg/status "$(printf 'Package: %s\nStatus: install ok installed\nVersion: 1.2-3\nArchitecture: amd64\nMaintainer: e2e\n\n' \
    example-one example-two)" layer1.tar
  _layer etc/os-release "$(printf 'ID=debian\nVERSION_ID="12"')" layer2.tar
  _crane builder append --oci-empty-base -f layer1.tar -f layer2.tar -t "$image:1.0"
  _crane builder mutate "$image:1.0" --set-platform linux/amd64 --tag "$image:1.1"
  DOCKER_CONFIG=$(docker_config reader) SYFT_REGISTRY_INSECURE_USE_HTTP=true SYFT_CHECK_FOR_APP_UPDATE=false \
    syft scan -q "registry:$image:1.1" -o spdx-json=sbom.json
  equal "$(jq -c '[.packages[].name | select(startswith("example-"))] | sort' sbom.json)" '["example-one","example-two"]'
  # The SBOM is kept beside the image, and is found from it.
  _oras builder attach --plain-http --artifact-type application/spdx+json "$image:1.1" sbom.json:application/spdx+json
  _oras reader discover --plain-http --artifact-type application/spdx+json --format json "$image:1.1" > found.json
  _oras reader pull --plain-http -o kept "$image@$(jq -r '(.referrers // .manifests)[0].digest' found.json)"
  same_file kept/sbom.json sbom.json
}

helm_pushes_shows_and_pulls_a_chart() {
  export HELM_CONFIG_HOME=$here/helm HELM_CACHE_HOME=$here/helm HELM_DATA_HOME=$here/helm
  mkdir -p chart/templates
  printf 'apiVersion: v2\nname: chart\nversion: 1.2.3\ndescription: of %s\n' "$repository" > chart/Chart.yaml
  printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\n' > chart/templates/map.yaml
  helm package chart
  helm registry login --plain-http --username builder --password-stdin "$server" <<< "$(token builder)"
  helm push --plain-http chart-1.2.3.tgz "oci://$server/$repository"
  contains "$(helm show chart --plain-http "oci://$server/$repository/chart" --version 1.2.3)" "of $repository"
  mkdir pulled
  helm pull --plain-http -d pulled "oci://$server/$repository/chart" --version 1.2.3
  same_file pulled/chart-1.2.3.tgz chart-1.2.3.tgz
  contains "$(helm template --plain-http demo "oci://$server/$repository/chart" --version '^1.0.0')" 'name: demo'
  # Another chart of the same version does not take its place.
  sed -i 's/^description: .*/description: another/' chart/Chart.yaml
  helm package chart
  refused helm push --plain-http chart-1.2.3.tgz "oci://$server/$repository"
  contains "$(helm show chart --plain-http "oci://$server/$repository/chart" --version 1.2.3)" "of $repository"
}
