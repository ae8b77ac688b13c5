-- What a manifest belongs to by its tags: clients that do not read referrers look for the signatures, attestations
-- and SBOM of sha256:<hex> under sha256-<hex>.sig, .att and .sbom, and for an index of its referrers under
-- sha256-<hex>. Such a manifest need not name its subject itself. Only what the tags name now, and only subjects
-- that the repository has.
create function subjects_by_tag(of_repository bigint, of_digest text)
returns table(tag text, subject text) language sql stable as $$
  select named.name, s.digest
  from (
    select t.name from tags t
    where t.repository_id = of_repository and t.digest = of_digest
      and not exists (select from tags_hidden h where h.repository_id = of_repository and h.name = t.name)
    union
    select f.name from floating_tags f
    where f.repository_id = of_repository and f.digest = of_digest
      and not exists (select from floating_tags n
                      where n.repository_id = of_repository and n.name = f.name and n.id > f.id)
      and not exists (select from tags t where t.repository_id = of_repository and t.name = f.name)
  ) named
  join manifests s on s.repository_id = of_repository and s.sha256 = 'sha256:' || substr(named.name, 8, 64)
  where named.name ~ '^sha256-[0-9a-f]{64}(\.(sig|att|sbom))?$'
$$;
