# What runs keeps running while rules and facts around it change, asked with the command line and the
# clients that deployers have.

source "$E2E/lib/trust.sh"

signature=https://sigstore.dev/cosign/sign/v1
test_result=https://in-toto.io/attestation/test-result/v0.1

_proofmark() { PROOFMARK_SERVER=$url PROOFMARK_TOKEN=$(token "$1") "$PROOFMARK_BIN" "${@:2}"; }

# _exits CODE ROLE ARGUMENTS...: the command ends with this exit code; $said is what it said.
_exits() {
  local got=0
  said=$(_proofmark "${@:2}" 2>&1) || got=$?
  [ $got = "$1" ] || fail "expected exit code $1, got $got: proofmark ${*:3}"$'\n'"$said"
}

# _json CODE ROLE ARGUMENTS...: the same with --json; the answer is in $body, for `json`.
_json() {
  local got=0
  _proofmark "${@:2}" --json > "$body" || got=$?
  [ $got = "$1" ] || fail "expected exit code $1, got $got: proofmark ${*:3}"$'\n'"$(cat "$body")"
}

_docker() { DOCKER_CONFIG=$here/docker timeout 60 docker "$@"; }

# Two environments of the story's own, a signer, and a policy for each environment.
_environments() {
  production=env-$(printf '%s' "$repository" | sha256sum | cut -c1-10)
  staging=$production-staging
  _exits 0 admin environment create "$staging"
  _exits 0 admin environment create "$production"
  make_key ed25519 ci
  signer=$(signer_name ci)
  _exits 0 admin signer add "$signer" --key ci.pub --repositories "$repository"
  cat > staging.yaml <<Y
environment: $staging
repositories: ["$repository"]
gates:
  - signed_by: { any_of: [$signer] }
Y
  cat > production.yaml <<Y
environment: $production
repositories: ["$repository"]
gates:
  - signed_by: { any_of: [$signer] }
  - scan: { max_age: 24h, deny: { severity: high }, grace: { high: 10d, critical: 2d } }
  - promoted_in: { environments: [$staging], soak: 1s }
  - approvals: { count: 1 }
Y
  _exits 0 admin policy apply staging.yaml
  _exits 0 admin policy apply production.yaml
}

# _push VERSION: an image of new bytes, signed and scanned.
_push() {
  local name
  name=$(basename "$here")-$1
  make_image "$name" amd64
  sk builder copy -q --format v2s2 "${copy_insecure[@]}" --digestfile "$1.digest" "oci:$WORK/images/$name" "docker://$image:$1"
  echo '{}' > predicate.json
  _exits 0 builder attest "$repository:$1" --type $signature --predicate predicate.json --key ci.key
  _scan "$1"
}
_digest() { cat "$1.digest"; }

# _scan VERSION [SEVERITY]: today's report, without findings or with two vulnerabilities of this severity.
_scan() {
  jq --arg digest "$(_digest "$1")" --arg image "$image" --arg now "$(date -u +%Y-%m-%dT%H:%M:%SZ)" --arg severity "${2:-}" '
    del(.Metadata.RepoTags, .Metadata.ImageID, .Metadata.ImageConfig, .Metadata.OS.EOSL) | .CreatedAt = $now | .Metadata.RepoDigests = ["\($image)@\($digest)"]
    | if $severity == "" then .Results |= map(del(.Vulnerabilities)) else .Results[].Vulnerabilities[].Severity = $severity end' \
    "$FIXTURES/trivy/alpine-310.json" > report.json
  _exits 0 scanner scan record report.json "$repository:$1"
}

# _release VERSION [--until TIME]: through staging to production, with an approval that ends or does not.
_release() {
  _exits 0 promoter promote "$repository:$1" --environment "$staging" --reason "release $1"
  _exits 0 approver approve "$repository:$1" --environment "$production" --reason 'reviewed the change' "${@:2}"
  _exits 0 promoter promote "$repository:$1" --environment "$production" --reason "release $1" --wait 1m
}

# _runs VERSION: every way to ask which version production runs gives this one; $told is what is said beside it.
_runs() {
  local digest view=env/$production/$repository:current
  digest=$(_digest "$1")
  equal "$(_proofmark deployer known-good "$repository" --environment "$production" --format text 2> told)" "$image@$digest"
  told=$(cat told)
  _exits 0 deployer verify "$repository@$digest" --environment "$production"
  _exits 0 deployer verify "$server/$view"
  contains "$said" "$digest"
  equal "$(_view "$production")" "$digest"
  equal "$(_docker manifest inspect --insecure --verbose "$server/$view" | jq -r .Descriptor.digest)" "$digest"
}
_told() { contains "$told" "$1"; }
_not_told() { [[ $told != *"$1"* ]] || fail "did not expect '$1' in: $told"; }

# _view ENVIRONMENT: the digest of the manifest that the environment's view serves as current.
_view() {
  answers 200 -H "$(as deployer)" -H 'Accept: */*' "$url/v2/env/$1/$repository/manifests/current"
  digest "$body"
}

# The gates that would refuse today what runs in production.
_refused_today() {
  _json 0 deployer known-good "$repository" --environment "$production"
  json '[.would_not_be_promoted_today[].gate] | sort | join(" ")'
}

_known_good_unless_at_risk() { _exits "$1" deployer known-good "$repository" --environment "$production" --fail-on at-risk; }

what_runs_keeps_running_with_its_risks_told_until_a_block_ends_it() {
  _environments
  _docker login -u ci --password-stdin "$server" <<< "$(token deployer)"
  _push 1.0
  _push 1.1
  _release 1.0
  _release 1.1 --until 20s
  _runs 1.1
  equal "$told" ''
  _staging_rolls_back
  _the_approval_expires
  _a_finding_comes
  _the_policy_becomes_stricter
  _another_version_waits
  _the_finding_is_waived
  _the_environments_are_shown
  _a_block_ends_it_at_once
}

_staging_rolls_back() {
  _exits 0 promoter rollback "$repository" --environment "$staging" --reason 'errors since this morning'
  contains "$said" 'proofmark hold lift'
  equal "$(_view "$staging")" "$(_digest 1.0)"
  _runs 1.1
  _told 'would not be promoted today: promoted_in'
  _not_told 'at risk'
}

_the_approval_expires() {
  until_true 60 _expired
  equal "$(_approvals --ended)" 1
  _runs 1.1
  _told 'would not be promoted today: approvals'
  _not_told 'at risk'
  equal "$(_refused_today)" 'approvals promoted_in'
}
_expired() { [ "$(_approvals)" = 0 ]; }
_approvals() {
  _json 0 approver exceptions --repository "$repository" --environment "$production" --kind approval "$@"
  jq --arg digest "$(_digest 1.1)" '[.items[] | select(.scope.digest == $digest)] | length' "$body"
}

_a_finding_comes() {
  _scan 1.1 CRITICAL
  _runs 1.1
  _told 'at risk (ends at '
  _told CVE-2019-1551
  _known_good_unless_at_risk 1
  contains "$said" 'is at risk'
  _exits 1 deployer verify "$repository:1.1" --environment "$production" --fail-on at-risk
  contains "$said" 'is at risk'
  # The end is the policy's grace after the finding became known.
  _json 0 deployer known-good "$repository" --environment "$production"
  equal "$(json '.at_risk | map(.reason) | join(" ")')" denied_finding
  equal "$(json '.at_risk[0] | [.ends_at, .since] | map(sub("\\.[0-9]+"; "") | fromdate) | .[0] - .[1]')" $((2 * 24 * 3600))
  _json 0 reader environment show "$production" --at-risk
  equal "$(json '.items | map(.version) | join(" ")')" 1.1
}

_the_policy_becomes_stricter() {
  local in_force
  in_force=$(_in_force)
  cat production.yaml - > stricter.yaml <<Y
  - attestation: { type: $test_result, by: [$signer], result: PASSED }
Y
  _exits 0 admin policy apply stricter.yaml --dry-run
  contains "$said" 'would not be promoted today'
  contains "$said" "$repository 1.1"
  _json 0 admin policy apply stricter.yaml --dry-run
  equal "$(json '.consequences | [.ends_now.count, .ends_later.count, .would_not_be_promoted_today.count] | join(" ")')" '0 0 1'
  equal "$(_in_force)" "$in_force"
  _exits 0 admin policy apply stricter.yaml
  differ "$(_in_force)" "$in_force"
  _runs 1.1
  _told 'would not be promoted today: attestation'
  # A policy that counts for what runs as well is put in force only by one who says how much it ends.
  sed 's/result: PASSED/&, enforce_on_running_from: 2026-01-01T00:00:00Z/' stricter.yaml > ending.yaml
  _exits 1 admin policy apply ending.yaml
  contains "$said" policy-ends-running
  _exits 1 admin policy apply ending.yaml --ends 2
  _runs 1.1
}
_in_force() {
  _json 0 admin policy list --environment "$production"
  json '.items[0].digest'
}

_another_version_waits() {
  _push 1.2
  _exits 1 deployer promote "$repository:1.2" --environment "$production" --dry-run
  contains "$said" 'would not be promoted'
  _json 1 deployer promote "$repository:1.2" --environment "$production" --dry-run
  equal "$(json .verdict)" deny
  equal "$(json '[.gates[] | select(.outcome == "fail") | .gate] | sort | join(" ")')" 'approvals attestation promoted_in'
  # A dry run requests nothing; a promotion that is refused for want of an approval waits for it.
  equal "$(_waiting)" ''
  _exits 1 promoter promote "$repository:1.2" --environment "$production" --reason 'release 1.2'
  equal "$(_waiting)" "1.2 by promoter needs approvals beside attestation promoted_in"
  _exits 0 approver approve list --environment "$production"
  contains "$said" "$(_digest 1.2)"
  _exits 0 approver approve "$repository:1.2" --environment "$production" --reason 'reviewed the change'
  equal "$(_waiting)" ''
  _runs 1.1
}
_waiting() {
  _json 0 approver approve list --environment "$production"
  jq -r '.items[] | "\(.version) by \(.requested_by) needs \(.waits_for | map(.gate) | join(" ")) beside "
    + (.also_refused_by | map(.gate) | sort | join(" "))' "$body"
}

_the_finding_is_waived() {
  local waiver
  _json 0 promoter waiver create "$repository:1.1" --environment "$production" --vulnerability CVE-2019-1549,CVE-2019-1551 \
    --status accepted-risk --expires-at 30d --reason 'the port is closed until the fix is out'
  waiver=$(json .id)
  # It counts for nothing until another person with the right to approve it does.
  equal "$(_waiver_state "$waiver")" proposed
  _known_good_unless_at_risk 1
  _exits 3 promoter waiver approve "$waiver" --reason 'my own'
  _known_good_unless_at_risk 1
  _exits 0 admin waiver approve "$waiver" --reason 'checked with the team'
  equal "$(_waiver_state "$waiver")" in_force
  _known_good_unless_at_risk 0
  _exits 0 deployer verify "$repository:1.1" --environment "$production" --fail-on at-risk
  _runs 1.1
  _not_told 'at risk'
  equal "$(_refused_today)" 'approvals attestation promoted_in'
  equal "$(json '.at_risk | length')" 0
  equal "$(json '[.gates[] | select(.gate == "scan").waived[] | "\(.vulnerability) by \(.waiver)"] | unique | join(", ")')" \
    "CVE-2019-1549 by $waiver, CVE-2019-1551 by $waiver"
  # Nobody approves a waiver of their own.
  _json 0 admin waiver create "$repository" --vulnerability CVE-2019-1547 --status false-positive --reason 'not built in'
  waiver=$(json .id)
  _exits 1 admin waiver approve "$waiver" --reason 'my own'
  equal "$(_waiver_state "$waiver")" proposed
}
_waiver_state() {
  _json 0 reader waiver list --repository "$repository"
  json ".items[] | select(.id == $1) | .state"
}

_the_environments_are_shown() {
  _exits 0 reader environment show "$production"
  contains "$said" "$(_digest 1.1)"
  contains "$said" 'would not be promoted today'
  equal "$(_shown "$production")" 1.1
  equal "$(_shown "$production" --would-not-be-promoted-today)" 1.1
  equal "$(_shown "$production" --at-risk)$(_shown "$production" --blocked)$(_shown "$production" --fallback)" ''
  # The rollback holds promotions where it was made, and nowhere else.
  equal "$(_shown "$production" --held)" ''
  equal "$(_shown "$staging" --held)" 1.0
}
_shown() {
  _json 0 reader environment show "$@"
  jq -r '.items[].version' "$body"
}

_a_block_ends_it_at_once() {
  local block
  _json 0 promoter block "$repository:1.1" --environment "$production" --reason 'drops orders'
  block=$(json .id)
  _runs 1.0
  _told 'not the newest promotion: 1.1'
  _told 'drops orders'
  _exits 1 deployer verify "$repository:1.1" --environment "$production"
  contains "$said" 'drops orders'
  answers 404 -H "$(as deployer)" -H 'Accept: */*' "$url/v2/env/$production/$repository/manifests/1.1"
  _json 0 deployer known-good "$repository" --environment "$production"
  equal "$(json '.fallback_from | map(.version) | join(" ")')" 1.1
  equal "$(_shown "$production" --blocked --fallback)" 1.0
  _exits 0 promoter block lift "$block" --reason 'it was the load balancer'
  _runs 1.1
  _not_told 'not the newest promotion'
}

the_exit_code_tells_yes_no_usage_and_error_apart() {
  _environments
  sed -i '/- scan\|- promoted_in/d' production.yaml
  _exits 0 admin policy apply production.yaml
  random_file app.tar 1000
  _exits 0 builder push app.tar --repository "$repository" --version 1.0
  echo '{}' > predicate.json
  _exits 0 builder attest "$repository:1.0" --type $signature --predicate predicate.json --key ci.key
  _exits 0 promoter promote "$repository:1.0" --environment "$staging"
  # Yes.
  _exits 0 deployer known-good "$repository" --environment "$staging"
  _exits 0 deployer verify "$repository:1.0" --environment "$staging"
  _exits 0 promoter promote "$repository:1.0" --environment "$staging" --dry-run
  # No, with the reason.
  _exits 1 promoter promote "$repository:1.0" --environment "$production"
  contains "$said" approvals
  _exits 1 deployer known-good "$repository" --environment "$production"
  contains "$said" no-known-good
  _exits 1 deployer verify "$repository:1.0" --environment "$production"
  contains "$said" 'never promoted'
  # A question that nobody can answer.
  _exits 2 deployer known-good "$repository"
  _exits 2 deployer verify 'Not A Name' --environment "$production"
  _exits 2 deployer known-good "$repository" --environment "$production" --fail-on weather
  # A token that nobody made, one for another environment, and no server.
  printf 'pm_wrong\n' > "$WORK/$storage/wrong.token"
  _exits 3 wrong known-good "$repository" --environment "$staging"
  contains "$said" unauthenticated
  _exits 3 wrong verify "$repository:1.0" --environment "$staging"
  _proofmark admin token create "$staging-cluster" --role deployer --environment "$staging" > "$WORK/$storage/$staging-cluster.token"
  _exits 0 "$staging-cluster" known-good "$repository" --environment "$staging"
  _exits 0 "$staging-cluster" verify "$repository:1.0" --environment "$staging"
  local question
  for question in "known-good $repository --environment $production" "verify $repository:1.0 --environment $production" \
    "verify $server/env/$production/$repository:current" "promote $repository:1.0 --environment $production --dry-run"; do
    # shellcheck disable=SC2086
    _exits 3 "$staging-cluster" $question
    contains "$said" forbidden
  done
  _exits 3 deployer known-good "$repository" --environment "$staging" --server "http://127.0.0.1:$(free_ports 1)"
}

what_expired_is_open_in_no_list() {
  _environments
  _push 1.0
  _push 1.1
  _release 1.0
  _exits 0 approver approve "$repository:1.1" --environment "$production" --reason 'reviewed the change' --until 2s
  _exits 0 promoter block "$repository:1.1" --environment "$production" --reason 'drops orders' --until 2s
  _exits 0 promoter hold --repository "$repository" --environment "$production" --reason 'incident 42' --until 2s
  until_true 30 _nothing_open exceptions --repository "$repository" --kind hold
  until_true 30 _nothing_open exceptions --repository "$repository" --kind block
  _exits 0 promoter promote "$repository:1.0" --environment "$production" --dry-run
  _nothing_open block list "$repository" || fail "the block is still listed: $(cat "$body")"
  _nothing_open hold list || fail "the hold is still listed: $(cat "$body")"
  _json 0 promoter approve list "$repository"
  equal "$(json "[.items[] | select(.digest == \"$(_digest 1.1)\")] | length")" 0
  equal "$(_shown "$production" --held)" ''
}
_nothing_open() {
  _json 0 promoter "$@"
  [ "$(jq --arg name "$repository" '[.items[] | select((.repository // .scope.repository) == $name)] | length' "$body")" = 0 ]
}
