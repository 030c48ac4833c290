# The servers of MLflow and Prefect, at the pins that Tuneline's clients have. Neither torch nor Tuneline is in it.
# Built from the repository's root:  docker build -f infra/images/servers.Dockerfile -t tuneline-servers:0.7.0 .
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv /opt/venv
COPY infra/constraints.txt /build/constraints.txt
# The constraints hold FastAPI and SQLAlchemy where Prefect's server starts and its schedules run.
RUN /opt/venv/bin/pip install -c /build/constraints.txt "mlflow[auth]" prefect "psycopg[binary]" asyncpg boto3 fastapi sqlalchemy \
    && /opt/venv/bin/python -m compileall -q -j 0 /opt/venv/lib

FROM python:3.11.14-slim-bookworm
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini=0.19.* \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 servers \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin servers \
    && install --directory --owner=10001 --group=10001 --mode=0700 /accounts
COPY --from=build /opt/venv /opt/venv
COPY --chmod=755 infra/images/with-secrets /usr/local/bin/with-secrets
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    DO_NOT_TRACK=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
    PREFECT_SERVER_ANALYTICS_ENABLED=false
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["tini", "--", "with-secrets"]
CMD ["mlflow", "--version"]
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["python", "-c", "import mlflow, prefect"]
