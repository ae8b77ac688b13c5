-- Policies, decisions, promotions, and the facts people add. No status column anywhere: the standing
-- of a release is a fold over these rows.

create table policy_documents(
  digest text collate "C" primary key,
  -- The canonical JSON of the parsed policy; `source` is the text as it was given.
  body bytea not null,
  source text not null
);

-- Versions of a policy. The open one (ended_at is null) is in force for its environment.
create table policies(
  id bigint generated always as identity primary key,
  environment_id bigint not null references environments,
  name text collate "C" not null,
  digest text collate "C" not null references policy_documents,
  repositories text[] collate "C" not null,
  -- What its gates can look at, so that a decision reads no more: the severities that a scan gate may
  -- deny, and the environments that come before this one.
  denied_severities text[] collate "C" not null,
  earlier_environments text[] collate "C" not null,
  at timestamptz not null,
  by bigint not null references principals,
  ended_at timestamptz,
  ended_by bigint references principals
);
create unique index a_policy_has_one_version_in_force on policies(environment_id, name) where ended_at is null;
create trigger policies_only_end before update on policies
  for each row execute function refuse_change_but_ending();

-- A decision's id is the digest of its inputs: subject, policies and every fact it was judged on.
create table decisions(
  id text collate "C" primary key,
  repository_id bigint not null references repositories,
  environment_id bigint not null references environments,
  manifest text collate "C" not null,
  -- allow | deny | defer
  outcome text collate "C" not null,
  inputs bytea not null,
  result jsonb not null,
  decided_by bigint not null references principals,
  decided_at timestamptz not null
);
alter table decisions alter column inputs set storage external;
create index decisions_newest on decisions(repository_id, environment_id, decided_at desc);
create trigger decisions_never_change before update or delete on decisions
  for each row execute function refuse_change();

create table promotions(
  id bigint generated always as identity primary key,
  repository_id bigint not null references repositories,
  environment_id bigint not null references environments,
  manifest text collate "C" not null,
  sha256 text collate "C" not null,
  version text collate "C",
  decision text collate "C" not null constraint a_promotion_has_its_decision references decisions,
  -- promote | rollback
  kind text collate "C" not null,
  reason text collate "C" not null,
  -- The DSSE envelope of the SLSA verification summary, and when it expires.
  summary bytea not null,
  valid_until timestamptz not null constraint a_summarys_end_can_be_written check (can_be_written(valid_until)),
  event_id bigint not null references events,
  promoted_by bigint not null references principals,
  promoted_at timestamptz not null,
  -- Since when these bytes stand here without a break: promoting them again keeps it.
  standing_since timestamptz not null,
  -- The newest promotion of other bytes before this one. Walking back to an earlier version does
  -- not step over renewals, so it does not grow with them.
  previous_id bigint references promotions,
  constraint what_was_promoted_stays foreign key (repository_id, manifest) references manifests
);
alter table promotions alter column summary set storage external;
create unique index a_promotion_has_an_event_of_its_own on promotions(event_id);
create index promotions_newest on promotions(repository_id, environment_id, id desc);
create index promotions_by_manifest on promotions(repository_id, environment_id, sha256, id desc);
create index promotions_by_what_stays on promotions(repository_id, manifest);
create trigger promotions_never_change before update or delete on promotions
  for each row execute function refuse_change();

-- Whether runtimes take the manifest for something to run, whatever it says to be: an image, or an index of some.
create function can_run(m manifests) returns bool language sql stable as $$
  select coalesce(m.config_media_type in ('application/vnd.oci.image.config.v1+json',
                                          'application/vnd.docker.container.image.v1+json'), false)
    or exists (select from manifest_children c where c.repository_id = m.repository_id and c.manifest = m.digest)
$$;

create table blocks(
  id bigint generated always as identity primary key,
  -- Where it was said, and so who may lift it. It counts wherever the same bytes are.
  repository_id bigint not null references repositories,
  manifest text collate "C" not null,
  sha256 text collate "C" not null,
  -- null: in every environment.
  environment_id bigint references environments,
  why text collate "C" not null,
  until timestamptz constraint a_blocks_end_can_be_written check (can_be_written(until)),
  by bigint not null references principals,
  at timestamptz not null,
  ended_at timestamptz,
  ended_by bigint references principals
);
create index blocks_open on blocks(sha256) where ended_at is null;
create index blocks_by_repository on blocks(repository_id, id desc);
create trigger blocks_only_end before update on blocks
  for each row execute function refuse_change_but_ending();

-- Stops promotions of an environment, of a repository, or of a repository in an environment.
create table holds(
  id bigint generated always as identity primary key,
  repository_id bigint references repositories,
  environment_id bigint references environments,
  why text collate "C" not null,
  until timestamptz constraint a_holds_end_can_be_written check (can_be_written(until)),
  by bigint not null references principals,
  at timestamptz not null,
  ended_at timestamptz,
  ended_by bigint references principals,
  constraint a_hold_has_a_scope check (repository_id is not null or environment_id is not null)
);
create index holds_open on holds(environment_id, repository_id) where ended_at is null;
create index holds_by_repository on holds(repository_id, id desc) where repository_id is not null;
create trigger holds_only_end before update on holds
  for each row execute function refuse_change_but_ending();

create table approvals(
  id bigint generated always as identity primary key,
  repository_id bigint not null references repositories,
  manifest text collate "C" not null,
  sha256 text collate "C" not null,
  environment_id bigint not null references environments,
  why text collate "C" not null,
  until timestamptz constraint an_approvals_end_can_be_written check (can_be_written(until)),
  by bigint not null references principals,
  at timestamptz not null,
  ended_at timestamptz,
  ended_by bigint references principals
);
create index approvals_open on approvals(repository_id, sha256, environment_id) where ended_at is null;
create index approvals_by_repository on approvals(repository_id, id desc);
create trigger approvals_only_end before update on approvals
  for each row execute function refuse_change_but_ending();

-- Since when a vulnerability is known for some bytes: what already runs keeps its yes for the grace
-- of its severity. Kept by whoever records a run, whatever path it takes; a run that found what the
-- scanner's newest run found adds nothing (every run before has added what it found).
create table vulnerabilities_known(
  repository_id bigint not null references repositories,
  sha256 text collate "C" not null,
  vulnerability text collate "C" not null,
  since timestamptz not null,
  primary key (repository_id, sha256, vulnerability)
);
create function note_vulnerabilities() returns trigger language plpgsql as $$
begin
  if new.finding_set is distinct from (
    select r.finding_set from scan_runs r
    where r.repository_id = new.repository_id and r.sha256 = new.sha256 and r.scanner = new.scanner
      and r.id < new.id
    order by r.scanned_at desc, r.id desc limit 1)
  then
    insert into vulnerabilities_known(repository_id, sha256, vulnerability, since)
    select distinct new.repository_id, new.sha256, f.vulnerability, new.received_at
    from findings f where f.finding_set = new.finding_set and f.suppressed is null
    on conflict do nothing;
  end if;
  return null;
end $$;
create trigger scan_runs_note_vulnerabilities after insert on scan_runs
  for each row execute function note_vulnerabilities();
