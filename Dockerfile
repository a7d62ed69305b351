# A server of adapters (docs/deploy.md): docker build --build-arg TORCH_INDEX=URL . ; without the argument torch comes with CUDA.
FROM python:3.11-slim
ARG TORCH_INDEX
COPY . /src
RUN pip install --no-cache-dir --constraint /src/constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision \
 && pip install --no-cache-dir --constraint /src/constraints.txt '/src[serve]' \
 && rm -r /src && useradd --create-home serve
USER serve
ENV HF_HUB_OFFLINE=1
VOLUME /runs /models
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health')"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["dept-vl", "serve", "--host", "0.0.0.0"]
CMD ["/runs/vqa-dept"]
