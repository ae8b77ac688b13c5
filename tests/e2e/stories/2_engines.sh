# Engines that keep images of their own: podman and containerd.

_pd() {
  local role=$1
  shift
  REGISTRY_AUTH_FILE=$(auth_file "$role") podman --cgroup-manager=cgroupfs --events-backend=none "$@"
}

podman_builds_from_scratch_pushes_and_pulls_what_it_pushed() {
  printf 'hello from %s\n' "$repository" > greeting
  printf 'FROM scratch\nCOPY greeting /greeting\nLABEL story=podman\nCMD ["/greeting"]\n' > Containerfile
  _pd builder build -q --tag "$image:1.0" .
  _pd builder push -q --tls-verify=false --digestfile pushed "$image:1.0"
  _pd builder rmi --force "$image:1.0"
  _pd reader pull -q --tls-verify=false "$image:1.0"
  equal "$(_pd reader image inspect --format '{{.Digest}}' "$image:1.0")" "$(cat pushed)"
  equal "$(_pd reader image inspect --format '{{.Labels.story}}' "$image:1.0")" podman
  local mounted
  mounted=$(_pd reader image mount "$image:1.0")
  same_file greeting "$mounted/greeting"
  _pd reader image unmount "$image:1.0"
  # By digest too, and a second push of the same is no change.
  _pd reader pull -q --tls-verify=false "$image@$(cat pushed)"
  _pd builder push -q --tls-verify=false "$image:1.0"
  _pd reader rmi --force "$image:1.0"
}

podman_makes_a_manifest_list_and_each_architecture_finds_its_own() {
  local architecture
  for architecture in amd64 arm64; do
    printf '%s\n' $architecture > which
    printf 'FROM scratch\nCOPY which /which\n' > Containerfile
    _pd builder build -q --platform "linux/$architecture" --manifest "$image:1.0" .
  done
  _pd builder manifest push --all --tls-verify=false --digestfile pushed "$image:1.0" "docker://$image:1.0"
  _pd builder manifest rm "$image:1.0"
  sk reader inspect --raw --tls-verify=false "docker://$image:1.0" > list.json
  equal "$(digest list.json)" "$(cat pushed)"
  equal "$(jq -c '[.manifests[].platform.architecture] | sort' list.json)" '["amd64","arm64"]'
  _pd reader pull -q --arch arm64 --tls-verify=false "$image:1.0"
  equal "$(_pd reader image inspect --format '{{.Architecture}}' "$image:1.0")" arm64
  _pd reader rmi --force "$image:1.0"
}

podman_cannot_move_a_version() {
  local turn
  for turn in one two; do
    printf '%s\n' $turn > which
    printf 'FROM scratch\nCOPY which /which\n' > Containerfile
    _pd builder build -q --tag "$image:$turn" .
  done
  _pd builder push -q --tls-verify=false --digestfile pushed "$image:one" "docker://$image:1.0"
  refused _pd builder push -q --tls-verify=false "$image:two" "docker://$image:1.0"
  contains "$said" "$(cat pushed)"
  _pd builder rmi --force "$image:one" "$image:two"
}

# containerd of the story's own, with its sockets and content below it.
_containerd() {
  mkdir -p containerd
  cat > containerd/config.toml <<C
version = 2
root = "$here/containerd/root"
state = "$here/containerd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$here/containerd/socket"
C
  containerd --config containerd/config.toml > containerd/log 2>&1 &
  containerd_pid=$!
  trap 'kill $containerd_pid; wait $containerd_pid || true; rm -rf "$here"' EXIT
  wait_ready containerd $containerd_pid containerd/log _ctr version
}
_ctr() { ctr --address "$here/containerd/socket" "$@"; }

containerd_pulls_by_parallel_ranges_and_pushes_it_elsewhere() {
  sk builder copy -q "${copy_insecure[@]}" --digestfile pushed "oci:$WORK/images/first" "docker://$image:1.0"
  _containerd
  _ctr images pull --plain-http --user "reader:$(token reader)" --platform linux/amd64 --snapshotter native "$image:1.0"
  equal "$(_ctr images list "name==$image:1.0" | awk 'NR == 2 { print $3 }')" "$(cat pushed)"
  _ctr content get "$(jq -r '.manifests[0].digest' "$WORK/images/first/index.json")" > manifest.json
  equal "$(digest manifest.json)" "$(cat pushed)"
  _ctr images tag "$image:1.0" "$image/copy:1.0"
  _ctr images push --plain-http --user "builder:$(token builder)" "$image/copy:1.0"
  equal "$(sk reader inspect --tls-verify=false --format '{{.Digest}}' "docker://$image/copy:1.0")" "$(cat pushed)"
  refused _ctr images pull --plain-http --user reader:pm_wrong --snapshotter native "$image/copy:1.0"
}
