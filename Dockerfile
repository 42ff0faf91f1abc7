# The server in a container of its own, beside the engine whose socket it is given:
#   docker build -t online-compiler-backend .
#   docker run -p 3000:3000 -v /var/run/docker.sock:/var/run/docker.sock online-compiler-backend
# Where no registry answers, scripts/rust-image makes the image to build in, and
# `docker build --network host` reaches Debian's packages and crates.io.

ARG RUST_IMAGE=rust:1-bookworm

# The dependencies alone first, for an empty program: this layer lasts until they change.
FROM $RUST_IMAGE AS build
WORKDIR /build
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
RUN mkdir src benches \
 && echo 'fn main() {}' > src/main.rs \
 && touch src/lib.rs benches/promises.rs \
 && cargo build --release --locked \
 && rm -r src
COPY images images
COPY src src
# Younger than what was built above, which is what cargo goes by.
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked \
 && cp target/*/release/online-compiler /online-compiler

# The client alone, from the younger Debian: engines since 29 refuse the older one's API,
# and this one still speaks to engines of 2019.
FROM debian:bookworm-slim AS client
WORKDIR /client
RUN find /etc/apt -name '*.list' -o -name '*.sources' | xargs sed -i s/bookworm/trixie/ \
 && apt-get update \
 && apt-get download docker-cli \
 && dpkg-deb -x docker-cli_*.deb .

FROM debian:bookworm-slim
COPY --from=client /client/usr/bin/docker /usr/bin/docker
COPY --from=build /online-compiler /usr/bin/online-compiler
# Published ports arrive from outside the container's loopback, so it listens on all.
ENV HOST=0.0.0.0 PORT=3000 ALLOW_ANONYMOUS=true
EXPOSE 3000
# The first start may have images to build, which takes its time.
HEALTHCHECK --interval=30s --timeout=45s --start-period=30m CMD ["online-compiler", "health"]
ENTRYPOINT ["online-compiler"]
CMD ["serve"]
