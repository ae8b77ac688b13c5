-- Facts that are dated by their insertion follow the rule of decision_time() too.
alter table manifests alter column pushed_at set default decision_time();
alter table tags alter column claimed_at set default decision_time();
alter table attestations alter column received_at set default decision_time();
alter table scan_runs alter column received_at set default decision_time();
