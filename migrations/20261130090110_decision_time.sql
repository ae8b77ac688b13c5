-- The time by which statements decide: the later of the clock and the newest event's time, so that a clock that
-- was set back puts nothing in force again that had ended. Ids of events are drawn before commits, so the newest
-- is looked for among the last hundred. In a condition it is written (select decision_time()): once per statement,
-- not once per row.
create function decision_time() returns timestamptz language plpgsql volatile parallel safe as $$
begin
  return greatest(clock_timestamp(),
                  (select max(at) from (select at from events order by id desc limit 100) e));
end $$;
