// Sandboxes that end while something waits for them: the client says so, soon, whatever it was waiting for.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const require = createRequire(process.env.E2B_CLIENT + '/')
const { Sandbox, TimeoutError } = await import(pathToFileURL(require.resolve('@e2b/code-interpreter')).href)

const dying = (wait, { large = false, killed = true, error = TimeoutError } = {}) => async () => {
  const sandbox = await Sandbox.create('base', { timeoutMs: 120_000 })
  if (large) await sandbox.commands.run('head -c 300000000 /dev/zero > /tmp/large')
  const killing = killed ? setTimeout(() => sandbox.kill(), 1000) : undefined
  const began = Date.now()
  // Newer clients have a class derived from it for this.
  await assert.rejects(wait(sandbox), error)
  assert.ok(Date.now() - began < 40_000)
  clearTimeout(killing)
  await assert.rejects(sandbox.commands.run('true'), /not running/)
  assert.equal(await sandbox.isRunning(), false)
}

test('under a command', dying((sandbox) => sandbox.commands.run('sleep 50')))

test('under a command in the background', dying(async (sandbox) => (await sandbox.commands.run('sleep 50', { background: true })).wait()))

test('under a terminal', dying(async (sandbox) => (await sandbox.pty.create({ cols: 70, rows: 20, onData() {} })).wait()))

test('under code', dying((sandbox) => sandbox.runCode('import time; time.sleep(50)')))

test('under a watch', dying((sandbox) => new Promise((resolve, reject) => {
  sandbox.files.watchDir('/tmp', () => {}, { timeoutMs: 0, onExit: reject }).catch(reject)
})))

test('under a download', dying(async (sandbox) => {
  for (let n = 0; n < 50; n++) await sandbox.files.read('/tmp/large', { format: 'bytes' })
}, { large: true }))

test('under a download in pieces', dying(async (sandbox) => {
  for (let n = 0; n < 50; n++) {
    for await (const chunk of await sandbox.files.read('/tmp/large', { format: 'stream' })) assert.ok(chunk)
  }
  // Of a stream that breaks off it passes on what its HTTP library says.
}, { large: true, error: Error }))

test('out of memory', dying((sandbox) => sandbox.runCode('held = []\nwhile True: held.append(bytearray(10**7))'), { killed: false }))
