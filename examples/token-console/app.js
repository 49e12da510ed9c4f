// The whole single page: it knows nothing of a second factor but the link to its settings.

const root = document.querySelector('#app')

/** A call with the token that this tab keeps. */
async function call (method, path, body) {
  const token = window.sessionStorage.getItem('token')
  return await window.fetch(path, {
    method,
    headers: {
      ...(token === null ? {} : { authorization: `Bearer ${token}` }),
      ...(body === undefined ? {} : { 'content-type': 'application/json' })
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) })
  })
}

function make (name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties)
  element.append(...children)
  return element
}

function form (fields, button, submit) {
  const said = make('p', { role: 'status' })
  const inputs = Object.entries(fields).map(([name, more]) => make('label', {}, `${more.label} `, make('input', { name, required: true, ...more })))
  return make('form', {
    onsubmit: async event => {
      event.preventDefault()
      said.textContent = await submit(Object.fromEntries(new FormData(event.target)))
    }
  }, ...inputs, make('button', { textContent: button }), said)
}

function showLogin () {
  root.replaceChildren(make('h1', { textContent: 'Log in' }), form({
    name: { label: 'Name', autocomplete: 'username' },
    password: { label: 'Password', type: 'password', autocomplete: 'current-password' }
  }, 'Log in', async typed => {
    const answer = await call('POST', '/api/login', typed)
    if (!answer.ok) return 'The name or the password is not right.'
    window.sessionStorage.setItem('token', (await answer.json()).token)
    await show()
    return ''
  }))
}

async function show () {
  if (window.sessionStorage.getItem('token') === null) return showLogin()
  const answer = await call('GET', '/api/me')
  if (!answer.ok) {
    window.sessionStorage.removeItem('token')
    return showLogin()
  }
  const me = await answer.json()
  root.replaceChildren(
    make('h1', { textContent: `Hello ${me.displayName}` }),
    form({ displayName: { label: 'Display name', value: me.displayName } }, 'Save', async typed =>
      (await call('PUT', '/api/me', typed)).ok ? 'Saved.' : 'Nothing was saved.'),
    make('p', {}, make('a', { href: '/2fa/settings', textContent: 'Two-factor verification' })),
    make('button', {
      textContent: 'Log out',
      onclick: async () => {
        await call('POST', '/api/logout')
        window.sessionStorage.removeItem('token')
        await show()
      }
    })
  )
}

await show()
