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
