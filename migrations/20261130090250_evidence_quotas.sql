-- How many bytes of evidence a repository holds, and how many it may hold.

alter table repositories add column evidence_quota_bytes bigint
  constraint an_evidence_quota_can_be_written check (evidence_quota_bytes between 0 and 9007199254740991);

-- The documents that count as evidence of a repository: envelopes and scan reports as received, by the digest of their
-- blob. A document counts as long as a manifest of the repository carries it, and once however many do.
create table evidence_documents(
  repository_id bigint not null references repositories,
  digest text collate "C" not null,
  size_bytes bigint not null,
  primary key (repository_id, digest)
);

-- The sum of a repository's rows, beside the bytes of its blobs and manifests.
alter table repository_usage alter column bytes set default 0,
  add column evidence_bytes bigint not null default 0;
drop index repository_usage_by_repository;
create index repository_usage_by_repository on repository_usage(repository_id) include (bytes, evidence_bytes);

create function count_evidence() returns trigger language plpgsql as $$
begin
  insert into repository_usage(repository_id, evidence_bytes)
  select repository_id, case tg_op when 'INSERT' then sum(size_bytes) else -sum(size_bytes) end
  from changed group by repository_id;
  return null;
end $$;
create trigger evidence_is_counted after insert on evidence_documents
  referencing new table as changed for each statement execute function count_evidence();
create trigger deleted_evidence_is_counted after delete on evidence_documents
  referencing old table as changed for each statement execute function count_evidence();

-- Locked first, in a statement of its own: who records a document holds its row, and what it recorded is seen then.
create function forget_evidence() returns trigger language plpgsql
set enable_hashjoin to off set enable_mergejoin to off set jit to off as $$
begin
  perform from evidence_documents d
  where exists (select from changed c where c.repository_id = d.repository_id and c.blob = d.digest)
  order by d.repository_id, d.digest for update;
  if found then
    delete from evidence_documents d
    where exists (select from changed c where c.repository_id = d.repository_id and c.blob = d.digest)
      and not exists (select from manifest_blobs m where m.repository_id = d.repository_id and m.blob = d.digest);
  end if;
  return null;
end $$;
create trigger evidence_goes_with_what_carries_it after delete on manifest_blobs
  referencing old table as changed for each statement execute function forget_evidence();

-- What is there already. Every report has an empty configuration beside it.
insert into evidence_documents(repository_id, digest, size_bytes)
select e.repository_id, e.envelope, b.size_bytes
from (select distinct repository_id, envelope from attestations where envelope is not null) e
join blobs b on b.digest = e.envelope
where exists (select from manifest_blobs m where m.repository_id = e.repository_id and m.blob = e.envelope)
union
select s.repository_id, m.blob, b.size_bytes
from scan_runs s
join manifest_blobs m on m.repository_id = s.repository_id and m.manifest = s.report
join blobs b on b.digest = m.blob
where s.attestation_id is null
  and m.blob <> 'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a';

-- Whether what is scanned by this name was promoted in the repository at this time or later, itself or as a part of an
-- index.
create function was_promoted(repository bigint, scanned text, since timestamptz) returns bool language sql stable as $$
  with recursive above(digest) as (
    select m.digest from manifests m
    where m.repository_id = repository and (m.config_digest = substr(scanned, 8) or m.sha256 = scanned)
      and scanned_as(m) = scanned
    union
    select c.manifest from above a
    join manifest_children c on c.repository_id = repository and c.child = a.digest)
  select exists (
    select from above a join promotions p on p.repository_id = repository and p.manifest = a.digest
    where p.promoted_at >= since)
$$;
