-- What the evaluation of a promoted version needs: what its decision recorded, renewed summaries, the newest
-- promotion of each release channel, and since when a vulnerability is known at which severity.

-- The decision, its policies and all evidence that satisfied each gate: the version goes on running on it.
-- Of a rollback: what was recorded for the version that it goes back to, and the findings it accepted.
alter table promotions add column recorded jsonb;
alter table promotions disable trigger promotions_never_change;
update promotions p set recorded = jsonb_build_object(
  'decision', p.decision,
  'policies', convert_from(d.inputs, 'UTF8')::jsonb -> 'policies',
  'gates', (
    select coalesce(jsonb_agg(jsonb_build_object('policy', g ->> 'policy', 'gate', g ->> 'gate',
        'passed', g ->> 'outcome' = 'pass' and g ->> 'mode' = 'enforce',
        'evidence', (
          select coalesce(jsonb_agg(e || jsonb_build_object('by', (
            select coalesce(jsonb_agg(distinct s.name), '[]') from attestations a
            join attestation_signatures i on i.attestation_id = a.id join signers s on s.id = i.signer_id
            where a.repository_id = p.repository_id and a.envelope = e ->> 'id'))), '[]')
          from jsonb_array_elements(g -> 'evidence') e)) order by n), '[]')
    from jsonb_array_elements(d.result -> 'gates') with ordinality t(g, n) where g ? 'policy'))
from decisions d where d.id = p.decision;
alter table promotions enable trigger promotions_never_change;
alter table promotions alter column recorded set not null;
-- The promotion that a rollback goes back to: what was promoted between the two is skipped.
alter table promotions add column target_id bigint references promotions;
create index promotions_rollbacks on promotions(repository_id, environment_id, id desc) where kind = 'rollback';

-- Runtimes take a manifest of docker's type for an image whatever its config says to be.
create or replace function can_run(m manifests) returns bool language sql stable as $$
  select m.media_type in ('application/vnd.docker.distribution.manifest.v2+json',
                          'application/vnd.docker.distribution.manifest.list.v2+json')
    or coalesce(m.config_media_type in ('application/vnd.oci.image.config.v1+json',
                                        'application/vnd.docker.container.image.v1+json'), false)
    or exists (select from manifest_children c where c.repository_id = m.repository_id and c.manifest = m.digest)
$$;

-- Renewed verification summaries; the first one is in the promotion's row. The newest counts.
create table summaries(
  id bigint generated always as identity primary key,
  promotion_id bigint not null references promotions,
  envelope bytea not null,
  valid_until timestamptz not null constraint a_renewed_summarys_end_can_be_written check (can_be_written(valid_until)),
  created_at timestamptz not null,
  event_id bigint not null references events
);
alter table summaries alter column envelope set storage external;
create index summaries_newest on summaries(promotion_id, id desc);
create trigger summaries_never_change before update or delete on summaries
  for each row execute function refuse_change();

-- For the list of promotions that wait for approvals.
create index decisions_by_time on decisions(decided_at desc);

-- One row for each repository in an environment to which something was promoted: its newest promotion, and
-- when the summary of it ends. Written under the channel's lock with the promotion or the summary.
create table release_channels(
  environment_id bigint not null references environments,
  repository_id bigint not null references repositories,
  promotion_id bigint not null references promotions,
  summary_until timestamptz not null,
  primary key (environment_id, repository_id)
) with (fillfactor = 80);
create index release_channels_by_repository on release_channels(repository_id);
create index release_channels_by_summary on release_channels(summary_until);
insert into release_channels(environment_id, repository_id, promotion_id, summary_until)
select distinct on (environment_id, repository_id) environment_id, repository_id, id, valid_until
from promotions order by environment_id, repository_id, id desc;

-- Since when a vulnerability is known for some bytes, with each severity that a scanner gave it, with and
-- without a fix. The grace of a finding counts from the first time that the policy would have denied it, and
-- once more from the end of a suppression.
drop trigger scan_runs_note_vulnerabilities on scan_runs;
drop function note_vulnerabilities;
drop table vulnerabilities_known;
create table vulnerabilities_known(
  repository_id bigint not null references repositories,
  sha256 text collate "C" not null,
  vulnerability text collate "C" not null,
  severity text collate "C" not null,
  fixable bool not null,
  since timestamptz not null,
  unsuppressed_at timestamptz,
  primary key (repository_id, sha256, vulnerability, severity, fixable)
);
insert into vulnerabilities_known(repository_id, sha256, vulnerability, severity, fixable, since)
select r.repository_id, r.sha256, f.vulnerability, f.severity, cardinality(f.fixed_in) > 0, min(r.received_at)
from scan_runs r join findings f on f.finding_set = r.finding_set
where f.suppressed is null group by 1, 2, 3, 4, 5;

create function note_vulnerabilities() returns trigger language plpgsql as $$
declare
  previous text;
begin
  select r.finding_set into previous from scan_runs r
  where r.repository_id = new.repository_id and r.sha256 = new.sha256 and r.scanner = new.scanner
    and r.id < new.id
  order by r.scanned_at desc, r.id desc limit 1;
  if new.finding_set is distinct from previous then
    insert into vulnerabilities_known(repository_id, sha256, vulnerability, severity, fixable, since)
    select distinct new.repository_id, new.sha256, f.vulnerability, f.severity, cardinality(f.fixed_in) > 0,
      new.received_at
    from findings f where f.finding_set = new.finding_set and f.suppressed is null
    on conflict do nothing;
    update vulnerabilities_known k set unsuppressed_at = new.received_at
    where k.repository_id = new.repository_id and k.sha256 = new.sha256 and k.unsuppressed_at is null
      and k.since < new.received_at
      and exists (select from findings f where f.finding_set = new.finding_set
                    and f.vulnerability = k.vulnerability and f.suppressed is null)
      and exists (select from findings f where f.finding_set = previous
                    and f.vulnerability = k.vulnerability and f.suppressed is not null)
      and not exists (select from vulnerabilities_known o where o.repository_id = k.repository_id
                        and o.sha256 = k.sha256 and o.vulnerability = k.vulnerability
                        and o.unsuppressed_at is not null);
  end if;
  return null;
end $$;
create trigger scan_runs_note_vulnerabilities after insert on scan_runs
  for each row execute function note_vulnerabilities();
