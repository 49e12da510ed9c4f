// Puts a token where the console's pages look for it, and goes on to them.
const { keys, value, to } = document.querySelector('[data-release]').dataset

for (const key of JSON.parse(keys)) window.localStorage.setItem(key, value)
window.location.replace(to)
