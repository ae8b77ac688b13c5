//! Attestations and scans. The manifests that keep them have events of their own.

use super::{Said, Wrong, wrong};
use sqlx::PgConnection;

/// The attestation is there with every signature that was verified when it came.
pub async fn attestations(connection: &mut PgConnection, said: &Said) -> sqlx::Result<Vec<Wrong>> {
    wrong!(
        connection,
        said,
        r#"select said.id as "event!", 'attestation ' || coalesce(said.facts ->> 'attestation', '?') || case
             when a.id is null then ' is gone' when s.lost then ' has lost a signature'
             else ' says otherwise' end as "what!"
           from said left join attestations a on a.id = id_said(said.facts, 'attestation')
             cross join lateral (
               select exists (
                 select from jsonb_array_elements_text(list_said(said.facts, 'signers')) k(signer)
                 where not exists (select from attestation_signatures g where g.attestation_id = a.id
                                   and g.signer_id::text = k.signer)) as lost) s
           where s.lost
             or (a.repository_id, a.carried_for, a.manifest, a.envelope, a.form, a.received_by)
               is distinct from (said.repository_id, said.digest, said.facts ->> 'manifest',
                                 said.facts ->> 'envelope', said.facts ->> 'form', said.principal_id)"#
    )
}

/// The run is there with the findings that it came to. A time of a scanner's clock counts as now at the
/// latest.
pub async fn scans(connection: &mut PgConnection, said: &Said) -> sqlx::Result<Vec<Wrong>> {
    wrong!(
        connection,
        said,
        r#"select said.id as "event!", 'scan ' || coalesce(said.facts ->> 'scan', '?') || case
             when r.id is null then ' is gone' when f.digest is null then ' has lost its findings'
             else ' says otherwise' end as "what!"
           from said left join scan_runs r on r.id = id_said(said.facts, 'scan')
             left join finding_sets f on f.digest = r.finding_set
             left join manifests m on m.repository_id = r.repository_id and m.digest = r.manifest
           where f.digest is null or r.sha256 <> m.sha256
             or (r.repository_id, r.manifest, r.scanner, r.scanner_version, r.report, r.finding_set,
                 r.received_by, r.received_at)
               is distinct from (said.repository_id, said.digest, said.facts ->> 'scanner',
                 said.facts ->> 'scanner_version', said.facts ->> 'report', said.facts ->> 'finding_set',
                 said.principal_id, said.at)
             or not is_time(r.scanned_at, least(time_said(said.facts, 'scanned_at'), said.at))
             or not is_time(r.database_updated_at, case when said.facts ->> 'database_updated_at' is not null
                            then least(time_said(said.facts, 'database_updated_at'), said.at) end)"#
    )
}
