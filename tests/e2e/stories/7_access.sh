# Who may do what.

the_base_route_challenges_the_anonymous() {
  answers 401 "$url/v2/"
  contains "$(header www-authenticate)" 'Bearer realm="'
  answers 200 -H "$(as reader)" "$url/v2/"
  answers 200 -u "anyone:$(token reader)" "$url/v2/"
  answers 401 -u anyone:wrong "$url/v2/"
}

the_anonymous_is_refused_at_every_door() {
  random_file file.bin 1000
  push_file file.bin 1.0
  answers 401 "$url/v2/$repository/manifests/1.0"
  answers 401 "$url/v2/$repository/tags/list"
  answers 401 "$url/v2/$repository/referrers/$(digest file.bin)"
  answers 401 -X POST "$url/v2/$repository/blobs/uploads/"
  refused skopeo inspect --tls-verify=false "docker://$image:1.0"
  local path
  for path in "artifacts?repository=$repository" "known-good?repository=$repository&environment=prod" tokens signers audit/events; do
    got=$(curl -sS -o "$body" -w '%{http_code}' "$url/api/v1/$path")
    [[ $got == 40[14] ]] || fail "anonymous got $got at $path"
  done
}

a_role_does_what_it_may_and_nothing_else() {
  random_file file.bin 1000
  local pushed
  pushed=$(push_file file.bin 1.0)
  api 403 reader PUT "artifacts?repository=$repository&version=2.0&filename=f" -T file.bin
  equal "$(header content-type)" application/problem+json
  api 403 reader POST "scans?repository=$repository&digest=$pushed" --data-binary '{}'
  api 403 builder POST promotions -H 'Content-Type: application/json' --data-binary \
    "{\"repository\": \"$repository\", \"digest\": \"$pushed\", \"environment\": \"prod\", \"reason\": \"no\"}"
  answers 401 -X POST -H "$(as reader)" "$url/v2/$repository/blobs/uploads/"
  contains "$(header www-authenticate)" insufficient_scope
}

outside_one_s_authority_nothing_exists() {
  random_file file.bin 1000
  push_file file.bin 1.0
  answers 401 -H "$(as outsider)" "$url/v2/$repository/manifests/1.0"
  cp "$body" there
  answers 401 -H "$(as outsider)" "$url/v2/$repository-none/manifests/1.0"
  equal "$(sed "s/-none//g" "$body")" "$(cat there)"
  api 404 outsider GET "artifacts?repository=$repository"
  api 404 outsider GET "artifacts?repository=$repository-none"
}

a_revoked_token_ends_at_once() {
  make_principal "gone-$storage" reader
  answers 200 -H "$(as "gone-$storage")" "$url/v2/"
  api 204 admin DELETE "tokens/$(jq -r .id "$WORK/answer.json")"
  answers 401 -H "$(as "gone-$storage")" "$url/v2/"
}

the_token_endpoint_gives_a_token_for_a_scope() {
  random_file file.bin 1000
  push_file file.bin 1.0
  answers 200 -u "ci:$(token reader)" "$url/auth/token?service=proofmark&scope=repository:$repository:pull,push"
  local short
  short=$(json .token)
  equal "$(json .access_token)" "$short"
  answers 200 -H "Authorization: Bearer $short" -H 'Accept: */*' "$url/v2/$repository/manifests/1.0"
  answers 401 -X POST -H "Authorization: Bearer $short" "$url/v2/$repository/blobs/uploads/"
  answers 401 -u ci:wrong "$url/auth/token?service=proofmark&scope=repository:$repository:pull"
}
