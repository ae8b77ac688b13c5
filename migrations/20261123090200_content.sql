-- Blobs, links, manifests, tags, uploads and pins. Bytes first, row second: a crash leaves an orphan
-- for the sweep, never a row without bytes.

create table blobs(
  digest text collate "C" primary key,
  size_bytes bigint not null,
  -- Object keys end in a random part and are never reused.
  object_key text collate "C" constraint an_object_has_one_row unique,
  bytes bytea,
  stored_at timestamptz not null default clock_timestamp(),
  -- When its bytes were found lost or changed. It is answered as unknown until somebody pushes it again.
  damaged_at timestamptz,
  constraint a_blob_is_inline_or_an_object check ((object_key is null) <> (bytes is null))
);
alter table blobs alter column bytes set storage external;
create index blobs_damaged on blobs(digest) where damaged_at is not null;

-- Bytes in the object store whose blob was collected. They go later, when nobody can be reading them
-- any more and a backup that began before has its copy.
create table doomed_objects(
  object_key text collate "C" primary key,
  size_bytes bigint not null,
  doomed_at timestamptz not null default clock_timestamp()
);

-- What a manifest of a repository may refer to.
create table blob_links(
  repository_id bigint not null references repositories,
  digest text collate "C" not null constraint a_link_has_its_blob references blobs,
  -- A 201, a mount and a HEAD 200 each protect until here.
  protected_until timestamptz not null,
  primary key (repository_id, digest)
) with (fillfactor = 80);
create index blob_links_by_digest on blob_links(digest);

create table manifests(
  repository_id bigint not null references repositories,
  digest text collate "C" not null,
  sha256 text collate "C" not null,
  sha512 text collate "C" not null,
  media_type text collate "C" not null,
  artifact_type text collate "C",
  config_media_type text collate "C",
  subject text collate "C",
  annotations jsonb,
  -- Of the manifest with its config and layers (of an index: with its children's).
  total_size_bytes bigint not null,
  body bytea not null,
  pushed_by bigint not null references principals,
  pushed_at timestamptz not null default clock_timestamp(),
  primary key (repository_id, digest)
);
alter table manifests alter column body set storage external;
create index manifests_by_subject on manifests(repository_id, subject, digest) where subject is not null;
create index manifests_by_sha256 on manifests(sha256);
create index manifests_by_sha512 on manifests using hash (sha512);
create index manifests_by_age on manifests(repository_id, pushed_at desc, digest);

-- How many bytes a repository holds, its links' blobs and its manifests: the sum of its rows. Every
-- change appends, so that pushes never wait for each other over a counter; collection folds the rows.
create table repository_usage(
  repository_id bigint not null references repositories,
  bytes bigint not null
);
create index repository_usage_by_repository on repository_usage(repository_id) include (bytes);

create function count_links() returns trigger language plpgsql as $$
begin
  insert into repository_usage(repository_id, bytes)
  select c.repository_id, case tg_op when 'INSERT' then sum(b.size_bytes) else -sum(b.size_bytes) end
  from changed c join blobs b on b.digest = c.digest group by c.repository_id;
  return null;
end $$;
create trigger links_are_counted after insert on blob_links
  referencing new table as changed for each statement execute function count_links();
create trigger ended_links_are_counted after delete on blob_links
  referencing old table as changed for each statement execute function count_links();

create function count_manifests() returns trigger language plpgsql as $$
begin
  insert into repository_usage(repository_id, bytes)
  select repository_id,
         case tg_op when 'INSERT' then sum(octet_length(body)) else -sum(octet_length(body)) end
  from changed group by repository_id;
  return null;
end $$;
create trigger manifests_are_counted after insert on manifests
  referencing new table as changed for each statement execute function count_manifests();
create trigger deleted_manifests_are_counted after delete on manifests
  referencing old table as changed for each statement execute function count_manifests();

create table manifest_blobs(
  repository_id bigint not null,
  manifest text collate "C" not null,
  blob text collate "C" not null,
  primary key (repository_id, manifest, blob),
  foreign key (repository_id, manifest) references manifests,
  constraint a_manifest_has_its_blobs foreign key (repository_id, blob) references blob_links
);
create index manifest_blobs_by_blob on manifest_blobs(repository_id, blob);

create table manifest_children(
  repository_id bigint not null,
  manifest text collate "C" not null,
  child text collate "C" not null,
  -- "os/architecture[/variant]", null when the index does not say. One image may serve several.
  platform text collate "C",
  foreign key (repository_id, manifest) references manifests,
  constraint an_index_has_its_children foreign key (repository_id, child) references manifests
);
create unique index an_index_lists_a_child_once_a_platform
  on manifest_children(repository_id, manifest, child, coalesce(platform, ''));
create index manifest_children_by_child on manifest_children(repository_id, child);

-- What must stay, whatever retention or a delete says: promoted, deployed, a rollback candidate.
create table pins(
  id bigint generated always as identity primary key,
  repository_id bigint not null,
  digest text collate "C" not null,
  reason text collate "C" not null,
  until timestamptz,
  at timestamptz not null default clock_timestamp(),
  constraint what_is_pinned_stays foreign key (repository_id, digest) references manifests
);
create index pins_by_manifest on pins(repository_id, digest);

-- Write-once tags: a row is never updated, deleted or truncated. Deleting a tag hides it and keeps
-- its name for its digest.
create table tags(
  repository_id bigint not null references repositories,
  name text collate "C" not null,
  digest text collate "C" not null,
  claimed_by bigint not null references principals,
  claimed_at timestamptz not null default clock_timestamp(),
  constraint tags_are_immutable primary key (repository_id, name)
);
create index tags_by_digest on tags(repository_id, digest);
create trigger tags_never_change before update or delete on tags
  for each row execute function refuse_change();
create trigger tags_are_never_truncated before truncate on tags
  for each statement execute function refuse_change();

-- Every hiding and showing again of a write-once tag. Who adds a row locks the tag's row first.
create table tag_visibility(
  id bigint generated always as identity primary key,
  repository_id bigint not null,
  name text collate "C" not null,
  hidden bool not null,
  by bigint not null references principals,
  at timestamptz not null default clock_timestamp(),
  foreign key (repository_id, name) references tags
);
create index tag_visibility_newest on tag_visibility(repository_id, name, id desc);
create trigger tag_visibility_is_append_only before update or delete on tag_visibility
  for each row execute function refuse_change();

-- One row for each tag that is hidden now; kept under the tag's lock, compared by fsck.
create table tags_hidden(
  repository_id bigint not null,
  name text collate "C" not null,
  primary key (repository_id, name),
  foreign key (repository_id, name) references tags
);

-- Floating tags are append-only: the current one is the last row; a null digest is a deletion.
create table floating_tags(
  id bigint generated always as identity primary key,
  repository_id bigint not null references repositories,
  name text collate "C" not null,
  digest text collate "C",
  moved_by bigint not null references principals,
  moved_at timestamptz not null default clock_timestamp()
);
create index floating_tags_newest on floating_tags(repository_id, name, id desc);
create index floating_tags_by_digest on floating_tags(repository_id, digest);
create trigger floating_tags_are_append_only before update or delete on floating_tags
  for each row execute function refuse_change();
create trigger floating_tags_are_never_truncated before truncate on floating_tags
  for each statement execute function refuse_change();

-- Floating names behind one, sorted, that point at something and were never claimed write-once: a skip scan,
-- since a name may have moved a million times. Read no further than the caller's limit.
create function floating_names(of_repository bigint, behind text)
returns table(name text, digest text, moved_at timestamptz) language sql stable parallel safe
begin atomic
  with recursive names(name) as (
    (select f.name from floating_tags f where f.repository_id = of_repository and f.name > behind
     order by f.name limit 1)
    union all
    select (select f.name from floating_tags f where f.repository_id = of_repository and f.name > n.name
            order by f.name limit 1)
    from names n where n.name is not null)
  select n.name, newest.digest, newest.moved_at
  from names n cross join lateral (
    select f.digest, f.moved_at from floating_tags f
    where f.repository_id = of_repository and f.name = n.name order by f.id desc limit 1) newest
  where newest.digest is not null
    and (select true from tags t where t.repository_id = of_repository and t.name = n.name) is null;
end;

-- Names of a repository behind one that point at something, sorted, one a line; null where there is no such
-- repository. Read in the order of the indexes whatever the statistics say: sorting all that is behind a page
-- costs each page as much as all of them.
create function names_shown(of_repository text, behind text, most bigint) returns text
language plpgsql stable parallel safe set enable_sort to off set jit to off as $$
begin
  return (
    select array_to_string(array(
      select s.name from (
        (select t.name from tags t
         where t.repository_id = r.id and t.name > behind
           and not exists (select from tags_hidden h where h.repository_id = r.id and h.name = t.name)
         order by t.name limit most)
        union all
        (select f.name from floating_names(r.id, behind) f limit most)) s
      order by s.name limit most), E'\n')
    from repositories r where r.name = of_repository);
end $$;

-- Every tag that names something now, write-once or floating, with the time at which it came to. Not
-- those of what refers to a manifest that is here, by either of its digests: that lives as long as its
-- subject.
create view retained_names as
  select t.repository_id, t.name, t.digest, t.claimed_at as at
  from tags t
  where not exists (select from tags_hidden h where h.repository_id = t.repository_id and h.name = t.name)
    and not exists (select from manifests m
                    join manifests s on s.repository_id = m.repository_id
                                    and (s.sha256 = m.subject or s.sha512 = m.subject)
                    where m.repository_id = t.repository_id and m.digest = t.digest and m.subject is not null)
  union all
  select f.repository_id, f.name, f.digest, f.moved_at
  from (select distinct on (repository_id, name) repository_id, name, digest, moved_at
        from floating_tags order by repository_id, name, id desc) f
  where f.digest is not null
    and not exists (select from tags t where t.repository_id = f.repository_id and t.name = f.name)
    and not exists (select from manifests m
                    join manifests s on s.repository_id = m.repository_id
                                    and (s.sha256 = m.subject or s.sha512 = m.subject)
                    where m.repository_id = f.repository_id and m.digest = f.digest and m.subject is not null);

-- Upload sessions. Whoever appends first claims the lease by compare-and-swap; staged bytes are
-- named by the lease's token, so a late writer cannot touch another's bytes. A session is of a name:
-- the repository is made when the first blob is whole.
create table uploads(
  id uuid primary key,
  repository text collate "C" not null,
  principal_id bigint not null references principals,
  -- Bytes taken so far, durable: those in the store and the tail.
  offset_bytes bigint not null default 0,
  -- What the store keeps of it, and the hash's state; its shape is storage's own.
  staged jsonb not null,
  -- What is smaller than the store's least piece.
  tail bytea not null default '',
  lease uuid,
  lease_until timestamptz,
  created_at timestamptz not null default clock_timestamp(),
  touched_at timestamptz not null default clock_timestamp(),
  constraint a_lease_ends check ((lease is null) = (lease_until is null))
);
alter table uploads alter column tail set storage external;
create index uploads_by_age on uploads(touched_at);
create index uploads_by_principal on uploads(principal_id);
