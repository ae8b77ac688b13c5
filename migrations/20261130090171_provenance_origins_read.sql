-- What provenance says of where something was built from, as a reader read it; and build types that administrators
-- declare.

-- Where a build type names its source: at JSON pointers into externalParameters, or in the entry of
-- resolvedDependencies with a name.
create table build_types(
  id bigint generated always as identity primary key,
  build_type text collate "C" not null,
  source text collate "C",
  source_ref text collate "C",
  commit_id text collate "C",
  dependency text collate "C",
  declared_by bigint not null references principals,
  declared_at timestamptz not null,
  ended_by bigint references principals,
  ended_at timestamptz,
  constraint a_source_stands_in_one_place check ((source is null) <> (dependency is null)
    and (dependency is null or (source_ref is null and commit_id is null))),
  constraint what_ended_was_ended_by_somebody check ((ended_by is null) = (ended_at is null))
);
create unique index a_build_type_is_declared_once on build_types(build_type) where ended_at is null;

create function build_types_only_end() returns trigger language plpgsql as $$
begin
  if tg_op = 'DELETE' or old.ended_at is not null
    or (new.id, new.build_type, new.source, new.source_ref, new.commit_id, new.dependency, new.declared_by, new.declared_at)
      is distinct from
      (old.id, old.build_type, old.source, old.source_ref, old.commit_id, old.dependency, old.declared_by, old.declared_at)
  then
    raise exception 'a declared build type ends, and nothing else of it changes';
  end if;
  return new;
end $$;
create trigger build_types_only_end before update or delete on build_types
  for each row execute function build_types_only_end();

-- Derived from the envelopes. The row that is not superseded is the newest reading. It counts for promotions while its
-- reader is the one in use and its declaration is in force; the others are what earlier promotions counted.
create table provenance_origins(
  id bigint generated always as identity primary key,
  attestation_id bigint not null references attestations,
  -- 0: read before readers had numbers.
  reader int not null,
  -- Whether the build type may be declared, and the declaration by which it was read.
  declarable bool not null,
  declaration bigint references build_types,
  build_type text collate "C",
  source text collate "C",
  source_ref text collate "C",
  commit_id text collate "C",
  superseded bool not null default false,
  constraint a_declaration_is_of_a_type_that_may_be_declared check (declarable or declaration is null)
);
create unique index a_statement_has_one_newest_reading on provenance_origins(attestation_id) where not superseded;
create index provenance_origins_by_attestation on provenance_origins(attestation_id);
create index provenance_origins_by_source on provenance_origins(source, commit_id) where not superseded and source is not null;
create index provenance_origins_by_commit on provenance_origins(commit_id) where not superseded and commit_id is not null;

create index provenance_origins_by_reader on provenance_origins(reader) where not superseded;

insert into provenance_origins(attestation_id, reader, declarable, source, source_ref, commit_id)
select a.id, 0, false, a.source, a.source_ref, a.commit_id
from attestations a join predicate_types t on t.id = a.predicate_type_id
where t.uri in ('https://slsa.dev/provenance/v1', 'https://slsa.dev/provenance/v0.2');

-- A replica of an earlier release, which knows no readings, may still record statements while this one is rolled out.
create function provenance_is_read() returns trigger language plpgsql as $$
begin
  if exists (select from predicate_types t where t.id = new.predicate_type_id
             and t.uri in ('https://slsa.dev/provenance/v1', 'https://slsa.dev/provenance/v0.2'))
    and not exists (select from provenance_origins o where o.attestation_id = new.id)
  then
    insert into provenance_origins(attestation_id, reader, declarable, source, source_ref, commit_id)
    values (new.id, 0, false, new.source, new.source_ref, new.commit_id);
    insert into job_queue(kind, key, payload, max_attempts) values ('read-provenance', 'all', 'null', 10);
  end if;
  return null;
end $$;
create constraint trigger provenance_is_read after insert on attestations deferrable initially deferred
  for each row when (new.predicate_type_id is not null) execute function provenance_is_read();

-- Nothing reads these any more.
drop index attestations_by_source;
comment on column attestations.source is 'read by an earlier release; see provenance_origins';
comment on column attestations.source_ref is 'read by an earlier release; see provenance_origins';
comment on column attestations.commit_id is 'read by an earlier release; see provenance_origins';
