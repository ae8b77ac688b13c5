-- What a run of a scanner looked at, and which run counts for which part of it.

alter table findings
  -- os | libraries; null for what is no vulnerability, and for findings that were recorded before this column.
  add column target text collate "C",
  -- The file in which a library was found.
  add column path text collate "C";

-- What runtimes take for a container image. Media types are compared without case and parameters.
create function is_container_image(m manifests) returns bool language sql immutable as $$
  select coalesce(lower(split_part(m.config_media_type, ';', 1)) in (
      'application/vnd.oci.image.config.v1+json', 'application/vnd.docker.container.image.v1+json'), false)
    or lower(split_part(m.media_type, ';', 1)) = 'application/vnd.docker.distribution.manifest.v2+json'
$$;
create or replace function can_run(m manifests) returns bool language sql stable as $$
  select is_container_image(m)
    or exists (select from manifest_children c where c.repository_id = m.repository_id and c.manifest = m.digest)
$$;

-- Whether the configuration of an image names as many uncompressed layers as the manifest has layers, and those that
-- are not compressed by their digests. It was read when the manifest was pushed; false for what was pushed before.
alter table manifests add column config_fits bool not null default false;

-- What the scans of a manifest are kept by. An image is known by the digest of its configuration, which names
-- its uncompressed layers and its platform: the same image compressed otherwise is another manifest, and no
-- other image. Everything else is known by its bytes.
create function scanned_as(m manifests) returns text language sql immutable as $$
  select case when m.config_fits and is_container_image(m) then 'config:' || m.config_digest else m.sha256 end
$$;

alter table scan_runs
  -- What the report states of what the run looked at (src/evidence/scope.rs). Null for runs that were recorded
  -- before this column.
  add column scope jsonb,
  -- By what the report names what was scanned: config (the image's configuration), manifest (a digest of the
  -- manifest), platform (an index of it, and its platform there), file (the artifact's file). Null where
  -- only the uploader names it.
  add column bound_by text collate "C"
    constraint a_binding_is_known check (bound_by in ('config', 'manifest', 'platform', 'file')),
  -- The signed statement that is the report, where it is one; `report` is the manifest that carries it.
  add column attestation_id bigint references attestations,
  -- By what its scans are kept, as scanned_as() has it; whether that is a container image; for which aspects it counts; and its filters, one a line.
  -- Null for runs that were recorded before these columns.
  add column image text collate "C",
  add column is_image bool,
  add column aspects text[] collate "C",
  add column filter text collate "C",
  drop constraint a_report_is_recorded_once;
-- The same report sent again is the same run: it must not pass for a newer scan.
create unique index a_report_is_recorded_once on scan_runs(repository_id, scanner, attestation_id,
    (case when attestation_id is null then report else image end)) nulls not distinct;
create index scan_runs_by_attestation on scan_runs(attestation_id) where attestation_id is not null;

-- Which runs count for which part of what is scanned. A run has one row for each aspect that it looked at; of
-- those of one scanner (or, of signed statements, of one signer and scanner), image and aspect the newest
-- counts, and a run with a filter takes only the place of runs with the same filter.
create table scan_coverage(
  repository_id bigint not null references repositories,
  -- As scanned_as() has it.
  image text collate "C" not null,
  scanner text collate "C" not null,
  -- The signer of the statement. Null for reports.
  signer_id bigint references signers,
  -- vulnerabilities | vulnerabilities/os | vulnerabilities/libraries | secrets | misconfigurations | licenses
  aspect text collate "C" not null,
  -- The run's filters, one a line; empty for none, and where the report does not state them.
  filter text collate "C" not null,
  scanned_at timestamptz not null,
  run_id bigint not null references scan_runs,
  -- The signature counts: its signer was valid when it came, and is not revoked from before. What does not count
  -- takes no place and is never current. True for reports.
  is_trusted bool not null,
  -- No newer run took its place. A run that was retracted takes no place, and counts until another takes its.
  is_current bool not null
);
create unique index scan_coverage_of_a_run on scan_coverage(run_id, aspect, coalesce(signer_id, 0));
create index scan_coverage_current on scan_coverage(repository_id, image) where is_current;
create index scan_coverage_by_signer on scan_coverage(signer_id) where signer_id is not null;
create index scan_coverage_newest on scan_coverage(repository_id, image, scanner, aspect, scanned_at desc, run_id desc);

-- Runs that an administrator retracted. They make nothing fresh, and their findings count until a newer run of
-- the same aspect takes their place.
create table scan_retractions(
  run_id bigint primary key references scan_runs,
  reason text collate "C" not null,
  retracted_by bigint not null references principals,
  retracted_at timestamptz not null default decision_time()
);
create trigger scan_retractions_never_change before update or delete on scan_retractions
  for each row execute function refuse_change();

-- The aspect of runs to which a finding belongs.
create function aspect_of(class text, target text) returns text language sql immutable as $$
  select case class when 'vulnerability' then 'vulnerabilities' || coalesce('/' || target, '') else class || 's' end
$$;

-- Since when vulnerabilities are known is kept by the same name as the scans.
create table vulnerabilities_known_before as select * from vulnerabilities_known;
drop trigger scan_runs_note_vulnerabilities on scan_runs;
drop function note_vulnerabilities;
drop table vulnerabilities_known;
create table vulnerabilities_known(
  repository_id bigint not null references repositories,
  -- As scanned_as() has it.
  image text collate "C" not null,
  vulnerability text collate "C" not null,
  severity text collate "C" not null,
  fixable bool not null,
  since timestamptz not null,
  unsuppressed_at timestamptz,
  primary key (repository_id, image, vulnerability, severity, fixable)
);
insert into vulnerabilities_known(repository_id, image, vulnerability, severity, fixable, since, unsuppressed_at)
select k.repository_id, coalesce((select scanned_as(m) from manifests m
    where m.repository_id = k.repository_id and m.sha256 = k.sha256 limit 1), k.sha256),
  k.vulnerability, k.severity, k.fixable, min(k.since), max(k.unsuppressed_at)
from vulnerabilities_known_before k group by 1, 2, 3, 4, 5;
drop table vulnerabilities_known_before;

drop function vulnerabilities_known_of;
create function vulnerabilities_known_of(repository bigint, scanned text, names text[]) returns json
language plpgsql stable strict parallel safe set plan_cache_mode = force_generic_plan as $$
begin
  return (
    select coalesce(json_agg(json_build_object('vulnerability', k.vulnerability, 'severity', k.severity,
      'fixable', k.fixable, 'since', k.since, 'unsuppressed_at', k.unsuppressed_at)), '[]')
    from vulnerabilities_known k
    where k.repository_id = repository and k.image = scanned and upper(k.vulnerability) = any(names));
end $$;

-- Whether a newer row that counts took the place of this one. A run that names no digest takes the place of none that
-- does, and one with a database that its scanner found not valid only that of others like it. Findings without a
-- target may be of the operating system: a run that shows libraries only does not take their place.
create function is_replaced(c scan_coverage) returns bool language sql stable as $$
  select exists (
    select from scan_coverage n join scan_runs newer on newer.id = n.run_id join scan_runs r on r.id = c.run_id
    where n.repository_id = c.repository_id and n.image = c.image and n.scanner = c.scanner
      and n.signer_id is not distinct from c.signer_id and n.aspect = c.aspect
      and (n.scanned_at, n.run_id) > (c.scanned_at, c.run_id) and (n.filter = '' or n.filter = c.filter)
      and n.is_trusted and not exists (select from scan_retractions x where x.run_id = n.run_id)
      and (newer.bound_by is not null or r.bound_by is null)
      and (newer.scope ->> 'database_valid' is distinct from 'false' or r.scope ->> 'database_valid' = 'false')
      and (c.aspect <> 'vulnerabilities' or cardinality(r.aspects) > 1 and r.aspects && array[
          'vulnerabilities/os', 'vulnerabilities/libraries']
        or not 'vulnerabilities/libraries' = any(newer.aspects) or 'vulnerabilities/os' = any(newer.aspects)))
$$;

-- Makes a run count for its aspects, as a report or as the statement of a signer, and notes since when its
-- vulnerabilities are known. Called once for a report, and once for each signer of a statement, with the
-- repository locked.
create function count_scan(run bigint, signer bigint) returns void language plpgsql as $$
declare
  r scan_runs;
  previous text;
  counts bool;
begin
  select * into strict r from scan_runs where id = run;
  counts := signer is null or exists (
    select from signers s where s.id = signer and s.valid_from <= r.received_at
      and (s.valid_until is null or r.received_at < s.valid_until)
      and not exists (select from signer_revocations v
                      where v.signer_id = s.id and (v.compromised or v.distrusted_from <= r.received_at)));
  select p.finding_set into previous from scan_coverage c join scan_runs p on p.id = c.run_id
  where c.repository_id = r.repository_id and c.image = r.image and c.scanner = r.scanner
    and c.signer_id is not distinct from signer and c.run_id < run and c.aspect = any(r.aspects) and c.is_trusted
  order by c.scanned_at desc, c.run_id desc limit 1;

  insert into scan_coverage(repository_id, image, scanner, signer_id, aspect, filter, scanned_at, run_id, is_trusted,
    is_current)
  select r.repository_id, r.image, r.scanner, signer, a.aspect, r.filter, r.scanned_at, run, counts, counts
  from unnest(r.aspects) a(aspect)
  on conflict do nothing;
  if not counts then
    return;
  end if;
  -- The run itself may be older than one that is there.
  update scan_coverage c set is_current = false
  where c.repository_id = r.repository_id and c.image = r.image and c.scanner = r.scanner
    and c.signer_id is not distinct from signer and c.aspect = any(r.aspects) and c.is_current and is_replaced(c);

  if r.finding_set is distinct from previous then
    insert into vulnerabilities_known(repository_id, image, vulnerability, severity, fixable, since)
    select distinct r.repository_id, r.image, f.vulnerability, f.severity, cardinality(f.fixed_in) > 0, r.received_at
    from findings f where f.finding_set = r.finding_set and f.suppressed is null
    on conflict do nothing;
  end if;
  if previous is not null and r.finding_set is distinct from previous then
    update vulnerabilities_known k set unsuppressed_at = r.received_at
    from (select distinct f.vulnerability from findings f where f.finding_set = previous and f.suppressed is not null
          intersect
          select distinct f.vulnerability from findings f
          where f.finding_set = r.finding_set and f.suppressed is null) again
    where k.repository_id = r.repository_id and k.image = r.image and k.vulnerability = again.vulnerability
      and k.unsuppressed_at is null and k.since < r.received_at
      and not exists (select from vulnerabilities_known o where o.repository_id = k.repository_id
                        and o.image = k.image and o.vulnerability = k.vulnerability
                        and o.unsuppressed_at is not null);
  end if;
end $$;

-- A signer that is registered after its statement came makes the statement count from then on.
create function count_signed_scans() returns trigger language plpgsql as $$
begin
  perform count_scan(r.id, new.signer_id) from scan_runs r where r.attestation_id = new.attestation_id;
  return null;
end $$;
create trigger attestation_signatures_count_scans after insert on attestation_signatures
  for each row when (new.counts_from = new.attestation_id) execute function count_signed_scans();

-- A revocation takes back what statements count for that came after it. What came before keeps its place: what it
-- found goes on counting, though it makes nothing fresh where the key is compromised.
create function discount_signed_scans() returns trigger language plpgsql as $$
declare
  images text[] := array(
    select distinct c.image from scan_coverage c join scan_runs r on r.id = c.run_id
    where c.signer_id = new.signer_id and new.distrusted_from <= r.received_at);
begin
  if cardinality(images) = 0 then
    return null;
  end if;
  update scan_coverage c set is_trusted = false, is_current = false
  from scan_runs r
  where c.signer_id = new.signer_id and r.id = c.run_id and new.distrusted_from <= r.received_at;
  update scan_coverage c set is_current = true
  where c.signer_id = new.signer_id and c.image = any(images) and c.is_trusted and not c.is_current
    and not is_replaced(c);
  return null;
end $$;
create trigger signer_revocations_discount_scans after insert on signer_revocations
  for each row execute function discount_signed_scans();

-- Retracts what count_scan() did: runs whose place it took count again.
create function discount_scan(run bigint) returns void language plpgsql as $$
begin
  update scan_coverage c set is_current = true
  from scan_coverage of_run
  where of_run.run_id = run and c.repository_id = of_run.repository_id and c.image = of_run.image
    and c.scanner = of_run.scanner and c.signer_id is not distinct from of_run.signer_id
    and c.aspect = of_run.aspect and c.is_trusted and not c.is_current and not is_replaced(c);
end $$;

-- Runs that were recorded before: each counts for what its findings are of. An empty one says nothing of what
-- it looked for, unless it is Grype's, which looks for vulnerabilities only.
insert into scan_coverage(repository_id, image, scanner, signer_id, aspect, filter, scanned_at, run_id, is_trusted, is_current)
select r.repository_id, coalesce(m.image, r.sha256), r.scanner, null, k.aspect, '', r.scanned_at, r.id, true,
  row_number() over (partition by r.repository_id, coalesce(m.image, r.sha256), r.scanner, k.aspect
                     order by r.scanned_at desc, r.id desc) = 1
from scan_runs r
left join lateral (
  select scanned_as(m) as image from manifests m
  where m.repository_id = r.repository_id and m.sha256 = r.sha256 limit 1) m on true
cross join lateral (
  select aspect_of(f.class, null) as aspect from findings f where f.finding_set = r.finding_set
  union
  select 'vulnerabilities' where r.scanner = 'grype') k;

-- The gathering statement asks by coverage now.
drop index scan_runs_newest;
