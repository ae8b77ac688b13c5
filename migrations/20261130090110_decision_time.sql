-- The time by which statements decide: the later of the clock and the newest event's time, so that a clock that
-- was set back puts nothing in force again that had ended. In a condition it is written (select decision_time()):
-- once per statement, not once per row.
create function decision_time() returns timestamptz language plpgsql volatile parallel safe as $$
begin
  return greatest(clock_timestamp(), (select at from events order by id desc limit 1));
end $$;
