# The dicode server. Build:  docker build -t dicode .        Use: docs/how-to/docker.md
# BASE is any Debian-like image with Python 3.11 or newer as `python3`, with venv and pip.
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY dicode_mcp ./dicode_mcp
COPY runtimes ./runtimes
COPY sdk ./sdk
COPY agents ./agents
RUN python3 -m venv /opt/dicode \
 && /opt/dicode/bin/pip install --no-cache-dir --disable-pip-version-check .

FROM ${BASE}
# Mount points belong to the server's user, and so do fresh named volumes on them.
RUN useradd --uid 10001 --user-group --create-home --shell /usr/sbin/nologin dicode \
 && install -d -o dicode -g dicode -m 0700 /data \
 && install -d -o dicode -g dicode -m 0755 /tasks
COPY --from=build /opt/dicode /opt/dicode
ENV PATH=/opt/dicode/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    DICODE_DATA_DIR=/data \
    LANG=C.UTF-8
USER dicode
WORKDIR /home/dicode
VOLUME ["/data", "/tasks"]

# The server listens on the container's own 127.0.0.1: it takes no other address without keys.
# So no port is published; clients come in by `docker exec -i … dicode mcp`.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-I", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:%s/healthz' % (os.environ.get('DICODE_PORT') or 8080), timeout=4)"]

# The server ends its runs on SIGTERM: give it that time with `docker stop --time 40`.
STOPSIGNAL SIGTERM
ENTRYPOINT ["dicode"]
CMD ["serve", "--source", "/tasks"]
