-- From when to when a reading of provenance was the newest, and build types that name a branch without `refs/heads/`.

-- A promotion counted the reading that was the newest at its time. A reading begins where the one before it ends. Of
-- those that ended before there was this column the time is not known: they count for nothing.
alter table provenance_origins add column superseded_at timestamptz
  constraint only_what_is_superseded_has_an_end check (superseded_at is null or superseded);

-- A pointer to the name of a branch, instead of one to the full ref.
alter table build_types add column branch text collate "C"
  constraint a_branch_stands_beside_a_source check (branch is null or (source is not null and source_ref is null));

create or replace function build_types_only_end() returns trigger language plpgsql as $$
begin
  if tg_op = 'DELETE' or old.ended_at is not null
    or (new.id, new.build_type, new.source, new.source_ref, new.branch, new.commit_id, new.dependency, new.declared_by,
        new.declared_at)
      is distinct from
      (old.id, old.build_type, old.source, old.source_ref, old.branch, old.commit_id, old.dependency, old.declared_by,
        old.declared_at)
  then
    raise exception 'a declared build type ends, and nothing else of it changes';
  end if;
  return new;
end $$;
