// RustDesk-style API servers of which no more is known than the client API.

import type { Preset } from '../gateway/preset.ts'
import { clientApiSettings, createClientApi } from './client-api.ts'

export const rustdesk: Preset = {
  name: 'rustdesk',
  text: 'the client API of RustDesk-style servers, for unmodified clients of 1.2.6 and later',
  settings: clientApiSettings('rustdesk'),
  create: parts => {
    const { console, signIn } = createClientApi('rustdesk', parts)
    return { ...console, signIn }
  }
}
