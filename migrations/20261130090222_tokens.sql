-- Tokens with grants of their own, ends of tokens that lie ahead, when they were used, and principals that are disabled.

alter table tokens
  -- It has the grants that were made with it, and none of its principal's.
  add column has_grants bool not null default false,
  -- The networks from which it may be used; null: from everywhere.
  add column addresses text[] collate "C";
alter table grants add column token_id uuid references tokens;
create index grants_of_tokens on grants(token_id) where token_id is not null;

-- The same role given again is the same grant: of the principal, or of the same token.
drop index a_grant_is_given_once;
create unique index a_grant_is_given_once on grants(principal_id,
  coalesce(token_id, '00000000-0000-0000-0000-000000000000'), role, grant_digest(repositories, environments))
  where ended_at is null;

-- A token whose place another took ends some time ahead, and may be revoked before that.
create function tokens_end() returns trigger language plpgsql as $$
begin
  if coalesce(new.ended_at >= old.ended_at, new.ended_at is null)
     or to_jsonb(new) - 'ended_at' - 'ended_by' is distinct from to_jsonb(old) - 'ended_at' - 'ended_by' then
    raise exception 'a token can only be ended, or ended sooner' using errcode = 'restrict_violation';
  end if;
  return new;
end $$;
drop trigger tokens_only_end on tokens;
create trigger tokens_only_end before update on tokens for each row execute function tokens_end();

create function token_is_live(t tokens) returns bool language sql stable
  return coalesce(t.ended_at > decision_time(), true) and coalesce(t.expires_at > decision_time(), true);

-- When a token was used, to some minutes.
create table token_uses(
  token_id uuid primary key references tokens,
  used_at timestamptz not null
);

-- A principal that is disabled gets no token and no grant.
create table principals_disabled(
  principal_id bigint primary key references principals,
  reason text collate "C" not null,
  disabled_by bigint not null references principals,
  disabled_at timestamptz not null
);

-- What somebody may do: by grants of their own, or by those of a token that holds. A function, so that a question of a
-- deployer, which as a rule finds no open approval, does not prepare it.
create function grants_of(principal bigint) returns json
language plpgsql stable strict parallel safe set plan_cache_mode = force_generic_plan as $$
begin
  return (
    select coalesce(json_agg(json_build_object('role', g.role, 'repositories', g.repositories,
      'environments', g.environments)), '[]')
    from grants g
    where g.principal_id = principal and g.ended_at is null
      and (g.token_id is null or exists (select from tokens t where t.id = g.token_id and token_is_live(t))));
end $$;

-- Whether somebody can still administer everything: a principal with a token that holds and carries that right.
create function an_administrator_remains() returns bool language sql stable as $$
  select exists (
    select from grants g join tokens t on t.principal_id = g.principal_id
      and g.token_id is not distinct from case when t.has_grants then t.id end
    where g.role = 'admin' and g.repositories = '**' and g.environments is null and g.ended_at is null
      and token_is_live(t))
$$;
