-- The order of test results and verification summaries (src/policy/results.rs).

-- When a result was signed, as its predicate says: the member `<verifier id>/signed_at`. It orders results only;
-- whether a signature counts goes by received_at. Rows that were received before this migration have none.
alter table attestations add column signed_at timestamptz
  constraint a_signed_time_can_be_written check (can_be_written(signed_at));

-- The row came first inside a pushed manifest, and not through POST /api/v1/attestations. How the rows that were
-- received before this migration came is not known: they count as received through POST.
alter table attestations add column pushed bool not null default false;

-- Receipts through POST /api/v1/attestations of results that a registered key signed: each one of a FAILED, which
-- counts from the newest, and the first one of any other result.
create table attestation_receipts(
  id bigint generated always as identity primary key,
  attestation_id bigint not null references attestations,
  received_by bigint not null references principals,
  received_at timestamptz not null default decision_time()
);
create index attestation_receipts_newest on attestation_receipts(attestation_id, received_at desc);
create trigger attestation_receipts_never_change before update or delete on attestation_receipts
  for each row execute function refuse_change();

-- Signatures that were received again in another envelope.
create index attestation_signatures_received_again on attestation_signatures(counts_from, signer_id)
  where counts_from <> attestation_id;

-- The newest receipt through POST of this signer's signature, which was received first by this attestation,
-- whatever envelope was around it; null where it came with pushes only. A function for the reason that
-- 20261130090120_facts.sql states: most statements that are gathered have no result.
create function attested_at(attestation bigint, signer bigint) returns timestamptz
language plpgsql stable strict parallel safe set plan_cache_mode = force_generic_plan as $$
begin
  return (
    select max(received.received_at) from (
      select a.received_at from attestations a where a.id = attestation and not a.pushed
      union all
      select (select max(r.received_at) from attestation_receipts r where r.attestation_id = same.id)
      from (
        select attestation as id
        union all
        select s.attestation_id from attestation_signatures s
        where s.counts_from = attestation and s.signer_id = signer and s.counts_from <> s.attestation_id
      ) same
    ) received);
end $$;
