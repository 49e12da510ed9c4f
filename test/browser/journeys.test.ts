// The ten journeys of a person with 2FA, in a real browser, through the real console, plugin, service and mail.

import { readFileSync } from 'node:fs'
import t, { type Test } from 'tap'
import { startWorld, until, type Mail, type Visitor } from '../helpers/browser.ts'

const PEOPLE = ['chloe', 'diego', 'erin', 'farid', 'emma', 'finn', 'gina', 'grace', 'hugo', 'ines', 'jonas'].map(name => ({
  name,
  password: `${name}-velvet-orchard-${name.length}7`,
  email: `${name}@console.example`,
  displayName: `${name[0]?.toUpperCase()}${name.slice(1)} Example`
}))

/** In a mail a code stands alone on its line. */
const CODE = /^\s*(\d{6})\s*$/m

const world = await startWorld(t, PEOPLE)
const visit = async (t: Test, name: string, options = {}): Promise<Visitor> => await world.visit(t, name, options)

// He asks for a new code by mail, which has to wait a minute: begun first, so that the others pass meanwhile.
const finn = await world.visit(t, 'finn')
let firstCode = ''

t.test('6. a login by mail is left waiting for a second code', async t => {
  await finn.logIn()
  await switchMailOn(finn)
  await finn.logOut()
  await finn.logIn()
  firstCode = mailedCode(await world.mail(finn.email, CODE))
  t.equal(await finn.heading(), 'Enter your code')
})

t.test('1. with no factor a password is enough, as before', async t => {
  const alice = await visit(t, 'alice')
  const { page } = alice
  await alice.go('/')
  t.equal(alice.path(), '/login')
  await page.getByLabel('Name').fill('alice')
  await page.getByLabel('Password').fill('not her password')
  await alice.press('Log in')
  t.equal(await alice.said(), 'The name or the password is not right.')
  await alice.logIn()
  t.equal(alice.path(), '/')
  t.equal(await alice.heading(), 'Devices')
  await alice.press('Account')
  t.equal(await page.locator('#totp').innerText(), 'Not enabled')
  t.ok(await page.getByRole('link', { name: 'Enable 2FA' }).isVisible(), 'the account page offers it')
  t.notOk(await page.getByLabel('2FA code').isVisible(), 'nobody without 2FA is asked for a code')
  await page.getByLabel('Display name').fill('Alice M.')
  await alice.press('Save profile')
  t.equal(await alice.said(), 'Your profile is saved.')
})

t.test('2. enabling 2FA: a picture and a key, a pending key that stays, and a right code', async t => {
  const bob = await visit(t, 'bob', { permissions: ['clipboard-read', 'clipboard-write'] })
  const { page } = bob
  await bob.logIn()
  await bob.press('Account')
  await bob.press('Enable 2FA')
  t.equal(bob.path(), '/2fa/settings')
  const section = page.getByRole('region', { name: 'Authenticator app (2FA)' })
  t.match(await section.innerText(), /Not enabled/)
  t.same(await bob.barriers(), [])
  await bob.press('Enable 2FA')

  const dialog = page.getByRole('dialog', { name: 'Enable 2FA' })
  t.same(await dialog.getByRole('heading', { level: 2 }).allInnerTexts(), [
    'Get an authenticator app', 'Scan this picture with the app', 'Enter the code that the app shows'
  ])
  t.match(await dialog.innerText(), /Google Authenticator.*Aegis/)
  const phone = await bob.scan()
  t.match(phone.uri, /^otpauth:\/\/totp\/Demo%20Console[:%].*bob.*[?&]issuer=Demo%20Console/)
  const shown = await page.getByLabel('Your key', { exact: true }).innerText()
  t.match(shown, /^(?:[A-Z2-7]{4} ){7}[A-Z2-7]{4}$/, 'groups of four')
  t.equal(shown.replaceAll(' ', ''), phone.key, 'picture and letters are the same key')
  await page.getByRole('button', { name: 'Copy key' }).click()
  await page.getByRole('button', { name: 'Copied' }).waitFor()
  t.equal(await page.evaluate('navigator.clipboard.readText()'), phone.key)

  await t.test('a wrong code says so and keeps the dialog', async t => {
    await bob.enter(wrong(await phone.code()))
    t.equal(await bob.said(), 'That code is not right. 4 tries left.')
    t.equal((await bob.scan()).key, phone.key)
    t.same(await bob.barriers(), [])
  })
  await t.test('the code of a clock that is four minutes off says how far it is off', async t => {
    // Seven steps, or eight if the next one begins meanwhile: both are four minutes in words.
    await bob.enter(phone.codeAt(-210))
    t.match(await bob.said(), /^Your phone's clock is 4 minutes behind\./)
    await bob.enter(phone.codeAt(240))
    t.match(await bob.said(), /^Your phone's clock is 4 minutes ahead\./)
  })
  await t.test('closing it and opening it again, or a second tab, shows the same key', async t => {
    await bob.press('Close')
    t.equal(bob.path(), '/2fa/settings')
    await bob.press('Enable 2FA')
    t.equal((await bob.scan()).key, phone.key)
  })
  const second = await bob.tab()
  await second.goto('/2fa/settings')
  await second.getByRole('button', { name: 'Enable 2FA' }).click()
  t.equal((await bob.scan(second)).key, phone.key, 'a second tab has the same key')

  await bob.enter(await phone.code())
  t.equal(await bob.said(), '2FA is enabled.')
  await bob.readCodes()
  await bob.go('/account')
  t.equal(await page.locator('#totp').innerText(), 'Enabled', 'the console knows at once')

  await t.test('the tab that was left behind changes nothing and says so', async t => {
    await second.getByLabel('6-digit code').fill(await phone.code())
    await second.getByRole('button', { name: 'Confirm and enable' }).click()
    await second.getByRole('alert').waitFor()
    t.match(await second.getByRole('alert').innerText(), /expired or was finished elsewhere|Nothing was changed/)
    await second.goto('/2fa/settings')
    t.match(await second.getByRole('region', { name: 'Authenticator app (2FA)' }).innerText(), /Enabled/)
  })
})

t.test('3. six backup codes are shown once, to download, copy and print', async t => {
  const chloe = await visit(t, 'chloe', { permissions: ['clipboard-read', 'clipboard-write'] })
  const { page } = chloe
  await page.addInitScript('window.print = () => { window.printed = true }')
  await chloe.logIn()
  await chloe.go('/2fa/settings')
  await chloe.press('Enable 2FA')
  await chloe.enter(await (await chloe.scan()).code())
  t.ok(await page.getByRole('dialog', { name: 'Keep your backup codes' }).isVisible())
  const codes = await chloe.readCodes()
  t.same(await chloe.barriers(), [])
  t.equal(new Set(codes).size, 6)
  for (const code of codes) t.match(code, /^[0-9A-HJKMNP-TV-Z]{4}(?:-[0-9A-HJKMNP-TV-Z]{4}){3}$/)

  const downloading = page.waitForEvent('download')
  await page.getByRole('button', { name: 'Download' }).click()
  const download = await downloading
  t.equal(download.suggestedFilename(), 'backup-codes.txt')
  const file = readFileSync(await download.path(), 'utf8')
  t.match(file, /Demo Console/)
  t.same(file.match(/[0-9A-Z]{4}(?:-[0-9A-Z]{4}){3}/g), codes, 'the file has all six')
  await page.getByRole('button', { name: 'Copy', exact: true }).click()
  await page.getByRole('button', { name: 'Copied' }).waitFor()
  t.same(String(await page.evaluate('navigator.clipboard.readText()')).split(/\s+/).filter(Boolean), codes)
  await page.getByRole('button', { name: 'Print' }).click()
  t.equal(await page.evaluate('window.printed'), true)
  await page.emulateMedia({ media: 'print' })
  t.notOk(await page.getByRole('button', { name: 'Print' }).isVisible(), 'paper has no buttons')
  t.ok(await page.getByText(codes[5] ?? '').isVisible())
  await page.emulateMedia({ media: null })

  await page.getByRole('button', { name: 'Continue' }).click()
  t.equal(await page.evaluate('document.activeElement.id'), 'kept', 'it goes on only when they are said to be kept')
  t.equal(await chloe.heading(), 'Keep your backup codes')
  await page.getByLabel('I have kept these codes').check()
  await chloe.press('Continue')
  t.match(chloe.path(), /^\/2fa\/settings\??$/)
  t.match(await page.getByRole('region', { name: 'Backup codes' }).innerText(), /6 of 6 codes are left/)
  await page.goBack().catch(() => {})
  const text = await page.locator('body').innerText()
  t.notOk(codes.some(code => text.includes(code)), 'going back does not show them again')
})

t.test('4. the next login asks for a code and then goes to the page that was asked for', async t => {
  const diego = await visit(t, 'diego', { permissions: ['clipboard-read', 'clipboard-write'] })
  const { page } = diego
  await diego.logIn()
  const { phone, codes } = await diego.enable()
  const label = 'Code from your authenticator app, or a backup code'
  const deep = '/account?saved=alerts&from=m%C3%BCnchen'
  await diego.logOut()

  await t.test('one field that can be pasted into, filled in by the system, and read aloud', async t => {
    await diego.logIn()
    t.match(diego.path(), /^\/2fa\/verify\/[\w.-]+$/)
    t.equal(await diego.heading(), 'Enter your code')
    t.equal(await page.getByRole('textbox').count(), 1)
    const field = page.getByRole('textbox', { name: label })
    t.equal(await field.getAttribute('autocomplete'), 'one-time-code')
    t.equal(await page.evaluate('document.activeElement.id'), 'code', 'the cursor is in it')
    t.equal(await page.locator('html').getAttribute('lang'), 'en')
    t.match(await page.title(), /Enter your code.*Demo Console/)
    t.same(await diego.barriers(), [])
    const code = await phone.code()
    await page.evaluate(`navigator.clipboard.writeText('${code.slice(0, 3)} ${code.slice(3)}')`)
    await field.press('ControlOrMeta+V')
    t.equal(await field.inputValue(), `${code.slice(0, 3)} ${code.slice(3)}`, 'pasted whole, with its space')
    await diego.press('Verify')
    t.equal(diego.path(), '/')
    t.equal(await diego.heading(), 'Devices')
    await diego.logOut()

    await diego.logIn()
    await diego.enter(code)
    t.match(await diego.said(), /^This code was already used\. Wait for the next one \(about \d+ seconds\)\.$/)
    await diego.enter('12 34')
    t.match(await diego.said(), /^That does not look like a code\..*This was not counted\.$/)
  })

  await t.test('a wrong code says so and how many tries are left; after the last the page says what to do', async t => {
    await diego.go(deep)
    t.equal(await diego.heading(), 'Enter your code')
    for (const said of ['4 tries left.', '3 tries left.', '2 tries left.', '1 try left.']) {
      await diego.enter(wrong(await phone.codeAt(0)))
      t.equal(await diego.said(), `That code is not right. ${said}`)
    }
    const field = page.getByRole('textbox', { name: label })
    t.equal(await field.getAttribute('aria-invalid'), 'true')
    t.equal(await field.getAttribute('aria-describedby'), await page.getByRole('alert').getAttribute('id'))
    await diego.go(diego.path())
    t.match(await page.locator('main').innerText(), /Last try: after one more wrong code this page ends\./)
    await diego.enter(wrong(await phone.codeAt(0)))
    t.match(await diego.said(), /^That code is not right, and it was the last try\./)
    t.match(await page.locator('main').innerText(), /Too many wrong codes\. Try again in \d+ seconds, or use a backup code\./)
    t.equal(await page.getByRole('textbox').count(), 0, 'there is nothing left to type here')
  })

  await t.test('while it waits a right code is not looked at, and a backup code still opens', async t => {
    await diego.press('Start again')
    await diego.enter(await phone.code())
    t.match(await diego.said(), /^Too many wrong codes\. Try again in \d+ seconds, or use a backup code\.$/)
    await diego.enter(codes[0] ?? '')
    t.equal(diego.path(), deep, 'to the very page, with its query')
    t.equal(await diego.said(), 'Your alerts are saved.')
  })
})

t.test('4. all of it works without JavaScript', async t => {
  const erin = await visit(t, 'erin', { javaScriptEnabled: false })
  const { page } = erin
  await erin.logIn()
  await erin.press('Account')
  await erin.press('Enable 2FA')
  await erin.press('Enable 2FA')
  t.notOk(await page.getByRole('button', { name: 'Copy key' }).isVisible(), 'no button that would do nothing')
  const phone = await erin.scan()
  await erin.enter(wrong(await phone.code()))
  t.equal(await erin.said(), 'That code is not right. 4 tries left.')
  await erin.enter(await phone.code())
  t.equal((await erin.readCodes()).length, 6)
  t.match(await page.locator('main').innerText(), /Write them down or print this page before you go on\./)
  t.notOk(await page.getByRole('button', { name: 'Download' }).isVisible())
  await page.getByLabel('I have kept these codes').check()
  await erin.press('Continue')
  await erin.logOut()
  await erin.logIn()
  await erin.go('/account?from=no-script')
  await erin.enter(wrong(phone.codeAt(0)))
  t.equal(await erin.said(), 'That code is not right. 4 tries left.')
  await erin.enter(await phone.code())
  t.equal(erin.path(), '/account?from=no-script')

  await page.getByLabel('About you').fill('without a script')
  await erin.press('Save profile')
  t.equal(await erin.heading(), 'Enter your code')
  await erin.enter(await phone.code())
  t.equal(await erin.said(), 'Your profile is saved.')
  t.equal(await page.getByLabel('About you').inputValue(), 'without a script')
})

t.test('5. each backup code works once; a new set is made after a fresh verification', async t => {
  const farid = await visit(t, 'farid')
  const { page } = farid
  const left = async (): Promise<string> => {
    await farid.go('/2fa/settings')
    return await page.getByRole('region', { name: 'Backup codes' }).innerText()
  }
  await farid.logIn()
  const { phone, codes } = await farid.enable()
  t.match(await left(), /6 of 6 codes are left/)
  // As a person may type them: as they stand, in small letters, without dashes, with O for 0 and L for 1.
  const typed = [
    (code: string) => code,
    (code: string) => code.toLowerCase(),
    (code: string) => code.replaceAll('-', ''),
    (code: string) => code.replaceAll('-', ' '),
    (code: string) => code.replaceAll('0', 'O').replaceAll('1', 'l'),
    (code: string) => `  ${code} `
  ]
  for (const [index, code] of codes.entries()) {
    await farid.logOut()
    await farid.logIn()
    if (index === 1) {
      await farid.enter(codes[0] ?? '')
      t.equal(await farid.said(), 'This code was already used. Use another one.')
    }
    await farid.enter(typed[index]?.(code) ?? code)
    const remaining = 5 - index
    if (remaining > 2) {
      t.equal(farid.path(), '/')
    } else {
      t.match(await farid.said(), remaining === 0 ? /^You used your last backup code\. Make a new set now/ : new RegExp(`${remaining} (?:is|are) left`))
      if (remaining === 0) break
      await farid.press('Continue')
      t.equal(farid.path(), '/')
    }
    t.match(await left(), new RegExp(`${remaining} of 6 codes (?:is|are) left`))
  }
  await farid.press('Make new backup codes')
  await farid.press('Make new codes')
  t.equal(await farid.heading(), 'Enter your code', 'the login is not fresh enough for this')
  t.match(await page.locator('main').innerText(), /asks for a fresh code before settings are changed/)
  await farid.enter(await phone.code())
  t.equal(await farid.heading(), 'Make new backup codes')
  await farid.press('Make new codes')
  const fresh = await farid.readCodes()
  t.equal(new Set([...codes, ...fresh]).size, 12, 'six others')
  await page.getByLabel('I have kept these codes').check()
  await farid.press('Continue')
  t.match(await left(), /6 of 6 codes are left/)
  await farid.logOut()
  await farid.logIn()
  await farid.enter(codes[1] ?? '')
  t.equal(await farid.said(), 'That code is not right. 4 tries left.', 'the old set is dead')
  await farid.enter(fresh[0] ?? '')
  t.equal(farid.path(), '/')
  t.match(await left(), /5 of 6 codes are left/)
})

t.test('6. codes by mail: the address the console has, a test code, and a code at the next login', async t => {
  const emma = await visit(t, 'emma')
  const { page } = emma
  const masked = 'e•••@c•••.example'
  const section = page.getByRole('region', { name: 'Email login verification' })
  const box = page.getByLabel(/^Enable email login verification/)
  await emma.logIn()
  await emma.go('/2fa/settings')
  t.match(await section.innerText(), /Off/)
  t.match(await section.innerText(), new RegExp(`Leave empty to use the address that Demo Console has: ${masked}`))

  await t.test('it is switched on by a code that arrived', async t => {
    await emma.press('Send test code')
    t.equal(await emma.heading(), 'Enter the test code')
    t.match(await page.locator('main').innerText(), new RegExp(`A code was sent to ${masked}\\.`))
    t.match(await page.locator('#resend').innerText(), /in \d+ s$|in 1:00$/, 'another one has to wait')
    t.ok(await page.locator('#resend').isDisabled())
    t.same(await emma.barriers(), [])
    const code = mailedCode(await world.mail(emma.email, CODE))
    await emma.enter(wrong(code))
    t.equal(await emma.said(), 'That code is not right. 4 tries left.')
    await emma.enter(code)
    t.match(await section.innerText(), new RegExp(`On: codes go to ${masked}\\.`))
    t.ok(await box.isChecked())
    t.notMatch(await page.content(), emma.email, 'the page never has the whole address')
  })
  await emma.press('Make new codes')
  await emma.press('Make new codes')
  const codes = await emma.readCodes()
  t.equal(codes.length, 6, 'backup codes for the day the mail cannot be reached')

  await t.test('the next login sends one and asks for it', async t => {
    await emma.logOut()
    await emma.logIn()
    await emma.go('/account?from=mail')
    t.match(emma.path(), /^\/2fa\/verify\//)
    t.match(await page.locator('main').innerText(), new RegExp(`A code was sent to ${masked}\\. It is good for 10 minutes\\.`))
    const field = page.getByRole('textbox', { name: 'Code from the e-mail, or a backup code' })
    t.equal(await field.getAttribute('autocomplete'), 'one-time-code')
    const resend = page.locator('#resend')
    t.match(await resend.innerText(), /^Send a new code in (?:\d+ s|1:00)$/)
    t.ok(await resend.isDisabled())
    await resend.evaluate(button => { Reflect.get(button, 'removeAttribute').call(button, 'disabled') })
    await emma.press(resend)
    t.match(await emma.said(), /^A code was sent a moment ago\. You can ask for another in /, 'the service waits, not the page')
    const mail = await world.mail(emma.email, CODE)
    t.match(mail.subject, /^Demo Console/)
    await emma.enter(wrong(mailedCode(mail)))
    t.equal(await emma.said(), 'That code is not right. 4 tries left.')
    await emma.enter(mailedCode(mail))
    t.equal(emma.path(), '/account?from=mail')
  })
  await t.test('it is switched off after a fresh verification', async t => {
    await emma.go('/2fa/settings')
    await emma.press('Switch off')
    await emma.press('Switch off')
    t.equal(await emma.heading(), 'Enter your code')
    await emma.enter(codes[0] ?? '')
    await emma.press('Switch off')
    t.equal(await emma.said(), 'Email login verification is off.')
    await emma.logOut()
    await emma.logIn()
    t.equal(emma.path(), '/')
  })
})

t.test('6. with 2FA on no codes are mailed; the box is disabled and keeps its value', async t => {
  const gina = await visit(t, 'gina')
  const { page } = gina
  const box = page.getByLabel(/^Enable email login verification/)
  await gina.logIn()
  await switchMailOn(gina)
  const { phone } = await gina.enable()
  t.ok(await box.isDisabled())
  t.ok(await box.isChecked())
  t.match(await page.getByRole('region', { name: 'Email login verification' }).innerText(), /2FA is on, so no codes are sent by e-mail\. Your choice is kept/)
  await gina.logOut()
  await gina.logIn()
  t.ok(await page.getByLabel('Code from your authenticator app, or a backup code').isVisible())
  t.equal(await page.locator('#resend').count(), 0)
  await gina.enter(await phone.code())
  await gina.go('/2fa/settings')
  await gina.press('Disable 2FA')
  t.match(await page.locator('main').innerText(), /Logins will then use email login verification\./)
  await gina.press('Disable 2FA')
  await gina.enter(await phone.code())
  await gina.press('Disable 2FA')
  await gina.go('/2fa/settings')
  t.ok(await box.isChecked(), 'the choice applies again')
  await gina.logOut()
  await gina.logIn()
  t.match(await page.locator('main').innerText(), /g•••@c•••\.example/)
  t.ok(await page.getByLabel('Code from the e-mail').isVisible())
})

t.test('6. who has no address sets one; what could not be mailed is shown', async t => {
  const dora = await visit(t, 'dora')
  const { page } = dora
  const field = page.getByLabel('E-mail address')
  const [tooLong, own] = [`${'d'.repeat(65)}@elsewhere.example`, 'dora@elsewhere.example']
  await dora.logIn()
  await dora.enable()
  await dora.go('/2fa/settings')
  t.match(await page.locator('main').innerText(), /This could not be sent to you by mail\s+2FA was enabled\. If this was not you, tell your administrator\./)
  await dora.press('Understood')
  t.notMatch(await page.locator('main').innerText(), /could not be sent/)
  await dora.press('Disable 2FA')
  await dora.press('Disable 2FA')
  await dora.go('/2fa/settings')
  await field.fill(tooLong)
  await dora.press('Send test code')
  t.match(await dora.said(), /^That is not a single e-mail address\./)
  t.equal(await field.inputValue(), tooLong, 'what was typed stays')
  await field.fill(own)
  await dora.press('Send test code')
  await dora.enter(mailedCode(await world.mail(own, CODE)))
  t.match(await page.getByRole('region', { name: 'Email login verification' }).innerText(), /On: codes go to d•••@e•••\.example\./)
})

t.test('7. saving account settings asks for a fresh code, and nothing that was typed is lost', async t => {
  const grace = await visit(t, 'grace')
  const { page } = grace
  const about = 'Zürich & 東京 <b>"quoted"</b> 100%\n\nsecond line; 🙂 = a+b \\ end\n'
  const settings = async () => {
    const answer = await page.request.get('/api/me')
    return ((await answer.json()) as { settings: { displayName: string, about: string, alerts: string[] } }).settings
  }
  const again = async (): Promise<void> => {
    await grace.logOut()
    await grace.logIn()
    await grace.enter(await phone.code())
    await grace.press('Account')
  }
  const fill = async (name: string): Promise<void> => {
    await page.getByLabel('Display name').fill(name)
    await page.getByLabel('About you').fill(about)
  }
  await grace.logIn()
  const { phone } = await grace.enable()
  const stored = about.replaceAll('\n', '\r\n')

  await t.test('with the code in the form itself', async t => {
    await again()
    await fill('Grace Müller 1')
    t.equal(await page.getByLabel('2FA code').getAttribute('autocomplete'), 'one-time-code')
    await page.getByLabel('2FA code').fill(await phone.code())
    await grace.press('Save profile')
    t.equal(await grace.said(), 'Your profile is saved.')
    t.match(await settings(), { displayName: 'Grace Müller 1', about: stored })
  })
  await t.test('with the field left empty a page asks for the code and then saves', async t => {
    await again()
    await fill('Grace Müller 2')
    await grace.press('Save profile')
    t.equal(await grace.heading(), 'Enter your code')
    t.match(await page.locator('main').innerText(), /You are about to: save your profile\./)
    t.equal((await settings()).displayName, 'Grace Müller 1', 'nothing is saved before the code')
    const field = page.getByRole('textbox', { name: 'Code from your authenticator app, or a backup code' })
    t.equal(await field.getAttribute('autocomplete'), 'one-time-code')
    await grace.enter('123')
    t.equal(await grace.said(), 'That does not look like a code. Nothing was counted.')
    t.same(await grace.barriers(), [])
    await grace.enter(await phone.code())
    t.equal(await grace.said(), 'Your profile is saved.')
    t.match(await settings(), { displayName: 'Grace Müller 2', about: stored })
    await page.getByLabel('About you').fill('short')
    await grace.press('Save profile')
    t.equal(await grace.said(), 'Your profile is saved.', 'a moment later no code is asked for')
  })
  await t.test('with a wrong code in the form the page asks again', async t => {
    await again()
    await fill('Grace Müller 3')
    await page.getByLabel('2FA code').fill(wrong(phone.codeAt(0)))
    await grace.press('Save profile')
    t.equal(await grace.said(), 'That code is not right. 4 tries left.')
    await grace.enter(await phone.code())
    t.match(await settings(), { displayName: 'Grace Müller 3', about: stored })
  })
  await t.test('where the form has no such field; leaving the page saves nothing and keeps nothing', async t => {
    await again()
    const box = (name: string) => page.getByLabel(name)
    await box('A device goes offline').check()
    await box('The weekly report').check()
    await grace.press('Save alerts')
    t.equal(await grace.heading(), 'Enter your code')
    await grace.press('Cancel')
    t.same((await settings()).alerts, ['logins'])
    // The answer to a form is not kept: the browser has an error page of its own there.
    await page.goBack().catch(() => {})
    await page.waitForURL(/^chrome-error:/, { timeout: 2000, waitUntil: 'commit' }).catch(() => {})
    t.equal(await page.locator('input[type=hidden][value=offline]').count(), 0, 'going back finds nothing to send')
    await grace.go('/account')
    await box('A device goes offline').check()
    await box('The weekly report').check()
    await grace.press('Save alerts')
    await grace.enter(await phone.code())
    t.equal(await grace.said(), 'Your alerts are saved.')
    t.same((await settings()).alerts, ['logins', 'offline', 'reports'], 'all boxes of one name, in order')
  })
})

t.test('8. three states, in words and colours; renewing keeps the old key until the new one is confirmed', async t => {
  const hugo = await visit(t, 'hugo')
  const { page } = hugo
  const [BLUE, GREEN, AMBER] = ['rgb(11, 98, 214)', 'rgb(26, 127, 55)', 'rgb(154, 91, 0)']
  const background = async (selector: string): Promise<unknown> =>
    await page.locator(selector).first().evaluate(one => Reflect.get(globalThis, 'getComputedStyle')(one).backgroundColor)
  const section = page.getByRole('region', { name: 'Authenticator app (2FA)' })
  const look = async (status: string): Promise<unknown> => {
    await hugo.go('/account')
    const inConsole = [await page.locator('#totp').innerText(), await page.locator('a.button').innerText(), await background('a.button')]
    await hugo.go('/2fa/settings')
    const state = section.locator('.state')
    t.equal(await state.getAttribute('data-state'), status)
    t.equal(await state.locator('svg[aria-hidden=true]').count(), 1, 'an icon stands with the word')
    return [...inConsole, await state.innerText(), await section.getByRole('button').first().innerText(), await background('section button')]
  }
  await hugo.logIn()
  t.same(await look('not_enabled'), ['Not enabled', 'Enable 2FA', BLUE, 'Not enabled', 'Enable 2FA', BLUE])
  const { phone: old } = await hugo.enable()
  t.same(await look('enabled'), ['Enabled', 'Manage 2FA', GREEN, 'Enabled', 'Renew 2FA', GREEN])
  await world.ageTotp('hugo', 181)
  await hugo.logOut()
  await hugo.logIn()
  await hugo.enter(await old.code())
  t.equal(hugo.path(), '/', 'an expired key still logs in')
  t.same(await look('expired'), ['Expired', 'Renew 2FA', AMBER, 'Expired', 'Renew 2FA', AMBER])
  t.match(await section.innerText(), /more than 180 days ago\. It still works/)

  await hugo.press('Renew 2FA')
  t.equal(await hugo.heading(), 'Enter your code', 'renewing needs a fresh verification')
  await hugo.enter(await old.code())
  await hugo.press('Renew 2FA')
  t.equal(await hugo.heading(), 'Renew 2FA')
  t.match(await page.locator('main').innerText(), /Your old key keeps working until the new one is confirmed\./)
  const phone = await hugo.scan()
  t.not(phone.key, old.key)
  const elsewhere = await visit(t, 'hugo')
  await elsewhere.logIn()
  await elsewhere.enter(await old.code())
  t.equal(elsewhere.path(), '/', 'the old key works until then')
  await hugo.enter(await phone.code())
  t.equal(await hugo.said(), '2FA is renewed.')
  t.equal((await hugo.readCodes()).length, 6)
  t.same(await look('enabled'), ['Enabled', 'Manage 2FA', GREEN, 'Enabled', 'Renew 2FA', GREEN])
  const began = performance.now()
  await until('the other session to be asked again', async () => {
    await elsewhere.go('/account')
    return await elsewhere.heading() === 'Enter your code' ? true : undefined
  })
  t.ok(performance.now() - began < 5000, 'what the old key opened elsewhere is closed within five seconds')
  await elsewhere.enter(wrong(old.codeAt(0)))
  await elsewhere.enter(old.codeAt(0))
  t.equal(await elsewhere.said(), 'That code is not right. 3 tries left.', 'the old key is dead')
  await elsewhere.enter(await phone.code())
  t.equal(elsewhere.path(), '/account')
})

t.test('9. disabling needs a fresh verification', async t => {
  const ines = await visit(t, 'ines')
  const { page } = ines
  await ines.logIn()
  const { phone } = await ines.enable()
  await ines.logOut()
  await ines.logIn()
  await ines.enter(await phone.code())
  await ines.go('/2fa/settings')
  await ines.press('Disable 2FA')
  t.match(await page.locator('main').innerText(), /Logins will then need only your password\. Your backup codes stop working\./)
  await ines.press('Disable 2FA')
  t.equal(await ines.heading(), 'Enter your code')
  await ines.enter(wrong(phone.codeAt(0)))
  t.equal(await ines.said(), 'That code is not right. 4 tries left.')
  await ines.go('/account')
  t.equal(await page.locator('#totp').innerText(), 'Enabled', 'walking away from the question changes nothing')
  await ines.go('/2fa/settings')
  await ines.press('Disable 2FA')
  await ines.press('Disable 2FA')
  await ines.enter(await phone.code())
  await ines.press('Disable 2FA')
  t.equal(await ines.said(), '2FA is disabled.')
  await ines.go('/account')
  t.equal(await page.locator('#totp').innerText(), 'Not enabled')
  await ines.logOut()
  await ines.logIn()
  t.equal(ines.path(), '/', 'the password is enough again')
})

t.test('9. every change of factors is mailed to whom it belongs, in the language of the pages', async t => {
  const told: readonly (readonly [string, RegExp])[] = [
    ['ines', /2FA was enabled/], ['ines', /2FA was disabled/], ['hugo', /2FA was renewed/],
    ['farid', /backup code was used/], ['farid', /[Nn]ew backup codes were made/],
    ['emma', /[Ee]mail login verification was switched on/], ['emma', /[Ee]mail login verification was switched off/],
    ['diego', /2FA was enabled/]
  ]
  for (const [name, words] of told) {
    const mail = await world.mail(`${name}@console.example`, words)
    t.match(mail.subject, /^Demo Console/, `${name}: ${mail.subject}`)
    t.match(mail.text, /If this was not you/)
    t.not(mail.html, '', 'with a part in HTML')
    t.notMatch(mail.html, /<a\s/, 'no link to click')
  }
})

t.test('10. English and Simplified Chinese, by the browser and by choice', async t => {
  const wei = await visit(t, 'wei', { locale: 'zh-CN' })
  const { page } = wei
  const language = async (): Promise<string | null> => await page.locator('html').getAttribute('lang')
  await wei.logIn()
  await wei.go('/2fa/settings')
  t.equal(await language(), 'zh-CN')
  t.equal(await wei.heading(), '双重身份验证')
  await wei.press('启用 2FA')
  const phone = await wei.scan()
  await wei.enter(wrong(await phone.code()), '确认并启用')
  t.equal(await wei.said(), '验证码不正确，还可以尝试 4 次。')
  await wei.enter(await phone.code(), '确认并启用')
  await wei.readCodes()
  t.equal(await wei.heading(), '请保存备用码')
  t.notMatch(await page.locator('main').innerText(), /[a-z]{4,}/, 'no English word is left over')
  await page.getByLabel('我已保存这些备用码').check()
  await wei.press('继续')
  t.match((await world.mail(wei.email, /2FA/)).text, /如果不是您本人操作/, 'mail speaks it too')
  await wei.logOut()
  await wei.logIn()
  t.equal(await wei.heading(), '输入验证码')

  await t.test('the switch shows the other language, and it stays', async t => {
    await wei.press('English')
    t.equal(await language(), 'en')
    t.equal(await wei.heading(), 'Enter your code')
    await wei.enter(await phone.code())
    await wei.go('/2fa/settings')
    t.equal(await wei.heading(), 'Two-factor authentication')
    await wei.press('简体中文')
    t.equal(await wei.heading(), '双重身份验证')
    await wei.go('/account')
    await page.getByLabel('About you').fill('物流')
    await wei.press('Save profile')
    t.equal(await wei.heading(), '输入验证码', 'the page that carries a form speaks it too')
    await wei.enter(await phone.code(), '验证并继续')
    t.equal(await page.getByLabel('About you').inputValue(), '物流')
  })
  await t.test('a language that is not there yet falls back to English', async t => {
    const jonas = await visit(t, 'jonas', { locale: 'eo' })
    await jonas.logIn()
    await jonas.go('/2fa/settings')
    t.equal(await jonas.page.locator('html').getAttribute('lang'), 'en')
  })
})

t.test('6. after its wait the button sends a new code, and the one before is worth nothing', async t => {
  const button = finn.page.locator('#resend:enabled')
  await button.waitFor({ timeout: 65_000 })
  t.equal(await button.innerText(), 'Send a new code')
  await finn.press(button)
  t.equal(await finn.said(), 'A new code was sent. Codes sent before it no longer work.')
  const code = mailedCode(await world.mail(finn.email, CODE))
  t.not(code, firstCode)
  await finn.enter(firstCode)
  t.equal(await finn.said(), 'That code is not right. 4 tries left.')
  await finn.enter(code)
  t.equal(finn.path(), '/')
})

t.test('nothing secret of all this is in a log, an address or in plain form in the database', async t => {
  // What is no secret is found, so what is not found is not there.
  world.keep('control', '/2fa/verify/', 'totp_enabled')
  const { searched, secrets, found } = await world.leaks()
  t.ok(secrets > 100, `${secrets} secrets were looked for`)
  t.same(searched.filter(place => place.endsWith('empty')), [], 'every place held something')
  for (const place of ['service.log', 'console.log', 'postern.db', 'addresses of pages']) {
    t.ok(searched.includes(`${place}: read`), `${place} was searched`)
  }
  t.same(found.filter(one => !one.startsWith('control')), [])
  for (const place of ['console.log', 'addresses of pages', 'postern.db']) t.ok(found.includes(`control in ${place}`))
  t.same(world.complaints, [], 'no browser complained of anything')
})

function mailedCode (mail: Mail): string {
  const code = CODE.exec(mail.text)?.[1]
  if (code === undefined) throw new Error(`no code stands alone on a line of:\n${mail.text}`)
  return code
}

/** From the settings page to email login verification with the console's address. */
async function switchMailOn (visitor: Visitor): Promise<void> {
  await visitor.go('/2fa/settings')
  await visitor.press('Send test code')
  await visitor.enter(mailedCode(await world.mail(visitor.email, CODE)))
}

/** A code of the same form that is not right. */
function wrong (code: string): string {
  return String((Number(code) + 500_000) % 1_000_000).padStart(6, '0')
}
