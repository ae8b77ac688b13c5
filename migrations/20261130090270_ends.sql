-- The ends of tokens and of a principal's approvals are looked for without reading all of them.
create index tokens_that_end on tokens(expires_at) where ended_at is null;
create index approvals_by_author on approvals(by) where ended_at is null;

-- The time once for the statement, and not for each token; a token that was replaced, and ends soon, is no
-- administrator's.
create or replace function an_administrator_remains() returns bool language sql stable as $$
  with now as materialized (select decision_time() as at)
  select exists (
    select from now, grants g join tokens t on t.principal_id = g.principal_id
      and g.token_id is not distinct from case when t.has_grants then t.id end
    where g.role = 'admin' and g.repositories = '**' and g.environments is null and g.ended_at is null
      and t.ended_at is null and coalesce(t.expires_at > now.at, true))
$$;
