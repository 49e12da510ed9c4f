// What the console shows: log-in, devices, account settings. Plain server-rendered pages.

import type { FastifyRequest } from 'fastify'
import { html, type Html } from './html.ts'
import type { User } from './users.ts'

type Totp = FastifyRequest['postern']['totp']

const ALERTS = { logins: 'Log-ins from a new place', offline: 'A device goes offline', reports: 'The weekly report' }

/** Names of the alerts a user can choose. */
export const alertNames: readonly string[] = Object.keys(ALERTS)

const DEVICES = [
  ['warehouse-01', 'Linux', 'online'],
  ['till-3', 'Windows', 'online'],
  ['office-mac', 'macOS', 'offline'],
  ['kiosk-entrance', 'Android', 'online']
] as const

const STATUS = {
  not_enabled: { text: 'Not enabled', action: 'Enable 2FA' },
  enabled: { text: 'Enabled', action: 'Manage 2FA' },
  expired: { text: 'Expired', action: 'Renew 2FA' }
}

function page (title: string, user: User | undefined, content: Html): string {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title} · Demo Console</title>
<link rel="stylesheet" href="/console.css">
</head>
<body>
<header>
  <a class="brand" href="/">Demo Console</a>
  ${user !== undefined && html`<nav>
    <a href="/">Devices</a>
    <a href="/account">Account</a>
    <form method="post" action="/logout"><button class="quiet">Log out</button></form>
  </nav>`}
</header>
<main>${content}</main>
</body>
</html>`.markup
}

export function loginPage (wrong: boolean, name = ''): string {
  return page('Log in', undefined, html`<section class="card narrow">
  <h1>Log in</h1>
  ${wrong && html`<p class="error" role="alert">The name or the password is not right.</p>`}
  <form method="post" action="/login">
    <label>Name <input name="name" value="${name}" autocomplete="username" autocapitalize="none" required autofocus></label>
    <label>Password <input name="password" type="password" autocomplete="current-password" required></label>
    <button>Log in</button>
  </form>
</section>`)
}

export function devicesPage (user: User): string {
  return page('Devices', user, html`<h1>Devices</h1>
<p class="note">Logged in as <b id="who">${user.settings.displayName}</b>.</p>
<section class="card">
  <table>
    <thead><tr><th>Name</th><th>System</th><th>State</th></tr></thead>
    <tbody>${DEVICES.map(([name, system, state]) => html`<tr><td>${name}</td><td>${system}</td><td><span class="dot ${state}"></span> ${state}</td></tr>`)}</tbody>
  </table>
</section>`)
}

export function accountPage (user: User, totp: Totp, saved: string | undefined): string {
  const { displayName, about, alerts } = user.settings
  const status = totp ?? 'not_enabled'
  return page('Account', user, html`<h1>Account</h1>
${saved !== undefined && html`<p class="saved" role="status">${saved}</p>`}
<section class="card">
  <h2>Two-factor authentication</h2>
  <p class="row"><span class="state ${status}" id="totp">${STATUS[status].text}</span>
    <a class="button ${status}" href="/2fa/settings">${STATUS[status].action}</a></p>
</section>
<section class="card">
  <h2>Profile</h2>
  <form method="post" action="/account/profile" id="profile">
    <label>Display name <input name="displayName" value="${displayName}" maxlength="100" required></label>
    <label>About you <textarea name="about" rows="3" maxlength="2000">${about}</textarea></label>
    ${status !== 'not_enabled' && html`<label>2FA code
      <input name="2fa-code" inputmode="numeric" autocomplete="one-time-code" maxlength="32">
      <small>Leave it empty if you were asked for a code a moment ago.</small></label>`}
    <button>Save profile</button>
  </form>
</section>
<section class="card">
  <h2>Alerts by e-mail</h2>
  <form method="post" action="/account/alerts" id="alerts">
    ${Object.entries(ALERTS).map(([name, text]) => html`<label class="check">
      <input type="checkbox" name="alerts" value="${name}" ${alerts.includes(name) && html`checked`}> ${text}</label>`)}
    <button>Save alerts</button>
  </form>
</section>
<section class="card">
  <h2>Password</h2>
  <form method="post" action="/account/password" id="password">
    <label>Current password <input name="current" type="password" autocomplete="current-password" required></label>
    <label>New password <input name="next" type="password" autocomplete="new-password" minlength="8" maxlength="200" required></label>
    <button>Change password</button>
  </form>
</section>`)
}

export function errorPage (user: User | undefined, title: string, text: string): string {
  return page(title, user, html`<section class="card narrow"><h1>${title}</h1><p>${text}</p><p><a href="/">Back to the console</a></p></section>`)
}
