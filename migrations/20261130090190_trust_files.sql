-- Trust files: who trusts one version follows the next, which the root of both signed. Nothing in a row is believed
-- for standing here: the service checks the chain at its start, and clients check it against what they pinned.
create table trust_files(
  version integer primary key constraint versions_begin_at_1 check (version > 0),
  document bytea not null constraint a_trust_file_is_bounded check (octet_length(document) <= 65536),
  added_at timestamptz not null default clock_timestamp()
);
create trigger trust_files_never_change before update or delete on trust_files
  for each row execute function refuse_change();

-- Keys that builds before trust files registered. A registry that has them takes its first trust file with these keys;
-- nothing else reads them, and nothing writes them any more.
comment on table registry_keys is 'keys of before trust files; what is published and believed is in trust_files';
