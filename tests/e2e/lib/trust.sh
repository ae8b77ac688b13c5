# Keys, statements and envelopes with openssl and jq alone.

slsa=https://slsa.dev/provenance/v1
builder_id=https://ci.example/builder@v2
in_toto=application/vnd.in-toto+json

# make_key ed25519|p256 NAME: NAME.key and NAME.pub.
make_key() {
  case $1 in
    ed25519) openssl genpkey -algorithm ed25519 -out "$2.key" ;;
    p256) openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$2.key" ;;
  esac
  openssl pkey -in "$2.key" -pubout -out "$2.pub"
}

# Signers are named once for the whole registry: the story's repository makes the name its own.
signer_name() { printf '%s-%s' "$1" "$(printf '%s' "$repository" | sha256sum | cut -c1-12)"; }

# register_signer KEY SCHEME REPOSITORIES PREDICATE_TYPE
register_signer() {
  jq -n --arg name "$(signer_name "$1")" --rawfile key "$1.pub" --arg scheme "$2" --arg repositories "$3" --arg type "$4" \
    '{name: $name, public_key: $key, scheme: $scheme, repositories: [$repositories], predicate_types: [$type]}' > signer.json
  api 201 admin POST signers -H 'Content-Type: application/json' --data-binary @signer.json
}

# push_something [VERSION]: an artifact with random bytes; prints its digest.
push_something() {
  random_file something 5000
  oras push --plain-http --registry-config "$(auth_file builder)" --format 'go-template={{.digest}}' \
    --artifact-type application/vnd.example.something "$image:${1:-1.0}" something:application/octet-stream
}

# provenance DIGEST [INVOCATION]: a statement of SLSA provenance about the digest.
provenance() {
  jq -n --arg hex "${1#sha256:}" --arg slsa $slsa --arg builder $builder_id --arg invocation "${2:-1}" '{
    _type: "https://in-toto.io/Statement/v1",
    subject: [{name: "something", digest: {sha256: $hex}}],
    predicateType: $slsa,
    predicate: {
      buildDefinition: {
        buildType: "https://actions.github.io/buildtypes/workflow/v1",
        externalParameters: {workflow: {repository: "https://git.example/e2e", ref: "refs/heads/main", path: "ci.yml"}},
        resolvedDependencies: [{uri: "git+https://git.example/e2e@refs/heads/main",
          digest: {gitCommit: "0123456789abcdef0123456789abcdef01234567"}}]
      },
      runDetails: {builder: {id: $builder}, metadata: {invocationId: $invocation}}
    }
  }'
}

# pae TYPE FILE: what DSSE signs.
pae() { printf 'DSSEv1 %d %s %d ' "${#1}" "$1" "$(stat -c %s "$2")" && cat "$2"; }

# sign_envelope ed25519|p256 KEY FILE: a DSSE envelope over the file.
sign_envelope() {
  pae $in_toto "$3" > pae.bin
  case $1 in
    ed25519) openssl pkeyutl -sign -inkey "$2.key" -rawin -in pae.bin -out pae.sig ;;
    p256) openssl dgst -sha256 -sign "$2.key" -out pae.sig pae.bin ;;
  esac
  jq -nc --arg payload "$(base64 -w0 "$3")" --arg type $in_toto --arg sig "$(base64 -w0 pae.sig)" \
    '{payload: $payload, payloadType: $type, signatures: [{keyid: "", sig: $sig}]}'
}

# open_summary ENVELOPE: checks a verification summary with openssl and the trust file alone, and
# leaves its statement in summary.json.
open_summary() {
  curl -sS --fail -o trust.json "$url/.well-known/proofmark"
  jq -er '.signed.keys.summary[0].public_key' trust.json > summary.pub
  jq -er .payload "$1" | base64 -d > summary.json
  jq -er '.signatures[0].sig' "$1" | base64 -d > summary.sig
  pae "$(jq -er .payloadType "$1")" summary.json > summary.pae
  openssl pkeyutl -verify -pubin -inkey summary.pub -rawin -in summary.pae -sigfile summary.sig
}

# A real report, said to be of our subject, which is no image (its own subject is an image).
trivy_report() {
  jq --arg digest "$1" --arg image "$image" '.ArtifactType = "filesystem"
    | del(.Metadata.RepoTags, .Metadata.ImageID, .Metadata.ImageConfig) | .Metadata.RepoDigests = ["\($image)@\($digest)"]' \
    "$FIXTURES/trivy/alpine-310.json"
}

# clean_report DIGEST TIME: a report without findings.
clean_report() {
  jq --arg digest "$1" --arg image "$image" --arg now "$2" '
    .ArtifactType = "filesystem" | del(.Metadata.RepoTags, .Metadata.ImageID, .Metadata.ImageConfig) | .CreatedAt = $now | .Metadata.RepoDigests = ["\($image)@\($digest)"]
    | .Results |= map(del(.Vulnerabilities))' "$FIXTURES/trivy/alpine-310.json"
}
