# The clients' own configuration, away from the user's.

set_up_clients() {
  mkdir -p "$WORK/home/.config/containers" "$WORK/images"
  printf '{"default": [{"type": "insecureAcceptAnything"}]}\n' > "$WORK/home/.config/containers/policy.json"
  cat > "$WORK/storage.conf" <<C
[storage]
driver = "vfs"
graphroot = "$WORK/containers"
runroot = "$WORK/containers-run"
C
  cat > "$WORK/registries.conf" <<C
[[registry]]
location = "127.0.0.1"
prefix = "*.invalid"
insecure = true
C
  export HOME=$WORK/home XDG_RUNTIME_DIR=$WORK/home BUILDAH_ISOLATION=chroot
  export CONTAINERS_STORAGE_CONF=$WORK/storage.conf CONTAINERS_REGISTRIES_CONF=$WORK/registries.conf
  unset DOCKER_CONFIG DOCKER_HOST DOCKER_CONTEXT http_proxy https_proxy HTTP_PROXY HTTPS_PROXY
}

# Two tiny images with nothing in common, and one for another architecture, as OCI layouts.
make_images() {
  local name
  for name in first second; do make_image $name amd64; done
  make_image foreign arm64
}

make_image() {
  local name=$1 architecture=$2 container
  container=$(buildah from --arch "$architecture" scratch)
  head -c 200000 /dev/urandom > "$WORK/images/$name.data"
  buildah copy -q "$container" "$WORK/images/$name.data" /data > /dev/null
  buildah config --arch "$architecture" --cmd '["/data"]' --label "story=$name" "$container" > /dev/null
  buildah commit -q --disable-compression=false "$container" "oci:$WORK/images/$name" > /dev/null
  buildah rm "$container" > /dev/null
}

# sk ROLE COMMAND...: skopeo as somebody.
sk() {
  local role=$1
  shift
  REGISTRY_AUTH_FILE=$(auth_file "$role") skopeo --command-timeout 120s "$@"
}

# bd ROLE COMMAND...: buildah as somebody.
bd() {
  local role=$1
  shift
  REGISTRY_AUTH_FILE=$(auth_file "$role") buildah "$@"
}

# Credentials of a role as containers' and docker's tools keep them.
auth_file() {
  local file=$WORK/$storage/$1.auth.json
  jq -n --arg server "$server" --arg auth "$(printf '%s:%s' "$1" "$(token "$1")" | base64 -w0)" \
    '{auths: {($server): {auth: $auth}}}' > "$file"
  printf '%s' "$file"
}

# The same as a directory, for the clients that read docker's configuration.
docker_config() {
  local directory=$WORK/$storage/$1.docker
  mkdir -p "$directory"
  cp "$(auth_file "$1")" "$directory/config.json"
  printf '%s' "$directory"
}

copy_insecure=(--src-tls-verify=false --dest-tls-verify=false)
