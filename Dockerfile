# Three images that share their layers: `slim` (the service, LiteRT alone), `service` (with TensorFlow too, for bundles
# without a usable step.tflite) and `training`. Nothing is compiled, so the stages build on each other as they are.
FROM python:3.11-slim AS base
ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/recurve/bin:$PATH \
    HOME=/tmp \
    RECURVE_MODELS_DIR=/var/lib/recurve/models \
    RECURVE_OBSERVATIONS_DIR=/var/lib/recurve/observations \
    RECURVE_TRAINING_CACHE=/var/lib/recurve/training
# One numbered user in every image, so that both sides may use a shared volume; a new volume takes these folders' owner.
RUN groupadd --gid 10001 recurve \
 && useradd --uid 10001 --gid recurve --no-create-home --home-dir /tmp --shell /usr/sbin/nologin recurve \
 && cd /var/lib && install -d -o recurve -g recurve recurve/models recurve/state recurve/observations recurve/training \
 && python -m venv /opt/recurve
WORKDIR /app

# What both images of the service are but for their packages: the code, and how it is run.
FROM base AS code
COPY models models
COPY service service
RUN python -m compileall -q models service

FROM base AS serving
ENV RECURVE_HOST=0.0.0.0 \
    RECURVE_PORT=8000 \
    RECURVE_STATE_URL=sqlite:////var/lib/recurve/state
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-c", \
 "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['RECURVE_PORT']), timeout=4); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]
CMD ["python", "-m", "service"]
COPY requirements/service.txt requirements/
RUN python -m pip install --require-hashes -r requirements/service.txt

FROM serving AS slim
COPY --from=code /app /app
USER recurve

FROM serving AS tensorflow
COPY requirements/service-tensorflow.txt requirements/
RUN python -m pip install --require-hashes -r requirements/service-tensorflow.txt

FROM tensorflow AS training
COPY requirements/training.txt requirements/
RUN python -m pip install --require-hashes -r requirements/training.txt
COPY models models
COPY training training
RUN python -m compileall -q models training
USER recurve
ENV MPLCONFIGDIR=/tmp/matplotlib
HEALTHCHECK NONE
CMD ["python", "-m", "training", "--help"]

# Last, so that a plain `docker build .` makes it.
FROM tensorflow AS service
COPY --from=code /app /app
USER recurve
