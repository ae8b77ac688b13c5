//! The service put together: what every request can reach, and the loops beside the requests.

use crate::access::Lane;
use crate::audit::{self, Repair, SecurityEvents};
use crate::config::{self, Config, Database};
use crate::content::uploads::Bounds;
use crate::content::{Bodies, Collected, CollectionRules, Texts, Uploads};
use crate::evidence::SeverityOrder;
use crate::failure::Failure;
use crate::identity::{Callers, Secret};
use crate::intake::ScanReading;
use crate::jobs::{
    self, ClockWatch, CollectionSettings, Due, Handlers, JobStatuses, Jobs, Pace, QueueSettings, Restored,
    Retained, Schedule, Worker,
};
use crate::keys::{self, Keys, Source, Sources};
use crate::ledger::LogListener;
use crate::names::Digest;
use crate::postgres::roles::{self, RuntimeRole};
use crate::postgres::{Db, Growing, database_time, queue};
use crate::promotion;
use crate::shares::Shares;
use crate::storage::{Room, Store};
use crate::{attestation, evidence, identity, ledger, secret_files, telemetry, trust};
use axum_server::tls_rustls::RustlsConfig;
use std::collections::BTreeSet;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What every request can reach. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// The rooms with state of their own. Nothing here outlives a restart but what Postgres, the
/// object store and the key file hold.
pub struct Parts {
    /// The configuration, complete.
    pub config: Config,
    /// Postgres.
    pub db: Db,
    /// The object store.
    pub store: Store,
    /// Takes blobs into the store.
    pub uploads: Uploads,
    /// The registry's own keys and identity.
    pub keys: Keys,
    /// Who calls, cached with a generation.
    pub callers: Callers,
    /// Whose severity of a finding is followed.
    pub severity_order: SeverityOrder,
    /// Bytes of manifests, in memory by digest.
    pub manifest_bodies: Bodies,
    /// Which blobs are text, in memory by digest.
    pub texts: Texts,
    /// Room for documents and manifests in memory that come in.
    pub document_room: Room,
    /// Room for those that go out: whoever only reads keeps nobody from what stops something.
    pub answer_room: Room,
    /// Blobs that go out.
    pub downloads: Shares,
    /// Whether the clocks of Postgres and of this process agree.
    pub clocks: ClockWatch,
    /// How the jobs of this process do.
    pub job_statuses: JobStatuses,
    /// The log's size, as this process last heard of it.
    log_position: Growing,
    /// Requests that are worked at.
    pub turns: Shares,
    /// Those among them that stop something.
    pub stop_turns: Shares,
    /// Dry runs of promotions that are under way.
    pub dry_runs: Shares,
    /// Security events that are not written yet.
    pub security: SecurityEvents,
    /// The token without which /metrics is not answered.
    pub metrics_token: RwLock<Option<Secret>>,
    /// The certificate that is served, once it is.
    pub tls: OnceLock<RustlsConfig>,
    /// Damaged blobs that are being read again.
    looked_at: Mutex<BTreeSet<Digest>>,
    /// What the role of the service may do in Postgres.
    pub runtime_role: RuntimeRole,
    /// Files that the start or the last reload could not use.
    pub unused_files: Mutex<Vec<&'static str>>,
    /// Renders /metrics.
    pub metrics: metrics_exporter_prometheus::PrometheusHandle,
}

impl Deref for App {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// How often the log is sequenced while this process commits.
const SEQUENCE_REST: Duration = Duration::from_millis(250);
/// How often it is looked for tokens whose end is near.
const ANNOUNCE_ENDS_EVERY: Duration = Duration::from_hours(1);
/// How often it is written when tokens were used.
const WRITE_USES_EVERY: Duration = Duration::from_mins(5);

/// How often the sequencer looks for what another process committed and did not sequence.
const SEQUENCE_EVERY: Duration = Duration::from_secs(1);
/// The rest between two looks at the connection that listens to the log.
const LISTEN_EVERY: Duration = Duration::from_millis(10);
/// How often the clocks of Postgres and of this process are compared.
const MEASURE_CLOCKS_EVERY: Duration = Duration::from_secs(5);
/// How often a replica looks for a trust file that another one was given.
const FOLLOW_TRUST_EVERY: Duration = Duration::from_secs(30);
/// How often jobs about signers that failed for good are enqueued again.
const RETRY_DEAD_JOBS_EVERY: Duration = Duration::from_mins(5);
/// How often the queue is looked at for jobs that are due; new log entries wake it earlier.
const QUEUE_EVERY: Duration = Duration::from_secs(2);
/// How often the queue is looked at while the log grows.
const QUEUE_REST: Duration = Duration::from_millis(100);
/// How often security events are written. A crash loses those since the last time.
const WRITE_SECURITY_EVENTS_EVERY: Duration = Duration::from_mins(1);
/// How long after all damaged blobs were read again they are read once more: who restored the store's bytes gets them
/// back by that.
const RESTORE_BLOBS_EVERY: Duration = Duration::from_mins(10);
/// How often a replica looks whether they are to be read again, or another replica's run was cut off.
const LOOK_FOR_DAMAGED_EVERY: Duration = Duration::from_mins(1);
/// How often security events are deleted that are too old or too many.
const FORGET_SECURITY_EVENTS_EVERY: Duration = Duration::from_hours(1);
/// Dry runs at once; one principal has half of them.
const CONCURRENT_DRY_RUNS: usize = 16;

/// How often summaries are looked for that are to be renewed, and how many are enqueued in a run.
const RENEW_EVERY: Duration = Duration::from_secs(30);
const ENQUEUED_AT_ONCE: i64 = 10_000;
/// How often provenance is looked for that is to be read anew.
const READ_ANEW_EVERY: Duration = Duration::from_mins(5);
/// How often upload sessions that nobody goes on with are ended.
const EXPIRE_EVERY: Duration = Duration::from_mins(1);
/// How often a replica looks whether a collection is due or was asked for.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often the store is walked for bytes that nobody needs.
const SWEEP_EVERY: Duration = Duration::from_hours(6);
/// Bytes are swept at this age at the earliest, however soon sessions expire: a body that comes in
/// one request has no session, and is nobody's until its row is written.
const LEAST_SWEPT_AGE: Duration = Duration::from_hours(24);
/// How often what the histograms took in is summed up. Without it samples pile up until somebody
/// scrapes /metrics, and nobody has to.
const SUM_UP_EVERY: Duration = Duration::from_secs(5);

impl App {
    /// How the reports of scanners in signed statements are read.
    pub fn scan_reading(&self) -> ScanReading<'_> {
        ScanReading {
            order: &self.severity_order,
            max_findings: self.config.limits.findings,
            max_pending: self.config.limits.pending_envelopes,
            evidence_bytes: self.config.limits.evidence_bytes,
        }
    }

    /// Opens everything over a database that is reachable: migrates it, opens the store, reads or
    /// makes the keys, and reads or makes the first administrator's token.
    pub async fn assemble(config: Config, db: Db) -> Result<Self, Failure> {
        // Before anything is written: the database may be somebody else's.
        let key_source = key_source(&config)?;
        may_be_a_first_start(&db, &config, &key_source).await?;
        let (runtime_role, store) = tokio::try_join!(migrate(&db, &config), Store::open(&config.storage))?;
        if config.blob_redirect.is_some() && !store.can_redirect() {
            let why = "clients cannot be sent to files: unset it, or keep blobs in an object store";
            return Err(Failure::new("reading PROOFMARK_BLOB_REDIRECT_SECONDS", why));
        }
        let clocks = ClockWatch::default();
        clocks.measure(&db).await?;
        for path in store_secrets(&config.storage) {
            secret_files::read(&path, config.secret_file_mode)
                .map_err(|unusable| Failure::new("reading the object store's credentials", unusable))?;
        }
        let keys = open_keys(&db, &config, &key_source, &store).await?;
        trust::take_over(&db).await?;
        attestation::enqueue_verifying(&db, Duration::ZERO).await?;
        evidence::enqueue_settling(&db, Duration::ZERO).await?;
        let uploads = Uploads::new(db.clone(), store.clone(), bounds(&config), Some(keys.began()));
        let unused = match &config.admin_token_file {
            Some(path) => {
                unless_ended(identity::ensure_admin_token(&db, path, config.secret_file_mode).await)?
            }
            None => None,
        };
        // This release may read them otherwise than the one before.
        attestation::enqueue_reading(&db).await?;
        let callers = Callers::new(config.wrong_credentials_per_minute);
        let severity_order = match &config.severity_order {
            Some(text) => {
                text.parse().map_err(|why: String| Failure::new("reading PROOFMARK_SEVERITY_ORDER", why))?
            }
            None => SeverityOrder::default(),
        };
        let manifest_bodies = Bodies::new(config.manifest_cache_bytes);
        let document_room = Room::of(config.limits.document_memory_bytes);
        let answer_room = Room::of(config.limits.document_memory_bytes);
        let downloads = Shares::halves(config.limits.concurrent_downloads);
        let dry_runs = Shares::halves(CONCURRENT_DRY_RUNS);
        let (turns, stop_turns) = turns(&config);
        let metrics = telemetry::start_metrics()?;
        let security = SecurityEvents::new(config.security_events_per_minute);
        let metrics_token = RwLock::new(metrics_token(&config)?);
        Ok(Self(Arc::new(Parts {
            config,
            db,
            store,
            uploads,
            keys,
            callers,
            severity_order,
            manifest_bodies,
            texts: Texts::default(),
            document_room,
            answer_room,
            downloads,
            clocks,
            job_statuses: JobStatuses::default(),
            log_position: Growing::default(),
            turns,
            stop_turns,
            dry_runs,
            security,
            metrics_token,
            tls: OnceLock::new(),
            looked_at: Mutex::default(),
            runtime_role,
            unused_files: Mutex::new(unused.into_iter().collect()),
            metrics,
        })))
    }

    /// Collects garbage, if it is due and no other replica does.
    pub async fn collect(&self, due: Due, stop: &CancellationToken) -> Result<Option<Collected>, Failure> {
        let settings = CollectionSettings {
            pace: Pace::percent(self.config.background_percent),
            rules: CollectionRules { object_delay: self.config.object_delay },
        };
        jobs::collect(&self.db, &self.store, settings, due, stop).await
    }

    /// Lets go of versions that enforced rules do not keep, if it is due and no other replica does.
    pub async fn retain(&self, due: Due, stop: &CancellationToken) -> Result<Option<Retained>, Failure> {
        jobs::retain(&self.db, Pace::percent(self.config.background_percent), due, stop).await
    }

    /// Enqueues the renewal of verification summaries in the last third of their validity; of how many release
    /// channels. Replicas that do it at once enqueue some twice: the worker runs one job for each channel.
    pub async fn enqueue_renewals(&self) -> Result<usize, Failure> {
        let now = database_time(&mut *self.db.acquire().await?).await?;
        let before = promotion::renewed_before(now, self.config.summary_validity);
        promotion::enqueue_due(&self.db, before, ENQUEUED_AT_ONCE).await
    }

    /// Renews the verification summaries of what may go on running in a release channel; how many.
    pub async fn renew_summaries(&self, channel: &Lane) -> Result<u64, Failure> {
        let (by, validity) = (identity::service(), self.config.summary_validity);
        let renewed = match promotion::renew(&self.db, &self.keys, &by, channel, validity).await {
            Ok(renewed) => renewed,
            Err(promotion::Refused::Failed(failure)) => return Err(failure),
            Err(refused) => return Err(Failure::new("renewing a summary", refused)),
        };
        metrics::counter!("proofmark_summaries_renewed_total").increment(renewed);
        Ok(renewed)
    }

    /// Ends upload sessions that nobody goes on with. Told to stop it is dropped where it stands: what a
    /// crash may cut off at any point is not waited for, however slow the store is.
    pub async fn sweep_sessions(&self, stop: &CancellationToken) -> Result<Option<u64>, Failure> {
        stop.run_until_cancelled(self.uploads.sweep_sessions(self.config.upload_expiry)).await.transpose()
    }

    /// Deletes bytes of this age that nobody needs. Told to stop it is dropped where it stands too.
    pub async fn sweep_store(&self, age: Duration, stop: &CancellationToken) -> Result<Option<u64>, Failure> {
        stop.run_until_cancelled(self.uploads.sweep_store(age)).await.transpose()
    }

    /// The log's size as this process last heard of it, and a wake-up for who waits for it to grow: readers of
    /// events wait for `log_position().wake().changed()`, and look again from time to time all the same, since
    /// a notification may be missed. It may lag behind the log, and never runs ahead of it.
    pub fn log_position(&self) -> &Growing {
        &self.log_position
    }

    /// A read found bytes that are not those of their digest. They are read again, and the blob is marked if they are
    /// still wrong: it is unknown until somebody pushes it again, as after `fsck --repair`.
    pub fn report_damaged(&self, digest: Digest) {
        metrics::counter!("proofmark_damaged_reads_total").increment(1);
        tracing::error!(%digest, "the bytes of a blob in the store are not those of its digest");
        // Many may read the same wrong bytes; they are read again once.
        let is_first = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.clone());
        if !is_first {
            return;
        }
        let app = self.clone();
        tokio::spawn(async move {
            let repair = Repair::Blob { digest: digest.clone() };
            match audit::repair(&app.db, &app.store, &repair, &identity::service()).await {
                Ok(true) => tracing::error!(%digest, "the damaged blob is unknown until it is pushed again"),
                Ok(false) => {
                    tracing::warn!(%digest, "the blob was read again and is whole, or marked already");
                }
                Err(failure) => {
                    tracing::error!(error = failure.chain(), %digest, "a damaged blob is not marked; run fsck");
                }
            }
            app.looked_at.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
        });
    }

    /// Reads the token files again. One that cannot be used is named, and what was read before stays.
    pub async fn reload_tokens(&self) -> Vec<(&'static str, Failure)> {
        let mut kept = Vec::new();
        match metrics_token(&self.config) {
            Ok(token) => *self.metrics_token.write().unwrap_or_else(PoisonError::into_inner) = token,
            Err(failure) => kept.push(("the metrics token", failure)),
        }
        if let Some(path) = &self.config.admin_token_file
            && let Err(refused) =
                identity::reload_admin_token(&self.db, path, self.config.secret_file_mode).await
        {
            kept.push((ADMIN_TOKEN, Failure::new(READING_ADMIN_TOKEN, refused)));
        }
        kept
    }

    /// What handles each kind of queued job.
    fn handlers(&self) -> Handlers {
        let (renewing, reevaluating) = (self.clone(), self.clone());
        let (reading, verifying, settling) = (self.clone(), self.clone(), self.clone());
        Handlers::default()
            .on(queue::RENEW_SUMMARY, move |job| {
                let app = renewing.clone();
                async move {
                    let channel = job.key.parse();
                    let channel = channel.map_err(|error| Failure::new("reading the key of a job", error))?;
                    app.renew_summaries(&channel).await.map(|_| ())
                }
            })
            .on(queue::REEVALUATE, move |job| {
                let app = reevaluating.clone();
                async move { promotion::reevaluate(&app.db, &job.key).await }
            })
            .on(queue::READ_PROVENANCE, move |_| {
                let app = reading.clone();
                async move { attestation::read_anew(&app.db).await.map(|_| ()) }
            })
            .on(queue::VERIFY_KEY, move |job| {
                let app = verifying.clone();
                async move { attestation::verify_key(&app.db, &job.key, job.attempts).await }
            })
            .on(queue::SETTLE_SCANS, move |job| {
                let app = settling.clone();
                async move { evidence::settle_scans(&app.db, &job.key, &job.payload).await }
            })
    }

    /// Starts the loops that run beside the requests.
    pub fn start_jobs(&self) -> Jobs {
        let mut jobs = Jobs::new(self.job_statuses.clone());
        self.start_log_jobs(&mut jobs);
        self.start_sweeps(&mut jobs);
        let app = self.clone();
        jobs.run("clocks", Schedule::every(MEASURE_CLOCKS_EVERY), move || {
            let app = app.clone();
            async move { app.clocks.measure(&app.db).await }
        });
        let worker = self.worker();
        let schedule = Schedule::every(QUEUE_EVERY).may_run_long();
        let schedule = schedule.or_woken(self.log_position.wake(), QUEUE_REST);
        self.start_while_clocks_agree(&mut jobs, "queue", schedule, move |_, stop| {
            let worker = worker.clone();
            async move { worker.run(&stop).await.map(|_| ()) }
        });
        let app = self.clone();
        jobs.run("trust", Schedule::every(FOLLOW_TRUST_EVERY), move || {
            let app = app.clone();
            async move { app.keys.follow(&mut *app.db.acquire().await?).await }
        });
        let app = self.clone();
        jobs.run("signers", Schedule::every(RETRY_DEAD_JOBS_EVERY), move || {
            let app = app.clone();
            async move {
                attestation::enqueue_verifying(&app.db, RETRY_DEAD_JOBS_EVERY).await?;
                evidence::enqueue_settling(&app.db, RETRY_DEAD_JOBS_EVERY).await
            }
        });
        self.start_audit_jobs(&mut jobs);
        self.start_token_jobs(&mut jobs);
        let metrics = self.metrics.clone();
        jobs.run("metrics", Schedule::every(SUM_UP_EVERY), move || {
            metrics.run_upkeep();
            std::future::ready(Ok(()))
        });
        jobs
    }

    /// Writes the security events that are pending; how many records.
    pub async fn write_security_events(&self) -> Result<usize, Failure> {
        self.security.write(&self.db).await
    }

    /// Gives out again the damaged blobs whose bytes are right by now, if it is due and no other replica does.
    pub async fn restore_blobs(
        &self,
        due: Due,
        stop: &CancellationToken,
    ) -> Result<Option<Restored>, Failure> {
        let pace = Pace::percent(self.config.background_percent);
        jobs::restore_blobs(&self.db, &self.store, pace, due, stop).await
    }

    fn start_audit_jobs(&self, jobs: &mut Jobs) {
        let app = self.clone();
        jobs.run("security-events", Schedule::every(WRITE_SECURITY_EVENTS_EVERY), move || {
            let app = app.clone();
            async move { app.write_security_events().await.map(|_| ()) }
        });
        let schedule = Schedule::every(LOOK_FOR_DAMAGED_EVERY).may_run_long();
        self.start_while_clocks_agree(jobs, "restored-blobs", schedule, |app, stop| async move {
            app.restore_blobs(Due::Every(RESTORE_BLOBS_EVERY), &stop).await.map(|_| ())
        });
        let schedule = Schedule::every(FORGET_SECURITY_EVENTS_EVERY);
        self.start_while_clocks_agree(jobs, "security-event-retention", schedule, |app, _| async move {
            let (days, most) = (app.config.security_event_days, app.config.max_security_events);
            audit::forget_security_events(&app.db, days, most.into()).await.map(|_| ())
        });
    }

    /// What is written of tokens: when they were used, and that they end soon.
    fn start_token_jobs(&self, jobs: &mut Jobs) {
        let app = self.clone();
        jobs.run("token-uses", Schedule::every(WRITE_USES_EVERY), move || {
            let app = app.clone();
            async move { app.callers.write_uses(&app.db).await }
        });
        let schedule = Schedule::every(ANNOUNCE_ENDS_EVERY);
        self.start_while_clocks_agree(jobs, "token-ends", schedule, |app, _| async move {
            let announced = identity::announce_ends(&app.db).await;
            announced.map_err(|error| Failure::new("announcing the ends of tokens", error))
        });
    }

    fn worker(&self) -> Arc<Worker> {
        Arc::new(Worker::new(self.db.clone(), self.handlers(), QueueSettings::default()))
    }

    /// The jobs around the log. A commit of this process wakes the sequencer, and the sequencer's notification
    /// wakes every process.
    fn start_log_jobs(&self, jobs: &mut Jobs) {
        let app = self.clone();
        let schedule = Schedule::every(SEQUENCE_EVERY).or_woken(self.db.commits(), SEQUENCE_REST);
        jobs.run("sequencer", schedule, move || {
            let app = app.clone();
            async move {
                if let Some(size) = ledger::sequence_batch(&app.db).await?.size {
                    app.log_position.raise(size);
                }
                Ok(())
            }
        });
        let (app, stop) = (self.clone(), jobs.stopping());
        let listener = Arc::new(LogListener::new(self.log_position.clone()));
        jobs.run("log-listener", Schedule::every(LISTEN_EVERY), move || {
            let (app, stop, listener) = (app.clone(), stop.clone(), listener.clone());
            async move { stop.run_until_cancelled(listener.listen(&app.db)).await.unwrap_or(Ok(())) }
        });
    }

    /// Starts a job that deletes or signs, which it does not do at a time that is in doubt: a run is dropped when
    /// the clocks begin to differ, at a point where a crash may cut it off.
    fn start_while_clocks_agree<F, R>(&self, jobs: &mut Jobs, name: &'static str, schedule: Schedule, work: F)
    where
        F: Fn(Self, CancellationToken) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let (app, stop) = (self.clone(), jobs.stopping());
        jobs.run(name, schedule, move || {
            let (clocks, run) = (app.clocks.clone(), work(app.clone(), stop.clone()));
            async move {
                tokio::select! {
                    biased;
                    () = clocks.until_they_differ() => Ok(()),
                    done = run => done,
                }
            }
        });
    }

    fn start_sweeps(&self, jobs: &mut Jobs) {
        let every = |interval| Schedule::every(interval).may_run_long();
        self.start_while_clocks_agree(jobs, "expired-uploads", every(EXPIRE_EVERY), |app, stop| async move {
            app.sweep_sessions(&stop).await.map(|_| ())
        });
        self.start_while_clocks_agree(jobs, "sweep", every(SWEEP_EVERY), |app, stop| async move {
            let age = app.config.upload_expiry.max(LEAST_SWEPT_AGE);
            app.sweep_store(age, &stop).await.map(|_| ())
        });
        self.start_while_clocks_agree(jobs, "retention", every(LOOK_EVERY), |app, stop| async move {
            app.retain(Due::Every(app.config.collection), &stop).await.map(|_| ())
        });
        self.start_while_clocks_agree(jobs, "collection", every(LOOK_EVERY), |app, stop| async move {
            app.collect(Due::Every(app.config.collection), &stop).await.map(|_| ())
        });
        let schedule = Schedule::every(RENEW_EVERY);
        self.start_while_clocks_agree(jobs, "summaries", schedule, |app, _| async move {
            app.enqueue_renewals().await.map(|_| ())
        });
        // A replica of another release may have read some since the start.
        let schedule = Schedule::every(READ_ANEW_EVERY);
        self.start_while_clocks_agree(jobs, "provenance", schedule, |app, _| async move {
            attestation::enqueue_reading(&app.db).await
        });
    }
}

/// Brings the schema up to date, as the role that owns it where there is one, and says what the service's own may do.
async fn migrate(db: &Db, config: &Config) -> Result<RuntimeRole, Failure> {
    let (name, _) = roles::current(&mut *db.acquire().await?).await?;
    match &config.migration_database_url {
        Some(url) => roles::migrate_as(url, &name).await?,
        None => db.migrate().await?,
    }
    let (_, role) = roles::current(&mut *db.acquire().await?).await?;
    if role == RuntimeRole::Unlimited {
        tracing::warn!(
            role = name,
            "the service's role owns its database, schema, tables or functions: set PROOFMARK_MIGRATION_DATABASE_URL, so \
             that it cannot change events"
        );
    }
    Ok(role)
}

fn metrics_token(config: &Config) -> Result<Option<Secret>, Failure> {
    let path = config.metrics_token_file.as_deref();
    let secret = path.map(|path| identity::chosen_secret(path, config.secret_file_mode)).transpose();
    secret.map_err(|refused| Failure::new("reading PROOFMARK_METRICS_TOKEN_FILE", refused))
}

fn key_source(config: &Config) -> Result<Source, Failure> {
    match (&config.keys, &config.database) {
        (Some(path), _) => Ok(Source::Given(path.clone())),
        (None, Database::Private(_)) => Ok(Source::Made(config.data.join("keys.json"))),
        (None, Database::Given(_)) => Err(Failure::new(
            "opening the registry's own keys",
            "with DATABASE_URL the keys are given, so that every replica has the same: make them \
             once with `proofmark key init FILE` and set PROOFMARK_KEYS to the file",
        )),
    }
}

/// Refuses a first start that lacks a trust file, before anything is written.
async fn may_be_a_first_start(db: &Db, config: &Config, source: &Source) -> Result<(), Failure> {
    let (Database::Given(_), None, Source::Given(keys)) = (&config.database, &config.trust_file, source)
    else {
        return Ok(());
    };
    let has_a_registry: bool = sqlx::query_scalar("select to_regclass('registry_identity') is not null")
        .fetch_one(&mut *db.acquire().await?)
        .await
        .map_err(|error| Failure::new("looking for a registry in the database", error))?;
    if has_a_registry {
        return Ok(());
    }
    let name = config.public_name.as_deref().unwrap_or_else(|| config.public_url.authority());
    let demand = keys::demand(&keys.display().to_string(), name, "");
    Err(Failure::new("opening the registry's own keys", demand))
}

/// Opens the registry's own keys; the first start writes its identity, and a start with a newer trust file takes that
/// over, with their events, at once.
async fn open_keys(db: &Db, config: &Config, source: &Source, store: &Store) -> Result<Keys, Failure> {
    let sources = Sources {
        keys: source,
        secret_file_mode: config.secret_file_mode,
        trust: config.trust_file.as_deref(),
        home: matches!(config.database, Database::Private(_)).then_some(config.data.as_path()),
        public_name: (config.public_name.as_deref(), config.public_url.authority()),
    };
    let mut tx = db.begin().await?;
    let opened = Keys::open(&mut tx, &sources).await?;
    let owner = keys::owner(&mut tx).await?;
    must_be_its_store(store, &config.storage, owner.as_deref(), opened.first).await?;
    let at = database_time(&mut tx).await?;
    let principal = identity::service();
    let event = |kind, facts| ledger::Event {
        kind,
        at,
        principal: &principal,
        repository: None,
        environment: None,
        digest: None,
        facts,
        changes: vec![],
    };
    if opened.first {
        let trust = opened.keys.trust();
        let facts = serde_json::json!({"public_name": trust.public_name, "verifier_id": trust.verifier_id,
                                       "log_origin": trust.log_origin});
        ledger::append(&mut tx, event(ledger::Kind::IdentityWritten, facts)).await?;
        tracing::info!(verifier_id = trust.verifier_id, "the registry's identity was written");
    }
    if opened.revokes_summaries {
        promotion::renew_all(&mut tx, at).await?;
    }
    for file in &opened.added {
        let facts = serde_json::json!({"version": file.version(), "sha256": file.digest()});
        ledger::append(&mut tx, event(ledger::Kind::TrustUpdated, facts)).await?;
        tracing::info!(version = file.version(), "a trust file was taken over");
    }
    tx.commit().await.map_err(|error| Failure::new("writing the registry's identity", error))?;
    Ok(opened.keys)
}

/// Refuses a store that is another registry's, or nobody's where this one has a store already: blobs would be
/// missed in it, taken for damaged, or swept. At the first start, the store becomes this registry's before the
/// identity is committed: a crash between them leaves one that the next start finds its own.
pub async fn must_be_its_store(
    store: &Store,
    url: &str,
    registry: Option<&str>,
    first: bool,
) -> Result<(), Failure> {
    let refused = |why: String| Err(Failure::new("opening the store", why));
    let Some(id) = registry else { return Ok(()) };
    match store.owner().await? {
        Some(owner) if owner == id => Ok(()),
        Some(_) => {
            refused(format!("{url} is another registry's store: say where this one's is (PROOFMARK_STORAGE)"))
        }
        None if first => store.belong_to(id).await,
        None => refused(format!(
            "{url} is not this registry's store, which has an object `registry` that says so: say where it is \
             (PROOFMARK_STORAGE), or mount it; where its blobs were put back without that object, make it, with this \
             line in it: {id}"
        )),
    }
}

/// The files in which the store's library finds credentials.
fn store_secrets(url: &str) -> Vec<PathBuf> {
    let names: &[&str] = match url.split("://").next() {
        Some("s3") => &["AWS_WEB_IDENTITY_TOKEN_FILE"],
        Some("gs") => {
            &["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH", "GOOGLE_APPLICATION_CREDENTIALS"]
        }
        Some("az") => &["AZURE_FEDERATED_TOKEN_FILE"],
        Some(_) | None => &[],
    };
    names.iter().filter_map(|name| config::variable(name)).map(PathBuf::from).collect()
}

/// As many requests as there are connections, of one principal so many percent of them. Of those that stop something, as
/// many as there are reserved connections, half of them one principal's; without any, they are like all others.
fn turns(config: &Config) -> (Shares, Shares) {
    let reserved = config.reserved_connections;
    let connections = config.database_connections - reserved;
    let share = connections.saturating_mul(config.principal_percent).div_ceil(100);
    let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
    let turns = Shares::new(count(connections), count(share));
    let stop_turns = if reserved == 0 { turns.clone() } else { Shares::halves(count(reserved)) };
    (turns, stop_turns)
}

fn bounds(config: &Config) -> Bounds {
    Bounds {
        blob_bytes: config.limits.blob_bytes,
        concurrent: config.limits.concurrent_uploads,
        sessions_per_principal: config.limits.sessions_per_principal,
        blob_grace: config.blob_grace,
    }
}

const ADMIN_TOKEN: &str = "the administrator's token";
const READING_ADMIN_TOKEN: &str = "reading the administrator's token file";

/// A token that ended, or whose principal is disabled, opens nothing and keeps no replica from starting.
fn unless_ended(read: Result<(), identity::Refused>) -> Result<Option<&'static str>, Failure> {
    match read {
        Ok(()) => Ok(None),
        Err(refused @ (identity::Refused::Ended | identity::Refused::Disabled(_))) => {
            tracing::error!(error = %refused, "the administrator's token file opens nothing");
            Ok(Some(ADMIN_TOKEN))
        }
        Err(refused) => Err(Failure::new(READING_ADMIN_TOKEN, refused)),
    }
}
