// What needs names, with E2B's JavaScript client: ports of programs, signed addresses. Run with --require ./loopback.cjs.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const require = createRequire(process.env.E2B_CLIENT + '/')
const { Sandbox } = await import(pathToFileURL(require.resolve('@e2b/code-interpreter')).href)

let sandbox

before(async () => {
  sandbox = await Sandbox.create('base', { timeoutMs: 120_000 })
})
after(async () => {
  await sandbox.kill()
})

test('everyday calls', async () => {
  assert.equal((await sandbox.commands.run('echo named')).stdout, 'named\n')
  assert.equal((await sandbox.runCode('6 * 7')).text, '42')
  await sandbox.files.write('x', 'content')
  assert.equal(await sandbox.files.read('x'), 'content')
  assert.ok((await sandbox.getInfo()).sandboxId)
})

test("a program's port has a name", async () => {
  const url = `https://${sandbox.getHost(8080)}/`
  const closed = await fetch(url)
  assert.equal(closed.status, 502)
  assert.match(await closed.text(), /port is not open/)
  await sandbox.commands.run('mkdir -p /tmp/served && echo by name > /tmp/served/page')
  await sandbox.commands.run('python3 -m http.server 8080 --directory /tmp/served', { background: true })
  await sandbox.commands.run('until curl -s localhost:8080 >/dev/null; do sleep 0.1; done')
  assert.equal(await (await fetch(url + 'page')).text(), 'by name\n')
})

test('a WebSocket by name', async () => {
  const refused = new WebSocket(`wss://${sandbox.getHost(9999)}/`)
  await new Promise((resolve, reject) => {
    refused.onerror = resolve
    refused.onopen = () => reject(new Error('nobody listens there'))
  })
  await sandbox.files.write('/tmp/echo.py', ECHO)
  await sandbox.commands.run('python3 /tmp/echo.py', { background: true })
  await sandbox.commands.run("until python3 -c \"import socket; socket.create_connection(('127.0.0.1', 8081))\" 2>/dev/null; do sleep 0.1; done")
  const socket = new WebSocket(`wss://${sandbox.getHost(8081)}/`)
  const said = await new Promise((resolve, reject) => {
    socket.onopen = () => socket.send('hello')
    socket.onmessage = (event) => resolve(event.data)
    socket.onerror = () => reject(new Error('it broke off'))
  })
  socket.close()
  assert.equal(said, 'olleh')
})

test('signed addresses', async () => {
  const form = new FormData()
  form.append('file', new Blob(['from elsewhere']), 'up.txt')
  const up = await fetch(await sandbox.uploadUrl('up.txt'), { method: 'POST', body: form })
  assert.equal(up.status, 200, await up.text())
  const down = await fetch(await sandbox.downloadUrl('up.txt', { useSignatureExpiration: 60 }))
  assert.equal(await down.text(), 'from elsewhere')
  const other = (await sandbox.downloadUrl('up.txt')).replace('up.txt', 'other.txt')
  assert.equal((await fetch(other)).status, 401)
})

test('traffic can be private', async () => {
  const hidden = await Sandbox.create('base', { timeoutMs: 60_000, network: { allowPublicTraffic: false } })
  try {
    const url = `https://${hidden.getHost(8080)}/`
    assert.equal((await fetch(url)).status, 403)
    const headers = { 'e2b-traffic-access-token': hidden.trafficAccessToken }
    assert.equal((await fetch(url, { headers })).status, 502)
  } finally {
    await hidden.kill()
  }
})

const ECHO = `
import asyncio, base64, hashlib, re
async def talk(reader, writer):
    head = await reader.readuntil(b"\\r\\n\\r\\n")
    key = re.search(rb"(?i)sec-websocket-key: (\\S+)", head)[1]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    writer.write(b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n")
    writer.write(b"Sec-WebSocket-Accept: " + accept + b"\\r\\n\\r\\n")
    kind, size = await reader.readexactly(2)
    mask, data = await reader.readexactly(4), await reader.readexactly(size & 127)
    data = bytes(byte ^ mask[n % 4] for n, byte in enumerate(data))
    writer.write(bytes([kind, len(data)]) + data[::-1])
    await asyncio.sleep(10)
async def main():
    await (await asyncio.start_server(talk, "127.0.0.1", 8081)).serve_forever()
asyncio.run(main())
`
