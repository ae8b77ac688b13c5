# cosign 3 with keys, as pipelines use it without a transparency log of others.

source "$E2E/lib/trust.sh"

_cosign() {
  local role=$1
  shift
  DOCKER_CONFIG=$(docker_config "$role") COSIGN_PASSWORD='' cosign "$@"
}
_here=(--allow-http-registry --trusted-root root.json)

# _to_sign PREDICATE_TYPE: an image to sign, and cosign's key pair, registered as a signer of ours for that.
_to_sign() {
  sk builder copy -q "${copy_insecure[@]}" --digestfile pushed "oci:$WORK/images/first" "docker://$image:1.0"
  _cosign builder generate-key-pair
  register_signer cosign ecdsa-p256 "$repository" "$1"
  # No services: neither a log nor a time-stamp.
  _cosign builder signing-config create --out services.json
  _cosign builder trusted-root create --out root.json
}
_sign() { _cosign builder sign --yes --key "$1" --signing-config services.json "${_here[@]}" "$image@$(cat pushed)"; }
_verify() { _cosign reader verify --key "$1" --insecure-ignore-tlog=true "${_here[@]}" "$image:1.0"; }
_verdicts() {
  api 200 reader GET "attestations?repository=$repository&digest=$(cat pushed)"
  json '[.items[].verdict] | sort | join(" ")'
}

cosign_signs_and_verifies_an_image() {
  _to_sign https://sigstore.dev/cosign/sign/v1
  refused _verify cosign.pub
  _sign cosign.key
  _verify cosign.pub
  equal "$(_verdicts)" trusted
  # A key that nobody registered: cosign may believe it, we do not.
  mkdir other
  (cd other && _cosign builder generate-key-pair)
  refused _verify other/cosign.pub
  _sign other/cosign.key
  _verify other/cosign.pub
  equal "$(_verdicts)" 'trusted untrusted'
}

cosign_verifies_what_proofmark_signs() {
  _to_sign https://sigstore.dev/cosign/sign/v1
  make_key p256 own
  refused _verify own.pub
  register_signer own ecdsa-p256 "$repository" https://sigstore.dev/cosign/sign/v1
  PROOFMARK_SERVER=$url PROOFMARK_TOKEN=$(token builder) "$PROOFMARK_BIN" sign "$repository:1.0" --key own.key -a build=1234
  _verify own.pub
  equal "$(_verdicts)" trusted
  _cosign reader verify --key own.pub --insecure-ignore-tlog=true "${_here[@]}" -a build=1234 "$image:1.0"
  refused _cosign reader verify --key own.pub --insecure-ignore-tlog=true "${_here[@]}" -a build=1 "$image:1.0"
}

cosign_attests_provenance_and_verifies_it() {
  _to_sign $slsa
  provenance "$(cat pushed)" | jq .predicate > predicate.json
  _cosign builder attest --yes --key cosign.key --type slsaprovenance1 --predicate predicate.json \
    --signing-config services.json "${_here[@]}" "$image@$(cat pushed)"
  _cosign reader verify-attestation --key cosign.pub --type slsaprovenance1 --insecure-ignore-tlog=true \
    "${_here[@]}" "$image:1.0" > verified.json
  equal "$(_verdicts)" trusted
  equal "$(json '.items[0].predicate_type')" $slsa
  # The bundle is found from the image by any client.
  oras discover --plain-http --registry-config "$(auth_file reader)" --format json "$image:1.0" > found.json
  equal "$(jq -r '(.referrers // .manifests)[0].artifactType' found.json)" application/vnd.dev.sigstore.bundle.v0.3+json
}

# Signatures as cosign 2 keeps them, without referrers: Kyverno's and Flux's defaults look for these. (So does skopeo's
# policy sigstoreSigned, which Debian's build refuses.)
_old_format=(--new-bundle-format=false --allow-http-registry)
_sign_the_old_way() {
  _cosign builder sign --yes --key "$1" --use-signing-config=false --tlog-upload=false "${_old_format[@]}" \
    "$image@$(cat pushed)"
}
_verify_the_old_way() { _cosign deployer verify --key "$1" --insecure-ignore-tlog=true "${_old_format[@]}" "$2"; }

verifiers_without_referrers_find_the_signatures_of_what_a_view_serves() {
  local environment view
  environment=env-$(printf '%s' "$repository" | sha256sum | cut -c1-10)
  view=$server/env/$environment/$repository
  sk builder copy -q "${copy_insecure[@]}" --digestfile pushed "oci:$WORK/images/first" "docker://$image:1.0"
  _cosign builder generate-key-pair
  (mkdir other && cd other && _cosign builder generate-key-pair)
  api "200 201" admin PUT environments -H 'Content-Type: application/json' --data-binary "{\"name\": \"$environment\"}"
  printf 'environment: %s\nrepositories: ["%s"]\ngates: []\n' "$environment" "$repository" > policy.yaml
  api "200 201" admin PUT policies -H 'Content-Type: application/yaml' --data-binary @policy.yaml
  _sign_the_old_way cosign.key
  refused _verify_the_old_way cosign.pub "$view:current"
  api 201 promoter POST promotions -H 'Content-Type: application/json' --data-binary \
    "{\"repository\": \"$repository\", \"digest\": \"$(cat pushed)\", \"environment\": \"$environment\"}"
  _verify_the_old_way cosign.pub "$view:current"
  _verify_the_old_way cosign.pub "$view@$(cat pushed)"
  refused _verify_the_old_way other/cosign.pub "$view:current"
  equal "$(sk deployer inspect --tls-verify=false --raw "docker://$view:$(tr : - < pushed).sig" |
    jq -r '.layers[].mediaType')" application/vnd.dev.cosign.simplesigning.v1+json
  # A second signature is written into the same tag.
  _sign_the_old_way other/cosign.key
  _verify_the_old_way other/cosign.pub "$view:current"
  _verify_the_old_way cosign.pub "$view:current"
  api 201 promoter POST blocks -H 'Content-Type: application/json' --data-binary \
    "{\"repository\": \"$repository\", \"digest\": \"$(cat pushed)\", \"environment\": \"$environment\", \"reason\": \"bad release\"}"
  refused _verify_the_old_way cosign.pub "$view@$(cat pushed)"
  refused crane digest --insecure "$view:$(tr : - < pushed).sig"
}
