-- Parts of the statement that gathers the facts of a decision (src/promotion/store/facts.rs) which most versions
-- do not need. Postgres prepares every part of a statement each time it runs, used or not; the body of a
-- function is prepared when it is called. Being stable, they read the snapshot of the calling
-- statement; being strict, they are not called without names.

-- Waivers of vulnerabilities with these names, in upper case, that cover these bytes in the environment.
create function waivers_of(names text[], bytes text[], environment bigint) returns json
language plpgsql stable strict parallel safe set plan_cache_mode = force_generic_plan as $$
begin
  return (
    select coalesce(json_agg(json_build_object('id', v.id, 'repositories', v.repositories, 'sha256', v.sha256,
      'vulnerabilities', (select array_agg(n.vulnerability) from waiver_vulnerabilities n where n.waiver_id = v.id),
      'package', v.package, 'status', v.status, 'reason', v.reason,
      'created_by', (select w.name from principals w where w.id = v.created_by),
      'approved_by', (select w.name from principals w where w.id = v.approved_by),
      'approved_at', v.approved_at, 'expires_at', v.expires_at, 'ended_at', v.ended_at)), '[]')
    from waivers v
    where v.approved_by is not null and (v.sha256 is null or v.sha256 = any(bytes))
      and (v.environment_id is null or v.environment_id = environment)
      and v.id in (select n.waiver_id from waiver_vulnerabilities n where upper(n.vulnerability) = any(names)));
end $$;

-- Since when vulnerabilities with these names, in upper case, are known of the bytes.
create function vulnerabilities_known_of(repository bigint, bytes text, names text[]) returns json
language plpgsql stable strict parallel safe set plan_cache_mode = force_generic_plan as $$
begin
  return (
    select coalesce(json_agg(json_build_object('vulnerability', k.vulnerability, 'severity', k.severity,
      'fixable', k.fixable, 'since', k.since, 'unsuppressed_at', k.unsuppressed_at)), '[]')
    from vulnerabilities_known k
    where k.repository_id = repository and k.sha256 = bytes and upper(k.vulnerability) = any(names));
end $$;

-- When the bytes were current in these environments.
create function stays_in(repository bigint, bytes text, names text[]) returns json
language plpgsql stable strict parallel safe set plan_cache_mode = force_generic_plan as $$
begin
  return (
    select coalesce(json_agg(json_build_object('environment', e.name, 'since', stay.standing_since,
      'until', later.promoted_at, 'rolled_back', coalesce(later.kind = 'rollback', false))), '[]')
    from environments e
    cross join lateral (
      select s.id, s.standing_since from promotions s
      where s.repository_id = repository and s.environment_id = e.id and s.sha256 = bytes
      order by s.id desc limit 1
    ) stay
    left join lateral (
      select n.promoted_at, n.kind from promotions n
      where n.repository_id = repository and n.environment_id = e.id and n.id > stay.id
      order by n.id limit 1
    ) later on true
    where e.name = any(names));
end $$;

create index waiver_vulnerabilities_by_upper_case on waiver_vulnerabilities(upper(vulnerability), waiver_id);
