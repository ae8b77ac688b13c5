//! The private Postgres starts, stops and survives, whoever starts it.

use crate::harness::{Service, eventually, sha256};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, Uid, User};
use proofmark::access::Role;
use proofmark::failure::Failure;
use proofmark::postgres::local::{self, Cluster};
use proofmark::postgres::{Db, Options};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// A data directory of a mode, below a place that everybody can search.
fn directory(mode: u32) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
    directory
}

async fn start(home: &Path) -> Result<Cluster, Failure> {
    local::start(&home.join("postgres"), 8).await
}

async fn pool(cluster: &Cluster) -> Db {
    let restarts = Some(cluster.restarts());
    let options = Options { restarts, ..Options::new(cluster.url(), 4, Duration::from_secs(30)) };
    Db::connect(&options).await.unwrap()
}

async fn setting(db: &Db, name: &str) -> String {
    sqlx::query_scalar("select current_setting($1)").bind(name).fetch_one(db.pool()).await.unwrap()
}

async fn run(db: &Db, statement: &'static str) {
    sqlx::query(statement).execute(db.pool()).await.unwrap();
}

fn postmaster(home: &Path) -> i32 {
    let text = fs::read_to_string(home.join("postgres/data/postmaster.pid")).unwrap();
    text.lines().next().unwrap().parse().unwrap()
}

fn ready(home: &Path) -> bool {
    local::connect_url(&home.join("postgres")).unwrap().is_some()
}

fn kill(pid: i32, signal: Signal) {
    nix::sys::signal::kill(Pid::from_raw(pid), signal).unwrap();
}

/// Waits for what another process does.
fn as_root() -> bool {
    Uid::effective().is_root()
}

#[tokio::test]
async fn a_cluster_is_made_once_and_keeps_what_was_written() {
    let home = directory(0o700);
    let cluster = start(home.path()).await.unwrap();
    let db = pool(&cluster).await;
    for (name, value) in [
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("lc_collate", "C.UTF-8"),
        ("listen_addresses", ""),
    ] {
        let answer = sqlx::query_scalar::<_, String>(
            "select case $1 when 'lc_collate' then (select datcollate::text from pg_database
               where datname = current_database()) else current_setting($1) end",
        )
        .bind(name)
        .fetch_one(db.pool())
        .await
        .unwrap();
        assert_eq!(answer, value, "{name}");
    }
    run(&db, "create table kept as select 42 as answer").await;
    db.close().await;
    cluster.stop().await.unwrap();
    assert!(!home.path().join("postgres/data/postmaster.pid").exists(), "stopped cleanly");

    let cluster = start(home.path()).await.unwrap();
    let db = pool(&cluster).await;
    let kept: i32 = sqlx::query_scalar("select answer from kept").fetch_one(db.pool()).await.unwrap();
    assert_eq!(kept, 42);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn nobody_else_reaches_the_socket_or_the_data() {
    let home = directory(0o755);
    let cluster = start(home.path()).await.unwrap();
    for closed in ["data", "socket"] {
        let mode = fs::metadata(home.path().join("postgres").join(closed)).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{closed} is closed to others");
    }
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn root_runs_it_as_postgres_where_that_user_gets_through_and_in_a_namespace_elsewhere() {
    if !as_root() {
        return;
    }
    let postgres = User::from_name("postgres").unwrap().map(|user| user.uid.as_raw());
    for (mode, owner) in [(0o755, postgres.unwrap_or(0)), (0o700, 0)] {
        let home = directory(mode);
        for _ in 0..2 {
            let cluster = start(home.path()).await.unwrap();
            assert_eq!(fs::metadata(home.path().join("postgres/data")).unwrap().uid(), owner);
            pool(&cluster).await.close().await;
            cluster.stop().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_directory_with_a_long_or_strange_path_works() {
    let home = directory(0o700);
    let strange: PathBuf = home.path().join("a, \"b\" ü&c=d%20").join("x".repeat(120));
    let cluster = start(&strange).await.unwrap();
    assert_eq!(setting(&pool(&cluster).await, "fsync").await, "on");
    let url = local::connect_url(&strange.join("postgres")).unwrap();
    assert_eq!(url, Some(cluster.url()));
    let socket = cluster.url().split_once("host=").unwrap().1.to_owned();
    cluster.stop().await.unwrap();
    assert!(socket.starts_with("/tmp/proofmark-"), "{socket}");
    fs::remove_dir_all(socket).unwrap();
}

#[tokio::test]
async fn two_services_on_one_directory_are_refused() {
    let home = directory(0o700);
    let cluster = start(home.path()).await.unwrap();
    let refused = start(home.path()).await.unwrap_err().chain();
    let holder = format!("in use by another Proofmark (process {})", std::process::id());
    assert!(refused.contains(&holder) && refused.contains("DATABASE_URL"), "{refused}");
    assert_eq!(setting(&pool(&cluster).await, "fsync").await, "on", "the first is untouched");
    cluster.stop().await.unwrap();
    start(home.path()).await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_postgres_is_started_again_and_the_pool_finds_it() {
    let home = directory(0o700);
    let cluster = start(home.path()).await.unwrap();
    let db = pool(&cluster).await;
    run(&db, "create table counted(n int)").await;
    for round in 1..=3 {
        // Every connection of the pool is open and idle when Postgres dies.
        let mut open = Vec::new();
        for _ in 0..4 {
            open.push(db.begin().await.unwrap());
        }
        drop(open);
        let killed = postmaster(home.path());
        kill(killed, Signal::SIGKILL);
        eventually("Postgres is back", async || ready(home.path()) && postmaster(home.path()) != killed)
            .await;
        run(&db, "insert into counted values (1)").await;
        let rows: i64 =
            sqlx::query_scalar("select count(*) from counted").fetch_one(db.pool()).await.unwrap();
        assert_eq!(rows, round);
    }
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_child_of_a_killed_postgres_that_heeds_no_gentle_signal_does_not_keep_the_next_waiting() {
    let home = directory(0o700);
    let cluster = start(home.path()).await.unwrap();
    let db = pool(&cluster).await;
    run(&db, "create table kept as select 1 as n").await;
    let deaf: i32 =
        sqlx::query_scalar("select pid from pg_stat_activity where backend_type = 'checkpointer'")
            .fetch_one(db.pool())
            .await
            .unwrap();
    let killed = postmaster(home.path());
    kill(deaf, Signal::SIGSTOP);
    kill(killed, Signal::SIGKILL);
    let began = std::time::Instant::now();
    eventually("Postgres is back", async || ready(home.path()) && postmaster(home.path()) != killed).await;
    assert!(began.elapsed() < Duration::from_secs(30), "half of what an orderly end may take");
    let kept: i32 = sqlx::query_scalar("select n from kept").fetch_one(db.pool()).await.unwrap();
    assert_eq!(kept, 1);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_of_postgres_while_it_writes() {
    let home = directory(0o700);
    let cluster = start(home.path()).await.unwrap();
    let db = pool(&cluster).await;
    run(&db, "create table written(n int)").await;
    let (progress, mut written) = tokio::sync::mpsc::unbounded_channel();
    let enough = Arc::new(AtomicBool::new(false));
    let back = Arc::new(AtomicBool::new(false));
    let writers = (0..4).map(|writer| {
        let (db, progress, enough, back) = (db.clone(), progress.clone(), enough.clone(), back.clone());
        tokio::spawn(async move {
            let (mut acknowledged, mut unknown, mut late) = (0, 0, 0);
            while !enough.load(Ordering::Relaxed) {
                let is_back = back.load(Ordering::Relaxed);
                let insert = sqlx::query("insert into written values ($1)").bind::<i32>(writer);
                if insert.execute(db.pool()).await.is_ok() {
                    acknowledged += 1;
                } else {
                    unknown += 1;
                    late += i32::from(is_back);
                }
                progress.send(()).unwrap();
            }
            (acknowledged, unknown, late)
        })
    });
    let writers: Vec<_> = writers.collect();
    let killed = postmaster(home.path());
    // A killed postmaster's children go on until they notice: they must not meet their successors.
    for round in 0..2 {
        for _ in 0..200 {
            written.recv().await.unwrap();
        }
        if round == 0 {
            kill(killed, Signal::SIGKILL);
            eventually("Postgres is back", async || ready(home.path()) && postmaster(home.path()) != killed)
                .await;
            back.store(true, Ordering::Relaxed);
            // Those that follow are counted, not those that wait here.
            while written.try_recv().is_ok() {}
        }
    }
    enough.store(true, Ordering::Relaxed);
    for (writer, counted) in (0..).zip(writers) {
        let (acknowledged, unknown, late) = counted.await.unwrap();
        let there: i64 = sqlx::query_scalar("select count(*) from written where n = $1")
            .bind::<i32>(writer)
            .fetch_one(db.pool())
            .await
            .unwrap();
        assert!(
            (acknowledged..=acknowledged + unknown).contains(&there),
            "{there} rows, {acknowledged} acknowledged, {unknown} unknown"
        );
        // While Postgres was away there may have been many; none meets it again.
        assert!(late <= 2, "the pool recovers by itself: {late} errors");
    }
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_pid_file_whose_number_a_stranger_has_now_is_no_running_postgres() {
    let home = directory(0o700);
    let cluster = start(home.path()).await.unwrap();
    let socket = home.path().join("postgres/socket");
    let data = home.path().join("postgres/data");
    let pid_file = fs::read_to_string(data.join("postmaster.pid")).unwrap();
    cluster.stop().await.unwrap();
    // As after a reboot: the files name a process that runs, and is this test.
    let rest = pid_file.split_once('\n').unwrap().1;
    fs::write(data.join("postmaster.pid"), format!("{}\n{rest}", std::process::id())).unwrap();
    fs::write(socket.join(".s.PGSQL.5432.lock"), format!("{}\n{rest}", std::process::id())).unwrap();
    assert_eq!(local::connect_url(&home.path().join("postgres")).unwrap(), None);
    let cluster = start(home.path()).await.unwrap();
    pool(&cluster).await.close().await;
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn an_unfinished_cluster_is_made_anew() {
    let home = directory(0o700);
    fs::create_dir_all(home.path().join("postgres/data.new/base")).unwrap();
    fs::write(home.path().join("postgres/data.new/PG_VERSION"), "1").unwrap();
    let cluster = start(home.path()).await.unwrap();
    assert!(!home.path().join("postgres/data.new").exists());
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_cluster_of_another_major_version_gets_a_way_on() {
    let home = directory(0o700);
    fs::create_dir_all(home.path().join("postgres/data")).unwrap();
    fs::write(home.path().join("postgres/data/PG_VERSION"), "9\n").unwrap();
    let refused = start(home.path()).await.unwrap_err().chain();
    assert!(
        refused.contains("made by Postgres 9") && refused.contains("apt install postgresql-9"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_start_that_postgres_refuses_says_what_postgres_said() {
    let home = directory(0o700);
    start(home.path()).await.unwrap().stop().await.unwrap();
    let settings = home.path().join("postgres/data/postgresql.conf");
    fs::write(settings, "shared_buffers = nonsense\n").unwrap();
    let refused = start(home.path()).await.unwrap_err().chain();
    assert!(refused.contains("shared_buffers"), "{refused}");
}

#[tokio::test]
async fn others_on_the_machine_learn_how_to_connect_only_while_it_runs() {
    let home = directory(0o700);
    let place = home.path().join("postgres");
    assert_eq!(local::connect_url(&place).unwrap(), None, "no cluster yet");
    let cluster = start(home.path()).await.unwrap();
    eventually("the pid file says ready", async || ready(home.path())).await;
    assert_eq!(local::connect_url(&place).unwrap(), Some(cluster.url()));
    cluster.stop().await.unwrap();
    assert_eq!(local::connect_url(&place).unwrap(), None, "stopped");
}

#[tokio::test]
async fn a_dropped_cluster_stops_by_itself() {
    let home = directory(0o700);
    drop(start(home.path()).await.unwrap());
    eventually("Postgres has ended", async || !home.path().join("postgres/data/postmaster.pid").exists())
        .await;
}

#[tokio::test]
async fn a_killed_service_takes_its_postgres_with_it() {
    let home = directory(0o700);
    let service = Service::start(home.path()).await;
    let postmaster = service.postmaster();
    service.kill();
    // Postgres ends in order: it removes its pid file and recovers nothing at the next start.
    let pid_file = home.path().join("data/postgres/data/postmaster.pid");
    eventually("Postgres has ended", async || !runs(postmaster) && !pid_file.exists()).await;
}

#[tokio::test]
async fn a_postgres_that_outlived_its_service_is_ended_before_another_one_starts() {
    let home = directory(0o700);
    let cluster = start(home.path()).await.unwrap();
    run(&pool(&cluster).await, "create table kept as select 42 as answer").await;
    let first = postmaster(home.path());
    let words = fs::read_to_string(format!("/proc/{first}/cmdline")).unwrap();
    cluster.stop().await.unwrap();
    // The same Postgres again, started by nobody who supervises it.
    let mut command = Command::new(if as_root() { "unshare" } else { "env" });
    if let Some(user) = User::from_name("postgres").unwrap().filter(|_| as_root()) {
        command.arg("--user").args([format!("--map-user={}", user.uid), format!("--map-group={}", user.gid)]);
    }
    command.args(words.trim_end_matches('\0').split('\0'));
    let mut orphan = command.current_dir("/").stderr(std::process::Stdio::null()).spawn().unwrap();
    eventually("the orphan accepts connections", async || ready(home.path())).await;
    let reaper = std::thread::spawn(move || orphan.wait().unwrap());

    let cluster = start(home.path()).await.unwrap();
    assert!(reaper.join().unwrap().success(), "it was asked to end, not killed");
    let kept: i32 =
        sqlx::query_scalar("select answer from kept").fetch_one(pool(&cluster).await.pool()).await.unwrap();
    assert_eq!(kept, 42);
    cluster.stop().await.unwrap();
}

const NOBODY: u32 = 65_534;
const NAMELESS: u32 = 54_321;

#[tokio::test]
async fn an_ordinary_user_owns_one_too_with_or_without_a_name() {
    if !as_root() {
        // Every other test here is run by an ordinary user then.
        return;
    }
    assert!(User::from_uid(Uid::from_raw(NAMELESS)).unwrap().is_none());
    for user in [NOBODY, NAMELESS] {
        let home = directory(0o755);
        chown(home.path(), Some(user), Some(user)).unwrap();
        // Where the binary was built may be closed to others.
        let binary = home.path().join("proofmark");
        fs::copy(env!("CARGO_BIN_EXE_proofmark"), &binary).unwrap();
        let as_user = || {
            let mut command = Command::new("setpriv");
            command.args([format!("--reuid={user}"), format!("--regid={user}")]);
            command.args(["--clear-groups", "--"]).arg(&binary);
            command
        };
        let service = Service::start_with(as_user(), home.path()).await;
        assert_eq!(fs::metadata(format!("/proc/{}", service.postmaster())).unwrap().uid(), user);
        let token = as_user()
            .args(["--json", "token", "create", "--local", "--data"])
            .arg(home.path().join("data"))
            .env("HOME", home.path())
            .output()
            .unwrap();
        assert!(token.status.success(), "{}", String::from_utf8_lossy(&token.stderr));
        let pusher = service.client(Role::Pusher).await;
        let digest = pusher.push_blob("team/app", b"some bytes").await;
        assert_eq!(digest, sha256(b"some bytes"));
        assert!(service.stop().success());
    }
}

fn runs(pid: i32) -> bool {
    nix::sys::signal::kill(Pid::from_raw(pid), None).is_ok()
}
