// Every state of every page, for people who cannot see it, cannot point at it, or have 320 px for it.

import t from 'tap'
import { startWorld } from '../helpers/browser.ts'
import { PEOPLE, walkThroughStates } from '../helpers/states.ts'

t.test('no state of a page holds a barrier, and none is wider than its window', async t => {
  const world = await startWorld(t, PEOPLE)
  const seen = new Set<string>()
  await walkThroughStates(t, world, async (name, visitor) => {
    seen.add(name)
    // The check is a script: where scripts are off it would wait for ever.
    if (!name.endsWith('no-script')) t.same(await visitor.barriers(), [], name)
    const [content, window] = await visitor.page.evaluate<[number, number]>(
      '[document.documentElement.scrollWidth, document.documentElement.clientWidth]'
    )
    t.ok(content <= window, `${name}: ${content} px in ${window} px`)
    t.equal(await visitor.page.locator('h1').count(), 1, `${name} has one heading`)
    t.notMatch(await visitor.page.locator('body').innerText(), /undefined|\{\w+\}|something went wrong|Error:/, name)
  })
  t.ok(seen.size >= 35, `${seen.size} states`)
  t.same(world.complaints.filter(one => !one.includes('503')), [], 'no script failed and nothing was blocked by the policy')
})
