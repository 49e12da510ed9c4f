// Hands the token that the console keeps in script over, once and in its own header, so that the pages know who asks.
const { key, header, scheme, session } = document.querySelector('[data-token]').dataset
const TRIED = 'postern-tried'

/** undefined: a browser that keeps no cookies lets no page at its storage either. */
function stored () {
  let value
  try {
    value = window.localStorage.getItem(key) ?? window.sessionStorage.getItem(key)
  } catch {
    return undefined
  }
  try {
    const parsed = JSON.parse(value)
    return typeof parsed === 'string' ? parsed : value
  } catch {
    return value
  }
}

function say (what) {
  for (const text of document.querySelectorAll('[data-says]')) text.hidden = text.dataset.says !== what
}

async function handOver () {
  const token = stored()
  if (token === undefined) return say('cookies')
  if (token === null || token === '') return say('nobody')
  // Back here right after it went well: the browser keeps no cookies.
  const tried = Number(window.sessionStorage.getItem(TRIED) ?? 0)
  window.sessionStorage.removeItem(TRIED)
  if (Date.now() - tried < 10_000) return say('cookies')
  const answer = await window.fetch(session, { method: 'POST', headers: { [header]: scheme + token }, credentials: 'same-origin' })
  if (answer.status === 401) return say('nobody')
  if (!answer.ok) return say('failed')
  window.sessionStorage.setItem(TRIED, String(Date.now()))
  window.location.reload()
}

handOver().catch(() => say('failed'))
