// The table of factors. To add one: a file in this folder and a line here.

import type { Factor } from '../model.ts'
import { backupCodeFactor } from './backup-code.ts'
import { email } from './email.ts'
import { totp } from './totp.ts'

/** Best first; challenges list their methods in this order. */
export const FACTORS = [totp, email, backupCodeFactor] as const satisfies readonly Factor[]

export type FactorName = (typeof FACTORS)[number]['name']
