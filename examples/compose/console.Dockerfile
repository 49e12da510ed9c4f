# The example console, for a try: development dependencies and all.
FROM docker.io/library/node:24-bookworm-slim
WORKDIR /app
COPY package.json package-lock.json .npmrc tsconfig.json ./
COPY service/package.json service/
COPY plugin plugin
RUN npm ci --ignore-scripts --no-audit --no-fund --workspace fastify-postern --include-workspace-root
COPY scripts scripts
COPY service/browser service/browser
COPY examples examples
RUN node node_modules/typescript/bin/tsc -p plugin/tsconfig.build.json && cp service/browser/style.css plugin/browser/style.css
USER 1000:1000
CMD ["node", "--import", "tsx", "examples/mounted-console/main.ts", "/console/console.json"]
