# Tuneline itself: the worker, serving, backups, and the nodes of a Ray cluster, whose Python must be the same.
# Built from the repository's root:  docker build -f infra/images/tuneline.Dockerfile -t tuneline:0.7.0 .
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv /opt/venv
WORKDIR /build
COPY infra/constraints.txt infra/constraints.txt
# torch first and by its pin, so that no other package's range picks another build. TORCH_INDEX: that of a CUDA build, for machines
# with an accelerator.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN /opt/venv/bin/pip install -c infra/constraints.txt --index-url "$TORCH_INDEX" torch
COPY pyproject.toml README.md ./
COPY pipeline pipeline
COPY flows flows
RUN /opt/venv/bin/pip install -c infra/constraints.txt ".[stack,ray]" && /opt/venv/bin/python -m compileall -q -j 0 /opt/venv/lib

FROM python:3.11.14-slim-bookworm
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git=1:2.39.* tini=0.19.* \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 tuneline \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin tuneline \
    && install --directory --owner=10001 --group=10001 --mode=0700 /project /state /backups
COPY --from=build /opt/venv /opt/venv
COPY --chmod=755 infra/images/with-secrets /usr/local/bin/with-secrets
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    OMP_WAIT_POLICY=PASSIVE \
    HF_HUB_OFFLINE=1 \
    HF_DATASETS_OFFLINE=1 \
    DO_NOT_TRACK=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    RAY_USAGE_STATS_ENABLED=0 \
    DVC_NO_ANALYTICS=1 \
    GX_ANALYTICS_ENABLED=false \
    GIT_CONFIG_COUNT=1 \
    GIT_CONFIG_KEY_0=safe.directory \
    GIT_CONFIG_VALUE_0=/project
USER 10001:10001
WORKDIR /project
ENTRYPOINT ["tini", "--", "with-secrets"]
CMD ["tuneline", "doctor"]
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["python", "-c", "import pipeline"]
