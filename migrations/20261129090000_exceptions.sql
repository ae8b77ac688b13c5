-- Exceptions: approvals, blocks, holds, waivers and overrides. Each has a scope, a reason, an author, an
-- expiry that is compared when a decision is made, an end that is set once, and an origin.

alter table holds add column origin text collate "C" not null default 'manual'
  constraint a_holds_origin_is_known check (origin in ('manual', 'rollback'));
alter table blocks add column origin text collate "C" not null default 'manual'
  constraint a_blocks_origin_is_known check (origin in ('manual', 'rollback'));
alter table approvals add column origin text collate "C" not null default 'manual'
  constraint an_approvals_origin_is_known check (origin in ('manual', 'rollback'));

-- A second person approves or reviews once, and the row ends once, in any order: an override that has ended
-- is still reviewed. No other column changes.
create function refuse_change_but_second_person_and_ending() returns trigger language plpgsql as $$
declare
  second text := tg_argv[0];
  second_at text := replace(tg_argv[0], '_by', '_at');
  before jsonb := to_jsonb(old);
  after jsonb := to_jsonb(new);
begin
  if (before ->> second) is not null and (before -> second, before -> second_at) <> (after -> second, after -> second_at)
     or (before ->> 'ended_at') is not null
       and (before -> 'ended_by', before -> 'ended_at') <> (after -> 'ended_by', after -> 'ended_at')
     or (after ->> 'ended_at') is null and (after ->> 'ended_by') is not null
     or (before - array['ended_at', 'ended_by', second, second_at])
        <> (after - array['ended_at', 'ended_by', second, second_at])
  then
    raise exception 'a row of % changes only by its second person and by its end, each once', tg_table_name
      using errcode = 'restrict_violation';
  end if;
  return new;
end $$;

-- Accepts findings, until it expires or ends. It counts from approved_at on.
create table waivers(
  id bigint generated always as identity primary key,
  -- Where it counts: repositories that match the pattern; these bytes only, where sha256 is set; this
  -- environment only, where environment_id is set. One that is bound to bytes names the manifest that it was
  -- created for, and the pattern is the name of its repository.
  repositories text collate "C" not null,
  repository_id bigint references repositories,
  manifest text collate "C",
  sha256 text collate "C",
  environment_id bigint references environments,
  -- A package URL. Its qualifiers are ignored; without a version it matches all versions. Null: any package.
  package text collate "C",
  status text collate "C" not null
    constraint a_waivers_status_is_known check (status in ('not_affected', 'accepted_risk', 'false_positive')),
  justification text collate "C",
  reason text collate "C" not null,
  origin text collate "C" not null default 'manual'
    constraint a_waivers_origin_is_known check (origin in ('manual', 'rollback')),
  created_by bigint not null references principals,
  created_at timestamptz not null,
  expires_at timestamptz constraint a_waivers_expiry_can_be_written check (can_be_written(expires_at)),
  approved_by bigint references principals,
  approved_at timestamptz,
  ended_by bigint references principals,
  ended_at timestamptz,
  constraint a_waiver_is_bound_to_a_manifest_or_to_none
    check ((sha256 is null) = (manifest is null) and (sha256 is null) = (repository_id is null)),
  constraint an_accepted_risk_expires check (status <> 'accepted_risk' or expires_at is not null),
  constraint a_waiver_has_its_justification check ((status = 'not_affected') = (justification is not null)),
  constraint a_waiver_is_approved_by_another_person check (approved_by <> created_by),
  constraint a_waiver_is_approved_at_a_time check ((approved_by is null) = (approved_at is null))
);
create index waivers_newest on waivers(id desc) where ended_at is null;
create trigger waivers_only_end before update on waivers
  for each row execute function refuse_change_but_second_person_and_ending('approved_by');

-- The vulnerabilities that a waiver accepts; each matches a finding by its name or an alias of it.
create table waiver_vulnerabilities(
  waiver_id bigint not null references waivers,
  vulnerability text collate "C" not null,
  primary key (vulnerability, waiver_id)
);
create index waiver_vulnerabilities_by_waiver on waiver_vulnerabilities(waiver_id);
create trigger waiver_vulnerabilities_never_change before update or delete on waiver_vulnerabilities
  for each row execute function refuse_change();

-- Passes failed gates of one version in one release channel, until it expires or ends. Another person
-- reviews it.
create table overrides(
  id bigint generated always as identity primary key,
  repository_id bigint not null references repositories,
  manifest text collate "C" not null,
  sha256 text collate "C" not null,
  environment_id bigint not null references environments,
  gates text[] collate "C" not null,
  reason text collate "C" not null,
  origin text collate "C" not null default 'manual'
    constraint an_overrides_origin_is_known check (origin in ('manual', 'rollback')),
  created_by bigint not null references principals,
  created_at timestamptz not null,
  expires_at timestamptz not null
    constraint an_overrides_expiry_can_be_written check (can_be_written(expires_at)),
  reviewed_by bigint references principals,
  reviewed_at timestamptz,
  ended_by bigint references principals,
  ended_at timestamptz,
  constraint an_override_names_gates check (cardinality(gates) > 0),
  constraint an_override_is_reviewed_by_another_person check (reviewed_by <> created_by),
  constraint an_override_is_reviewed_at_a_time check ((reviewed_by is null) = (reviewed_at is null))
);
create index overrides_by_bytes on overrides(repository_id, sha256, environment_id);
create index overrides_newest on overrides(repository_id, id desc);
create trigger overrides_only_end before update on overrides
  for each row execute function refuse_change_but_second_person_and_ending('reviewed_by');
