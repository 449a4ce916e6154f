// E2B's desktop SDK for JavaScript, unmodified, against a Skerry server.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const require = createRequire(process.env.E2B_CLIENT + '/')
const { Sandbox } = await import(pathToFileURL(require.resolve('@e2b/desktop')).href)

let desktop

before(async () => {
  desktop = await Sandbox.create({ timeoutMs: 300_000, resolution: [800, 600] })
})
after(async () => {
  await desktop.kill()
})

async function eventually(look) {
  for (const deadline = Date.now() + 60_000; ; ) {
    const answer = await look().catch((error) => (Date.now() > deadline ? assert.fail(error) : undefined))
    if (answer) return answer
    assert.ok(Date.now() < deadline, 'not in time')
    await new Promise((resolve) => setTimeout(resolve, 300))
  }
}

test('screen, mouse and keyboard', async () => {
  assert.deepEqual(await desktop.getScreenSize(), { width: 800, height: 600 })
  assert.equal(Buffer.from(await desktop.screenshot()).subarray(1, 4).toString(), 'PNG')
  await desktop.moveMouse(120, 140)
  assert.deepEqual(await desktop.getCursorPosition(), { x: 120, y: 140 })
  await desktop.launch('xfce4-terminal')
  const window = await eventually(async () => (await desktop.getApplicationWindows('xfce4-terminal'))[0])
  await eventually(async () => (await desktop.getCurrentWindowId()) === window)
  await desktop.write('echo typed > typed.txt')
  await desktop.press('enter')
  await eventually(async () => (await desktop.files.read('typed.txt')) === 'typed\n')
})

test('the stream', async () => {
  await desktop.stream.start({ requireAuth: true })
  const url = new URL(desktop.stream.getUrl({ authKey: desktop.stream.getAuthKey() }))
  assert.match(url.hostname, /^6080-/)
  const inside = await desktop.commands.run('curl -s http://127.0.0.1:6080/vnc.html')
  assert.match(inside.stdout, /noVNC/)
  await desktop.stream.stop()
})
