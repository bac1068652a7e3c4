#!/usr/bin/env bash
# One study on several machines that ssh reaches. The study runs here; each host named trains for it.
#
#   export OPTUNA_STORAGE=postgresql://user:password@db/studies     # which all of them reach
#   deploy/ssh.sh my_study my_space.yaml host1 host2
#
# On every host there has to be the same version of tuner and of torch, and, for code of your own, FOLDER with that code.
# The hosts have to reach this machine at PORT; each has WORKERS processes. A host may be named more than once, and more
# of them may join later: the command below, by hand. Ctrl-C stops the study and its workers; the same line goes on.
set -euo pipefail
study=$1 space=$2
shift 2
: "${OPTUNA_STORAGE:?name the database, such as postgresql://user:password@db/studies}"
: "${WORKERS:=4}" "${PORT:=7400}" "${TUNER:=tuner}" "${FOLDER:=.}" "${SSH:=ssh -o BatchMode=yes}"

# On a host: a worker that ends when this script does, which its standard input tells. The address of the database comes
# over that, too: on a command line others could read its password.
words=$(printf '%q ' worker "$study" --workers "$WORKERS" --folder "$FOLDER")
there="read -r OPTUNA_STORAGE; export OPTUNA_STORAGE; exec 3<&0; $TUNER $words </dev/null 3<&- & worker=\$!
{ cat <&3 >/dev/null; kill \$worker; } 2>/dev/null & wait \$worker; code=\$?; kill \$! 2>/dev/null; exit \$code"
for host in "$@"; do
    $SSH "$host" "$there" < <(printf '%s\n' "$OPTUNA_STORAGE"; exec tail --pid=$$ -f /dev/null) &
done
$TUNER run "$space" --study-name "$study" --listen "0.0.0.0:$PORT"
wait
