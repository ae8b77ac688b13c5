-- Who acts, what is locked, and what happened: the tables that every other one leans on.
-- Columns that hold a name or a digest are collate "C": bytes order as in the service, and an
-- index look-up stays an index look-up.

-- Takes transaction advisory locks one after the other, in the order given (callers give: global,
-- environment, repository, lane). A statement of its own, so that the next snapshot is newer.
create function take_scopes(classes int[], keys int[], exclusive bool[]) returns void
language plpgsql as $$
begin
  for i in 1 .. coalesce(array_length(classes, 1), 0) loop
    if exclusive[i] then
      perform pg_advisory_xact_lock(classes[i], keys[i]);
    else
      perform pg_advisory_xact_lock_shared(classes[i], keys[i]);
    end if;
  end loop;
end $$;

-- For tables that only ever grow.
create function refuse_change() returns trigger language plpgsql as $$
begin
  raise exception 'rows of % are never changed', tg_table_name using errcode = 'restrict_violation';
end $$;

-- For facts that can end: the one change allowed is to set ended_at (and by whom), once.
create function refuse_change_but_ending() returns trigger language plpgsql as $$
begin
  if old.ended_at is not null or new.ended_at is null
     or to_jsonb(new) - 'ended_at' - 'ended_by' is distinct from to_jsonb(old) - 'ended_at' - 'ended_by' then
    raise exception 'a fact in % can only be ended, once', tg_table_name using errcode = 'restrict_violation';
  end if;
  return new;
end $$;

-- Times that callers give lie in years of four digits: RFC 3339 has no other, so one row beyond would
-- make every answer that shows it unreadable.
create function can_be_written(at timestamptz) returns bool language sql immutable parallel safe
  return at >= '1970-01-01 00:00:00Z'::timestamptz and at < '10000-01-01 00:00:00Z'::timestamptz;

-- For the audit, which compares rows with what events say of them. What does not say it as it should says
-- nothing, so that one event that was tampered with does not hide the others. What catches an exception runs in
-- a subtransaction, which no parallel worker may begin: those are not parallel safe.
create function facts_said(leaf bytea) returns jsonb language plpgsql immutable as $$
begin
  return convert_from(leaf, 'UTF8')::jsonb -> 'facts';
exception when others then
  return null;
end $$;
create function id_said(facts jsonb, name text) returns bigint language sql immutable
  return case when facts ->> name ~ '^[0-9]{1,18}$' then (facts ->> name)::bigint end;
create function uuid_said(facts jsonb, name text) returns uuid language sql immutable
  return case when facts ->> name ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then (facts ->> name)::uuid end;
create function list_said(facts jsonb, name text) returns jsonb language sql immutable
  return case jsonb_typeof(facts -> name) when 'array' then facts -> name else '[]' end;
-- A time is told as the caller gave it, and kept to the microsecond.
create function time_is_said(kept timestamptz, facts jsonb, name text) returns bool language plpgsql stable as $$
declare
  said timestamptz := (facts ->> name)::timestamptz;
begin
  return coalesce(abs(extract(epoch from kept - said)) < 0.001, kept is null and said is null);
exception when others then
  return false;
end $$;

create table principals(
  id bigint generated always as identity primary key,
  name text collate "C" not null constraint a_principal_name_is_unique unique,
  created_at timestamptz not null default clock_timestamp()
);
-- The public that shows no credential; rules that open a repository are grants to it.
insert into principals(name) values ('anonymous');
-- The service itself: what no caller asked for (first token, collection of garbage).
insert into principals(name) values ('proofmark');

create table repositories(
  id bigint generated always as identity primary key,
  name text collate "C" not null constraint a_repository_name_is_unique unique,
  description text collate "C" not null default '',
  -- Globs over tags that may move; every other tag is write-once.
  floating text[] collate "C" not null,
  -- Bytes that it may hold, as many as a number in JSON can say; null: as many as there are.
  quota_bytes bigint constraint a_quota_can_be_written check (quota_bytes between 0 and 9007199254740991),
  -- What it keeps of its versions; null: everything.
  retention jsonb,
  created_by bigint not null references principals,
  created_at timestamptz not null default clock_timestamp()
);

create table environments(
  id bigint generated always as identity primary key,
  name text collate "C" not null constraint an_environment_name_is_unique unique,
  description text collate "C" not null default '',
  created_by bigint not null references principals,
  created_at timestamptz not null default clock_timestamp()
);

-- What happened. The leaf is the event's canonical JSON with a nonce, the bytes the log commits to;
-- the other columns repeat what is asked for by index.
create table events(
  id bigint generated always as identity primary key,
  kind text collate "C" not null,
  at timestamptz not null,
  principal_id bigint not null references principals,
  repository_id bigint references repositories,
  environment_id bigint references environments,
  digest text collate "C",
  leaf bytea not null
);
alter table events alter column leaf set storage external;
-- With the time, by which the event of a row is found among those of an artifact that has many.
create index events_by_digest on events(digest, at) where digest is not null;
create index events_by_repository on events(repository_id, id) where repository_id is not null;
-- What is about no artifact.
create index events_by_time on events(at) where digest is null or repository_id is null;
create trigger events_are_append_only before update or delete on events
  for each row execute function refuse_change();
create trigger events_are_never_truncated before truncate on events
  for each statement execute function refuse_change();

-- Inserted with the event, in the transaction that changes state; taken by the one sequencer.
create table log_pending(event_id bigint primary key references events);

create table log_entries(
  idx bigint primary key,
  event_id bigint not null constraint an_event_is_logged_once unique references events,
  sequenced_at timestamptz not null default clock_timestamp()
);
create trigger log_entries_are_append_only before update or delete on log_entries
  for each row execute function refuse_change();
create trigger log_entries_are_never_truncated before truncate on log_entries
  for each statement execute function refuse_change();

-- The sequencer holds this row while it works: one at a time among all replicas.
create table log_state(
  one bool primary key default true constraint there_is_one_log check (one),
  size bigint not null
) with (fillfactor = 20);
insert into log_state(size) values (0);
