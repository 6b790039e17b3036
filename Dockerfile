# The Dormouse server. `docker build -t dormouse .`, then:
#   docker run -p 8080:8080 -v dormouse-data:/data dormouse

# The same release as rust-toolchain.toml, which stays out of the image: it asks for clippy and rustfmt too.
FROM rust:1.95.0-bookworm AS build
WORKDIR /src
# SQLite's build flags are in .cargo/config.toml. Without them the server would hold a SQLite that can do more.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock LICENSE ./
COPY runtime runtime
COPY guest-sdk guest-sdk
COPY functions functions
COPY tests tests
# No `--package`: cargo then chooses the features of shared crates as it does in the tests.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked --bin dormouse && cp target/dist/dormouse /dormouse

FROM debian:bookworm-slim
# A number, because a platform that mounts a volume takes its owner from USER.
RUN groupadd --gid 10001 dormouse \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin dormouse \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data
COPY --from=build /dormouse /usr/local/bin/dormouse
USER 10001:10001
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
# The admin door stays on loopback: `docker exec`, or `fly ssh console`, reaches it.
ENTRYPOINT ["dormouse", "serve", "--data", "/data", "--public-listen", "0.0.0.0:8080", "--admin-listen", "127.0.0.1:9090"]
