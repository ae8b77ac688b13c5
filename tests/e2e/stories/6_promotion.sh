# From a push to the deployer's question, with curl and openssl.

source "$E2E/lib/trust.sh"

# Environments and policies hold for repositories, so that stories do not meet each other's.
_path() {
  environment=env-$(printf '%s' "$repository" | sha256sum | cut -c1-10)
  make_key ed25519 ci
  register_signer ci ed25519 "$repository" $slsa
  local name
  for name in "$environment-staging" "$environment"; do
    api "200 201" admin PUT environments -H 'Content-Type: application/json' --data-binary "{\"name\": \"$name\"}"
  done
  cat > staging.yaml <<Y
environment: $environment-staging
repositories: ["$repository"]
gates:
  - provenance: { builders: ["$builder_id"], sources: ["git+https://git.example/*"] }
Y
  cat > prod.yaml <<Y
environment: $environment
repositories: ["$repository"]
gates:
  - provenance: { builders: ["$builder_id"] }
  - scan: { max_age: 24h, deny: { severity: high } }
  - promoted_in: { environments: ["$environment-staging"] }
  - approvals: { count: 1, not_author: true }
Y
  for name in staging prod; do
    api "200 201" admin PUT policies -H 'Content-Type: application/yaml' --data-binary "@$name.yaml"
  done
}

# _promote STATUS DIGEST ENVIRONMENT
_promote() {
  api "$1" promoter POST promotions -H 'Content-Type: application/json' --data-binary \
    "{\"repository\": \"$repository\", \"digest\": \"$2\", \"environment\": \"$3\", \"reason\": \"the story\"}"
}

_attest() {
  provenance "$1" > statement.json
  sign_envelope ed25519 ci statement.json > envelope.json
  api 201 builder POST "attestations?repository=$repository" --data-binary @envelope.json
}

_scan() {
  local now
  now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  clean_report "$1" "$now" > report.json
  api 201 scanner POST "scans?repository=$repository&digest=$1&database_updated_at=$now" --data-binary @report.json
}

_approve() {
  api 201 approver POST approvals -H 'Content-Type: application/json' --data-binary \
    "{\"repository\": \"$repository\", \"digest\": \"$1\", \"environment\": \"$environment\", \"reason\": \"looked at it\"}"
}

# All that prod's policy asks for, then the promotion.
_all_the_way() {
  _attest "$1"
  _scan "$1"
  _promote 201 "$1" "$environment-staging"
  _approve "$1"
  _promote 201 "$1" "$environment"
}

_known_good() { api "$1" deployer GET "known-good?repository=$repository&environment=$environment" "${@:2}"; }

a_promotion_too_early_is_refused_with_every_reason() {
  _path
  local subject
  subject=$(push_something)
  _promote 409 "$subject" "$environment"
  equal "$(json .code)" promotion-denied
  equal "$(json '[.gates[] | select(.outcome == "fail") | .gate] | sort | join(" ")')" 'approvals promoted_in provenance scan'
  [ "$(json '[.gates[] | select(.outcome == "fail" and (.message | length) == 0)] | length')" = 0 ] || fail 'a gate without a reason'
  _known_good 404
  equal "$(json .code)" no-known-good
}

a_release_walks_to_prod_and_its_summary_is_verified_by_openssl_alone() {
  _path
  local subject etag
  subject=$(push_something)
  _all_the_way "$subject"
  _known_good 200
  etag=$(header etag)
  equal "$(json .digest)" "$subject"
  equal "$(json .version)" 1.0
  contains "$(json .reference)" "$repository@$subject"
  json .summary > envelope.json
  open_summary envelope.json
  equal "$(jq -r '.subject[0].digest.sha256' summary.json)" "${subject#sha256:}"
  equal "$(jq -r .predicateType summary.json)" https://slsa.dev/verification_summary/v1
  equal "$(jq -r .predicate.verificationResult summary.json)" PASSED
  equal "$(jq -r .predicate.verifier.id summary.json)" "$(jq -r .signed.verifier_id trust.json)"
  contains "$(jq -r .predicate.resourceUri summary.json)" "/env/$environment/$repository"
  # One bit of it changed, and openssl says no.
  jq -c '.payload |= (@base64d | sub("PASSED"; "FAILED") | @base64)' envelope.json > forged.json
  refused open_summary forged.json
  _known_good 304 -H "If-None-Match: $etag"
  # A script needs no more than the reference, and a client of OCI pulls it as it stands.
  api 200 deployer GET "known-good?repository=$repository&environment=$environment&format=text"
  equal "$(cat "$body")" "$image@$subject"
  oras pull --plain-http --registry-config "$(auth_file deployer)" -o pulled "$(cat "$body")"
  same_file pulled/something something
}

the_newest_promotion_answers_and_a_block_takes_it_back() {
  _path
  local first second
  first=$(push_something 1.0)
  second=$(push_something 1.1)
  _all_the_way "$first"
  _all_the_way "$second"
  _known_good 200
  equal "$(json .digest)" "$second"
  api 201 promoter POST blocks -H 'Content-Type: application/json' --data-binary \
    "{\"repository\": \"$repository\", \"digest\": \"$second\", \"environment\": \"$environment\", \"reason\": \"bad release\"}"
  _known_good 200
  equal "$(json .digest)" "$first"
  _promote 409 "$second" "$environment"
}

a_client_that_speaks_only_oci_follows_promotion_through_the_view() {
  _path
  local first second view=$server/env/$environment/$repository
  first=$(push_something 1.0)
  second=$(push_something 1.1)
  _pull() { rm -rf pulled && oras pull --plain-http --registry-config "$(auth_file deployer)" -o pulled "$view:$1"; }
  refused _pull current
  _all_the_way "$first"
  _pull current
  equal "$(sk deployer inspect --tls-verify=false --raw "docker://$view:current" | sha256sum | cut -c1-64)" "${first#sha256:}"
  refused _pull 1.1
  _all_the_way "$second"
  _pull 1.1
  equal "$(sk deployer list-tags --tls-verify=false "docker://$view" | jq -c .Tags)" '["1.0","1.1","current"]'
  equal "$(oras resolve --plain-http --registry-config "$(auth_file deployer)" "$view:current")" "$second"
  api 201 promoter POST blocks -H 'Content-Type: application/json' --data-binary \
    "{\"repository\": \"$repository\", \"digest\": \"$second\", \"environment\": \"$environment\", \"reason\": \"bad release\"}"
  equal "$(oras resolve --plain-http --registry-config "$(auth_file deployer)" "$view:current")" "$first"
  refused _pull 1.1
  refused oras push --plain-http --registry-config "$(auth_file builder)" "$view:2.0" something
}

verify_answers_for_one_digest() {
  _path
  local good other
  good=$(push_something 1.0)
  other=$(push_something 1.1)
  _all_the_way "$good"
  _verify() {
    api 200 deployer POST verify -H 'Content-Type: application/json' --data-binary \
      "{\"reference\": \"$image@$1\", \"environment\": \"$environment\"}"
    json .verdict
  }
  equal "$(_verify "$good")" allow
  equal "$(_verify "$other")" deny
}

what_is_promoted_cannot_be_deleted() {
  _path
  local subject
  subject=$(push_something)
  _all_the_way "$subject"
  answers 405 -X DELETE -H "$(as admin)" "$url/v2/$repository/manifests/$subject"
  equal "$(oci_code)" DENIED
  answers 200 -I -H "$(as reader)" -H 'Accept: */*' "$url/v2/$repository/manifests/$subject"
}

a_decision_is_replayed_to_the_same_answer() {
  _path
  local subject decision
  subject=$(push_something)
  _promote 409 "$subject" "$environment"
  decision=$(json .decision)
  api 200 auditor GET "decisions/$decision"
  api 200 auditor POST "decisions/$decision/replay"
  equal "$(json .same)" true
  equal "$(json .verdict)" deny
}

every_change_is_in_the_audit_trail() {
  _path
  local subject
  subject=$(push_something)
  _all_the_way "$subject"
  until_true 20 _sequenced "$subject" 'approval.given:1 attestation.recorded:1 manifest.pushed:1 promotion.allowed:2 scan.recorded:1 '
  # Gapless: the indices of the whole log are 0, 1, 2 ...
  api 200 auditor GET 'audit/events?format=ndjson'
  equal "$(jq -s '[.[].index] | length > 10 and . == [range(length)]' "$body")" true
  api "403 404" builder GET 'audit/events?format=ndjson'
}
_sequenced() {
  api 200 auditor GET "audit/events?digest=$1&format=ndjson"
  seen=$(jq -r .event.kind "$body" | sort | uniq -c | awk '{ print $2 ":" $1 }' | tr '\n' ' ')
  [ "$seen" = "$2" ] || { echo "so far: $seen" && return 1; }
}
