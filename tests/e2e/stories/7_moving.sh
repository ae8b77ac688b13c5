# Registries that move: exports that other tools read, and layouts of other tools.

_proofmark() { PROOFMARK_SERVER=$url PROOFMARK_TOKEN=$(token "$1") "$PROOFMARK_BIN" "${@:2}"; }

skopeo_and_oras_read_an_export() {
  sk builder copy -q "${copy_insecure[@]}" --digestfile pushed "oci:$WORK/images/first" "docker://$image:1.0"
  _proofmark admin export layout --repository "$repository"
  equal "$(skopeo inspect --format '{{.Digest}}' "oci:layout:$repository:1.0")" "$(cat pushed)"
  sk builder copy -q --preserve-digests --dest-tls-verify=false "oci:layout:$repository:1.0" "docker://$image-copy:1.0"
  equal "$(sk reader inspect --tls-verify=false --format '{{.Digest}}' "docker://$image-copy:1.0")" "$(cat pushed)"
  equal "$(oras manifest fetch --oci-layout "layout@$(cat pushed)" | sha256sum | cut -d' ' -f1)" "$(cut -d: -f2 pushed)"
  _proofmark admin import layout --check
  # skopeo looks in a layout for images in OCI's format alone; oras finds docker's own too.
  sk builder copy -q --format v2s2 "${copy_insecure[@]}" --digestfile docker "oci:$WORK/images/first" "docker://$image:docker"
  _proofmark admin export layout --repository "$repository"
  equal "$(oras resolve --oci-layout-path layout "$repository:docker")" "$(cat docker)"
}

what_skopeo_wrote_is_imported_with_its_name_and_without() {
  skopeo copy -q "oci:$WORK/images/first" oci:theirs:3.20
  refused _proofmark admin import theirs
  contains "$said" --into
  _proofmark builder import theirs --into "$repository"
  local digest
  digest=$(jq -r '.manifests[0].digest' theirs/index.json)
  equal "$(sk reader inspect --tls-verify=false --format '{{.Digest}}' "docker://$image:3.20")" "$digest"
  _proofmark builder import "$WORK/images/second" --into "$repository"
  digest=$(jq -r '.manifests[0].digest' "$WORK/images/second/index.json")
  answers 200 -H "$(as reader)" "$url/v2/$repository/manifests/$digest"
  _proofmark builder import theirs --into "$repository" --check
}
