// Audit records and notices made from a request: what is written, and to whom it is told.

import { addressPrefix } from './addresses.ts'
import type { NoticeMessage } from './messages.ts'
import { sealContext, type About, type Ask, type By, type Event, type SubjectState } from './model.ts'
import type { Tenant } from './policy.ts'
import type { Mailer, Sealer } from './ports.ts'
import type { Notice, Records } from './records.ts'

/** An audit record of what a person did. */
export function eventOf (ask: Ask, event: Pick<Event, 'kind' | 'outcome'> & Partial<Event>): Event {
  return {
    subject: ask.by.subject,
    actor: 'subject',
    requestId: ask.requestId,
    addressPrefix: addressPrefix(ask.about.address),
    ...event
  }
}

/** What a notice may say of who did it: the browser and the address, cut short, so that nobody's words fill a mail. */
export function whoAsked (about: About): Readonly<Record<string, string>> {
  return { browser: (about.userAgent ?? '').slice(0, 200), address: (about.address ?? '').slice(0, 64) }
}

export interface Notices {
  /**
   * One notice to each address that must hear of it; one without address where none is known, so that pages can show
   * it.
   */
  readonly to: (
    tenant: Tenant,
    ask: Ask,
    state: SubjectState,
    message: NoticeMessage,
    values?: Readonly<Record<string, string>>,
    also?: readonly string[]
  ) => readonly Notice[]
  /** Notices were written, and need not wait for the outbox to look by itself. */
  readonly written: () => void
  /** Keeps what the console said of the subject (address, language), so that notices raised later find a way. */
  readonly remember: (tenant: Tenant, ask: Ask, state: SubjectState, now: number) => Promise<void>
  readonly provenAddress: (by: By, state: SubjectState) => string | undefined
  /** Where codes go: what an administrator set, else the proven address. */
  readonly codeAddress: (by: By, state: SubjectState) => string | undefined
  /** What the console says: on this request, else what it said before. */
  readonly consoleAddress: (ask: Ask, state: SubjectState) => string | undefined
}

export function createNotices ({
  records,
  sealer,
  wake
}: {
  readonly records: Records
  readonly sealer: Sealer
  readonly wake: Mailer['wake']
}): Notices {
  const contactContext = (by: By) => sealContext('contact', by.tenant, by.subject)

  const provenAddress: Notices['provenAddress'] = (by, state) => {
    const own = state.authenticators.find(one => one.factor === 'email')
    return own === undefined
      ? undefined
      : sealer.unseal(own.secret, sealContext('authenticator', by.tenant, by.subject, 'email', own.id))
  }
  const codeAddress: Notices['codeAddress'] = (by, state) =>
    state.setAddress === null ? provenAddress(by, state) : sealer.unseal(state.setAddress, contactContext(by))
  const consoleAddress: Notices['consoleAddress'] = ({ by, about }, state) => {
    if (about.email !== undefined) return about.email ?? undefined
    return state.contact === null ? undefined : sealer.unseal(state.contact, contactContext(by))
  }

  const to: Notices['to'] = (tenant, ask, state, message, values = {}, also = []) => {
    const all = new Set([
      ...also,
      codeAddress(ask.by, state),
      provenAddress(ask.by, state),
      consoleAddress(ask, state)
    ])
    const addresses = [...all].filter(address => address !== undefined)
    const locale = ask.about.locale ?? state.locale
    const notice = { message, locale, values: { console: tenant.name, ...whoAsked(ask.about), ...values } }
    if (addresses.length === 0) return [{ ...notice, to: null }]
    return addresses.map(address => ({ ...notice, to: sealer.seal(address, contactContext(ask.by)) }))
  }

  return {
    to,
    written: wake,
    provenAddress,
    codeAddress,
    consoleAddress,
    remember: async (tenant, ask, state, now) => {
      const { email, locale } = ask.about
      const before = state.contact === null ? undefined : sealer.unseal(state.contact, contactContext(ask.by))
      const changed = email !== undefined && (email ?? undefined) !== before
      if (!changed && (locale === undefined || locale === state.locale)) return
      // A console address that changed is told to the old and the new one, where codes by mail are on.
      const tell = changed && before !== undefined && state.authenticators.some(own => own.factor === 'email')
      await records.remember(ask.by.tenant, ask.by.subject, {
        ...(changed ? { contact: email == null ? null : sealer.seal(email, contactContext(ask.by)) } : {}),
        ...(locale === undefined ? {} : { locale }),
        notices: tell ? to(tenant, ask, state, 'address_changed', {}, [before]) : [],
        now
      })
      if (tell) wake()
    }
  }
}
