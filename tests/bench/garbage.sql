-- A thousand blobs of bench/growth-0 that no manifest needs and whose grace period is over.
with home as (select id from repositories where name = 'bench/growth-0'),
made as (
  insert into blobs(digest, size_bytes, bytes)
  select 'sha256:' || encode(sha256(content), 'hex'), length(content), content
  from generate_series(1, 1000) n, convert_to(n || gen_random_uuid()::text, 'UTF8') content
  returning digest)
insert into blob_links(repository_id, digest, protected_until)
select id, digest, now() - interval '1 day' from made, home;
