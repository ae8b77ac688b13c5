-- What scanners and deployers know an image by: its config, and the platform that the config states.
alter table manifests
  -- Of an image.
  add column config_digest text collate "C",
  -- In normal form, such as linux/arm64 or windows(10.0.17763.6532)/amd64. Null when it is not known:
  -- the config states none, could not be read, or the manifest was pushed before this column was added.
  add column platform text collate "C";

-- What was pushed before: manifests are JSON that was checked at the push.
update manifests set config_digest = convert_from(body, 'UTF8')::json #>> '{config,digest}'
where media_type in ('application/vnd.oci.image.manifest.v1+json',
                     'application/vnd.docker.distribution.manifest.v2+json');

create index manifests_by_config on manifests(repository_id, config_digest) where config_digest is not null;

-- The place in the index's list: of two images that fit, runtimes take the first. Null for indexes that
-- were pushed before this column was added.
alter table manifest_children add column position int;

-- Platforms are now written in normal form, with the version of the operating system where the index
-- states one. Rows from before are brought to normal form when they are read.
comment on column manifest_children.platform is
  'os[(version)]/architecture[/variant]; null when the index does not say. One image may serve several.';
