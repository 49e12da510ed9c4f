// The schema, step by step; the same steps on SQLite and PostgreSQL.
//
// Rules for a later step, since replicas of the version before run on while it is applied and for the rest of a
// roll-out:
//   1. It expands: new tables, new indexes, new columns that are nullable or have a default. The version before must
//      go on reading and writing as if nothing had happened.
//   2. It contracts (drops, renames, narrows) only what no version still running reads or writes: at the earliest one
//      release after the one that stopped.
//   3. A step that was released is never changed, not even its name: databases remember it by that.
//   4. It runs in one transaction with the others, so that a killed migration leaves nothing behind. What rewrites a
//      large table is no step but work of a command (as `postern keys rotate`), in batches beside the running service.
//   5. There is no step back: a program refuses a schema with steps that it does not know. The way back is a backup.

import { sql, type Kysely, type Migration } from 'kysely'

async function run (db: Kysely<unknown>, statements: readonly string[]): Promise<void> {
  for (const statement of statements) await sql.raw(statement).execute(db)
}

export function migrations (dialect: 'sqlite' | 'postgres'): Record<string, Migration> {
  const serial = dialect === 'sqlite' ? 'integer primary key autoincrement' : 'bigserial primary key'
  // SQLite: the rows lie in the order of their key, so that a look-up reads one page of a large table and not two.
  const byKey = dialect === 'sqlite' ? ' without rowid' : ''
  return {
    '0001-records': {
      up: async (db: Kysely<unknown>) => {
        await run(db, [
          `create table subjects (
            tenant text not null, subject text not null, epoch bigint not null, failures_in_row integer not null default 0,
            locked_at bigint, required_from bigint, fenced integer not null default 0,
            enrolment_code_hash text, enrolment_code_expires_at bigint, contact text, set_address text, locale text,
            primary key (tenant, subject))${byKey}`,
          `create table authenticators (
            id text not null, tenant text not null, subject text not null, factor text not null,
            secret text not null, counter bigint not null default 0, confirmed_at bigint not null,
            primary key (tenant, subject, id))${byKey}`,
          `create table assurances (
            tenant text not null, session text not null, subject text not null, browser text not null, epoch bigint not null,
            login_at bigint, login_factor text, login_expires_at bigint,
            step_up_at bigint, step_up_factor text, step_up_scope text not null default 'any', expires_at bigint not null,
            primary key (tenant, session))${byKey}`,
          'create index assurances_subject on assurances (tenant, subject)',
          'create index assurances_expires on assurances (expires_at)',
          `create table accepted (
            tenant text not null, slot text not null, at bigint not null, expires_at bigint not null,
            subject text not null, session text not null, browser text not null, purpose text not null, factor text not null,
            return_path text, idempotency_key text, primary key (tenant, slot))${byKey}`,
          'create index accepted_at on accepted (at)',
          `create table browsers (
            tenant text not null, subject text not null, browser text not null, passed_at bigint not null,
            failures_in_row integer not null default 0, primary key (tenant, subject, browser))${byKey}`,
          'create table failures (tenant text not null, subject text not null, at bigint not null)',
          'create index failures_subject on failures (tenant, subject, at)',
          `create table events (
            id ${serial}, tenant text not null, at bigint not null, subject text not null, kind text not null,
            outcome text not null, actor text not null, purpose text, factor text, reason text, request_id text, address_prefix text)`,
          'create index events_subject on events (tenant, subject, id)',
          'create table change_numbers (tenant text not null primary key, number bigint not null)',
          `create table changes (
            tenant text not null, number bigint not null, at bigint not null, kind text not null, session text, subject text,
            primary key (tenant, number))`,
          `create table notices (
            id text not null primary key, tenant text not null, subject text not null, at bigint not null, message text not null,
            recipient text, locale text, details text not null, next_at bigint, sent_at bigint, dismissed_at bigint)`,
          'create index notices_next on notices (next_at)',
          'create index notices_subject on notices (tenant, subject)',
          `create table lease (
            name text not null primary key, holder text not null, host text not null, pid integer not null, renewed_at bigint not null)`
        ])
      }
    },
    '0002-numbers-and-marks': {
      up: async (db: Kysely<unknown>) => {
        await run(db, [
          'alter table events add column number bigint',
          'create index events_number on events (tenant, number) where number is not null',
          'create index events_unnumbered on events (tenant, id) where number is null',
          'create index events_at on events (at)',
          'create index failures_at on failures (at)',
          'create index browsers_passed_at on browsers (passed_at)',
          'create index changes_at on changes (at)',
          'create index notices_at on notices (at)',
          'create table event_numbers (tenant text not null primary key, number bigint not null)',
          `create table key_marks (
            kind text not null, id text not null, mark text not null, first_seen_at bigint not null, primary key (kind, id))`,
          'create table identity (name text not null primary key, id text not null, made_at bigint not null)',
          'create table rules (tenant text not null primary key, digest text not null, changed_at bigint not null)'
        ])
      }
    }
  }
}
