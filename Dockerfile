# millpond in a container: every process of it is `millpond COMMAND` in this one image.
#
# Built from what requirements.lock names, by hash, and from wheels alone: nothing is compiled, and
# nothing but the package index is asked. By itself it is all of millpond in one process tree, for a
# look; docker-compose.yml starts each process in a container of its own.
ARG PYTHON=3.13-slim-bookworm

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/millpond
WORKDIR /build
COPY requirements.lock ./
RUN /opt/millpond/bin/pip install --require-hashes --only-binary :all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
COPY producer ./producer
COPY scheduler ./scheduler
COPY worker ./worker
RUN /opt/millpond/bin/pip install --no-deps --no-build-isolation . \
 && /opt/millpond/bin/pip uninstall --yes hatchling pathspec pluggy tomlkit trove-classifiers pip

FROM python:${PYTHON}
RUN groupadd --gid 10001 millpond \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin millpond \
 && install --directory --owner 10001 --group 10001 --mode 0700 /data
COPY --from=build /opt/millpond /opt/millpond
ENV PATH=/opt/millpond/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', 8080, timeout=5); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["millpond"]
CMD ["up", "--host", "0.0.0.0", "--data-dir", "/data"]
