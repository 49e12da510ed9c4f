// Counters and gauges in the Prometheus text format. No label ever holds a subject, a session or an address.

import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from 'prom-client'

export interface Metrics {
  readonly contentType: string
  readonly text: () => Promise<string>
  readonly answered: (route: string, method: string, status: number, seconds: number) => void
  readonly verdict: (tenant: string, purpose: string, verdict: string) => void
}

export interface Gauges {
  /** Number of open change streams. */
  readonly streams: () => number
  /** Mails waiting in this process. */
  readonly mailQueue: () => number
  /** 1 while the mail server can be used, as far as is known. */
  readonly mailUp: () => number
  /** Seconds by which this process's clock is ahead of the one that replicas share. */
  readonly clockOff: () => number
  /** Lines of the log that nobody took. */
  readonly logDropped: () => number
}

export function createMetrics (gauges: Gauges): Metrics {
  const register = new Registry()
  collectDefaultMetrics({ register, prefix: 'postern_' })
  const requests = new Histogram({
    name: 'postern_request_seconds',
    help: 'Time to answer, by route, method and status class',
    labelNames: ['route', 'method', 'status'],
    buckets: [0.001, 0.005, 0.02, 0.1, 0.5, 2],
    registers: [register]
  })
  const verdicts = new Counter({
    name: 'postern_verdicts_total',
    help: 'Answers to submitted codes',
    labelNames: ['tenant', 'purpose', 'verdict'],
    registers: [register]
  })
  const gauge = (name: string, help: string, value: () => number) =>
    new Gauge({
      name,
      help,
      registers: [register],
      collect () {
        this.set(value())
      }
    })
  gauge('postern_change_streams', 'Open change streams', gauges.streams)
  gauge('postern_mail_queue', 'Mails waiting in this process', gauges.mailQueue)
  gauge('postern_mail_up', '1 while the mail server can be used, 0 from a failure until it takes a mail', gauges.mailUp)
  gauge('postern_clock_off_seconds', "How far this host's clock is ahead of the one that replicas share", gauges.clockOff)
  gauge('postern_log_lines_dropped', 'Lines of the log that were dropped since the start, because nobody read them', gauges.logDropped)
  return {
    contentType: register.contentType,
    text: async () => await register.metrics(),
    answered: (route, method, status, seconds) => {
      requests.observe({ route, method, status: `${Math.floor(status / 100)}xx` }, seconds)
    },
    verdict: (tenant, purpose, verdict) => {
      verdicts.inc({ tenant, purpose, verdict })
    }
  }
}
