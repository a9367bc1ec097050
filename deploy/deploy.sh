#!/usr/bin/env bash
# Deploys Meterbridge with Docker Compose, and looks after it: `deploy/deploy.sh --help`. docs/containers.md has the rest.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
file=$root/docker-compose.kafka.yml example=$root/deploy/.env.example env_file='' lago=''

help() {
  cat <<'TEXT'
usage: deploy/deploy.sh [--lago] [--env-file FILE] COMMAND

  keys              fill what is empty of the keys and passwords in .env, which is made from its example; nothing is overwritten
  deploy            build the image, start every service, and wait until all are healthy; a second time: an upgrade
  test              exit code 0 if every service is healthy, every port answers, and topics, tables and Lago are as they must be
  status            every container and its state; exit code 1 if one is not healthy
  logs [SERVICE..]  what the services logged; options are those of `docker compose logs`, for example --follow
  backup FOLDER     write Postgres and Kafka, as of one moment, to FOLDER, which is new; with --stop nothing runs afterwards
  restore FOLDER    put such a backup into an installation that has no data yet; then `deploy`

  --lago            deploy/compose/lago.yml, where Lago runs beside it; without: docker-compose.kafka.yml
  --env-file FILE   another file than the .env beside the compose file

COMPOSE_PROFILES, in .env, names profiles: sandbox, canary, monitoring, kafka-ui; with --lago: pdf
TEXT
}

fail() {
  printf 'deploy.sh: %s\n' "$1" >&2
  exit "${2:-1}"
}

say() { printf '%s\n' "$*"; }

compose() { docker compose --env-file "$env_file" --file "$file" "$@"; }

# --- keys -----------------------------------------------------------------------------------------------------------------

value() { sed -n "s/^$1=//p" "$env_file" | tail -n 1 | tr -d "\"'"; }

fill() { # NAME COMMAND..: the line NAME= gets what the command prints. No value is an argument: every user sees those of a process.
  local name=$1 line made found=''
  shift
  [ -z "$(value "$name")" ] || return 0
  made=$("$@")
  [ -n "$made" ] || fail "$* printed nothing"
  {
    while IFS= read -r line || [ -n "$line" ]; do
      case $line in "$name="*) line=$name=$made found=1 ;; esac
      printf '%s\n' "$line"
    done <"$env_file"
    [ -n "$found" ] || printf '%s=%s\n' "$name" "$made"
  } >"$env_file.new"
  mv "$env_file.new" "$env_file"
  say "$name is set"
}

rsa_key() { openssl genrsa 2048 2>/dev/null | openssl base64 -A; }

hex() { openssl rand -hex "$1"; }

master_key() { printf 'sk-%s\n' "$(hex 24)"; }

keys() {
  command -v openssl >/dev/null || fail 'openssl is not installed'
  umask 077
  [ -e "$env_file" ] || install -m 600 "$example" "$env_file"
  fill POSTGRES_PASSWORD hex 24
  fill WEBHOOK_TOKEN hex 32
  fill LITELLM_MASTER_KEY master_key
  if [ -n "$lago" ]; then
    fill LAGO_API_KEY hex 32
    fill LAGO_ORG_USER_PASSWORD hex 12
    fill SECRET_KEY_BASE hex 64
    fill ENCRYPTION_PRIMARY_KEY hex 32
    fill ENCRYPTION_DETERMINISTIC_KEY hex 32
    fill ENCRYPTION_KEY_DERIVATION_SALT hex 32
    fill LAGO_RSA_PRIVATE_KEY rsa_key
  elif [ "$(value LAGO_API_URL)" = http://lago-sandbox:3000 ]; then
    fill LAGO_API_KEY hex 16 # the stand-in takes any
  elif [ -z "$(value LAGO_API_KEY)" ]; then
    say "still empty: LAGO_API_KEY, which your Lago shows under Developers, API keys"
  fi
  say "$env_file has every key. Keep a copy in another place than the backups."
}

# --- deploy, test, status ---------------------------------------------------------------------------------------------------

deploy() {
  compose config --quiet
  compose up --build --wait "$@"
  say 'Every service is healthy.'
}

unwell() { # One line for each container that is neither healthy nor done.
  compose ps --all --format '{{.Service}} {{.State}} {{.Health}} {{.ExitCode}}' | while read -r service state rest; do
    case "$state $rest" in
      'running healthy '* | 'running 0' | 'exited 0') ;;
      *) say "$service: $state $rest" ;;
    esac
  done
}

status() {
  local wrong
  compose ps --all
  wrong=$(unwell)
  [ -z "$wrong" ] || fail "not healthy: $wrong"
}

check() { # WHAT COMMAND..
  local what=$1 output
  shift
  if output=$("$@" 2>&1); then
    say "ok      $what"
  else
    say "FAILED  $what"
    printf '%s\n' "${output:-no answer}" | sed 's/^/        /'
    failed=1
  fi
}

healthy() {
  local containers wrong
  containers=$(compose ps --quiet)
  wrong=$(unwell)
  say "$wrong"
  [ -n "$containers" ] && [ -z "$wrong" ]
}

answers() { curl --fail --silent --show-error --noproxy '*' --max-time 10 "$1"; }

# All in one container: a new one compiles every module first.
inside() { # WORDS..: commands of the product, each one argument
  # shellcheck disable=SC2016  # the container's shell expands it
  compose run --rm -T --entrypoint sh tools -c '
    for words; do
      if output=$(meterbridge $words 2>&1); then echo "ok      meterbridge $words"; else
        echo "FAILED  meterbridge $words"; echo "$output" | sed "s/^/        /"; failed=1
      fi
    done
    [ -z "$failed" ]' sh "$@"
}

test_it() {
  local failed='' address
  check 'every service is healthy' healthy
  if [ -n "$lago" ]; then
    check "Lago's API answers" answers http://127.0.0.1:3000/health
    check "Lago's pages answer" answers http://127.0.0.1:8080/
  else
    address=$(value INGRESS_ADDRESS)
    check 'the ingress takes calls' answers "http://${address:-127.0.0.1}:8080/health/ready"
  fi
  check 'the management API answers' answers http://127.0.0.1:3002/health/ready
  inside 'topics check' 'db migrate --check' 'lago setup --check' || failed=1
  [ -z "$failed" ]
}

# --- backup, restore ----------------------------------------------------------------------------------------------------------

databases() { if [ -n "$lago" ]; then echo lago meterbridge; else echo meterbridge; fi; }

# The service that has the spool: what it answered with 202 and Kafka has not yet.
ingress() { if [ -n "$lago" ]; then echo lago-api-integration; else echo ingress; fi; }

# In the image of the service that owns the volume, and as its user.
in_volume() { compose run --rm --no-deps -T --entrypoint tar "$@"; }

again() { compose up --detach --wait --no-build --no-recreate; }

backup() {
  local folder=${1:-} stay='' writers=(worker) database service
  [ "$folder" = --stop ] && stay=1 && shift && folder=${1:-}
  [ "${2:-}" = --stop ] && stay=1
  [ -n "$folder" ] || fail 'backup: name a new folder' 2
  [ ! -e "$folder" ] || fail "backup: $folder is already there" 2
  [ -n "$(compose ps --quiet postgres)" ] || fail 'backup: postgres does not run'
  umask 077
  mkdir -p "$folder"
  [ -n "$stay" ] || trap again EXIT
  # With --stop nothing may be taken after the copy. Without it the ingress goes on, and has its spool while Kafka is away.
  if [ -n "$stay" ]; then
    writers=()
    while read -r service; do writers+=("$service"); done < <(compose ps --services | grep -vxE 'postgres|kafka')
  fi
  # Postgres before Kafka: its rows say how far they have read, and Kafka may have more, but never less.
  compose stop "${writers[@]}"
  for database in $(databases); do
    compose exec -T postgres pg_dump --format=custom --username "$database" "$database" >"$folder/$database.dump"
  done
  compose stop kafka
  in_volume kafka -C /var/lib/kafka/data -czf - . >"$folder/kafka.tar.gz"
  if [ -n "$lago" ]; then in_volume lago-api -C /app/storage -czf - . >"$folder/lago-storage.tar.gz"; fi
  if [ -n "$stay" ]; then in_volume "$(ingress)" -C /var/lib/meterbridge/spool -czf - . >"$folder/spool.tar.gz"; fi
  printf '%s\n' "$(basename "$file") $([ -n "$stay" ] && echo last || echo earlier) $(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$folder/backup.txt"
  (cd "$folder" && sha256sum -- * >SHA256SUMS)
  if [ -n "$stay" ]; then compose stop; else trap - EXIT && again; fi
  say "$folder has the backup. It has no keys: keep .env in another place."
}

restore() {
  local folder=${1:-} behind=${2:-} project made database given volume
  [ -f "${folder:-.}/SHA256SUMS" ] || fail 'restore: name a folder that was made by backup' 2
  (cd "$folder" && sha256sum --check --quiet SHA256SUMS) || fail "restore: $folder is not what was written"
  read -r made given _ <"$folder/backup.txt"
  [ "$made" = "$(basename "$file")" ] || fail "restore: this is a backup of $made" 2
  [ "$given" = last ] || [ "$behind" = --behind ] || fail "restore: calls were taken after this backup was made.
Names of events would be used twice, and Lago would refuse the second. docs/containers.md#backups says when --behind is right." 2
  project=$(compose config | sed -n 's/^name: //p')
  for volume in kafka-data postgres-data; do
    [ -z "$(docker volume ls --quiet --filter "name=^${project}_$volume\$")" ] \
      || fail "restore: the installation $project has data. \`docker compose down --volumes\` deletes it" 2
  done
  compose build --quiet topics
  compose up --detach --wait postgres
  if [ -n "$lago" ]; then compose run --rm -T databases; fi
  for database in $(databases); do
    compose exec -T postgres pg_restore --exit-on-error --no-owner --no-privileges --username "$database" --dbname "$database" \
      <"$folder/$database.dump"
  done
  in_volume kafka -C /var/lib/kafka/data -xzf - <"$folder/kafka.tar.gz"
  if [ -n "$lago" ]; then in_volume lago-api -C /app/storage -xzf - <"$folder/lago-storage.tar.gz"; fi
  if [ -f "$folder/spool.tar.gz" ]; then in_volume "$(ingress)" -C /var/lib/meterbridge/spool -xzf - <"$folder/spool.tar.gz"; fi
  say 'The data is back. Start it: deploy/deploy.sh deploy'
}

# --- words --------------------------------------------------------------------------------------------------------------------

while [ $# -gt 0 ]; do
  case $1 in
    --lago) lago=1 file=$root/deploy/compose/lago.yml example=$root/deploy/compose/.env.example ;;
    --env-file)
      env_file=${2:-}
      [ -n "$env_file" ] || fail '--env-file: name a file' 2
      shift
      ;;
    --help | -h | help) help && exit ;;
    -*) fail "there is no option $1; --help says which there are" 2 ;;
    *) break ;;
  esac
  shift
done
env_file=${env_file:-$(dirname "$file")/.env}
word=${1:-}
[ -n "$word" ] || { help >&2 && exit 2; }
shift
case $word in keys | deploy | test | status | logs | backup | restore) ;; *) fail "there is no command $word; --help says which there are" 2 ;; esac
if [ "$word" != keys ]; then
  [ -f "$env_file" ] || fail "$env_file is not there: \`deploy/deploy.sh keys\` makes it" 2
  docker compose version >/dev/null 2>&1 || fail 'docker compose, version 2, is not installed'
fi
case $word in
  test) test_it ;;
  logs) compose logs "$@" ;;
  *) "$word" "$@" ;;
esac
