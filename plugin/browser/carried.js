// Clears the carried form when the page is left, so that going back shows nothing that was typed.
window.addEventListener('pagehide', () => {
  for (const form of document.querySelectorAll('form[data-carried]')) {
    for (const input of form.querySelectorAll('input')) input.value = ''
  }
})
// A page kept by the browser has nothing left to send.
window.addEventListener('pageshow', event => { if (event.persisted) window.location.replace('/') })
