// E2B's JavaScript client, unmodified, against a Skerry server. Run by tests/e2e/test_e2b.py.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

// The client is installed elsewhere, once for each version.
const require = createRequire(process.env.E2B_CLIENT + '/')
const { Sandbox, Template, waitForPort } = await import(pathToFileURL(require.resolve('@e2b/code-interpreter')).href)
const until = async (look) => {
  for (let n = 0; n < 100; n++) {
    const found = await look()
    if (found) return found
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  assert.fail('it did not happen in ten seconds')
}

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

test('timeouts, connecting and use', async () => {
  await sandbox.setTimeout(200_000)
  const before = (await sandbox.getInfo()).endAt
  const same = await Sandbox.connect(sandbox.sandboxId, { timeoutMs: 10_000 })
  assert.equal(same.sandboxId, sandbox.sandboxId)
  assert.deepEqual((await sandbox.getInfo()).endAt, before) // connecting only extends
  const used = (await sandbox.getMetrics()).at(-1)
  assert.ok(used.cpuCount >= 1 && used.memUsed > 0 && used.memUsed < used.memTotal && used.diskTotal > 0, JSON.stringify(used))
  assert.deepEqual(await Sandbox.getInfo(sandbox.sandboxId), await sandbox.getInfo())
  await assert.rejects(Sandbox.connect('sbnothere'), { name: /NotFoundError/ })
  const short = await Sandbox.create('base', { timeoutMs: 2_000 })
  await until(async () => !(await short.isRunning()))
  assert.equal(await Sandbox.kill(short.sandboxId), false)
})

test('lists come by pages', async () => {
  const own = { metadata: { pages: String(Date.now()) } }
  const made = await Promise.all([1, 2, 3].map(() => Sandbox.create('base', { timeoutMs: 60_000, ...own })))
  const found = []
  for (const pages = Sandbox.list({ query: { ...own, state: ['running'] }, limit: 2 }); pages.hasNext; )
    found.push(...(await pages.nextItems()).map((item) => item.sandboxId))
  assert.deepEqual(found.sort(), made.map((item) => item.sandboxId).sort())
  await Promise.all(made.map((item) => item.kill()))
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

test('following a command from elsewhere, and ending it', async () => {
  const handle = await sandbox.commands.run('echo first; sleep 1; echo second; sleep 60', { background: true })
  let seen = ''
  const other = await sandbox.commands.connect(handle.pid, { onStdout: (data) => { seen += data } })
  await until(() => seen.includes('second'))
  await other.disconnect()
  assert.equal(await sandbox.commands.kill(handle.pid), true)
  await assert.rejects(handle.wait(), { name: 'CommandExitError' })
  const pieces = []
  await sandbox.commands.run('echo a; echo b >&2', { onStdout: (data) => pieces.push(data), onStderr: (data) => pieces.push(data) })
  assert.deepEqual(pieces.sort(), ['a\n', 'b\n'])
})

test('terminals', async () => {
  let output = ''
  const terminal = await sandbox.pty.create({
    cols: 80, rows: 24, onData: (data) => { output += new TextDecoder().decode(data) },
  })
  await sandbox.pty.sendInput(terminal.pid, new TextEncoder().encode('echo $((6 * 7)); exit\n'))
  await terminal.wait()
  assert.match(output, /42/)
  let size = ''
  const open = await sandbox.pty.create({ cols: 80, rows: 24, onData: (data) => { size += new TextDecoder().decode(data) } })
  await sandbox.pty.resize(open.pid, { cols: 101, rows: 33 })
  await sandbox.pty.sendInput(open.pid, new TextEncoder().encode('stty size\n'))
  await until(() => /33 101/.test(size))
  assert.equal(await sandbox.pty.kill(open.pid), true)
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

test('many files, streams and what is noted on them', async () => {
  const metadata = { author: 'somebody' }
  const written = await sandbox.files.write(
    [0, 1, 2].map((n) => ({ path: `/tmp/many/${n}`, data: `file ${n}` })), { metadata },
  )
  assert.deepEqual(written.map((info) => info.path), ['/tmp/many/0', '/tmp/many/1', '/tmp/many/2'])
  const info = await sandbox.files.getInfo('/tmp/many/1')
  assert.deepEqual([info.name, info.size, info.owner, info.permissions, info.metadata], ['1', 6, 'user', '-rw-r--r--', metadata])
  const large = new Uint8Array(3_000_000).fill(7)
  await sandbox.files.write('large', large.buffer)
  let size = 0
  for await (const chunk of await sandbox.files.read('large', { format: 'stream' })) size += chunk.length
  assert.equal(size, large.length)
  assert.equal((await sandbox.files.read('large', { format: 'blob' })).size, large.length)
  await sandbox.files.write('/tmp/many/deep/er/file', 'x')
  const deep = (await sandbox.files.list('/tmp/many', { depth: 3 })).map((entry) => entry.path)
  assert.ok(deep.includes('/tmp/many/deep/er/file'))
  await assert.rejects(sandbox.files.list('/tmp/many/0'), { name: 'InvalidArgumentError' })
})

test('compressed content', async () => {
  const data = 'much the same, '.repeat(200_000)
  await sandbox.files.write('/tmp/packed', data, { gzip: true })
  assert.equal(await sandbox.files.read('/tmp/packed'), data)
  assert.equal(await sandbox.files.read('/tmp/packed', { gzip: true }), data)
})

test('watching', async () => {
  const events = []
  await sandbox.files.makeDir('/tmp/watched')
  const handle = await sandbox.files.watchDir('/tmp/watched', (event) => events.push([event.name, event.type]))
  await sandbox.files.write('/tmp/watched/new', 'x')
  for (let n = 0; n < 50 && events.length < 3; n++) await new Promise((resolve) => setTimeout(resolve, 100))
  assert.deepEqual(events.slice(0, 3), [['new', 'create'], ['new', 'chmod'], ['new', 'write']])
  await handle.stop()
  const below = []
  const recursive = await sandbox.files.watchDir('/tmp/watched', (event) => below.push(event.name), { recursive: true })
  await sandbox.files.write('/tmp/watched/deep/er/file', 'x')
  await until(() => below.includes('deep/er/file'))
  await recursive.stop()
  await assert.rejects(sandbox.files.watchDir('/nowhere', () => {}), { name: /NotFoundError/ })
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

test('contexts are listed, restarted and removed', async () => {
  const context = await sandbox.createCodeContext({ cwd: '/tmp', language: 'python' })
  await sandbox.runCode('y = 1', { context })
  assert.ok((await sandbox.listCodeContexts()).some((item) => item.id === context.id))
  await sandbox.restartCodeContext(context.id)
  assert.equal((await sandbox.runCode('y', { context })).error.name, 'NameError')
  await sandbox.removeCodeContext(context.id)
  assert.ok(!(await sandbox.listCodeContexts()).some((item) => item.id === context.id))
  const seen = []
  const ran = await sandbox.runCode('import os, sys\nprint(os.environ["OWN"])\nprint("e", file=sys.stderr)\n7', {
    envs: { OWN: 'own' }, onStdout: (line) => seen.push(line.line), onStderr: (line) => seen.push(line.line),
    onResult: (result) => seen.push(result.text),
  })
  assert.equal(ran.text, '7')
  assert.deepEqual(seen.sort(), ['7', 'e\n', 'own\n'])
})

test('templates', async () => {
  const name = `js-${process.pid}-${Date.now()}`
  const log = []
  const template = Template()
    .fromTemplate('base')
    .setEnvs({ MADE: 'by js' })
    .setWorkdir('/srv/app')
    .runCmd('echo "<p>$MADE</p>" > index.html')
    .setStartCmd('python3 -m http.server 8000', waitForPort(8000))
  const built = await Template.build(template, name, { cpuCount: 1, memoryMB: 512, onBuildLogs: (entry) => log.push(entry.message) })
  assert.ok(log.some((line) => line.includes('RUN')))
  assert.equal(await Template.exists(name), true)
  await Template.assignTags(`${name}:default`, ['v1'])
  assert.deepEqual((await Template.getTags(built.templateId)).map((tag) => tag.tag).sort(), ['default', 'v1'])
  const made = await Sandbox.create(`${name}:v1`, { timeoutMs: 60_000 })
  assert.equal((await made.commands.run('curl -s localhost:8000')).stdout, '<p>by js</p>\n')
  await made.kill()
  await Template.removeTags(name, ['v1'])
  await assert.rejects(Template.build(Template().fromTemplate('base').runCmd('exit 5'), name), /exit status 5/)
})

test('it ends when it is killed', async () => {
  const other = await Sandbox.create('base')
  assert.equal(await other.isRunning(), true)
  assert.equal(await other.kill(), true)
  assert.equal(await other.isRunning(), false)
  await assert.rejects(other.commands.run('true'))
  await assert.rejects(Sandbox.create('no-such-template'), /no-such-template/)
})

const boot = async (of) => (await of.commands.run('cat /proc/sys/kernel/random/boot_id')).stdout

test('what is paused goes on where it was, or boots again', async () => {
  const paused = await Sandbox.create('base', { timeoutMs: 60_000, envs: { GLOBAL: 'of the sandbox' } })
  await paused.runCode('x = 41')
  await paused.files.write('kept', 'content')
  const before = await boot(paused)
  const background = await paused.commands.run('sleep 1000', { background: true })
  assert.equal(await paused.pause(), true)
  assert.equal(await Sandbox.pause(paused.sandboxId), false)
  assert.equal(await paused.isRunning(), false)
  assert.equal((await paused.getInfo()).state, 'paused')
  assert.equal((await Sandbox.connect(paused.sandboxId)).sandboxId, paused.sandboxId)
  assert.equal((await paused.runCode('x + 1')).text, '42')
  assert.ok((await paused.commands.list()).some((item) => item.pid === background.pid))
  assert.equal(await boot(paused), before)
  await paused.pause({ keepMemory: false })
  assert.equal(await paused.isRunning(), false)
  await paused.connect()
  assert.notEqual(await boot(paused), before)
  assert.equal(await paused.files.read('kept'), 'content')
  assert.equal((await paused.commands.run('echo $GLOBAL')).stdout, 'of the sandbox\n')
  await paused.pause()
  assert.equal(await paused.kill(), true)
  assert.equal(await paused.kill(), false)
  await assert.rejects(paused.connect(), { name: 'SandboxNotFoundError' })
})

test('a time-out pauses it, and requests wake it', async () => {
  const lifecycle = { onTimeout: 'pause', autoResume: true }
  const woken = await Sandbox.create('base', { timeoutMs: 60_000, lifecycle })
  assert.deepEqual((await woken.getInfo()).lifecycle, lifecycle)
  await woken.runCode('x = 41')
  await woken.setTimeout(0)
  assert.equal((await woken.getInfo()).state, 'paused')
  assert.equal((await woken.runCode('x + 1')).text, '42')
  await woken.pause()
  assert.equal((await woken.commands.run('echo awake')).stdout, 'awake\n')
  assert.equal((await woken.getInfo()).state, 'running')
  await woken.kill()
  const filesOnly = await Sandbox.create('base', { timeoutMs: 60_000, lifecycle: { onTimeout: { action: 'pause', keepMemory: false } } })
  const before = await boot(filesOnly)
  await filesOnly.setTimeout(0)
  assert.equal(await filesOnly.isRunning(), false)
  await filesOnly.connect()
  assert.notEqual(await boot(filesOnly), before)
  await filesOnly.kill()
})

test('snapshots', async () => {
  const name = `js-snap-${process.pid}-${Date.now()}`
  await sandbox.files.write('kept', 'content')
  await sandbox.runCode('kept = 41')
  const unnamed = await sandbox.createSnapshot()
  const named = await sandbox.createSnapshot({ name })
  assert.deepEqual(named.names, [named.snapshotId.replace(/:default$/, '')])
  assert.deepEqual(await sandbox.listSnapshots({ limit: 1 }).nextItems(), [named])
  assert.deepEqual(await Sandbox.listSnapshots({ name }).nextItems(), [named])
  assert.deepEqual(await Sandbox.listSnapshots({ name: `${name}-not` }).nextItems(), [])
  for (const from of [unnamed.snapshotId, named.snapshotId, name]) {
    const copy = await Sandbox.create(from, { timeoutMs: 60_000 })
    assert.equal((await copy.runCode('kept + 1')).text, '42')
    assert.equal(await copy.files.read('kept'), 'content')
    await copy.kill()
  }
  for (const snapshot of [unnamed, named]) {
    assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId), true)
    assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId), false)
  }
  await assert.rejects(Sandbox.create(named.snapshotId))
})

test('forks', async () => {
  await sandbox.runCode('forked = 41')
  const forks = await sandbox.fork({ count: 2, timeoutMs: 60_000 })
  assert.equal(new Set([sandbox, ...forks].map((item) => item.sandboxId)).size, 3)
  for (const fork of forks) {
    const copy = await Sandbox.connect(fork.sandboxId)
    assert.equal((await copy.runCode('forked += 1\nforked')).text, '42')
    await fork.kill()
  }
  assert.equal((await sandbox.runCode('forked')).text, '41')
})
