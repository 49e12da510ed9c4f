// Lint: neostandard, and what keeps time, randomness, settings and layers where they belong.

import neostandard, { plugins } from 'neostandard'

/** Time, randomness and settings are arguments (ports); only the edges read them. */
const ARGUMENTS = {
  'no-restricted-globals': ['error',
    { name: 'setTimeout', message: 'Logic has no timers; take a clock, or do it in an adapter.' },
    { name: 'setInterval', message: 'Logic has no timers; use adapters/background.' }
  ],
  'no-restricted-properties': ['error',
    { object: 'Date', property: 'now', message: 'Take a Clock.' },
    { object: 'Math', property: 'random', message: 'Take Randomness.' },
    { object: 'process', property: 'env', message: 'Settings come from the configuration.' }
  ]
}

/** What no source file of the product holds. */
const SHAPES = {
  'no-restricted-syntax': ['error',
    { selector: 'ExportDefaultDeclaration', message: 'Export by name.' },
    { selector: 'TSEnumDeclaration', message: 'Use a union.' },
    { selector: 'ClassDeclaration:not([superClass.name="Error"])', message: 'Use a function that returns an object of functions.' }
  ]
}

/** A layer may not import what another layer is for. */
const layer = (files, group, message) => ({
  name: `postern/layers ${files.join(' ')}`,
  files,
  rules: { 'no-restricted-imports': ['error', { patterns: [{ group, message }] }] }
})

/** What else of the browser the step-up dialog uses. */
const DOM = Object.fromEntries(['CSSStyleSheet', 'FormData', 'ProgressEvent'].map(name => [name, 'readonly']))

export default [
  { ignores: ['**/dist/', '**/node_modules/', '.tap/', 'coverage/', 'data/', 'plugin/src/service-api.d.ts'] },
  ...neostandard({ ts: true }),
  {
    name: 'postern/style',
    rules: {
      // A promise that is not waited for says so.
      'no-void': ['error', { allowAsStatement: true }],
      // Control bytes are what several checks look for.
      'no-control-regex': 'off',
      '@stylistic/max-len': ['error', {
        code: 120, ignoreUrls: true, ignoreStrings: true, ignoreTemplateLiterals: true, ignoreRegExpLiterals: true
      }]
    }
  },
  {
    name: 'postern/typescript',
    files: ['**/*.ts'],
    plugins: { '@typescript-eslint': plugins['typescript-eslint'].plugin },
    rules: {
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-non-null-assertion': 'error',
      '@typescript-eslint/consistent-type-imports': ['error', { disallowTypeAnnotations: false }]
    }
  },
  {
    name: 'postern/browser',
    files: ['service/browser/*.js', 'plugin/browser/*.js'],
    languageOptions: { globals: { window: 'readonly', document: 'readonly', navigator: 'readonly', ...DOM } }
  },
  { name: 'postern/source', files: ['service/src/**/*.ts', 'plugin/src/**/*.ts'], rules: { ...ARGUMENTS, ...SHAPES } },
  {
    name: 'postern/edges',
    files: ['service/src/main.ts', 'service/src/cli/run.ts', 'service/src/adapters/**/*.ts'],
    rules: { 'no-restricted-globals': 'off', 'no-restricted-properties': 'off' }
  },
  {
    name: 'postern/plugin entry',
    files: ['plugin/src/index.ts'],
    rules: { 'no-restricted-syntax': 'off' }
  },
  {
    name: 'postern/plugin edges',
    files: ['plugin/src/{index,changes,deadline,sockets}.ts', 'plugin/src/{gateway/process,cli/main}.ts'],
    rules: { 'no-restricted-globals': 'off', 'no-restricted-properties': 'off' }
  },
  layer(['service/src/domain/**/*.ts'],
    ['fastify', '@fastify/*', 'ioredis', 'kysely', 'pg', 'nodemailer', '**/adapters/*', '**/http/*', '**/config.ts', '**/app.ts'],
    'The domain imports nothing that talks to the outside.'),
  layer(['service/src/http/**/*.ts'], ['**/adapters/*', 'ioredis', 'kysely', 'pg', 'nodemailer'],
    'Routes call the domain; the composition root hands them the rest.'),
  layer(['service/src/adapters/**/*.ts'], ['**/http/*', 'fastify', '@fastify/*'], 'An adapter knows nothing of HTTP.'),
  layer(['plugin/src/**/*.ts'], ['postern', 'postern/*', '**/service/**'], 'The plugin knows the service by its HTTP interface only.')
]
