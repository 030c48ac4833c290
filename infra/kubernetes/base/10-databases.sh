#!/bin/sh
# A database and an owner for each of ledger, mlflow and prefect, each its owner's alone. The image of PostgreSQL runs this once,
# on an empty cluster. Passwords are read by psql itself: in a command line anybody could read them.
set -eu
for name in ledger mlflow prefect; do
    export name secret_file="${SECRETS:-/run/secrets}/$name"
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\set name `printf %s "$name"`
\set secret `cat "$secret_file"`
SELECT format('CREATE ROLE %I LOGIN PASSWORD %L', :'name', :'secret') \gexec
SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'name') \gexec
SELECT format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', :'name') \gexec
SQL
done
