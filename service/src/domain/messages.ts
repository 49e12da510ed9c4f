// Everything people are mailed, by name. The words stand in mails/<language>.json, one entry a message.

/** Codes: at once or not at all. */
export const CODES = ['login_code', 'test_code', 'proof_code'] as const

/** Notices: until they arrive, else shown on pages. */
export const NOTICES = [
  'totp_enabled',
  'totp_renewed',
  'totp_disabled',
  'email_enabled',
  'email_disabled',
  'backup_codes_renewed',
  'backup_code_used',
  'address_changed',
  'locked',
  'unlocked',
  'reset'
] as const

export type CodeMessage = (typeof CODES)[number]
export type NoticeMessage = (typeof NOTICES)[number]
