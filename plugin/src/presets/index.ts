// The presets there are. To add one: its file, and its line here.

import type { Preset } from '../gateway/preset.ts'
import { forwardAuth } from './forward-auth.ts'
import { generic } from './generic.ts'
import { kingmo888 } from './kingmo888.ts'
import { lantongxue } from './lantongxue.ts'
import { lejianwen } from './lejianwen.ts'
import { rustdesk } from './rustdesk.ts'

const ALL: readonly Preset[] = [forwardAuth, generic, rustdesk, lejianwen, kingmo888, lantongxue]

export const PRESETS: ReadonlyMap<string, Preset> = new Map(ALL.map(preset => [preset.name, preset]))
