# The 2FA service as an image: docker build --target service -t postern .
# The gateway: docker build --target gateway -t postern-gateway .
# NODE_IMAGE may be pinned by digest: --build-arg NODE_IMAGE=docker.io/library/node@sha256:…

ARG NODE_IMAGE=docker.io/library/node:24-bookworm-slim

# Compiles; nothing of this stage but dist/ goes on.
FROM ${NODE_IMAGE} AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc tsconfig.json ./
COPY service/package.json service/
COPY plugin/package.json plugin/
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY scripts scripts
COPY service service
COPY plugin plugin
RUN node scripts/build.js

# The service is one bundle, and Node 24 has SQLite built in: it needs no package beside it. And the inventory of it.
FROM ${NODE_IMAGE} AS service-files
WORKDIR /build
COPY LICENSE service/package.json service/
COPY service/views service/views
COPY service/locales service/locales
COPY service/mails service/mails
COPY service/browser service/browser
COPY --from=build /build/service/dist service/dist
COPY scripts/inventory.js scripts/npm-packages.js /
RUN node /inventory.js /build service

FROM ${NODE_IMAGE} AS gateway-files
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
COPY service/package.json service/
COPY plugin/package.json plugin/
# The service is for `fastify-postern try` only; npm would install it here because it is a workspace.
RUN npm pkg delete peerDependencies.postern peerDependenciesMeta --workspace fastify-postern \
  && npm ci --omit=dev --ignore-scripts --no-audit --no-fund --workspace fastify-postern \
  && rm -rf node_modules/.package-lock.json \
  && find . -path '*/node_modules/*' -type f \( -name '*.map' -o -name '*.ts' -o -name '*.mts' -o -name '*.cts' \) -delete
COPY LICENSE plugin/
COPY plugin/locales plugin/locales
COPY plugin/browser plugin/browser
COPY --from=build /build/plugin/dist plugin/dist
COPY --from=build /build/plugin/browser/style.css plugin/browser/style.css
COPY scripts/inventory.js scripts/npm-packages.js /
RUN node /inventory.js /build plugin

# No package manager, no root: a number, because Kubernetes cannot tell by a name that it is not root.
FROM ${NODE_IMAGE} AS runtime
RUN rm -rf /usr/local/lib/node_modules /usr/local/bin/npm /usr/local/bin/npx /usr/local/bin/corepack \
    /usr/local/bin/yarn /usr/local/bin/yarnpkg /opt/yarn-* \
  && mkdir -p -m 0750 /data && chown 10001:10001 /data
ENV NODE_ENV=production
WORKDIR /app

FROM runtime AS gateway
LABEL org.opencontainers.image.title="postern-gateway" \
  org.opencontainers.image.description="Two-factor verification in front of a console whose code nobody touches" \
  org.opencontainers.image.licenses="MIT"
COPY --from=gateway-files /build/node_modules node_modules
COPY --from=gateway-files /build/plugin plugin
COPY --from=gateway-files /build/sbom.cdx.json /build/licences.txt ./
RUN ln -s /app/plugin/dist/gateway.js /usr/local/bin/postern-gateway
USER 10001:10001
ENV POSTERN_GATEWAY_HOST=0.0.0.0 \
  POSTERN_GATEWAY_OPERATIONS_HOST=0.0.0.0
EXPOSE 8080 8081
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["node", "-e", \
  "fetch(`http://127.0.0.1:${process.env.POSTERN_GATEWAY_OPERATIONS_PORT || 8081}/readyz`).then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["postern-gateway"]
CMD ["serve"]

FROM runtime AS service
LABEL org.opencontainers.image.title="postern" \
  org.opencontainers.image.description="Two-factor verification that several consoles share" \
  org.opencontainers.image.licenses="MIT"
COPY --from=service-files /build/service service
COPY --from=service-files /build/sbom.cdx.json /build/licences.txt ./
RUN ln -s /app/service/dist/main.js /usr/local/bin/postern
USER 10001:10001
ENV POSTERN_HOST=0.0.0.0 \
  POSTERN_OPERATIONS_HOST=0.0.0.0 \
  POSTERN_DATABASE=sqlite:/data/postern.db
# Only the embedded database writes; everything else runs on a read-only root.
VOLUME /data
EXPOSE 7070 7071
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["node", "-e", \
  "fetch(`http://127.0.0.1:${process.env.POSTERN_OPERATIONS_PORT || 7071}/readyz`).then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["postern"]
CMD ["serve"]
