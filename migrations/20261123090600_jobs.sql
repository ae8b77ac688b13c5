-- Jobs that one replica runs at a time: who has it, where it goes on, what the last run did. Nothing
-- relies on the lease to be right: what a job does is safe twice at once, the lease only saves work.

create table job_leases(
  name text collate "C" primary key,
  holder uuid,
  lease_until timestamptz,
  -- Where a run that did not come to its end goes on; null after one that did.
  state jsonb,
  -- What the last whole run did.
  report jsonb,
  started_at timestamptz,
  finished_at timestamptz,
  -- Somebody asked for a run at this time.
  wanted_at timestamptz,
  constraint a_held_job_ends check ((holder is null) = (lease_until is null))
);
