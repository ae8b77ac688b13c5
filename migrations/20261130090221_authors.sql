-- Who pushed which manifests, in whichever repository and whether or not they are still there: an author is none who
-- approves. By the SHA-256 of the bytes.
create table manifest_authors(
  sha256 text collate "C" not null,
  principal_id bigint not null references principals,
  first_at timestamptz not null default clock_timestamp(),
  primary key (sha256, principal_id)
);
create trigger authors_never_change before update or delete on manifest_authors
  for each row execute function refuse_change();
create trigger authors_are_never_truncated before truncate on manifest_authors
  for each statement execute function refuse_change();

-- What is known of before: the manifests that are there with their names, and the events of those that went. Of a
-- manifest that was pushed by another digest and went, the SHA-256 is not known.
insert into manifest_authors(sha256, principal_id, first_at)
select x.sha256, x.principal_id, min(x.at) from (
  select sha256, pushed_by as principal_id, pushed_at as at from manifests
  union all
  select m.sha256, t.claimed_by, t.claimed_at from tags t
    join manifests m on m.repository_id = t.repository_id and m.digest = t.digest
  union all
  select m.sha256, t.moved_by, t.moved_at from floating_tags t
    join manifests m on m.repository_id = t.repository_id and m.digest = t.digest
  union all
  select coalesce(m.sha256, e.digest), e.principal_id, e.at from events e
    left join manifests m on m.repository_id = e.repository_id and m.digest = e.digest
    where e.kind = 'manifest.pushed' and (m.sha256 is not null or starts_with(e.digest, 'sha256:'))
) x group by 1, 2;

-- Whether somebody is an author of any of these bytes. A function, so that a question of a deployer, which as a rule
-- finds no open approval, does not prepare it.
create function is_author(principal bigint, bytes text[]) returns bool
language plpgsql stable strict parallel safe set plan_cache_mode = force_generic_plan as $$
begin
  return exists (select from manifest_authors a where a.sha256 = any(bytes) and a.principal_id = principal);
end $$;

-- The bytes that an exception about a manifest is about: its own, and those of all below it.
create function bytes_below(repository bigint, bytes text) returns text[] language sql stable as $$
  with recursive family(digest, depth) as (
    select m.digest, 0 from manifests m where m.repository_id = repository and m.sha256 = bytes
    union
    select c.child, f.depth + 1 from family f
      join manifest_children c on c.repository_id = repository and c.manifest = f.digest
    where f.depth < 4
  )
  select bytes || array(select m.sha256 from family f
    join manifests m on m.repository_id = repository and m.digest = f.digest)
$$;
