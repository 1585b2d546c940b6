# The torch that requirements.txt pins and the tests run with: test/test_versions.py compares them.
ARG BASE_IMAGE=pytorch/pytorch:2.11.0-cuda12.8-cudnn9-runtime
# exec: the container scores one case and exits. invoke: it serves cases on port 4743.
ARG API_METHOD=exec

FROM ${BASE_IMAGE} AS common
WORKDIR /opt/app
# The base image's torch fits its CUDA; it must stay the one it came with. PyTorch's images use Ubuntu's Python, into
# which pip installs only when told to.
COPY requirements.lock .
RUN python -c "import torch; print('torch==' + torch.__version__)" > /tmp/base \
 && PIP_BREAK_SYSTEM_PACKAGES=1 python -m pip install --no-cache-dir --require-hashes -r requirements.lock \
 && python -c "import torch; print('torch==' + torch.__version__)" | diff /tmp/base - \
 && rm /tmp/base
COPY resources resources
COPY inference.py .
COPY nodulemc nodulemc
# Whatever the checkout's file modes, any user can read the application.
RUN python -m compileall -q inference.py nodulemc \
 && find . ! -perm -a=r -exec chmod a+rX {} + \
 && mkdir -p /input /output
ARG REVISION=unknown
ARG MODEL_SHA256=unknown
LABEL org.opencontainers.image.title="NoduleMC" \
      org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-3.0" \
      org.opencontainers.image.revision="${REVISION}" \
      nodulemc.model.sha256="${MODEL_SHA256}"
# The root file system may be read-only and the user any; only /output and /tmp are written.
ENV HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 1001

FROM common AS api-exec
LABEL org.grand-challenge.api-method="exec"
ENTRYPOINT ["python", "inference.py"]

FROM common AS api-invoke
LABEL org.grand-challenge.api-method="invoke"
EXPOSE 4743
ENTRYPOINT ["python", "-m", "nodulemc.grand_challenge"]

# The prefix keeps any other value from naming a public image; the build then ends here.
FROM api-${API_METHOD}
