-- Signers and attestations. That a key signed an envelope never changes and is stored once; whether
-- the key is trusted for it is judged on reading, so revoking a key needs no backfill.

create table signers(
  id bigint generated always as identity primary key,
  name text collate "C" not null constraint a_signer_name_is_unique unique,
  -- ed25519 | ed25519ph | ecdsa-p256 | ecdsa-p384 | rsa
  scheme text collate "C" not null,
  -- SHA-256 of the SubjectPublicKeyInfo's DER, hex.
  key_id text collate "C" not null,
  public_key_pem text collate "C" not null,
  -- Globs; what the key is believed for.
  repositories text[] collate "C" not null,
  predicate_types text[] collate "C" not null,
  valid_from timestamptz not null constraint a_signers_time_can_be_written check (can_be_written(valid_from)),
  valid_until timestamptz constraint a_signers_end_can_be_written check (can_be_written(valid_until)),
  registered_by bigint not null references principals,
  registered_at timestamptz not null default clock_timestamp(),
  constraint a_key_is_registered_once_a_scheme unique (key_id, scheme)
);
create trigger signers_never_change before update or delete on signers
  for each row execute function refuse_change();

-- A revocation distrusts what was received at or after `distrusted_from` (compromised: everything).
create table signer_revocations(
  id bigint generated always as identity primary key,
  signer_id bigint not null constraint a_signer_is_revoked_once unique references signers,
  distrusted_from timestamptz not null
    constraint a_revocations_time_can_be_written check (can_be_written(distrusted_from)),
  compromised bool not null,
  reason text collate "C" not null,
  revoked_by bigint not null references principals,
  revoked_at timestamptz not null default clock_timestamp()
);
create trigger signer_revocations_never_change before update or delete on signer_revocations
  for each row execute function refuse_change();

-- Envelopes and bundles exactly as received.
create table envelopes(
  digest text collate "C" primary key,
  media_type text collate "C" not null,
  body bytea not null
);
alter table envelopes alter column body set storage external;

create table predicate_types(
  id int generated always as identity primary key,
  uri text collate "C" not null constraint a_predicate_type_is_named_once unique
);

-- One attestation recorded in one repository for one subject. The columns behind predicate_type_id
-- come from the payload and are believed only together with a signature that is trusted on reading.
create table attestations(
  id bigint generated always as identity primary key,
  repository_id bigint not null references repositories,
  -- The manifest that it came for; the signed statement may be about another one.
  carried_for text collate "C" not null,
  -- The OCI manifest that carries it.
  manifest text collate "C" not null,
  -- Null when there is nothing to verify.
  envelope text collate "C" references envelopes,
  -- The signature that stands beside the envelope's bytes, as cosign's simple signing has it.
  beside text collate "C",
  -- statement: to be listed with its facts, counted when a signature is trusted.
  -- foreign: signed perhaps, but not a statement that is known here. malformed: cannot be read.
  -- opaque: nothing to verify. `why` says more; of a statement, why no signature could be checked.
  form text collate "C" not null
    constraint a_form_is_known check (form in ('statement', 'foreign', 'malformed', 'opaque')),
  why text collate "C",
  -- Set for statements only.
  predicate_type_id int references predicate_types,
  -- The digest of the bytes that every signature covers. The envelope around them is signed by nobody,
  -- so a statement that comes again is known by this. Set for statements only.
  message text collate "C",
  -- SLSA provenance.
  builder text collate "C",
  source text collate "C",
  source_ref text collate "C",
  commit_id text collate "C",
  -- Test results (PASSED, WARNED, FAILED), and what was tested: the newest for the same
  -- configuration counts. Of a verification summary, its result.
  result text collate "C",
  configuration text collate "C",
  -- The predicate, for gates that read more of it. Null for documents that other rooms read (SBOMs,
  -- vulnerability reports).
  predicate jsonb,
  received_by bigint not null references principals,
  received_at timestamptz not null default clock_timestamp(),
  constraint a_statement_has_a_predicate_type check ((form = 'statement') = (predicate_type_id is not null)),
  constraint a_statement_has_its_message check ((form = 'statement') = (message is not null)),
  constraint what_is_verified_has_an_envelope check (form = 'opaque' or envelope is not null)
);
create unique index an_envelope_is_recorded_once_a_subject
  on attestations(repository_id, carried_for, envelope, coalesce(beside, '')) where envelope is not null;
create unique index an_opaque_referrer_is_recorded_once
  on attestations(repository_id, manifest) where envelope is null;
create index attestations_newest on attestations(repository_id, id desc);
create index attestations_by_artifact on attestations(repository_id, carried_for);
create index attestations_by_source on attestations(source, commit_id) where source is not null;
create index attestations_by_builder on attestations(builder) where builder is not null;
create trigger attestations_never_change before update or delete on attestations
  for each row execute function refuse_change();

-- What a build took in. Digests as the builder names them, algorithm:hex.
create table attestation_materials(
  attestation_id bigint not null references attestations,
  position int not null,
  uri text collate "C",
  digests text[] collate "C" not null,
  primary key (attestation_id, position)
);
create index attestation_materials_by_uri on attestation_materials(uri) where uri is not null;
create index attestation_materials_by_digest on attestation_materials using gin(digests);

-- Subjects that the signed statement names, by digest (hex with its algorithm); and the artifacts that
-- are just a file which it names, with that file's digest.
create table attestation_subjects(
  repository_id bigint not null references repositories,
  digest text collate "C" not null,
  attestation_id bigint not null references attestations,
  file text collate "C",
  primary key (repository_id, digest, attestation_id)
);
create index attestation_subjects_by_attestation on attestation_subjects(attestation_id);

-- This key signed exactly these bytes: verified once, true for ever.
create table attestation_signatures(
  attestation_id bigint not null references attestations,
  signer_id bigint not null references signers,
  -- Those of the attestation.
  repository_id bigint not null,
  message text collate "C" not null,
  -- The attestation by which the repository received this key's signature of this message first. Its
  -- time and its place in the order are those of the signature, however often, by whomever and inside
  -- whatever envelope it comes again: who has no key makes nothing newer.
  counts_from bigint not null references attestations,
  primary key (attestation_id, signer_id),
  constraint a_signature_counts_from_one_of_the_same_key
    foreign key (counts_from, signer_id) references attestation_signatures(attestation_id, signer_id)
);
create unique index a_signature_counts_from_its_first_receipt
  on attestation_signatures(repository_id, message, signer_id) where counts_from = attestation_id;
create index attestation_signatures_by_signer on attestation_signatures(signer_id);
create trigger attestation_signatures_never_change before update or delete on attestation_signatures
  for each row execute function refuse_change();

-- Statements with a signature that no registered key verifies: what a signer that is registered later
-- is held against. What a signature hints at is not asked: hints are signed by nobody, and other tools
-- have key ids of the same form.
create table attestations_waiting(
  attestation_id bigint primary key references attestations
);
