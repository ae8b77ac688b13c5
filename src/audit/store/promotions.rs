//! Promotions that do not stand on what they should.

use crate::failure::Failure;
use sqlx::PgConnection;

/// One line for each that is wrong, 100 at the most.
pub async fn wrong(connection: &mut PgConnection) -> Result<Vec<String>, Failure> {
    sqlx::query_scalar!(
        r#"select 'promotion ' || p.id || ' of ' || r.name || '@' || p.manifest || ' stands on '
             || case when d.id is null then 'no decision'
                  when d.outcome <> 'allow' then 'a decision that says ' || d.outcome
                  when (d.repository_id, d.environment_id, d.manifest)
                    is distinct from (p.repository_id, p.environment_id, p.manifest) then 'a decision about something else'
                  else 'an event about something else' end as "wrong!"
           from promotions p
             join repositories r on r.id = p.repository_id
             left join decisions d on d.id = p.decision
             left join events e on e.id = p.event_id
           where d.id is null or d.outcome <> 'allow'
             or (d.repository_id, d.environment_id, d.manifest)
               is distinct from (p.repository_id, p.environment_id, p.manifest)
             or (e.repository_id, e.environment_id, e.digest)
               is distinct from (p.repository_id, p.environment_id, p.manifest)
             or e.kind is null or e.kind not in ('promotion.allowed', 'promotion.rolled-back')
           order by p.id limit 100"#
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("auditing promotions", error))
}
