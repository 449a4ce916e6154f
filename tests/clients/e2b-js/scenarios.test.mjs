// E2B's JavaScript client, unmodified, against a Skerry server. Run by tests/e2e/test_e2b.py.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

// The client is installed elsewhere, once for each version.
const require = createRequire(process.env.E2B_CLIENT + '/')
const { Sandbox } = await import(pathToFileURL(require.resolve('@e2b/code-interpreter')).href)

const mark = { 'test id': `${process.pid}-${Date.now()}&=%` }
let sandbox

before(async () => {
  sandbox = await Sandbox.create('base', { timeoutMs: 120_000, metadata: mark, envs: { GLOBAL: 'of the sandbox' } })
})
after(async () => {
  await sandbox.kill()
})

test('it tells what it is, and is found at once', async () => {
  const info = await sandbox.getInfo()
  assert.equal(info.templateId, 'base')
  assert.deepEqual(info.metadata, mark)
  const page = Sandbox.list({ query: { metadata: mark } })
  assert.deepEqual((await page.nextItems()).map((item) => item.sandboxId), [sandbox.sandboxId])
  assert.equal(page.hasNext, false)
})

test('commands', async () => {
  const done = await sandbox.commands.run('echo $GLOBAL $OWN; id -un; pwd; echo error >&2', { envs: { OWN: 'own' } })
  assert.equal(done.stdout, 'of the sandbox own\nuser\n/home/user\n')
  assert.equal(done.stderr, 'error\n')
  await assert.rejects(sandbox.commands.run('exit 3'), { name: 'CommandExitError', exitCode: 3 })
  await assert.rejects(sandbox.commands.run('sleep 30', { timeoutMs: 1000 }), { name: 'TimeoutError' })
  await assert.rejects(sandbox.commands.run('true', { cwd: '/nowhere' }), { name: 'InvalidArgumentError' })
  await assert.rejects(sandbox.commands.run('true', { user: 'nobody-here' }), { name: 'AuthenticationError' })
})

test('background commands and their input', async () => {
  const handle = await sandbox.commands.run('cat', { background: true, stdin: true })
  await sandbox.commands.sendStdin(handle.pid, 'through\n')
  assert.deepEqual((await sandbox.commands.list()).map((item) => item.pid), [handle.pid])
  await sandbox.commands.closeStdin(handle.pid)
  assert.equal((await handle.wait()).stdout, 'through\n')
  assert.equal(await sandbox.commands.kill(999_999), false)
})

test('terminals', async () => {
  let output = ''
  const terminal = await sandbox.pty.create({
    cols: 80, rows: 24, onData: (data) => { output += new TextDecoder().decode(data) },
  })
  await sandbox.pty.sendInput(terminal.pid, new TextEncoder().encode('echo $((6 * 7)); exit\n'))
  await terminal.wait()
  assert.match(output, /42/)
})

test('files', async () => {
  await sandbox.files.write('/tmp/new/text', 'grüße')
  assert.equal(await sandbox.files.read('/tmp/new/text'), 'grüße')
  await sandbox.files.write('binary', new Blob([new Uint8Array([0, 255, 1])]))
  assert.deepEqual([...(await sandbox.files.read('binary', { format: 'bytes' }))], [0, 255, 1])
  assert.deepEqual((await sandbox.files.list('/tmp/new')).map((entry) => [entry.name, entry.type, entry.size]), [['text', 'file', 7]])
  assert.equal(await sandbox.files.makeDir('/tmp/new'), false)
  await sandbox.files.rename('/tmp/new/text', '/tmp/new/renamed')
  assert.equal(await sandbox.files.exists('/tmp/new/text'), false)
  await sandbox.files.remove('/tmp/new')
  await assert.rejects(sandbox.files.read('/nowhere'), { name: /NotFoundError/ })
})

test('watching', async () => {
  const events = []
  await sandbox.files.makeDir('/tmp/watched')
  const handle = await sandbox.files.watchDir('/tmp/watched', (event) => events.push([event.name, event.type]))
  await sandbox.files.write('/tmp/watched/new', 'x')
  for (let n = 0; n < 50 && events.length < 3; n++) await new Promise((resolve) => setTimeout(resolve, 100))
  assert.deepEqual(events.slice(0, 3), [['new', 'create'], ['new', 'chmod'], ['new', 'write']])
  await handle.stop()
})

test('the code interpreter', async () => {
  const ran = await sandbox.runCode('x = 41\nprint("out")\nx + 1')
  assert.equal(ran.text, '42')
  assert.deepEqual(ran.logs.stdout, ['out\n'])
  assert.equal((await sandbox.runCode('1 / 0')).error.name, 'ZeroDivisionError')
  const context = await sandbox.createCodeContext({ cwd: '/tmp' })
  assert.equal((await sandbox.runCode('import os\nos.getcwd()', { context })).text, '/tmp')
  await assert.rejects(sandbox.runCode('while True: pass', { timeoutMs: 1000 }), { name: 'TimeoutError' })
  assert.equal((await sandbox.runCode('x')).text, '41')
  const plot = await sandbox.runCode('import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.title("T")\nplt.show()')
  assert.ok(plot.results[0].png)
  assert.equal(plot.results[0].chart.title, 'T')
})

test('it ends when it is killed', async () => {
  const other = await Sandbox.create('base')
  assert.equal(await other.isRunning(), true)
  assert.equal(await other.kill(), true)
  assert.equal(await other.isRunning(), false)
  await assert.rejects(other.commands.run('true'))
  await assert.rejects(Sandbox.create('no-such-template'), /no-such-template/)
})
