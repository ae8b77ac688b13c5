-- What the registry's own manifest of one file is: that file.

-- The file, where the manifest is exactly the one that `PUT /artifacts` writes of it. What is said about a file counts
-- for this manifest only.
alter table manifests add column file text collate "C";

-- The same as `content::file_of`, for what is there already.
with written as (
  select repository_id, digest, regexp_match(convert_from(body, 'UTF8'), '^\{"artifactType":"[^"\\]+","config":\{'
    '"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",'
    '"mediaType":"application/vnd\.oci\.empty\.v1\+json","size":2\},"layers":\[\{"annotations":\{'
    '"org\.opencontainers\.image\.title":"((?:[^"\\/\u0001-\u001f\u007f-\u009f]|\\")+)"\},"digest":"(sha256:[0-9a-f]{64})",'
    '"mediaType":"application/octet-stream","size":(?:0|[1-9][0-9]*)\}\],'
    '"mediaType":"application/vnd\.oci\.image\.manifest\.v1\+json","schemaVersion":2\}$') as found
  from manifests
  where artifact_type is not null and config_media_type = 'application/vnd.oci.empty.v1+json' and length(body) < 4096)
update manifests m set file = w.found[2] from written w
where m.repository_id = w.repository_id and m.digest = w.digest and w.found is not null
  and w.found[1] not in ('.', '..') and octet_length(replace(w.found[1], '\"', '"')) <= 255;

create index manifests_by_file on manifests(repository_id, file) where file is not null;

-- Before, any manifest around a file counted as the file. Such a row goes on standing for what runs, and counts for no
-- promotion.
alter table attestation_subjects add column former bool not null default false
  constraint only_the_subject_of_a_file_is_a_former_one check (file is not null or not former);
update attestation_subjects s set former = true
where s.file is not null and not exists (
  select from manifests m where m.repository_id = s.repository_id and m.sha256 = s.digest and m.file = s.file);
