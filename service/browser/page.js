// What the hosted pages can do with a script; without it everything still works.
document.documentElement.classList.add('scripted')

const said = (element, words) => {
  const before = element.textContent
  element.textContent = words
  setTimeout(() => { element.textContent = before }, 2000)
}

for (const button of document.querySelectorAll('[data-copy]')) {
  button.addEventListener('click', async () => {
    const text = document.querySelector(button.dataset.copy).innerText
    const plain = button.dataset.plain === undefined ? text : text.replace(/\s/g, '')
    try {
      await navigator.clipboard.writeText(plain)
    } catch {
      // Plain HTTP has no clipboard: the old way still works there.
      const area = Object.assign(document.createElement('textarea'), { value: plain })
      document.body.append(area)
      area.select()
      document.execCommand('copy')
      area.remove()
    }
    said(button, button.dataset.copied)
  })
}

for (const button of document.querySelectorAll('[data-download]')) {
  button.addEventListener('click', () => {
    const text = [button.dataset.heading, '', ...[...document.querySelectorAll('.codes code')].map(code => code.textContent), ''].join('\n')
    const link = document.createElement('a')
    link.href = URL.createObjectURL(new Blob([text], { type: 'text/plain;charset=utf-8' }))
    link.download = button.dataset.download
    link.click()
    setTimeout(() => { URL.revokeObjectURL(link.href) }, 1000)
  })
}

for (const button of document.querySelectorAll('[data-print]')) button.addEventListener('click', () => { window.print() })

// A wait counts down in its words and then lets the button go.
for (const element of document.querySelectorAll('[data-wait]')) {
  const until = performance.now() + Number(element.dataset.wait) * 1000
  const words = element.dataset.waiting
  const target = element.dataset.enables === undefined ? undefined : document.querySelector(element.dataset.enables)
  const tick = () => {
    const left = Math.ceil((until - performance.now()) / 1000)
    if (left <= 0) {
      element.textContent = element.dataset.done ?? ''
      target?.removeAttribute('disabled')
      return
    }
    element.textContent = words.replace('{time}', left >= 60 ? `${Math.floor(left / 60)}:${String(left % 60).padStart(2, '0')}` : `${left} s`)
    setTimeout(tick, 250)
  }
  tick()
}

// A form is sent once; coming back to the page lets it be sent again.
for (const form of document.querySelectorAll('form[data-once]')) {
  form.addEventListener('submit', event => {
    if (form.dataset.sent !== undefined) event.preventDefault()
    form.dataset.sent = ''
  })
}
window.addEventListener('pageshow', () => { for (const form of document.querySelectorAll('form[data-once]')) delete form.dataset.sent })
