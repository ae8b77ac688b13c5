-- Work that follows from facts: a job is enqueued in the transaction that commits the fact, and done after it
-- by a worker of some replica, at least once.

create table job_queue(
  id bigint generated always as identity primary key,
  kind text collate "C" not null,
  -- What the job is about. Nothing is unique here: a unique index would let writers wait for each other, and
  -- a fact that is committed while the job runs would be missed. The worker runs one job for all rows of a
  -- kind and key that are due, and never two of them at once.
  key text collate "C" not null,
  payload jsonb not null,
  run_after timestamptz not null default clock_timestamp(),
  attempts int not null default 0,
  max_attempts int not null constraint a_job_is_tried check (max_attempts > 0),
  last_error text collate "C",
  -- The claim that runs it, until a time: a worker that was killed is replaced after it.
  locked_by uuid,
  locked_until timestamptz,
  created_at timestamptz not null default clock_timestamp(),
  -- It failed as often as it may. The row is kept until a job of the same kind and key succeeds.
  dead_at timestamptz,
  constraint a_claimed_job_is_claimed_until_a_time check ((locked_by is null) = (locked_until is null)),
  constraint a_dead_job_is_not_claimed check (dead_at is null or locked_by is null)
);
create index job_queue_due on job_queue(run_after, id) where dead_at is null;
create index job_queue_by_key on job_queue(kind, key);
create index job_queue_claimed on job_queue(locked_by) where locked_by is not null;
create index job_queue_dead on job_queue(kind) where dead_at is not null;
