#!/bin/sh
# One role and one database for each service, and for Keycloak should it be wanted later; only its owner may connect to
# a database. Run once, by PostgreSQL's image, when its volume is new. The server's own user is an administrator that
# no service knows.
set -eu

for service in auth gateway monitor scheduler keycloak; do
    password=$(printenv "DATABASE_PASSWORD_$(echo "$service" | tr a-z A-Z)") || {
        echo "no password for serai_$service: run ./make-secrets" >&2
        exit 1
    }
    psql -v ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --dbname "${POSTGRES_DB:-$POSTGRES_USER}" \
        -v role="serai_$service" -v password="$password" <<'SQL'
CREATE ROLE :"role" LOGIN PASSWORD :'password' NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION CONNECTION LIMIT 40;
CREATE DATABASE :"role" OWNER :"role" ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE :"role" FROM PUBLIC;
SQL
done

# Those that the server begins with are for the administrator alone.
psql -v ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --dbname "${POSTGRES_DB:-$POSTGRES_USER}" \
    -v admin="${POSTGRES_DB:-$POSTGRES_USER}" <<'SQL'
REVOKE ALL ON DATABASE postgres, template1, :"admin" FROM PUBLIC;
SQL
