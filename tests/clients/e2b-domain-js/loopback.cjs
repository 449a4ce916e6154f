// Preloaded (`node --require`): names below localhost are this machine, as a resolver that knows wildcards says
// (docs/how-to/e2b.md). Node asks the system's, and a hosts file has none.
const dns = require('node:dns')

const { lookup } = dns
dns.lookup = (name, options, callback) => {
  if (typeof options === 'function') [options, callback] = [{}, options]
  if (!String(name).endsWith('.localhost')) return lookup(name, options, callback)
  const found = { address: '127.0.0.1', family: 4 }
  process.nextTick(() => (options?.all ? callback(null, [found]) : callback(null, found.address, found.family)))
}
