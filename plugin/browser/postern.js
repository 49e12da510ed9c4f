// The step-up dialog of a console that talks to its server by script: asks for a code where the gate asks for a fresh
// verification, and repeats the request with it, before the page learns of the refusal.

const STEP_UP = /\berror="insufficient_user_authentication"/
const LOGIN = ['login_required', 'enrolment_required']
/** Long enough for a page to be left, short enough to tell a console that nothing comes of it. */
const LEAVING_MS = 30_000
const LOOP_MS = 10_000
const INSTALLED = Symbol.for('postern')

/** Wraps `fetch` and `XMLHttpRequest` of this window; returns a function that takes the wrapping off. */
export function installPostern ({ language } = {}) {
  if (typeof window === 'undefined') return () => {}
  if (window[INSTALLED] !== undefined) return window[INSTALLED]
  const { location, fetch: nativeFetch, XMLHttpRequest: NativeXhr } = window
  const { open, send, abort, setRequestHeader } = NativeXhr.prototype
  const callFetch = (...args) => nativeFetch.apply(window, args)
  const dialog = createDialog({ callFetch, language })

  const own = url => {
    try {
      return new URL(url, document.baseURI).origin === location.origin
    } catch {
      return false
    }
  }

  /** What the gate says in a refused answer; undefined where it is not the gate of this very origin that speaks. */
  function readProblem (text, authenticate) {
    try {
      const problem = JSON.parse(text)
      const { pathname, origin } = new URL(problem.verify_url, location.origin)
      if (!problem.type.startsWith('urn:postern:problem:') || origin !== location.origin) return undefined
      const stepUp = problem.challenge && STEP_UP.test(authenticate)
      const asks = LOGIN.includes(problem.code) ? 'login' : stepUp ? 'step_up' : undefined
      return asks && { ...problem, asks, verify_url: pathname, base: pathname.replace(/\/(verify|enrol)(\/[^/]*)?$/, '') }
    } catch {
      return undefined
    }
  }

  const looksOurs = (status, type) => (status === 401 || status === 403) && /^application\/problem\+json/.test(type)
  // A redirect in between may have done something already: only what changes nothing is sent down that way again.
  const wasMoved = (method, asked, answered) =>
    !/^(GET|HEAD)$/i.test(method) && new URL(asked, document.baseURI).href.split('#')[0] !== answered.split('#')[0]

  let leaving = false

  /** Goes to the verification page. What waits is asked again where the browser brings this very page back. */
  function verifyLogin (problem, again, refused) {
    if (!leaving) {
      try {
        // Back from there a moment ago: going again would go round in circles.
        if (Date.now() - Number(window.sessionStorage.getItem('postern-left')) < LOOP_MS) return refused()
        window.sessionStorage.setItem('postern-left', String(Date.now()))
      } catch {}
      leaving = true
      location.assign(problem.verify_url)
    }
    return new Promise(resolve => {
      const late = setTimeout(() => {
        leaving = false
        resolve(refused())
      }, LEAVING_MS)
      window.addEventListener('pageshow', () => {
        clearTimeout(late)
        leaving = false
        resolve(again())
      }, { once: true })
    })
  }

  async function readResponse (response, request) {
    if (response.type !== 'basic' || !looksOurs(response.status, response.headers.get('content-type') ?? '')) return undefined
    if (response.redirected && wasMoved(request.method, request.url, response.url)) return undefined
    return readProblem(await response.clone().text(), response.headers.get('www-authenticate') ?? '')
  }

  async function watchedFetch (first, spare) {
    const again = async code => {
      const request = spare.clone()
      if (code !== undefined) request.headers.set('2fa-code', code)
      const response = await callFetch(request)
      return { response, problem: await readResponse(response, spare) }
    }
    const response = await callFetch(first)
    const problem = await readResponse(response, spare)
    let answer = { response, problem }
    if (problem?.asks === 'step_up') {
      const asked = dialog.ask({ problem, again, headers: [...spare.headers] })
      const aborted = () => { asked.leave(spare.signal.reason) }
      spare.signal.addEventListener('abort', aborted)
      if (spare.signal.aborted) aborted()
      answer = await asked.answer.finally(() => { spare.signal.removeEventListener('abort', aborted) }) ?? { response }
    }
    if (answer.problem?.asks !== 'login') return answer.response
    return verifyLogin(answer.problem, async () => (await again()).response, () => answer.response)
  }

  function fetch (input, init) {
    let first, spare
    try {
      const isRequest = input instanceof Request
      // A stream can be read once only; it goes out as it is, and the page learns of a refusal.
      const streams = init?.body instanceof ReadableStream
      if (own(isRequest ? input.url : input) && !streams && (init?.mode ?? input.mode) !== 'no-cors') {
        first = new Request(input, init)
        spare = first.clone()
      }
    } catch {
      spare = undefined
    }
    return spare === undefined ? callFetch(input, init) : watchedFetch(first, spare)
  }

  const states = new WeakMap()

  /** Tells the page of a refusal that was kept from it. */
  function release (xhr, state) {
    const { type, refused } = state
    if (type !== '' || state.repeated) {
      const as = {
        json: () => JSON.parse(refused),
        blob: () => new Blob([refused], { type: 'application/problem+json' }),
        arraybuffer: () => new TextEncoder().encode(refused).buffer,
        document: () => null
      }
      const shown = { responseType: type, response: as[type] ? as[type]() : refused, responseText: refused }
      for (const [name, value] of Object.entries(shown)) Object.defineProperty(xhr, name, { value, configurable: true })
    }
    state.held = false
    xhr.dispatchEvent(new Event('readystatechange'))
    for (const name of ['load', 'loadend']) xhr.dispatchEvent(new ProgressEvent(name))
  }

  function repeat (xhr, state, code) {
    return new Promise(resolve => {
      Object.assign(state, { answered: resolve, held: false, repeated: true, quiet: true })
      open.apply(xhr, state.args)
      xhr.responseType = state.type
      for (const [name, value] of state.headers) setRequestHeader.call(xhr, name, value)
      if (code !== undefined) setRequestHeader.call(xhr, '2fa-code', code)
      send.call(xhr, state.body)
      state.quiet = false
    })
  }

  async function refusedXhr (xhr, state) {
    const problem = readProblem(xhr.responseText, xhr.getResponseHeader('www-authenticate') ?? '')
    if (state.answered !== undefined) return state.answered({ problem })
    state.refused = xhr.responseText
    const again = code => repeat(xhr, state, code)
    let answer = { problem }
    if (problem?.asks === 'step_up') {
      state.asked = dialog.ask({ problem, again, headers: state.headers })
      answer = await state.asked.answer.catch(() => ({ gone: true }))
      state.asked = undefined
    }
    const refused = () => { release(xhr, state) }
    if (answer?.problem?.asks === 'login') return verifyLogin(answer.problem, again, refused)
    // Without a problem the page has seen the answer as it came.
    if (answer === undefined || (answer.problem === undefined && state.held && !answer.gone)) refused()
  }

  function listen (xhr) {
    const seen = event => {
      const state = states.get(xhr)
      if (state === undefined || !event.isTrusted) return
      if (event.type === 'readystatechange' && xhr.readyState === 2) {
        const type = xhr.getResponseHeader('content-type') ?? ''
        const [method, url] = state.args
        state.held = own(xhr.responseURL) && looksOurs(xhr.status, type) && !wasMoved(method, url, xhr.responseURL)
        if (state.held) {
          state.type = xhr.responseType
          xhr.responseType = ''
        }
      }
      if (/^(error|abort|timeout)$/.test(event.type)) state.held = false
      if (state.held || state.quiet) event.stopImmediatePropagation()
      if (state.held && event.type === 'load') void refusedXhr(xhr, state)
      else if (!state.held && !state.quiet && (xhr.readyState >= 2 || xhr.readyState === 0)) state.answered?.({})
    }
    for (const name of ['readystatechange', 'loadstart', 'progress', 'load', 'loadend', 'error', 'abort', 'timeout']) {
      xhr.addEventListener(name, seen)
    }
    return xhr
  }

  const wrapped = {
    open (...args) {
      states.get(this)?.asked?.leave()
      states.delete(this)
      for (const name of ['responseType', 'response', 'responseText']) delete this[name]
      open.apply(this, args)
      // Nobody can be asked while a synchronous request holds the page.
      if (args[2] === false || !own(args[1])) return
      states.set(this, { args: [args[0], String(args[1]), true, ...args.slice(3)], headers: [], type: '' })
    },
    setRequestHeader (name, value) {
      setRequestHeader.call(this, name, value)
      states.get(this)?.headers.push([name, value])
    },
    send (body) {
      const state = states.get(this)
      if (state !== undefined) Object.assign(state, { body: kept(body), type: this.responseType })
      send.call(this, body)
    },
    abort () {
      const asked = states.get(this)?.asked
      abort.call(this)
      if (asked === undefined || !asked.leave()) return
      for (const name of ['abort', 'loadend']) this.dispatchEvent(new ProgressEvent(name))
    }
  }

  const XMLHttpRequest = new Proxy(NativeXhr, {
    construct: (target, args, made) => listen(Reflect.construct(target, args, made === XMLHttpRequest ? target : made))
  })
  Object.assign(NativeXhr.prototype, wrapped)
  Object.assign(window, { fetch, XMLHttpRequest })
  const uninstall = () => {
    dialog.cancel()
    if (window.fetch === fetch) window.fetch = nativeFetch
    if (window.XMLHttpRequest === XMLHttpRequest) window.XMLHttpRequest = NativeXhr
    Object.assign(NativeXhr.prototype, { open, send, abort, setRequestHeader })
    delete window[INSTALLED]
  }
  Object.defineProperty(window, INSTALLED, { value: uninstall, configurable: true })
  return uninstall
}

/** A body as it is now: the page may go on writing into what it handed over. */
function kept (body) {
  if (body instanceof FormData) {
    const copy = new FormData()
    for (const [name, value] of body) copy.append(name, value)
    return copy
  }
  if (body instanceof URLSearchParams) return new URLSearchParams(body)
  return body instanceof ArrayBuffer || ArrayBuffer.isView(body) ? new Blob([body]) : body
}

/** One dialog for all who wait for a code, oldest first. */
function createDialog ({ callFetch, language }) {
  const queue = []
  let words, look, parts, ticking
  let busy = false

  const say = (key, values = {}) => (words[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? '')
  const time = seconds => new Intl.NumberFormat(look.language, {
    style: 'unit', unitDisplay: 'long', unit: seconds < 60 ? 'second' : 'minute'
  }).format(seconds < 60 ? seconds : Math.ceil(seconds / 60))

  function ask ({ problem, again, headers }) {
    const one = { again, headers }
    const answer = new Promise((resolve, reject) => { Object.assign(one, { resolve, reject }) })
    asked(one, problem)
    return {
      answer,
      /** Nobody waits for this any more. Says whether anybody did. */
      leave: reason => {
        const waited = leave(one)
        one.reject(reason)
        return waited
      }
    }
  }

  function asked (one, problem) {
    const now = performance.now()
    const { wait_for: wait = problem.retry_after ?? 0, resend_in: resend = 0 } = problem
    Object.assign(one, { problem, free: now + wait * 1000, mail: now + resend * 1000 })
    if (!queue.includes(one)) queue.push(one)
    void show()
  }

  function leave (one) {
    const at = queue.indexOf(one)
    if (at === -1) return false
    queue.splice(at, 1)
    void show()
    return true
  }

  /** All that wait get the refusal that came first; a code that is on its way is waited for. */
  function cancel () {
    for (const one of queue.splice(0)) if (!one.sent) one.resolve(undefined)
    void show()
  }

  async function load (base) {
    const lang = language ?? document.documentElement.lang
    const answer = await callFetch(`${base}/own/dialog?${new URLSearchParams({ lang })}`, { headers: { accept: 'application/json' } })
    if (!answer.ok) throw new Error(String(answer.status))
    look = await answer.json()
    words = look.words
  }

  async function show () {
    const [one] = queue
    if (one === undefined) {
      clearInterval(ticking)
      if (parts !== undefined) {
        const { dialog, host } = parts
        parts = undefined
        dialog.close()
        host.remove()
      }
      return
    }
    if (words === undefined) {
      try {
        await load(one.problem.base)
      } catch {
        return cancel()
      }
      if (queue.length === 0) return
    }
    if (parts === undefined) {
      parts = build()
      parts.dialog.showModal()
      clearInterval(ticking)
      ticking = setInterval(render, 1000)
    }
    render()
  }

  function sentence ({ problem, free }) {
    const { code, methods = [], locked, attempts_left: left } = problem
    const wait = Math.ceil((free - performance.now()) / 1000)
    if (locked || code === 'locked') return say('code.locked')
    if (wait > 0) return say(methods.includes('backup_code') ? 'dialog.waiting' : 'dialog.waiting_only', { time: time(wait) })
    if (code === 'code_rejected') return left === 1 ? say('code.rejected_last') : say('code.rejected', { left })
    if (code === 'code_used') return say('code.used', { seconds: problem.next_in ?? 30 })
    return { code_malformed: say('code.malformed'), challenge_gone: say('code.gone') }[code] ?? ''
  }

  function render () {
    const [one] = queue
    if (one === undefined || parts === undefined) return
    const { methods = [], action, mailed, locked, attempts_left: left, masked_address: address = '' } = one.problem
    const { act, code, label, error, errorText, note, submit, sent, mail } = parts
    const wrong = sentence(one)
    const wait = Math.ceil((one.mail - performance.now()) / 1000)
    const texts = [
      [act, action === undefined ? '' : say('code.action', { action })],
      [label, methods.includes('totp') || address === '' ? say('code.label') : say('code.label_email', { address })],
      [note, wrong !== '' || !(left < 3) ? '' : left === 1 ? say('dialog.last') : say('dialog.left', { left })],
      [mail, wait > 0 ? say('dialog.resend_in', { time: time(wait) }) : say(mailed ? 'dialog.resend' : 'dialog.send')],
      [sent, mailed && methods.includes('email') ? say('dialog.sent', { address }) : '']
    ]
    for (const [part, text] of texts) {
      if (part.textContent !== text) part.textContent = text
      part.hidden = text === ''
    }
    mail.hidden = !methods.includes('email') || locked === true
    mail.disabled = wait > 0
    // Data and not a new node: a voice says the sentence once, and not each second.
    if (errorText.data !== wrong) errorText.data = wrong
    error.hidden = wrong === ''
    code.setAttribute('aria-invalid', String(wrong !== ''))
    code.inputMode = methods.includes('backup_code') ? 'text' : 'numeric'
    submit.setAttribute('aria-disabled', String(busy))
  }

  async function submitCode (event) {
    event.preventDefault()
    const [one] = queue
    const { code: field } = parts
    if (busy || one === undefined) return
    // What an input method writes in full width is meant as digits.
    const code = field.value.normalize('NFKC').replace(/[^\x21-\x7e]/g, '')
    if (code === '') {
      asked(one, { ...one.problem, code: 'code_malformed' })
      return field.focus()
    }
    await send(one, code)
    if (parts === undefined) return
    parts.code.focus()
    parts.code.select()
  }

  /** Repeats the request of who waits longest; with a step-up on record the others go on without a code of theirs. */
  async function send (one, code) {
    busy = one.sent = true
    render()
    try {
      const answer = await one.again(code)
      if (!queue.includes(one)) {
        one.resolve(answer.problem?.asks === 'step_up' ? undefined : answer)
      } else if (answer.problem?.asks === 'step_up') {
        busy = one.sent = false
        asked(one, answer.problem)
      } else {
        const recorded = one.problem.max_age > 0
        if (parts !== undefined) parts.code.value = ''
        one.resolve(answer)
        const others = recorded ? queue.filter(other => other !== one && other.problem.max_age > 0) : []
        for (const other of others) queue.splice(queue.indexOf(other), 1)
        leave(one)
        for (const other of others) freely(other)
      }
    } catch (error) {
      one.reject(error)
      leave(one)
    } finally {
      busy = false
      void show()
    }
  }

  function freely (one) {
    one.again().then(answer => {
      if (answer.problem?.asks === 'step_up') asked(one, answer.problem)
      else one.resolve(answer)
    }).catch(one.reject)
  }

  async function sendMail () {
    const [one] = queue
    if (one === undefined) return
    const { problem } = one
    parts.mail.disabled = true
    // Who asks is told as the request told it; what belongs to its body stays behind.
    const headers = new Headers(one.headers.filter(([name]) => !/^(content-|accept$|2fa-code$)/i.test(name)))
    headers.set('accept', 'application/json')
    try {
      const answer = await callFetch(`${problem.base}/verify/${problem.challenge}/email`, {
        method: 'POST', headers, body: new URLSearchParams({ csrf: problem.csrf })
      })
      const said = await answer.json()
      if (queue[0] !== one) return
      if (answer.ok) asked(one, { ...problem, ...said, code: problem.code })
      else if (said.code === 'challenge_gone' || said.code === 'forbidden') await send(one, undefined)
      else asked(one, { ...problem, resend_in: said.retry_after ?? 60 })
    } catch {
      if (queue[0] === one) asked(one, { ...problem, resend_in: 5 })
    }
    parts?.code.focus()
  }

  function build () {
    const make = (name, properties = {}, ...children) => {
      const { role, describedby, ...rest } = properties
      const element = Object.assign(document.createElement(name), rest)
      if (role !== undefined) element.setAttribute('role', role)
      if (describedby !== undefined) element.setAttribute('aria-describedby', describedby)
      element.append(...children)
      return element
    }
    const errorText = document.createTextNode('')
    const mark = document.createElementNS('http://www.w3.org/2000/svg', 'svg')
    const drawn = { viewBox: '0 0 16 16', width: 18, height: 18, fill: 'none', stroke: 'currentColor', 'aria-hidden': true }
    for (const [name, value] of Object.entries(drawn)) mark.setAttribute(name, value)
    const path = document.createElementNS('http://www.w3.org/2000/svg', 'path')
    path.setAttribute('d', 'M8 1.5a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13M8 4.5v4M8 11.2v.1')
    mark.append(path)
    const why = make('p', { id: 'why', className: 'lead', textContent: say('code.text') })
    const act = make('strong')
    const error = make('div', { id: 'error', className: 'error', role: 'alert', hidden: true }, mark, make('span', {}, errorText))
    error.setAttribute('aria-relevant', 'additions')
    const sent = make('p', { className: 'note', role: 'status', hidden: true })
    const label = make('label', { htmlFor: 'code' })
    const code = make('input', {
      id: 'code',
      className: 'code long',
      type: 'text',
      autocomplete: 'one-time-code',
      autocapitalize: 'characters',
      spellcheck: false,
      maxLength: 64,
      placeholder: ' ',
      autofocus: true,
      describedby: 'error'
    })
    const note = make('p', { className: 'note' })
    const submit = make('button', { type: 'submit', className: 'full', textContent: say('code.submit') })
    const mail = make('button', { type: 'button', className: 'link', onclick: sendMail, hidden: true })
    const away = make('button', { type: 'button', className: 'quiet full', textContent: say('code.cancel'), onclick: cancel })
    const form = make('form', { onsubmit: submitCode, noValidate: true },
      make('h1', { id: 'title', textContent: say('code.title') }), why, make('p', {}, act), error,
      make('div', { className: 'field' }, label, code, note), submit, sent, mail, away)
    const dialog = make('dialog', { className: 'card', lang: look.language, describedby: 'why' }, form)
    dialog.onclose = dialog.oncancel = () => { if (parts?.dialog === dialog) cancel() }
    dialog.setAttribute('aria-labelledby', 'title')
    const host = document.createElement('div')
    host.style.setProperty('all', 'initial', 'important')
    const root = host.attachShadow({ mode: 'open' })
    const sheet = new CSSStyleSheet()
    sheet.replaceSync(look.style)
    root.adoptedStyleSheets = [sheet]
    root.append(dialog)
    // What is typed here is none of the page's shortcuts, and no focus trap of its own.
    for (const name of ['keydown', 'keyup', 'keypress', 'input', 'paste', 'click', 'focusin']) {
      host.addEventListener(name, event => { event.stopPropagation() })
    }
    // Beside the body: consoles replace what is in it, and hide it from readers while a dialog of theirs is open.
    document.documentElement.append(host)
    return { host, dialog, act, error, errorText, sent, label, code, note, submit, mail }
  }

  return { ask, cancel }
}
