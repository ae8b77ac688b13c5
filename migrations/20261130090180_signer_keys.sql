-- A signer is a name that policies use, with the identities whose signatures count as its own. An identity is a
-- public key, or what a certificate of keyless signing states. A public key is one identity of one signer, however
-- it is encoded and by whatever schemes it signs.
create table signer_identities(
  id bigint generated always as identity primary key,
  signer_id bigint not null references signers,
  kind text collate "C" not null constraint an_identity_is_of_a_known_kind check (kind in ('key', 'certificate')),
  -- Of a key: SHA-256 of the DER of its SubjectPublicKeyInfo in the one form that the registry writes, hex; that
  -- form as PEM; the schemes that it signs by.
  key_id text collate "C",
  public_key_pem text collate "C",
  schemes text[] collate "C" not null,
  -- Of a certificate.
  issuer text collate "C",
  identity text collate "C",
  claims jsonb,
  -- What was received in this time counts. It is extended, never shortened: what ends earlier is revoked.
  valid_from timestamptz not null constraint an_identitys_time_can_be_written check (can_be_written(valid_from)),
  valid_until timestamptz constraint an_identitys_end_can_be_written check (can_be_written(valid_until)),
  registered_by bigint not null references principals,
  registered_at timestamptz not null default clock_timestamp(),
  -- Of the newest event about it.
  changed_by bigint not null references principals,
  changed_at timestamptz not null,
  -- The schemes that count: pending envelopes were verified by them. While others are left, the identity is being
  -- verified: the pending attestations up to verify_to are tried, and those up to verified_to were.
  active_schemes text[] collate "C" not null default '{}',
  verify_to bigint not null default 0,
  verified_to bigint not null default 0,
  -- False for keys that an earlier version registered, until the service has written them in its one form; it
  -- does so when it starts. Their events name the id that they had.
  is_canonical bool not null default true,
  former_key_id text collate "C",
  -- An earlier version registered one key as two signers. Both stay, and a threshold counts them once.
  shares_key_with bigint references signer_identities,
  constraint an_identity_is_a_key_or_a_certificate check (case kind
    when 'key' then num_nonnulls(key_id, public_key_pem) = 2 and num_nonnulls(issuer, identity, claims) = 0
      and cardinality(schemes) > 0
    else num_nonnulls(key_id, public_key_pem) = 0 and num_nonnulls(issuer, identity, claims) = 3
      and schemes = '{}' end),
  constraint an_identity_is_its_signers unique (id, signer_id)
);
create unique index a_key_belongs_to_one_signer on signer_identities(key_id)
  where is_canonical and shares_key_with is null;
create index signer_identities_by_key on signer_identities(key_id);
create index signer_identities_by_signer on signer_identities(signer_id, id);
create index signer_identities_being_verified on signer_identities(signer_id) where schemes <> active_schemes;

insert into signer_identities(id, signer_id, kind, key_id, public_key_pem, schemes, valid_from, valid_until,
  registered_by, registered_at, changed_by, changed_at, active_schemes, is_canonical)
overriding system value
select id, id, 'key', key_id, public_key_pem, array[scheme], valid_from, valid_until, registered_by, registered_at,
  registered_by, registered_at, array[scheme], false
from signers;
select setval(pg_get_serial_sequence('signer_identities', 'id'), coalesce(max(id), 0) + 1, false)
from signer_identities;

alter table signers drop constraint a_key_is_registered_once_a_scheme, drop column scheme, drop column key_id,
  drop column public_key_pem, drop column valid_from, drop column valid_until;

-- Schemes are added and validity is extended; which of them count follows. The rest changes once, when the service
-- writes the key of an earlier version in its one form.
create function identities_only_grow() returns trigger language plpgsql as $$
begin
  if tg_op = 'DELETE' then
    raise exception 'rows of signer_identities are never deleted';
  end if;
  if (new.id, new.signer_id, new.kind, new.registered_by, new.registered_at)
       is distinct from (old.id, old.signer_id, old.kind, old.registered_by, old.registered_at)
     or (new.issuer, new.identity, new.claims) is distinct from (old.issuer, old.identity, old.claims)
     or old.is_canonical and (new.key_id, new.public_key_pem, new.is_canonical, new.former_key_id, new.shares_key_with)
       is distinct from (old.key_id, old.public_key_pem, old.is_canonical, old.former_key_id, old.shares_key_with)
     or not new.schemes @> old.schemes or not new.active_schemes @> old.active_schemes
     or new.valid_from > old.valid_from or coalesce(new.valid_until < coalesce(old.valid_until, 'infinity'), false) then
    raise exception 'an identity of a signer is extended or revoked, never changed';
  end if;
  return new;
end $$;
create trigger signer_identities_only_grow before update or delete on signer_identities
  for each row execute function identities_only_grow();

-- Revocations are of identities. Of several the strictest counts: the earliest time, and compromised if any says so.
alter table signer_revocations drop constraint a_signer_is_revoked_once,
  add column identity_id bigint references signer_identities;
alter table signer_revocations disable trigger signer_revocations_never_change;
update signer_revocations set identity_id = signer_id;
alter table signer_revocations enable trigger signer_revocations_never_change;
alter table signer_revocations alter column identity_id set not null,
  add constraint a_revocation_is_of_its_signers_identity
    foreign key (identity_id, signer_id) references signer_identities(id, signer_id);
create index signer_revocations_by_identity on signer_revocations(identity_id);

-- A signature is of the key that made it.
alter table attestation_signatures add column identity_id bigint;
alter table attestation_signatures disable trigger attestation_signatures_never_change;
update attestation_signatures set identity_id = signer_id;
alter table attestation_signatures enable trigger attestation_signatures_never_change;
alter table attestation_signatures drop constraint a_signature_counts_from_one_of_the_same_key,
  drop constraint attestation_signatures_pkey;
alter table attestation_signatures alter column identity_id set not null,
  add primary key (attestation_id, identity_id),
  add constraint a_signature_is_of_its_signers_key
    foreign key (identity_id, signer_id) references signer_identities(id, signer_id),
  add constraint a_signature_counts_from_one_of_the_same_key
    foreign key (counts_from, identity_id) references attestation_signatures(attestation_id, identity_id);
drop index a_signature_counts_from_its_first_receipt;
create unique index a_signature_counts_from_its_first_receipt
  on attestation_signatures(repository_id, message, identity_id) where counts_from = attestation_id;

-- Pending attestations are counted in each repository.
alter table attestations_waiting add column repository_id bigint references repositories;
update attestations_waiting w set repository_id = a.repository_id from attestations a where a.id = w.attestation_id;
alter table attestations_waiting alter column repository_id set not null;
create index attestations_waiting_in_repository on attestations_waiting(repository_id, attestation_id);

-- Signatures by a scheme of a key that is being verified. They count for and against nothing until all pending
-- envelopes were tried; then they move to attestation_signatures in one transaction.
create table attestation_signatures_found(
  identity_id bigint not null references signer_identities,
  attestation_id bigint not null references attestations,
  scheme text collate "C" not null,
  primary key (identity_id, attestation_id, scheme)
);
create index attestation_signatures_found_of_attestation on attestation_signatures_found(attestation_id);

-- Pending attestations whose envelope could not be read when a key was to be verified by it: they are malformed.
create table attestations_unreadable(
  attestation_id bigint primary key references attestations,
  reason text collate "C" not null,
  found_at timestamptz not null default clock_timestamp()
);
create trigger attestations_unreadable_never_change before update or delete on attestations_unreadable
  for each row execute function refuse_change();

-- Whether the signer's statement counts: some key of it signed the statement, was valid when it came, and is not
-- revoked from before; nor compromised, where that is asked.
create function counts_for_scan(attestation bigint, signer bigint, received timestamptz, ask_compromised bool)
returns bool language sql stable as $$
  select exists (
    select from attestation_signatures i join signer_identities k on k.id = i.identity_id
    where i.attestation_id = attestation and i.signer_id = signer and k.valid_from <= received
      and (k.valid_until is null or received < k.valid_until)
      and not exists (select from signer_revocations v
                      where v.identity_id = k.id and (v.compromised and ask_compromised or v.distrusted_from <= received)))
$$;

-- As 20261130090160_scan_scopes.sql has it, with several keys of a signer: what did not count by one key counts
-- when another key of the same signer makes it count.
create or replace function count_scan(run bigint, signer bigint) returns void language plpgsql as $$
declare
  r scan_runs;
  previous text;
  counts bool;
begin
  select * into strict r from scan_runs where id = run;
  counts := signer is null or counts_for_scan(r.attestation_id, signer, r.received_at, true);
  select p.finding_set into previous from scan_coverage c join scan_runs p on p.id = c.run_id
  where c.repository_id = r.repository_id and c.image = r.image and c.scanner = r.scanner
    and c.signer_id is not distinct from signer and c.run_id < run and c.aspect = any(r.aspects) and c.is_trusted
  order by c.scanned_at desc, c.run_id desc limit 1;

  insert into scan_coverage(repository_id, image, scanner, signer_id, aspect, filter, scanned_at, run_id, is_trusted,
    is_current)
  select r.repository_id, r.image, r.scanner, signer, a.aspect, r.filter, r.scanned_at, run, counts, counts
  from unnest(r.aspects) a(aspect)
  on conflict (run_id, aspect, (coalesce(signer_id, 0))) do update set is_trusted = true, is_current = true
    where excluded.is_trusted and not scan_coverage.is_trusted;
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

-- Whether a newer row that counts took the place of this one: as 20261130090160_scan_scopes.sql has it, and the newer
-- statement counts by the revocations of now. So a run whose signer is revoked hides no older one, whether the
-- revocation has been settled below or not.
create or replace function is_replaced(c scan_coverage) returns bool language sql stable as $$
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
        or not 'vulnerabilities/libraries' = any(newer.aspects) or 'vulnerabilities/os' = any(newer.aspects))
      and (n.signer_id is null or counts_for_scan(newer.attestation_id, n.signer_id, newer.received_at, false)))
$$;

-- Revocations that scan_coverage does not show yet. A revocation touches no row of scan_coverage, because scans that
-- are being recorded hold them, and it would not see what these are about to commit. A job settles it; until then
-- a query for the current runs of these signers also takes the runs for which is_replaced() is false.
create table scan_revocations_unsettled(
  revocation_id bigint primary key references signer_revocations,
  signer_id bigint not null references signers
);
create or replace function discount_signed_scans() returns trigger language plpgsql as $$
begin
  insert into scan_revocations_unsettled(revocation_id, signer_id) values (new.id, new.signer_id);
  return null;
end $$;

drop index scan_coverage_by_signer;
create index scan_coverage_by_signer on scan_coverage(signer_id, run_id) where signer_id is not null;

-- Takes back what statements of the signer count for that count no more, unless another key of the signer makes them
-- count: of the next runs behind this one, as many as given. What came before a revocation keeps its place. Returns
-- the last of these runs; null where there is none. The caller holds the signers alone: no scan is being recorded.
create function settle_signed_scans(signer bigint, behind bigint, limited_to int) returns bigint language plpgsql as $$
declare
  page bigint[] := array(
    select distinct c.run_id from scan_coverage c where c.signer_id = signer and c.run_id > behind
    order by c.run_id limit limited_to);
  runs bigint[] := array(
    select r.id from scan_runs r
    where r.id = any(page) and exists (
        select from scan_coverage c where c.run_id = r.id and c.signer_id = signer and c.is_trusted)
      and not counts_for_scan(r.attestation_id, signer, r.received_at, false));
begin
  if cardinality(runs) > 0 then
    update scan_coverage c set is_trusted = false, is_current = false
    where c.signer_id = signer and c.run_id = any(runs);
    update scan_coverage c set is_current = true
    from (select distinct r.repository_id, r.image from scan_runs r where r.id = any(runs)) i
    where c.repository_id = i.repository_id and c.image = i.image and c.signer_id = signer and c.is_trusted
      and not c.is_current and not is_replaced(c);
  end if;
  return page[cardinality(page)];
end $$;

-- What came outside of a key's validity counts once that is extended: of the key's statements those that came in
-- the added time, in the order in which they were recorded.
create function recount_signed_scans() returns trigger language plpgsql as $$
declare
  run bigint;
begin
  for run in
    select distinct c.run_id from scan_coverage c join scan_runs r on r.id = c.run_id
      join attestation_signatures i on i.attestation_id = r.attestation_id and i.identity_id = new.id
    where c.signer_id = new.signer_id and not c.is_trusted
      and new.valid_from <= r.received_at and (new.valid_until is null or r.received_at < new.valid_until)
      and (r.received_at < old.valid_from or old.valid_until <= r.received_at)
      and counts_for_scan(r.attestation_id, new.signer_id, r.received_at, true)
    order by c.run_id
  loop
    perform count_scan(run, new.signer_id);
  end loop;
  return null;
end $$;
create trigger signer_identities_recount_scans after update on signer_identities for each row
  when (new.valid_from <> old.valid_from or new.valid_until is distinct from old.valid_until)
  execute function recount_signed_scans();
