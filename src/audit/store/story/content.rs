//! Repositories, manifests and tags. What is of blobs is compared with manifests and with bytes: a blob that
//! no manifest needs is collection's to take.

use super::{Said, Wrong, wrong};
use sqlx::PgConnection;

/// The repository has the rules that its last event gave it. A first push gives it those for tags alone.
pub async fn repositories(connection: &mut PgConnection, said: &Said) -> sqlx::Result<Vec<Wrong>> {
    wrong!(
        connection,
        said,
        r#"select said.id as "event!", 'the repository ' || r.name || ' has other rules' as "what!"
           from said join repositories r on r.id = said.repository_id
           where (to_jsonb(r.floating) is distinct from said.facts -> 'floating'
                 or said.facts ? 'description' and r.description is distinct from said.facts ->> 'description'
                 or said.facts ? 'quota_bytes'
                   and r.quota_bytes::text is distinct from said.facts ->> 'quota_bytes'
                 or said.facts ? 'retention'
                   and coalesce(r.retention, 'null') is distinct from said.facts -> 'retention')
               and not exists (select from events l where l.repository_id = r.id and l.id > said.id
                               and l.kind = 'repository.changed')"#
    )
}

/// What was pushed is there until it was deleted or expired, and then not until it was pushed again. Acts
/// on one manifest wait for each other, so their events' ids are in order.
pub async fn manifests(connection: &mut PgConnection, said: &Said) -> sqlx::Result<Vec<Wrong>> {
    wrong!(
        connection,
        said,
        r#"select said.id as "event!", 'the manifest ' || coalesce(r.name, '?') || '@' || coalesce(said.digest, '?')
             || case when m.digest is null then ' is gone' else ' is still there' end as "what!"
           from said left join repositories r on r.id = said.repository_id
             left join manifests m on m.repository_id = said.repository_id and m.digest = said.digest
           where (said.kind = 'manifest.pushed') = (m.digest is null)
             and not exists (
               select from events l
               where l.digest = said.digest and l.repository_id = said.repository_id and l.id > said.id
                 and l.kind in ('manifest.pushed', 'manifest.deleted', 'manifest.expired')
                 and (l.kind = 'manifest.pushed') <> (said.kind = 'manifest.pushed'))"#
    )
}

/// A name that a push gave is held for its digest and shown until it was deleted; one that floated then has
/// that in its history, from just before the event.
pub async fn named(connection: &mut PgConnection, said: &Said) -> sqlx::Result<Vec<Wrong>> {
    wrong!(
        connection,
        said,
        r#"select said.id as "event!", 'the tag ' || coalesce(r.name, '?') || ':' || n.name
             || case when t.digest = said.digest then ' is not shown' else ' is gone or names something else' end
             as "what!"
           from said cross join lateral jsonb_array_elements_text(list_said(said.facts, 'tags')) n(name)
             left join repositories r on r.id = said.repository_id
             left join tags t on t.repository_id = said.repository_id and t.name = n.name
             left join lateral (select hidden from tag_visibility v
                                where v.repository_id = t.repository_id and v.name = t.name
                                order by v.id desc limit 1) v on true
           where case when t.digest = said.digest then
               coalesce(v.hidden, false) and not exists (
                 select from events l cross join lateral facts_said(l.leaf) f(facts)
                 where l.digest = said.digest and l.repository_id = said.repository_id and l.id > said.id
                   and (l.kind in ('tag.deleted', 'tag.reserved') and f.facts ->> 'tag' = n.name
                     or l.kind in ('manifest.deleted', 'manifest.expired') and list_said(f.facts, 'tags') ? n.name))
             else not exists (
               select from floating_tags f
               where f.repository_id = said.repository_id and f.name = n.name and f.digest = said.digest
                 and f.moved_at between said.at - interval '1 hour' and said.at + interval '1 hour') end"#
    )
}

/// A name that was deleted, or reserved without being shown, is hidden until it was pushed; one that floated
/// then has that in its history.
pub async fn unnamed(connection: &mut PgConnection, said: &Said) -> sqlx::Result<Vec<Wrong>> {
    wrong!(
        connection,
        said,
        r#"select said.id as "event!", 'the tag ' || coalesce(r.name, '?') || ':' || coalesce(n.name, '?')
             || ' is not ' || case said.kind when 'tag.reserved' then 'reserved' else 'deleted' end as "what!"
           from said cross join lateral jsonb_array_elements_text(
               case when said.kind in ('tag.deleted', 'tag.reserved') then jsonb_build_array(said.facts -> 'tag')
                 else list_said(said.facts, 'tags') end) n(name)
             left join repositories r on r.id = said.repository_id
             left join tags t on t.repository_id = said.repository_id and t.name = n.name and t.digest = said.digest
             left join lateral (select hidden from tag_visibility v
                                where v.repository_id = t.repository_id and v.name = t.name
                                order by v.id desc limit 1) v on true
           where not coalesce(v.hidden, false)
             and not exists (
               select from floating_tags f
               where f.repository_id = said.repository_id and f.name = n.name and f.digest is null
                 and f.moved_at between said.at - interval '1 hour' and said.at + interval '1 hour')
             and not exists (
               select from events l
               where t.name is not null and l.digest = said.digest and l.repository_id = said.repository_id
                 and l.id > said.id and l.kind = 'manifest.pushed'
                 and list_said(facts_said(l.leaf), 'tags') ? n.name)"#
    )
}
