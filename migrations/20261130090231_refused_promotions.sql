-- The same refusal within an hour is one record: its decision, and how often the promotion was asked for and refused.
create table promotion_refusals(
  id bigint generated always as identity primary key,
  principal_id bigint not null references principals,
  repository_id bigint not null references repositories,
  environment_id bigint not null references environments,
  sha256 text collate "C" not null,
  -- The digest of the outcome and of the gates that refuse.
  grounds text collate "C" not null,
  decision text collate "C" not null references decisions,
  first_at timestamptz not null,
  last_at timestamptz not null,
  times bigint not null default 1
);
create index promotion_refusals_of_principal on promotion_refusals(principal_id, first_at desc);
create index promotion_refusals_by_decision on promotion_refusals(decision);

-- What open sessions of a repository hold counts in its quota.
create index uploads_in_repository on uploads(repository);
