-- Tokens and what principals may do. A secret is 256 random bits, so its SHA-256 is enough: there
-- is nothing to guess that a slow hash would protect, and every request checks one.

create table tokens(
  id uuid primary key,
  principal_id bigint not null references principals,
  secret_sha256 bytea not null constraint a_secret_belongs_to_one_token unique
    constraint a_secret_is_kept_as_a_sha256 check (length(secret_sha256) = 32),
  created_by bigint not null references principals,
  created_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz,
  ended_at timestamptz,
  ended_by bigint references principals
);
create index tokens_by_principal on tokens(principal_id);
create trigger tokens_only_end before update on tokens
  for each row execute function refuse_change_but_ending();

create table grants(
  id bigint generated always as identity primary key,
  principal_id bigint not null references principals,
  role text collate "C" not null,
  repositories text collate "C" not null,
  -- null: every environment.
  environments text[] collate "C",
  created_by bigint not null references principals,
  created_at timestamptz not null default clock_timestamp(),
  ended_at timestamptz,
  ended_by bigint references principals
);
create index grants_open on grants(principal_id) where ended_at is null;
-- The same role given again is the same grant. By a digest, since names of environments may be many; no
-- environment is called '*'.
create function grant_digest(repositories text, environments text[]) returns bytea
language sql immutable parallel safe as $$
  select sha256(convert_to(repositories || E'\n' || coalesce(array_to_string(environments, ','), '*'), 'UTF8'))
$$;
create unique index a_grant_is_given_once
  on grants(principal_id, role, grant_digest(repositories, environments)) where ended_at is null;
create trigger grants_only_end before update on grants
  for each row execute function refuse_change_but_ending();

-- Raised by whatever narrows somebody's authority; the replicas' caches of callers compare it.
create table access_generation(
  one bool primary key default true constraint there_is_one_access_generation check (one),
  generation bigint not null
) with (fillfactor = 20);
insert into access_generation(generation) values (0);

-- A repeated POST is answered from here: per principal, with the body's digest. The row is written in
-- the transaction of what was asked, so whoever has the key has the deed, and nobody has it twice.
create table idempotency_keys(
  principal_id bigint not null references principals,
  key text collate "C" not null,
  request_sha256 bytea not null,
  status smallint not null,
  response bytea not null,
  created_at timestamptz not null default clock_timestamp(),
  primary key (principal_id, key)
);
create index idempotency_keys_by_age on idempotency_keys(created_at);

-- The registry's own public keys and names, written once: they never follow an address or a URL.
create table registry_identity(
  one bool primary key default true constraint there_is_one_identity check (one),
  verifier_id text collate "C" not null,
  log_origin text collate "C" not null,
  public_name text collate "C" not null,
  created_at timestamptz not null default clock_timestamp()
);
create table registry_keys(
  key_id text collate "C" primary key,
  role text collate "C" not null,
  public_key_pem text collate "C" not null,
  valid_from timestamptz not null default clock_timestamp(),
  valid_until timestamptz
);
create trigger the_identity_never_changes before update or delete on registry_identity
  for each row execute function refuse_change();
create trigger registered_keys_are_never_deleted before delete on registry_keys
  for each row execute function refuse_change();
