# Docker's command line, without an engine.

_docker() {
  mkdir -p docker
  DOCKER_CONFIG=$here/docker timeout 60 docker "$@"
}

docker_logs_in_with_the_right_password_and_not_with_a_wrong_one() {
  refused _docker login -u ci --password-stdin "$server" <<< pm_wrong
  contains "${said,,}" unauthorized
  [ "$(jq -r '.auths // {} | length' docker/config.json 2> /dev/null || echo 0)" = 0 ] || fail 'a wrong password was kept'
  contains "$(_docker login -u ci --password-stdin "$server" <<< "$(token builder)" 2>&1)" 'Login Succeeded'
}

docker_pushes_a_manifest_list_and_inspects_it() {
  local name
  for name in first foreign; do
    sk builder copy -q --format v2s2 "${copy_insecure[@]}" "oci:$WORK/images/$name" "docker://$image:$name"
  done
  _docker login -u ci --password-stdin "$server" <<< "$(token builder)"
  _docker manifest create --insecure "$image:1.0" "$image:first" "$image:foreign"
  _docker manifest annotate --arch arm64 --os linux "$image:1.0" "$image:foreign"
  _docker manifest push --insecure "$image:1.0" | tail -n 1 > pushed
  rm -rf docker/manifests
  _docker manifest inspect --insecure "$image:1.0" > list.json
  equal "$(jq -c '[.manifests[].platform.architecture] | sort' list.json)" '["amd64","arm64"]'
  answers 200 -H "$(as reader)" -H 'Accept: application/vnd.docker.distribution.manifest.list.v2+json' "$url/v2/$repository/manifests/1.0"
  equal "$(header content-type)" application/vnd.docker.distribution.manifest.list.v2+json
  equal "$(digest "$body")" "$(cat pushed)"
}

docker_without_the_right_to_push_is_refused() {
  sk builder copy -q --format v2s2 "${copy_insecure[@]}" "oci:$WORK/images/first" "docker://$image:first"
  _docker login -u ci --password-stdin "$server" <<< "$(token reader)"
  _docker manifest create --insecure "$image:1.0" "$image:first"
  refused _docker manifest push --insecure "$image:1.0"
  answers 404 -H "$(as reader)" "$url/v2/$repository/manifests/1.0"
}
