# A private Postgres for a run of the tests: on a unix socket in a temporary directory, so that no
# port can collide, and without fsync, because nothing in it outlives the run.

# The newest server of the machine, 15 or newer; installed where it is missing.
postgres_programs() {
  local programs
  programs=$(ls -d /usr/lib/postgresql/*/bin 2> /dev/null | sort -t/ -k5 -n | tail -n 1)
  if [ -z "$programs" ] && command -v initdb > /dev/null; then
    programs=$(dirname "$(readlink -f "$(command -v initdb)")")
  fi
  printf '%s' "$programs"
}

# Starts it and sets POSTGRES_URL, the URL without a database's name at its end.
start_postgres() {
  local programs as=()
  programs=$(postgres_programs)
  # Below /tmp whatever TMPDIR says: a socket's path holds 107 bytes.
  POSTGRES_DIRECTORY=$(mktemp -d /tmp/proofmark-tests.XXXXXX)
  if [ "$(id -u)" = 0 ]; then
    chown postgres "$POSTGRES_DIRECTORY"
    as=(setpriv --reuid=postgres --regid=postgres --clear-groups --)
  fi
  (cd / && "${as[@]}" "$programs/initdb" --pgdata="$POSTGRES_DIRECTORY/data" --username=postgres \
    --auth=trust --encoding=UTF8 --locale=C.UTF-8 --no-sync --no-instructions > "$POSTGRES_DIRECTORY.log" 2>&1) ||
    { cat "$POSTGRES_DIRECTORY.log"; return 1; }
  # It gets SIGINT when this shell ends, however that happens.
  (cd / && exec "${as[@]}" setpriv --pdeathsig=INT -- "$programs/postgres" -D "$POSTGRES_DIRECTORY/data" \
    -k "$POSTGRES_DIRECTORY" -c listen_addresses= -c max_connections=1000 -c shared_buffers=256MB \
    -c fsync=off -c full_page_writes=off -c synchronous_commit=off \
    >> "$POSTGRES_DIRECTORY.log" 2>&1 < /dev/null) &
  POSTGRES_PROCESS=$!
  until "$programs/pg_isready" --quiet --host="$POSTGRES_DIRECTORY"; do
    kill -0 "$POSTGRES_PROCESS" 2> /dev/null || { cat "$POSTGRES_DIRECTORY.log"; return 1; }
    sleep 0.05
  done
  POSTGRES_URL="postgres://postgres@${POSTGRES_DIRECTORY//\//%2F}"
  PSQL=("$programs/psql" --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --host="$POSTGRES_DIRECTORY" --username=postgres)
}

# A database with the whole schema, for the macros that check every query; prints nothing.
make_schema_database() {
  "${PSQL[@]}" --dbname=postgres --command="create database $1" || return 1
  local migration
  for migration in migrations/*.sql; do
    "${PSQL[@]}" --single-transaction --dbname="$1" --file="$migration" > /dev/null || return 1
  done
}

stop_postgres() {
  if [ -n "${POSTGRES_PROCESS:-}" ]; then
    kill -QUIT "$POSTGRES_PROCESS" 2> /dev/null
    wait "$POSTGRES_PROCESS" 2> /dev/null
  fi
  if [ -n "${POSTGRES_DIRECTORY:-}" ]; then
    rm -rf "$POSTGRES_DIRECTORY" "$POSTGRES_DIRECTORY.log"
  fi
}
