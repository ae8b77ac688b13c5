-- Who lifts a block or hold, and where a block counts.

-- The rank of a principal's roles at a time, and the repositories in which it could block: what a block or hold of an
-- earlier version has. It knows nothing of repositories: an administrator of anything has the rank admin, so that
-- nobody with less lifts what an administrator placed.
create function rank_by_grants(principal bigint, at timestamptz) returns text language sql stable as $$
  select case when exists (select from grants g where g.principal_id = principal and g.role = 'admin'
      and g.created_at <= at and coalesce(g.ended_at > at, true)) then 'admin' else 'promoter' end
$$;
create function block_reach_by_grants(principal bigint, at timestamptz, environment bigint) returns text[]
language sql stable as $$
  select array(
    select distinct g.repositories collate "C" from grants g
    where g.principal_id = principal and g.role in ('promoter', 'admin')
      and g.created_at <= at and coalesce(g.ended_at > at, true)
      and (g.environments is null
        or (select e.name from environments e where e.id = environment) = any(g.environments))
    order by 1)
$$;

alter table blocks
  add column rank text collate "C" not null default 'promoter'
    constraint a_blocks_rank_is_known check (rank in ('promoter', 'security', 'admin')),
  -- Patterns of the repositories in which its author had the right to block when it was placed.
  add column repositories text[] collate "C" not null default '{}';
alter table holds
  add column rank text collate "C" not null default 'promoter'
    constraint a_holds_rank_is_known check (rank in ('promoter', 'security', 'admin'));

alter table blocks disable trigger blocks_only_end;
update blocks set rank = rank_by_grants(by, at), repositories = block_reach_by_grants(by, at, environment_id);
alter table blocks enable trigger blocks_only_end;
alter table holds disable trigger holds_only_end;
update holds set rank = rank_by_grants(by, at) where origin = 'manual';
alter table holds enable trigger holds_only_end;

-- From now on nothing is placed without either.
alter table blocks alter column rank drop default, alter column repositories drop default;
alter table holds alter column rank drop default;
