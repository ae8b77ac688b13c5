-- Copies bench/template's one release into :repositories repositories of :each releases. A release
-- is all that known-good and a promotion look at: manifest, version, provenance with its signature,
-- scan run, pin, decision, event, promotion.
begin;
set local synchronous_commit = off;

insert into repositories
overriding system value
select x.* from generate_series(1, :repositories) n, repositories t,
  jsonb_populate_record(t, jsonb_build_object('id', nextval(pg_get_serial_sequence('repositories', 'id')),
    'name', :'prefix' || '-' || n)) x
where t.name = 'bench/template';

-- Every release with the ids that its rows will have; within a repository in the order of promotion.
create temp table copies on commit drop as
select row_number() over (order by i, r.id) as n, r.id as repository_id, i,
  'sha256:' || encode(sha256((r.name || ' ' || i)::bytea), 'hex') as digest,
  'sha512:' || encode(sha512((r.name || ' ' || i)::bytea), 'hex') as sha512,
  'sha256:' || encode(sha256((r.name || ' decision ' || i)::bytea), 'hex') as decision,
  'sha256:' || encode(sha256((r.name || ' report ' || i)::bytea), 'hex') as report
from repositories r cross join generate_series(1, :each) i
where r.name like :'prefix' || '-%';
analyze copies;

-- The last ids that are taken; the copies follow.
create temp table taken on commit drop as
select (select coalesce(max(id), 0) from attestations) as attestation,
  (select coalesce(max(id), 0) from events) as event,
  (select coalesce(max(id), 0) from promotions) as promotion;

create temp table template on commit drop as
select r.id as repository_id, p.manifest from repositories r join promotions p on p.repository_id = r.id
where r.name = 'bench/template';
-- One row each: whoever does not know it joins the copies with all that is there.
analyze taken;
analyze template;

insert into manifests
select x.* from copies c, template, manifests t,
  jsonb_populate_record(t, jsonb_build_object('repository_id', c.repository_id, 'digest', c.digest,
    'sha256', c.digest, 'sha512', c.sha512)) x
where t.repository_id = template.repository_id and t.digest = template.manifest;

insert into tags
select x.* from copies c, template, tags t,
  jsonb_populate_record(t, jsonb_build_object('repository_id', c.repository_id, 'name', c.i::text, 'digest', c.digest)) x
where t.repository_id = template.repository_id and t.digest = template.manifest;

insert into attestations
overriding system value
select x.* from copies c, taken, template, attestations t,
  jsonb_populate_record(t, jsonb_build_object('id', taken.attestation + c.n, 'repository_id', c.repository_id,
    'carried_for', c.digest, 'message', c.digest)) x
where t.repository_id = template.repository_id;

insert into provenance_origins(attestation_id, reader, declarable, build_type, source, source_ref, commit_id)
select taken.attestation + c.n, o.reader, o.declarable, o.build_type, o.source, o.source_ref, o.commit_id
from copies c, taken, template, attestations a join provenance_origins o on o.attestation_id = a.id and not o.superseded
where a.repository_id = template.repository_id;

insert into attestation_subjects
select c.repository_id, c.digest, taken.attestation + c.n from copies c, taken;

insert into attestation_signatures(attestation_id, signer_id, identity_id, repository_id, message, counts_from)
select taken.attestation + c.n, t.signer_id, t.identity_id, c.repository_id, c.digest, taken.attestation + c.n
from copies c, taken, template, attestations a join attestation_signatures t on t.attestation_id = a.id
where a.repository_id = template.repository_id;

insert into scan_runs
overriding system value
select x.* from copies c, template, scan_runs t,
  jsonb_populate_record(t, jsonb_build_object('id', nextval(pg_get_serial_sequence('scan_runs', 'id')),
    'repository_id', c.repository_id, 'manifest', c.digest, 'sha256', c.digest, 'report', c.report)) x
where t.repository_id = template.repository_id;

insert into scan_coverage(repository_id, image, scanner, signer_id, aspect, filter, scanned_at, run_id, is_trusted, is_current)
select r.repository_id, scanned_as(m), t.scanner, t.signer_id, t.aspect, t.filter, t.scanned_at, r.id, true, t.is_current
from copies c join scan_runs r on r.repository_id = c.repository_id and r.manifest = c.digest
join manifests m on m.repository_id = c.repository_id and m.digest = r.manifest, template, scan_coverage t
where t.repository_id = template.repository_id;

insert into pins
overriding system value
select x.* from copies c, template, pins t,
  jsonb_populate_record(t, jsonb_build_object('id', nextval(pg_get_serial_sequence('pins', 'id')),
    'repository_id', c.repository_id, 'digest', c.digest)) x
where t.repository_id = template.repository_id and t.digest = template.manifest;

insert into decisions
select x.* from copies c, template, decisions t,
  jsonb_populate_record(t, jsonb_build_object('id', c.decision, 'repository_id', c.repository_id, 'manifest', c.digest)) x
where t.repository_id = template.repository_id;

insert into events
overriding system value
select x.* from copies c, taken, template, promotions p join events t on t.id = p.event_id,
  jsonb_populate_record(t, jsonb_build_object('id', taken.event + c.n, 'repository_id', c.repository_id, 'digest', c.digest)) x
where p.repository_id = template.repository_id;

insert into promotions
overriding system value
select x.* from copies c, taken, template, promotions t,
  jsonb_populate_record(t, jsonb_build_object('id', taken.promotion + c.n, 'repository_id', c.repository_id,
    'manifest', c.digest, 'sha256', c.digest, 'version', c.i::text, 'decision', c.decision,
    'event_id', taken.event + c.n,
    'previous_id', case when c.i > 1 then taken.promotion + c.n - :repositories end)) x
where t.repository_id = template.repository_id;

select setval(pg_get_serial_sequence('attestations', 'id'), (select max(id) from attestations)),
  setval(pg_get_serial_sequence('events', 'id'), (select max(id) from events)),
  setval(pg_get_serial_sequence('promotions', 'id'), (select max(id) from promotions)) \g /dev/null
commit;
vacuum analyze;
