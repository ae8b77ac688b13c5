-- Scan results. A set of findings is stored once, by the digest of its normalised content; runs
-- point to it.

create table finding_sets(
  digest text collate "C" primary key,
  -- Open findings by severity, and what the scanner suppressed: {"critical": 0, "high": 2, ...,
  -- "suppressed": 1}. The gates read the rows.
  counts jsonb not null,
  created_at timestamptz not null default clock_timestamp()
);

create table findings(
  finding_set text collate "C" not null references finding_sets,
  position int not null,
  -- vulnerability | secret | misconfiguration | license
  class text collate "C" not null,
  -- The CVE where exactly one is known, else the scanner's own id.
  vulnerability text collate "C" not null,
  aliases text[] collate "C" not null,
  package text collate "C" not null,
  purl text collate "C",
  installed text collate "C" not null,
  fixed_in text[] collate "C" not null,
  -- The rating chosen by the configured order, with its source; all ratings are in `ratings`.
  severity text collate "C" not null,
  severity_source text collate "C" not null,
  ratings jsonb not null,
  -- Null: open. Otherwise why the scanner itself suppressed it.
  suppressed text collate "C",
  title text collate "C" not null default '',
  primary key (finding_set, position)
);
create trigger finding_sets_never_change before update or delete on finding_sets
  for each row execute function refuse_change();
create trigger findings_never_change before update or delete on findings
  for each row execute function refuse_change();
create index findings_by_vulnerability on findings(vulnerability);
create index findings_by_alias on findings using gin(aliases);

create table scan_runs(
  id bigint generated always as identity primary key,
  repository_id bigint not null references repositories,
  -- The subject's manifest, and its bytes' SHA-256 (what gates look up).
  manifest text collate "C" not null,
  sha256 text collate "C" not null,
  scanner text collate "C" not null,
  scanner_version text collate "C" not null,
  -- How new its vulnerability database was; null when neither report nor uploader says, which a gate
  -- on the database's age takes for too old. Never newer than received_at.
  database_updated_at timestamptz
    constraint a_databases_time_can_be_written check (can_be_written(database_updated_at)),
  -- When the scanner says it ran, or else when its report came; never newer than received_at. The
  -- newest run of a scanner is the one with the greatest (scanned_at, id): an old report that comes
  -- late takes nothing's place.
  scanned_at timestamptz not null constraint a_scans_time_can_be_written check (can_be_written(scanned_at)),
  finding_set text collate "C" not null references finding_sets,
  -- The OCI artifact that holds the raw report and refers to the subject.
  report text collate "C" not null,
  received_by bigint not null references principals,
  received_at timestamptz not null default clock_timestamp(),
  -- The same bytes sent again are the same run: they must not pass for a newer scan.
  constraint a_report_is_recorded_once unique (repository_id, report, scanner)
);
create index scan_runs_newest on scan_runs(repository_id, sha256, scanner, scanned_at desc, id desc);
-- A run is asked for by any digest of what was scanned.
create index scan_runs_by_manifest on scan_runs(manifest);
create index scan_runs_by_repository on scan_runs(repository_id, id desc);
create index scan_runs_by_sha256 on scan_runs(sha256);
create index scan_runs_by_finding_set on scan_runs(finding_set);
create trigger scan_runs_never_change before update or delete on scan_runs
  for each row execute function refuse_change();
