# One image for issuer, enforcer, audit, the one-shot services and the sample agents. Runs on Python 3.11 to 3.14.
ARG BASE_IMAGE=python:3.13-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /build
COPY requirements.lock ./
# Every file is checked against the lock's hash; what is installed below is taken from these files only.
RUN python3 -m venv tools \
 && tools/bin/pip download --quiet --no-deps --require-hashes --dest wheels -r requirements.lock \
 && tools/bin/pip install --quiet --no-index --find-links wheels hatchling editables
COPY pyproject.toml README.md LICENSE ./
COPY bus bus
COPY consumers consumers
COPY bench bench
COPY demo demo
COPY probe probe
COPY schemas schemas
COPY policies policies
RUN tools/bin/pip wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir wheels . \
 && python3 -m venv /opt/sealbus \
 && /opt/sealbus/bin/pip install --quiet --no-index --find-links wheels sealbus

FROM ${BASE_IMAGE}
COPY --from=build /opt/sealbus /opt/sealbus
COPY docker/agent.py /opt/sealbus/agent.py
# Places for the volumes: a new volume takes the owner of the folder that it covers.
RUN cd / && for each in \
      agents/retriever-1 agents/orchestrator-1 authority ca first jwks keys/roots keys/audit keys/tombstones ledger \
      nodes/1 nodes/2 nodes/3 pki policy run \
      services/bus-admin services/bus-audit services/bus-authority services/bus-enforcer-1 services/bus-reconciler \
      signers signers-of/issuer signers-of/audit watch; \
    do mkdir -p state/$each; done \
 && chown -R 10001:10001 /state && chmod -R u=rwx,go=x /state
ENV PATH=/opt/sealbus/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /state
ENTRYPOINT ["bus"]
