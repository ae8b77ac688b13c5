-- By what gates ask for statements: which signer's key signed one of which predicate type about which bytes. What no
-- key signed is not in it. So a question reads the statements that its gates name, however many others there are.
create table attestation_evidence(
  repository_id bigint not null,
  digest text collate "C" not null,
  predicate_type_id int not null,
  signer_id bigint not null,
  attestation_id bigint not null,
  envelope text collate "C",
  -- Its result may say FAILED.
  failed bool not null,
  primary key (repository_id, digest, predicate_type_id, signer_id, attestation_id)
);
create index attestation_evidence_failed on attestation_evidence(repository_id, digest) where failed;

-- A signature, or a subject, that comes later makes evidence of what is there.
create function signatures_are_evidence() returns trigger language plpgsql as $$
begin
  insert into attestation_evidence
  select distinct s.repository_id, s.digest, a.predicate_type_id, i.signer_id, a.id, a.envelope,
    coalesce(a.result ilike '%failed%', false)
  from added i join attestations a on a.id = i.attestation_id join attestation_subjects s on s.attestation_id = a.id
  where i.counts_from = a.id and a.predicate_type_id is not null
  on conflict do nothing;
  return null;
end $$;
create trigger attestation_signatures_are_evidence after insert on attestation_signatures
  referencing new table as added for each statement execute function signatures_are_evidence();

create function subjects_are_evidence() returns trigger language plpgsql as $$
begin
  insert into attestation_evidence
  select distinct s.repository_id, s.digest, a.predicate_type_id, i.signer_id, a.id, a.envelope,
    coalesce(a.result ilike '%failed%', false)
  from added s join attestations a on a.id = s.attestation_id join attestation_signatures i on i.attestation_id = a.id
  where i.counts_from = a.id and a.predicate_type_id is not null
  on conflict do nothing;
  return null;
end $$;
create trigger attestation_subjects_are_evidence after insert on attestation_subjects
  referencing new table as added for each statement execute function subjects_are_evidence();

insert into attestation_evidence
select distinct s.repository_id, s.digest, a.predicate_type_id, i.signer_id, a.id, a.envelope,
    coalesce(a.result ilike '%failed%', false)
from attestations a join attestation_subjects s on s.attestation_id = a.id
join attestation_signatures i on i.attestation_id = a.id and i.counts_from = a.id
where a.predicate_type_id is not null;

-- Recorded evidence is found by its envelope.
create index attestation_evidence_by_envelope on attestation_evidence(repository_id, digest, envelope);
