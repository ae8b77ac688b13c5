-- The list over all exceptions is paged by time, the newest first.

create index approvals_by_time on approvals(at desc, id desc);
create index blocks_by_time on blocks(at desc, id desc);
create index holds_by_time on holds(at desc, id desc);
create index waivers_by_time on waivers(created_at desc, id desc);
create index overrides_by_time on overrides(created_at desc, id desc);
