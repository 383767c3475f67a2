# contralex with all of its methods, from this clone.
#   docker build -t contralex .
#   docker run --rm contralex methods
#   docker run --rm --gpus all --shm-size 8g -v "$PWD/photos:/data:ro" -v "$PWD/runs:/work/runs" contralex \
#       train moco-v2 --preset photos --fit --data /data
FROM python:3.12-slim
# --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu takes torch without CUDA, which is much smaller.
ARG TORCH_INDEX=https://pypi.org/simple
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" --extra-index-url https://pypi.org/simple "torch>=2.4" "torchvision>=0.19"
WORKDIR /src
COPY core core
COPY plugins plugins
RUN pip install --no-cache-dir './core[digits,timm,tensorboard]' $(printf './%s ' plugins/*/) && rm -rf /src
RUN useradd --create-home contralex && mkdir /work && chown contralex /work
USER contralex
WORKDIR /work
ENTRYPOINT ["contralex"]
CMD ["--help"]
