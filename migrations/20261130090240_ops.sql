-- Security events: what somebody tried or read without changing anything, counted together for each principal or
-- address and minute. Not part of the log: who may do nothing could otherwise make it grow without end.

create table security_events(
  id bigint generated always as identity primary key,
  kind text collate "C" not null,
  -- None where no credential held.
  principal_id bigint references principals,
  -- The token and the address of the newest of them.
  token_id uuid,
  client_address text collate "C",
  action text collate "C",
  -- Only where the caller may see it.
  repository text collate "C",
  count bigint not null constraint a_security_event_happened check (count > 0),
  first_at timestamptz not null,
  last_at timestamptz not null
);
create index security_events_by_kind on security_events(kind, id);
create index security_events_by_principal on security_events(principal_id, id);
create index security_events_by_time on security_events(last_at);

-- SHA-256 of each 4 MiB of a blob in the object store, one after the other, written when the blob is stored: a range is
-- checked by the pieces that it touches. Blobs of earlier versions have none until they are read whole.
alter table blobs add column pieces bytea
  constraint pieces_are_sha256 check (octet_length(pieces) > 0 and octet_length(pieces) % 32 = 0);
alter table blobs alter column pieces set storage external;
