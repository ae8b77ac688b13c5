-- What retention keeps of the evidence of versions that it deletes.

create index attestations_by_manifest on attestations(repository_id, manifest);

-- Whether the manifest carries a statement, signed by a key that is known or may be, which stays when these manifests
-- go: a FAILED, and one about a manifest that stays, unless another that stays carries it too.
create function carries_kept_evidence(repository bigint, carrier text, going text[]) returns bool
language sql stable as $$
  select exists (
    select from attestations a
    where a.repository_id = repository and a.manifest = carrier
      and (exists (select from attestation_signatures s where s.attestation_id = a.id)
        or exists (select from attestations_waiting w where w.attestation_id = a.id))
      and (a.result ~* '^\s*failed\s*$' or exists (
          select from attestation_subjects s
          join manifests m on m.repository_id = repository and (m.sha256 = s.digest or m.sha512 = s.digest)
          where s.attestation_id = a.id and m.digest <> all(going))
        and not exists (
          select from manifest_blobs b
          where b.repository_id = repository and b.blob = a.envelope and b.manifest <> all(going))))
$$;
