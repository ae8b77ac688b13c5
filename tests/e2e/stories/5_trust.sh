# Attestations and scan results, made with openssl and sent with curl.

source "$E2E/lib/trust.sh"

_signer() { register_signer "$1" "$2" "$repository" "${3:-$slsa}"; }

an_attestation_signed_with_ed25519_is_believed_and_kept_as_received() {
  make_key ed25519 ci
  _signer ci ed25519
  local subject id
  subject=$(push_something)
  provenance "$subject" > statement.json
  sign_envelope ed25519 ci statement.json > envelope.json
  api 201 builder POST "attestations?repository=$repository" --data-binary @envelope.json
  equal "$(json '.[0].envelope_digest')" "$(digest envelope.json)"
  equal "$(json '.[0].predicate_type')" "$slsa"
  id=$(json '.[0].id')
  api 200 reader GET "attestations/$id"
  same_file "$body" envelope.json
  api 200 reader GET "attestations?repository=$repository&digest=$subject"
  equal "$(json '.items[0].verdict')" trusted
  # Any client of OCI finds it by its subject.
  oras discover --plain-http --registry-config "$(auth_file reader)" --format json "$image@$subject" > found.json
  equal "$(jq '.referrers // .manifests | length' found.json)" 1
}

an_attestation_signed_with_p256_is_believed() {
  make_key p256 ci
  _signer ci ecdsa-p256
  local subject
  subject=$(push_something)
  provenance "$subject" > statement.json
  sign_envelope p256 ci statement.json > envelope.json
  api 201 builder POST "attestations?repository=$repository" --data-binary @envelope.json
  equal "$(json '.[0].signer')" "$(signer_name ci)"
}

what_is_not_trusted_is_refused_with_the_reason() {
  make_key ed25519 ci
  make_key ed25519 stranger
  _signer ci ed25519
  local subject
  subject=$(push_something)
  provenance "$subject" > statement.json
  sign_envelope ed25519 stranger statement.json > envelope.json
  api 422 builder POST "attestations?repository=$repository" --data-binary @envelope.json
  equal "$(json .code)" signature-not-trusted
  # One byte of the payload changed after signing.
  sign_envelope ed25519 ci statement.json | jq -c '.payload |= (@base64d | sub("main"; "evil") | @base64)' > forged.json
  api 422 builder POST "attestations?repository=$repository" --data-binary @forged.json
  equal "$(json .code)" signature-not-trusted
  provenance "sha256:$(printf '%064d' 1)" > statement.json
  sign_envelope ed25519 ci statement.json > envelope.json
  api 422 builder POST "attestations?repository=$repository" --data-binary @envelope.json
  equal "$(json .code)" subject-unknown
  api 422 builder POST "attestations?repository=$repository" --data-binary '{"payload": 7}'
  equal "$(json .code)" malformed-envelope
  api 200 reader GET "attestations?repository=$repository&digest=$subject"
  equal "$(jq '.items | length' "$body")" 0
}

a_key_is_believed_only_for_what_it_was_registered() {
  make_key ed25519 ci
  _signer ci ed25519 https://example.com/another-predicate
  local subject
  subject=$(push_something)
  provenance "$subject" > statement.json
  sign_envelope ed25519 ci statement.json > envelope.json
  api 422 builder POST "attestations?repository=$repository" --data-binary @envelope.json
  equal "$(json .code)" signature-not-trusted
}

a_bundle_that_oras_attached_is_found_and_judged() {
  make_key ed25519 ci
  _signer ci ed25519
  local subject
  subject=$(push_something)
  provenance "$subject" > statement.json
  sign_envelope ed25519 ci statement.json > envelope.json
  oras attach --plain-http --registry-config "$(auth_file builder)" \
    --artifact-type application/vnd.in-toto+json "$image@$subject" envelope.json:application/vnd.dsse.envelope.v1+json
  api 200 reader GET "attestations?repository=$repository&digest=$subject"
  equal "$(json '.items[0].verdict')" trusted
  make_key ed25519 stranger
  provenance "$subject" other > statement.json
  sign_envelope ed25519 stranger statement.json > other.json
  oras attach --plain-http --registry-config "$(auth_file builder)" \
    --artifact-type application/vnd.in-toto+json "$image@$subject" other.json:application/vnd.dsse.envelope.v1+json
  api 200 reader GET "attestations?repository=$repository&digest=$subject"
  equal "$(json '[.items[].verdict] | sort | join(" ")')" 'trusted untrusted'
}

a_report_of_trivy_is_recorded_with_its_findings() {
  local subject
  subject=$(push_something)
  trivy_report "$subject" > report.json
  api 201 scanner POST "scans?repository=$repository&digest=$subject" --data-binary @report.json
  equal "$(json .scanner | tr A-Z a-z)" trivy
  [ "$(json '[.counts[]] | add')" -gt 0 ] || fail 'no findings'
  api 200 reader GET "scans?repository=$repository&digest=$subject"
  equal "$(json '.items | length')" 1
  # The raw report is kept as an artifact that refers to its subject.
  oras discover --plain-http --registry-config "$(auth_file reader)" --format json "$image@$subject" > found.json
  equal "$(jq '.referrers // .manifests | length' found.json)" 1
  oras pull --plain-http --registry-config "$(auth_file reader)" -o kept \
    "$image@$(jq -r '(.referrers // .manifests)[0].digest' found.json)"
  same_file kept/report.json report.json
}

a_report_of_grype_is_recorded_with_its_findings() {
  local subject
  subject=$(push_something)
  # Another image's report is not taken for ours.
  api 422 scanner POST "scans?repository=$repository&digest=$subject" --data-binary "@$FIXTURES/grype/ghsa.json"
  equal "$(json .code)" subject-differs
  jq --arg digest "$subject" --arg image "$image" '.source.target |= (.manifestDigest = $digest
    | .repoDigests = ["\($image)@\($digest)"] | del(.imageID, .architecture, .os)) | .source.type = "file"' "$FIXTURES/grype/ghsa.json" > report.json
  api 201 scanner POST "scans?repository=$repository&digest=$subject" --data-binary @report.json
  equal "$(json .scanner | tr A-Z a-z)" grype
  [ "$(json '[.counts[]] | add')" -gt 0 ] || fail 'no findings'
}

a_report_of_no_known_kind_is_refused() {
  local subject
  subject=$(push_something)
  api 422 scanner POST "scans?repository=$repository&digest=$subject" --data-binary '{"hello": "world"}'
  equal "$(header content-type)" application/problem+json
  api 422 scanner POST "scans?repository=$repository&digest=$subject" --data-binary 'not json'
}
