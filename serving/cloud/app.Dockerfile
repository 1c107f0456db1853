# The app's image, for Cloud Run and App Engine flexible. Context: the repository.
FROM python:3.11-slim

RUN pip install --no-cache-dir uv
ENV PYTHONUNBUFFERED=1 UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
# No library reports home, whatever loads it first (understudy/jobs/quiet_logs.py).
ENV ORT_DISABLE_TELEMETRY=1 MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true
WORKDIR /app

# The live app and the client of the endpoint; no TensorFlow, no MLflow.
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-default-groups --group serve --no-cache

COPY app.py ./
COPY ui ui
COPY pipelines pipelines
COPY training training
COPY serving serving
COPY understudy understudy
COPY liveframe liveframe
COPY bundles bundles

RUN useradd --system --create-home understudy
USER understudy
ENV UNDERSTUDY_WORK=/tmp/understudy PATH=/app/.venv/bin:$PATH
EXPOSE 8080
# Both hosts end HTTPS in front of the container: browsers give the camera to secure pages only. They also choose the
# container by the name that was asked for, so any name that arrives is one of the app's.
CMD ["sh", "-c", "exec streamlit run app.py --server.port ${PORT:-8080} --server.address 0.0.0.0 --server.headless true --server.allowedHosts '*' --browser.gatherUsageStats false"]
