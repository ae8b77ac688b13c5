//! Promotions that do not stand on what they should.

use crate::failure::Failure;
use sqlx::PgConnection;

/// A promotion that was looked at.
pub struct Row {
    pub id: i64,
    /// What is wrong with it, in words.
    pub wrong: Option<String>,
}

/// The next promotions behind this one, each as one snapshot has it.
pub async fn page(connection: &mut PgConnection, behind: i64, limit: i64) -> Result<Vec<Row>, Failure> {
    sqlx::query_as!(
        Row,
        r#"select p.id as "id!", 'promotion ' || p.id || ' of ' || coalesce(r.name, 'repository ' || p.repository_id)
             || '@' || p.manifest || case
               when d.id is null then ' stands on no decision'
               when d.outcome <> 'allow' then ' stands on a decision that says ' || d.outcome
               when (d.repository_id, d.environment_id, d.manifest)
                 is distinct from (p.repository_id, p.environment_id, p.manifest)
                 then ' stands on a decision about something else'
               when (e.repository_id, e.environment_id, e.digest, e.principal_id)
                   is distinct from (p.repository_id, p.environment_id, p.manifest, p.promoted_by)
                 or e.kind is null or e.kind not in ('promotion.allowed', 'promotion.rolled-back')
                 then ' stands on an event about something else'
               when m.sha256 is distinct from p.sha256 then ' is of other bytes than its manifest'
               when not exists (select from pins n where n.repository_id = p.repository_id and n.digest = p.manifest
                                and n.until is null) then ' is pinned by nothing'
             end as wrong
           from (select * from promotions where id > $1 order by id limit $2) p
             left join repositories r on r.id = p.repository_id
             left join decisions d on d.id = p.decision
             left join events e on e.id = p.event_id
             left join manifests m on m.repository_id = p.repository_id and m.digest = p.manifest
           order by p.id"#,
        behind,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("auditing promotions", error))
}
