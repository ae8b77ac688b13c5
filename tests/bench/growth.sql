-- Fills bench/growth-0, which has one image, with :images more of :layers blobs each, their tags t1, t2 ...
-- Every digest is that of the bytes. Without triggers and foreign keys: what they would find is put right here.
begin;
set local synchronous_commit = off;
set local session_replication_role = replica;

create temp table home on commit drop as
select id, created_by from repositories where name = 'bench/growth-0';

create temp table layers on commit drop as
select image, layer, content, 'sha256:' || encode(sha256(content), 'hex') as digest
from generate_series(1, :images) image, generate_series(1, :layers) layer,
  convert_to('layer ' || layer || ' of image ' || image, 'UTF8') content;

insert into blobs(digest, size_bytes, bytes) select digest, length(content), content from layers;
insert into blob_links(repository_id, digest, protected_until)
select home.id, digest, now() - interval '1 day' from layers, home;

create temp table images on commit drop as
select image, body, 'sha256:' || encode(sha256(body), 'hex') as digest,
  'sha512:' || encode(sha512(body), 'hex') as sha512, bytes
from (
  select image, sum(length(content)) as bytes, convert_to(format(
      '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}',
      string_agg(described, '') filter (where layer = 1),
      string_agg(described, ',' order by layer) filter (where layer > 1)), 'UTF8') as body
  from layers, format('{"mediaType":"application/octet-stream","digest":"%s","size":%s}', digest, length(content)) described
  group by image) made;

insert into manifests(repository_id, digest, sha256, sha512, media_type, config_media_type, total_size_bytes, body, pushed_by)
select home.id, digest, digest, sha512, 'application/vnd.oci.image.manifest.v1+json', 'application/octet-stream',
  length(body) + bytes, body, home.created_by
from images, home;
insert into manifest_blobs(repository_id, manifest, blob)
select home.id, images.digest, layers.digest from images join layers using (image), home;
insert into tags(repository_id, name, digest, claimed_by)
select home.id, 't' || image, digest, home.created_by from images, home;
insert into repository_usage(repository_id, bytes)
select home.id, (select sum(length(content)) from layers) + (select sum(length(body)) from images) from home;
commit;
vacuum analyze;
